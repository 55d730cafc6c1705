"""Steps of one's own, written with the public calls, equal their closed forms."""

import keras
import numpy as np
from keras import ops
from own_steps import Gated, Maml, Minimized, One, Reptile, SharpnessAware
from toys import Pair, Scale, TinyGAN, approx, number, ones

import mlsystem as ml


def slope(w):
    return 2 * (w - 3)


def test_sharpness_aware_minimization():
    system = SharpnessAware(1.0)
    logs = system.train_on_batch(ones(), return_dict=True)
    assert number(system.model.weight) == approx(1 - 0.1 * slope(1 - 0.5))
    assert logs == approx({"model_loss": (0.5 - 3) ** 2, "loss": (0.5 - 3) ** 2})
    assert number(system.optimizer.iterations) == 1


def test_maml_like_inner_step():
    system = Maml(1.0)
    system.fit(ones(8), batch_size=4, verbose=0)
    w = 1.0
    for _ in range(2):
        w -= 0.1 * slope(w - 0.25 * slope(w))
    assert number(system.model.weight) == approx(w)


def test_reptile_outer_step():
    system = Reptile(1.0)
    logs = system.train_on_batch(ones(), return_dict=True)
    w, losses = 1.0, []
    for _ in range(3):
        losses.append((w - 3) ** 2)
        w -= 0.1 * slope(w)
    assert number(system.model.weight) == approx(1 + 0.5 * (w - 1))
    assert logs["loss"] == approx(sum(losses) / 3)


def test_minimize_goes_down_any_loss_and_logs_it():
    system = Minimized(2.0)
    logs = system.train_on_batch(ones(), return_dict=True)
    w = 2.0 - 0.1 * 4.0
    assert number(system.model.weight) == approx(w - 0.1 * slope(w))
    assert logs["decay_loss"] == approx(4.0)
    assert logs["loss"] == approx(4.0 + (w - 3) ** 2)


def test_when_decides_inside_the_step():
    system = Gated(2.0, 3.0)
    system.level = 100.0
    logs = system.train_on_batch(ones(), return_dict=True)
    assert set(logs) == {"generator_loss", "loss"}
    assert logs["loss"] == approx(-6.0)
    assert number(system.discriminator.weight) == 3.0
    assert number(system.optimizers["discriminator"].iterations) == 0
    system = Gated(2.0, 3.0)
    logs = system.train_on_batch(ones(), return_dict=True)
    g = 2 + 0.1 * 3
    assert number(system.discriminator.weight) == approx(3 - 0.01 * (g - 1))
    assert logs["discriminator_loss"] == approx(3 * (g - 1))
    assert logs["discriminator_fake"] == approx(3 * g)


def test_when_over_an_epoch_averages_what_was_updated():
    class Alternating(One):
        def train_step(self, data):
            self.update(data, when=ops.mean(data[0] if isinstance(data, tuple) else data) > 1.5)
            return self.get_metrics_result()

    system = Alternating(1.0)
    x = np.concatenate([ones(), 2 * ones(), ones()])
    logs = system.fit(x, batch_size=4, shuffle=False, verbose=0).history
    assert logs["loss"] == approx([(2 - 3.0) ** 2])
    assert number(system.model.weight) == approx(1 - 0.1 * 2 * 2 * (2 - 3))


def test_update_returns_outputs_and_named_losses():
    seen = {}

    class Looking(TinyGAN):
        def train_step(self, data):
            outputs, losses = self.update(data)
            seen.update(outputs=set(outputs), losses=set(losses))
            return self.get_metrics_result()

    Looking().train_on_batch(ones())
    assert seen["outputs"] == {"real", "fake"}
    assert seen["losses"] == {
        "generator",
        "discriminator",
        "discriminator_fake",
        "discriminator_real",
    }


def test_log_averages_over_the_epoch_and_takes_any_shape():
    class Logging(One):
        def forward(self, x):
            self.log("size", ops.sum(x, axis=-1))
            return super().forward(x)

    system = Logging()
    x = np.concatenate([ones(), 4 * ones(2)])
    logs = system.fit(x, batch_size=4, shuffle=False, verbose=0, validation_data=ones()).history
    assert logs["size"] == approx([(4 * 1 + 2 * 4) / 6])
    assert logs["val_size"] == approx([1.0])


def test_test_step_may_be_overridden_too():
    class Tested(One):
        def test_step(self, data):
            self.log("twice", 2 * ops.mean(data[0] if isinstance(data, tuple) else data))
            return super().test_step(data)

    logs = Tested().evaluate(ones(), return_dict=True, verbose=0)
    assert logs == approx({"twice": 2.0, "model_loss": 4.0, "loss": 4.0})


