"""Updates whose gradient is not finite: `nonfinite`."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale, TinyGAN, number

import mlsystem as ml

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "averaging": lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "decaying": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), weight_decay=0.1
    ),
}


class Fragile(ml.MLSystem):
    """Batch norm, a metric, an average, and a second model that NaN does not reach."""

    def __init__(self, optimizer=OPTIMIZERS["adam"]):
        super().__init__()
        net = keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
        self.net = ml.MLModel(net, loss="mse", metrics=["mae"], optimizer=optimizer())
        self.other = Scale(1.0, keras.optimizers.SGD(0.1))
        self.average = ml.EMA(self.net, momentum=0.5)

    routing = "own"

    def forward(self, x, training=None):
        return {"net": self.net(x["net"], training=training), "other": self.other(x["other"])}

    def compute_losses(self, x, y, outputs):
        return super().compute_losses(x, y, outputs) | {"other": ops.mean(outputs["other"] ** 2)}


def data(bad=(), value=np.nan):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 2)).astype("float32")
    y = x.sum(axis=-1, keepdims=True)
    for batch in bad:
        x[batch, 1, 0] = value
    return x.reshape(-1, 2), y.reshape(-1, 1)


def state(system, part):
    found = [*part.weights, *system.average.weights]
    found += system.optimizers["net"].variables if part is system.net else []
    return [np.array(ops.convert_to_numpy(v)) for v in found]


def trained(bad, optimizer="adam", value=np.nan, drop=False, eager=False, **given):
    """A system trained on six batches, some bad, or left out, and its logs."""
    keras.utils.set_random_seed(0)
    system = Fragile(OPTIMIZERS[optimizer])
    for name, choice in given.items():
        setattr(system, name, choice)
    system.compile(run_eagerly=eager)
    x, y = data(() if drop else bad, value)
    keep = np.repeat([not (drop and i in bad) for i in range(6)], 4)
    inputs = {"net": x[keep], "other": np.ones((keep.sum(), 1), "float32")}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logs = system.fit(inputs, {"net": y[keep]}, batch_size=4, shuffle=False, verbose=0).history
    texts = [str(warning.message) for warning in said]
    return system, logs, [text for text in texts if "finite" in text]


# An eager step is the same Python as a compiled one.
COMPILED_AND_EAGER = [
    pytest.param(False, id="compiled"),
    pytest.param(True, id="eager", marks=pytest.mark.once),
]


@pytest.mark.parametrize("eager", COMPILED_AND_EAGER)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_skipped_update_leaves_everything_as_it_was(optimizer, eager):
    system, logs, said = trained((2, 3), optimizer, eager=eager)
    spared, expected, silent = trained((2, 3), optimizer, drop=True, eager=eager)
    for a, b in zip(state(system, system.net), state(spared, spared.net), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert logs["net_loss"] == pytest.approx(expected["net_loss"], rel=1e-5)
    assert logs["net_mae"] == pytest.approx(expected["net_mae"], rel=1e-5)
    assert logs["net_skipped"] == [2] and "other_skipped" not in logs
    assert len(said) == 1 and "'net'" in said[0] and "nonfinite='raise'" in said[0]
    assert silent == [] and "net_skipped" not in expected
    # the other model learned on all six batches: w -> w - 0.2 w
    assert number(system.other.weight) == pytest.approx(0.8**6)


def test_infinite_is_not_finite_either():
    system, logs, _ = trained((0,), value=np.inf)
    assert logs["net_skipped"] == [1] and np.isfinite(logs["loss"]).all()
    assert number(system.optimizers["net"].iterations) == 5


def test_it_is_said_once_and_logged_from_then_on():
    system, _, _ = trained(())
    x, y = data((1,))
    inputs = {"net": x, "other": np.ones((24, 1), "float32")}
    fit = {"batch_size": 4, "epochs": 2, "verbose": 0, "shuffle": False}
    with pytest.warns(UserWarning, match="'net' is not finite") as said:
        history = system.fit(inputs, {"net": y}, **fit).history
    assert len([s for s in said if "finite" in str(s.message)]) == 1
    assert history["net_skipped"] == [1, 1]
    x, y = data()
    history = system.fit({**inputs, "net": x}, {"net": y}, **fit).history
    assert history["net_skipped"] == [0, 0]


def test_raise_ends_training_at_the_batch_and_leaves_the_model_as_it_was():
    with pytest.raises(FloatingPointError, match=r"'net' is not finite on batch 3"):
        trained((2,), nonfinite="raise")


def test_keep_applies_it():
    system, logs, said = trained((5,), nonfinite="keep")
    assert np.isnan(system.net.get_weights()[0]).any() and np.isnan(logs["net_loss"][0])
    assert said == [] and "net_skipped" not in logs


def test_a_gate_that_is_shut_skips_nothing():
    class Gated(TinyGAN):
        def train_step(self, data):
            self.update(data, "generator", when=self.optimizer.iterations > 5)
            self.update(data, "discriminator", when=self.optimizer.iterations > 0)
            return self.get_metrics_result()

    x = np.array([[np.nan], [np.nan], [1.0]], "float32")
    with pytest.warns(UserWarning, match="'discriminator' is not finite"):
        history = Gated().fit(x, batch_size=1, shuffle=False, verbose=0).history
    assert history["discriminator_skipped"] == [1] and "generator_skipped" not in history


def test_a_model_alone_behaves_as_in_keras():
    model = ml.MLModel(keras.Sequential([layers.Dense(1)]), loss="mse")
    x = np.full((4, 1), np.nan, "float32")
    history = model.fit(x, np.ones((4, 1)), verbose=0).history
    assert np.isnan(history["loss"]).all() and np.isnan(model.get_weights()[0]).all()


def test_terminate_on_nan_says_that_it_will_not_see_any():
    with pytest.warns(UserWarning, match="TerminateOnNaN will not see"):
        TinyGAN().fit(np.ones((2, 1)), verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
