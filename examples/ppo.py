"""PPO (Schulman et al. 2017, arXiv:1707.06347): an actor and a critic balance a pole.

    KERAS_BACKEND=jax python examples/ppo.py      # or torch, or tensorflow

The task is CartPole-v1 of gymnasium. It counts as solved at a mean return of 475 over 100 episodes.
In each round, 32 poles are balanced side by side, and both models learn from these steps. The actor
follows the clipped surrogate, and the entropy with a negative weight. A `train_step` of our own
updates the actor only while its policy is close to the policy that acted.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import gymnasium
import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure


class PPO(ml.MLSystem):
    def __init__(self, updates, clip=0.2, limit=0.015):
        super().__init__()
        self.clip, self.limit = clip, limit
        self.actor = ml.MLModel(net(2), optimizer=adam(updates))
        self.critic = ml.MLModel(net(1), optimizer=adam(updates))
        self.routing = {"actor": {"policy": 1.0, "entropy": -0.01}, "critic": {"value": 1.0}}

    def forward(self, x):
        chances = ops.softmax(self.actor(x["state"]))
        ratio = ops.sum(chances * x["action"], axis=-1) / x["chance"]
        return {"chances": chances, "ratio": ratio, "value": self.critic(x["state"])[:, 0]}

    def compute_losses(self, x, y, outputs):
        chances, ratio, better = outputs["chances"], outputs["ratio"], x["advantage"]
        clipped = ops.clip(ratio, 1 - self.clip, 1 + self.clip)
        return {
            "policy": -ops.minimum(ratio * better, clipped * better),
            "entropy": -ops.sum(chances * ops.log(chances + 1e-8), axis=-1),
            "value": (outputs["value"] - x["return"]) ** 2,
        }

    def train_step(self, data):
        outputs, _ = self.update(data, models=("critic",))
        ratio = outputs["ratio"]
        divergence = ops.mean(ratio - 1 - ops.log(ratio))  # from the policy that acted
        self.update(data, models=("actor",), when=divergence < self.limit)
        return self.get_metrics_result()


def net(outputs):
    hidden = [layers.Dense(64, activation="tanh") for _ in range(2)]
    return keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(outputs)])


def adam(updates):
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, updates, 1e-5)
    return keras.optimizers.Adam(rate, clipnorm=0.5)


class Player:
    """Balances some poles side by side, with the actor of a system."""

    def __init__(self, ppo, count, seed=0):
        self.ppo, self.rng = ppo, np.random.default_rng(seed)
        self.poles = gymnasium.make_vec("CartPole-v1", num_envs=count)
        self.state, _ = self.poles.reset(seed=seed)
        self.over = np.zeros(count, bool)

    def chances(self):
        return ops.convert_to_numpy(ops.softmax(self.ppo.actor(self.state)))

    def step(self, action):
        """One step of each pole. The step after the end of an episode only puts the pole back."""
        before = (self.state, action, ~self.over)
        self.state, reward, ended, cut, _ = self.poles.step(action)
        self.over = ended | cut
        return *before, reward, ended, self.over

    def play(self, steps):
        """What the poles live through in some steps, with the advantage of each action."""
        rows = []
        for _ in range(steps):
            chances = self.chances()
            action = (self.rng.random(len(chances)) > chances[:, 0]).astype("int64")
            rows.append((np.take_along_axis(chances, action[:, None], 1)[:, 0], *self.step(action)))
        chance, states, action, acted, *rest = map(np.stack, zip(*rows, strict=True))
        values = self.ppo.critic.predict(np.concatenate([*states, self.state]), verbose=0)
        values = values.reshape(steps + 1, -1)
        found = advantages(values, *rest)
        lived = {
            "state": states,
            "action": np.eye(2, dtype="float32")[action],
            "chance": chance,
            "advantage": (found - found.mean()) / (found.std() + 1e-6),
            "return": found + values[:-1],
        }
        return {name: array[acted] for name, array in lived.items()}


def advantages(values, rewards, ended, over, discount=0.99, smoothing=0.95):
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""
    found, later = np.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        reward = (1 - discount) * rewards[t]  # so that values are from 0 to 1
        error = reward + discount * values[t + 1] * ~ended[t] - values[t]
        later = found[t] = error + discount * smoothing * later * ~over[t]
    return found


def mean_return(ppo, episodes, choose=None):
    """The mean return of some episodes: how long the poles stand."""
    player = Player(ppo, episodes, seed=1)
    length, alive = np.zeros(episodes), np.ones(episodes, bool)
    while alive.any():
        player.step(choose(episodes) if choose else player.chances().argmax(-1))
        length += alive
        alive &= ~player.over
    return float(length.mean())


def main(rounds=75, count=32, steps=64, updates=40, episodes=100, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    ppo = PPO(rounds * updates)
    player = Player(ppo, count, seed)
    curve = [mean_return(ppo, episodes, lambda n: player.rng.integers(2, size=n))]
    for round_ in range(rounds):
        lived = player.play(steps)
        drawn = player.rng.integers(len(lived["return"]), size=256 * updates)
        ppo.fit({name: part[drawn] for name, part in lived.items()}, batch_size=256, verbose=0)
        if round_ % 5 == 4:
            curve.append(mean_return(ppo, episodes))
            print(f"round {round_ + 1}: a mean return of {curve[-1]:.0f} over {episodes} episodes")
    print(f"mean return: {curve[0]:.0f} by chance, {curve[-1]:.0f} by the actor; 475 is solved")

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(len(curve)) * 5 * count * steps, curve, marker="o", label="PPO")
    axes.axhline(475, color="gray", linestyle="--", label="solved")
    axes.set(xlabel="steps of the poles", ylabel="mean return")
    axes.legend()
    Path(folder).mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{folder}/ppo.png")
    ppo.picture().save(f"{folder}/ppo.svg")
    return {"by_chance": curve[0], "after": curve[-1]}


if __name__ == "__main__":
    main()