def test_forward_runs_once_a_phase():
    gan = TinyGAN()
    gan.compile(run_eagerly=keras.backend.backend() != "jax")
    gan.train_on_batch(ones())
    gan.forwards.clear()
    gan.train_on_batch(ones())
    # compiled on jax, where the forward pass ran once per phase when it was traced
    assert gan.forwards in ([], [True])


def test_callbacks_assign_and_call_in_the_middle_of_an_epoch():
    system = Pair()
    calls = []

    class Assign(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            calls.append(number(ops.mean(system.a(ones()))))
            system.a.weight.assign(1.0)
            system.b.weight.assign(2.0)
            system.optimizers["b"].learning_rate = 0.2

    system.fit(ones(12), batch_size=4, verbose=0, callbacks=[Assign()])
    assert calls == approx([2.6, 2.6, 2.6])  # each batch starts from a = 1, b = 2
    assert number(system.b.weight) == approx(2.0)


def test_grad_of_structures_nests_and_ignores_other_uses():
    x = ops.convert_to_tensor(np.array([1.0, 2.0, 3.0], "float32"))
    cube = ml.grad(lambda t: t**3)
    assert np.allclose(ops.convert_to_numpy(cube(x)), 3 * np.array([1, 4, 9]), rtol=1e-5)
    second = ml.grad(ml.grad(lambda t: t**3 + ops.sin(t)))(x)
    expected = 6 * np.array([1, 2, 3]) - np.sin([1, 2, 3])
    assert np.allclose(ops.convert_to_numpy(second), expected, rtol=1e-5)
    both = ml.grad(lambda t: t["a"] * t["b"][0])({"a": x, "b": [2 * x]})
    assert np.allclose(ops.convert_to_numpy(both["a"]), [2, 4, 6])
    assert np.allclose(ops.convert_to_numpy(both["b"][0]), [1, 2, 3])
    assert np.allclose(ops.convert_to_numpy(ml.grad(lambda t: t * x)(x)), [1, 2, 3])
    assert np.allclose(ops.convert_to_numpy(ml.grad(lambda t: x)(x)), 0)


class Penalized(ml.MLSystem):
    """critic = w x, loss = mean(critic) + (dcritic/dx - 1)^2 with dcritic/dx = w."""

    def __init__(self):
        super().__init__()
        self.critic = Scale(3.0)

    def forward(self, x):
        return self.critic(x)

    def compute_losses(self, x, y, outputs):
        slope = ml.grad(self.critic)(x)
        return {"critic": ops.mean(outputs) + ops.mean((slope - 1) ** 2)}


def test_a_gradient_penalty_reaches_the_weights():
    system = Penalized()
    logs = system.train_on_batch(ones(), return_dict=True)
    assert logs["loss"] == approx(3 + 4)
    assert number(system.critic.weight) == approx(3 - 0.1 * (1 + 2 * (3 - 1)))
    assert system.evaluate(ones(), return_dict=True, verbose=0)["loss"] == approx(2.5 + 1.5**2)


def test_no_retracing_for_equal_shapes():
    traces = []

    class Counting(TinyGAN):
        def forward(self, x, training=None):
            traces.append(training)
            return super().forward(x, training)

    gan = Counting()
    gan.fit(ones(8), batch_size=4, epochs=1, verbose=0, validation_data=ones())
    if keras.backend.backend() == "torch":
        return  # runs the Python of a step on each batch
    once = len(traces)
    gan.fit(ones(8), batch_size=4, epochs=3, verbose=0, validation_data=ones())
    assert len(traces) == once


def test_gradients_outside_a_step():
    system = One(1.0).setup(ones())
    [gradient] = system.gradients(ones())["model"]
    assert number(gradient) == approx(slope(1.0))
    [gradient] = system.gradients(lambda: system.model.weight**3, "model")["model"]
    assert number(gradient) == approx(3.0)
    system.apply_gradients({"model": [gradient]})
    assert number(system.model.weight) == approx(1 - 0.3)


def test_phase_index_reaches_forward():
    seen = []

    class Phased(TinyGAN):
        phases = ("discriminator", "generator")

        def forward(self, x, phase=None):
            seen.append(phase)
            return super().forward(x)

    gan = Phased()
    gan.train_on_batch(ones())
    assert {0, 1} <= set(seen)
    gan.evaluate(ones(), verbose=0)
    assert seen[-1] is None
