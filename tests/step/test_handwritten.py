"""A GAN and a WGAN-GP train exactly as by a plain Keras train step written by hand.

On torch and jax, with the same weights, data and noise. (TensorFlow is compared in `test_parity`.)
"""

import keras
import numpy as np
import parity_systems as systems
import pytest
from keras import ops

STEPS, BATCH = 10, systems.BATCH
bce = systems.bce
BACKEND = keras.backend.backend()

pytestmark = pytest.mark.skipif(
    BACKEND == "tensorflow", reason="written by hand for torch and jax; parity covers tensorflow"
)


class GAN(keras.Model):
    """Keras' own way: two optimizers and a train step per backend."""

    def __init__(self, system):
        super().__init__()
        self.generator, self.discriminator = system.generator, system.discriminator
        self.rates = {"generator": systems.adam(), "discriminator": systems.adam()}
        self.turns = (("generator", "discriminator"),)

    def losses_of(self, x, phase):
        fake = self.generator(x["noise"][:, 0], training=True)
        real, judged = self.discriminator(x["data"], training=True), None
        judged = self.discriminator(fake, training=True)
        one, zero = ops.ones_like(real), ops.zeros_like(real)
        return {
            "generator": bce(one, judged),
            "discriminator": bce(one, real) + bce(zero, judged),
        }


class WGANGP(keras.Model):
    def __init__(self, system):
        super().__init__()
        self.generator, self.critic = system.generator, system.critic
        self.rates = {"generator": systems.adam(), "critic": systems.adam()}
        self.turns = (("critic",), ("critic",), ("generator",))

    def losses_of(self, x, phase):
        fake = self.generator(x["noise"][:, phase])
        between = fake + x["mix"][:, phase] * (x["data"] - fake)
        slope = input_gradient(self.critic, between)
        penalty = ops.mean((ops.sqrt(ops.sum(slope**2, axis=-1)) - 1) ** 2)
        judged, real = ops.mean(self.critic(fake)), ops.mean(self.critic(x["data"]))
        return {"generator": -judged, "critic": judged - real + 10 * penalty}


def input_gradient(net, x):
    if BACKEND == "torch":
        import torch

        return torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
    import jax

    return jax.grad(lambda t: net(t).sum())(x)


def torch_step(model, x):
    import torch

    x = {k: torch.as_tensor(v) for k, v in x.items()}
    for phase, turn in enumerate(model.turns):
        losses = model.losses_of(x, phase)
        found = {
            name: torch.autograd.grad(
                losses[name],
                [v.value for v in getattr(model, name).trainable_variables],
                retain_graph=True,
            )
            for name in turn
        }
        with torch.no_grad():
            for name in turn:
                weights = getattr(model, name).trainable_variables
                model.rates[name].apply(list(found[name]), weights)


def jax_step(model, x):
    import jax

    def loss(values, name, phase):
        trainable = getattr(model, name).trainable_variables
        with keras.StatelessScope(zip(trainable, values, strict=True)) as scope:
            value = model.losses_of(x, phase)[name]
        state = [scope.get_current_value(v) for v in model.non_trainable_variables]
        return value, state

    for phase, turn in enumerate(model.turns):
        found = {}
        for name in turn:
            values = [v.value for v in getattr(model, name).trainable_variables]
            found[name], state = jax.grad(loss, has_aux=True)(values, name, phase)
        for variable, value in zip(model.non_trainable_variables, state, strict=True):
            if value is not None:
                variable.assign(value)
        for name in turn:
            model.rates[name].apply(found[name], getattr(model, name).trainable_variables)


def by_hand(kind, system, x):
    model = kind(system)
    step = torch_step if BACKEND == "torch" else jax_step
    for i in range(STEPS):
        step(model, {k: v[i * BATCH : (i + 1) * BATCH] for k, v in x.items()})
    return [ops.convert_to_numpy(w) for w in system.weights]


@pytest.mark.parametrize("name, kind", [("gan", GAN), ("wgan_gp", WGANGP)])
def test_the_weights_equal_those_of_a_hand_written_step(name, kind):
    x, _ = systems.data()
    x = {k: v[: STEPS * BATCH] for k, v in x.items()}
    ours, theirs = systems.SYSTEMS[name](), systems.SYSTEMS[name]()
    for system in (ours, theirs):
        system.setup({k: v[:BATCH] for k, v in x.items()})
        systems.give_weights(system)
    start = [ops.convert_to_numpy(w).copy() for w in theirs.weights]
    ours.fit(x, batch_size=BATCH, shuffle=False, verbose=0)
    expected = by_hand(kind, theirs, x)
    moved = max(np.abs(a - b).max() for a, b in zip(start, expected, strict=True))
    assert moved > 1e-3
    for weight, value in zip(ours.weights, expected, strict=True):
        found = ops.convert_to_numpy(weight)
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=weight.path)
