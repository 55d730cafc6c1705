"""TD3 (Fujimoto et al. 2018, arXiv:1802.09477): twin critics, and an actor that learns more slowly.

    KERAS_BACKEND=jax python examples/td3.py

`update_every` updates the actor on every second batch, by a step of its own that no other batch
pays for. The targets are averaged copies (`ml.EMA`). The task is to swing a pendulum up: a few of
them are run side by side in NumPy, and what they live through is replayed.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure


def net(outputs, **last):
    hidden = [layers.Dense(128, activation="relu") for _ in range(2)]
    return keras.Sequential([*hidden, layers.Dense(outputs, **last)])


class TD3(ml.MLSystem):
    update_every = {"actor": 2}
    routing = {"actor": {"policy": 1.0}, "critics": {"error": 1.0}}

    def __init__(self, discount=0.97, noise=0.2):
        super().__init__()
        self.discount, self.noise = discount, noise
        self.actor = ml.MLModel(net(1, activation="tanh"), optimizer=keras.optimizers.Adam(1e-3))
        self.critics = [ml.MLModel(net(1), optimizer=keras.optimizers.Adam(1e-3)) for _ in range(2)]
        self.target_actor = ml.EMA(self.actor, momentum=0.98)
        self.target_critics = [ml.EMA(critic, momentum=0.99) for critic in self.critics]
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x):
        noise = self.noise * keras.random.normal(ops.shape(x["action"]), seed=self.seed)
        action = self.target_actor(x["next"]) + ops.clip(noise, -0.5, 0.5)
        pair = ops.concatenate([x["next"], ops.clip(action, -1, 1)], axis=-1)
        value = ops.minimum(*(critic(pair) for critic in self.target_critics))
        done = ops.concatenate([x["state"], x["action"]], axis=-1)
        chosen = ops.concatenate([x["state"], self.actor(x["state"])], axis=-1)
        return {
            "target": x["reward"] + self.discount * value,
            "values": [critic(done) for critic in self.critics],
            "value": self.critics[0](chosen),
        }

    def compute_losses(self, x, y, outputs):
        errors = [(value - outputs["target"]) ** 2 for value in outputs["values"]]
        return {"error": ops.mean(sum(errors)), "policy": -ops.mean(outputs["value"])}


def start(rng, count):
    return np.stack([rng.uniform(-np.pi, np.pi, count), rng.uniform(-1, 1, count)], axis=-1)


def seen(state):
    """What the models see of an angle (0 is up) and a speed."""
    angle, speed = state.T
    return np.stack([np.cos(angle), np.sin(angle), speed / 8], axis=-1).astype("float32")


def move(state, action):
    """A tenth of a second under a torque of 2 at most, and the reward, from -1 to 0."""
    angle, speed = state.T
    reward = -(angle**2 + 0.1 * speed**2 + 0.004 * action**2) / (np.pi**2 + 6.4)
    for _ in range(2):
        speed = np.clip(speed + 0.05 * (15 * np.sin(angle) + 6 * action), -8, 8)
        angle = angle + 0.05 * speed
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    return np.stack([angle, speed], axis=-1), reward


def play(rng, policy, count, steps):
    """What some pendulums live through under a policy."""
    state, lived = start(rng, count), []
    for _ in range(steps):
        before, action = seen(state), policy(seen(state))
        state, reward = move(state, action[:, 0])
        lived.append((before, action, reward[:, None], seen(state)))
    names = ("state", "action", "reward", "next")
    return {
        name: np.concatenate(part).astype("float32")
        for name, part in zip(names, zip(*lived, strict=True), strict=True)
    }


def main(rounds=25, updates=200, count=16, steps=100, folder="pictures", seed=0):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    td3 = TD3()

    def act(x):
        return ops.convert_to_numpy(td3.actor(x))

    def explore(x):
        return np.clip(act(x) + 0.2 * rng.normal(size=(len(x), 1)), -1, 1)

    def chance(x):
        return rng.uniform(-1, 1, (len(x), 1))

    def rate(policy):
        return float(play(np.random.default_rng(1), policy, 64, steps)["reward"].mean())

    memory = play(rng, chance, count, steps)
    curve = [rate(chance)]
    for round_ in range(rounds):
        drawn = rng.integers(len(memory["reward"]), size=128 * updates)
        replay = {name: array[drawn] for name, array in memory.items()}
        td3.fit(replay, batch_size=128, verbose=0)
        if round_ % 5 == 4:
            curve.append(rate(act))
            print(f"round {round_ + 1}: mean reward {curve[-1]:.3f}")
        new = play(rng, explore, count, steps)
        memory = {name: np.concatenate([memory[name], new[name]]) for name in memory}
    done = {name: int(optimizer.iterations) for name, optimizer in td3.optimizers.items()}
    print(f"mean reward {curve[0]:.3f} by chance, {curve[-1]:.3f} after; updates: {done}")

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(len(curve)) * 5 * updates, curve, marker="o")
    axes.set(xlabel="updates of the critics", ylabel="mean reward of a step")
    Path(folder).mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{folder}/td3.png")
    td3.picture().save(f"{folder}/td3.svg")
    return {"by_chance": curve[0], "after": curve[-1]} | done


if __name__ == "__main__":
    main()
