"""Updates whose gradient is not finite: `nonfinite`."""

import keras
import numpy as np
import pytest
from bad_batches import OPTIMIZERS, data, state, trained
from keras import layers
from toys import TinyGAN, number

import mlsystem as ml


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.spread
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
    with pytest.warns(UserWarning, match="TerminateOnNaN will have no effect"):
        TinyGAN().fit(np.ones((2, 1)), verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
