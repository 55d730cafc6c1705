"""A model of a system has, as `optimizer`, the one that the system updates it by."""

import keras
import numpy as np
import pytest
from toys import Target, ones

import mlsystem as ml
from mlsystem import _keras

pytestmark = pytest.mark.once


@keras.saving.register_keras_serializable("test_member_optimizer")
class Pair(ml.MLSystem):
    def __init__(self, a=None):
        super().__init__()
        self.a, self.b = a or Target(1.0, 3.0), Target(2.0, 5.0)
        self.copy = ml.EMA(self.a)

    def forward(self, x):
        return {"a": self.a(x), "b": self.b(x)}

    def compute_losses(self, x, y, outputs):
        return {"a": keras.ops.mean(outputs["a"]), "b": keras.ops.mean(outputs["b"])}


class Nested(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.pair, self.head = Pair(), keras.layers.Dense(1)

    def forward(self, x):
        return {"pair": self.pair(x), "head": self.head(x)}

    def compute_losses(self, x, y, outputs):
        own = {"head": keras.ops.mean(outputs["head"])}
        return own | {"pair": self.pair.loss(x, y, outputs["pair"])}


def fitted(system):
    system.compile(run_eagerly=True)
    system.fit(ones(), verbose=0)
    return system


def test_it_is_the_live_one():
    system = Pair()
    assert not hasattr(system.a, "optimizer")
    system.setup(ones())
    assert system.a.optimizer is system.optimizers["a"]
    assert not hasattr(system.copy, "optimizer")
    system.b.trainable = False
    fitted(system)
    system.b.trainable = True
    fitted(system)
    for name, model in (("a", system.a), ("b", system.b)):
        assert model.optimizer is system.optimizers[name] and int(model.optimizer.iterations)
    nested = Nested().setup(ones())
    assert nested.pair.a.optimizer is nested.optimizers["pair/a"]
    assert not hasattr(nested.pair, "optimizer")
    assert not hasattr(nested.head, "optimizer")


class Mean(Target):
    def loss(self, x, y, outputs):
        return keras.ops.mean(outputs)


def test_a_model_that_is_trained_alone_has_its_own():
    system = fitted(Pair(Mean(optimizer="sgd")))
    model, theirs = system.a, system.optimizers["a"]
    model.evaluate(ones(), verbose=0)
    assert model.optimizer is theirs
    model.fit(ones(), verbose=0)
    assert model.optimizer is not theirs and int(theirs.iterations) == 1
    fitted(system)
    assert model.optimizer is system.optimizers["a"]
    model.compile("sgd")  # like the system's: no warning
    assert model.optimizer is not system.optimizers["a"]
    system.evaluate(ones(), verbose=0)
    assert model.optimizer is system.optimizers["a"]


GIVEN = {
    "assigned": lambda model: setattr(model, "optimizer", keras.optimizers.Adam(0.5)),
    "compiled": lambda model: model.compile(keras.optimizers.Adam(0.5)),
}


@pytest.mark.parametrize("given", GIVEN)
def test_an_optimizer_that_a_system_does_not_use_is_told(given):
    system, nested = fitted(Pair()), fitted(Nested())
    GIVEN[given](system.a)
    with pytest.warns(UserWarning, match=r"'a' was given an optimizer.*optimizer=\{'a': \.\.\.\}"):
        system.fit(ones(), verbose=0)
    system.fit(ones(), verbose=0)  # said once
    nested.pair.compile("sgd")
    with pytest.warns(UserWarning, match="'pair' was given an optimizer of its own"):
        nested.fit(ones(), verbose=0)
    fresh = Nested()
    fresh.pair.compile("sgd")  # a nested system chooses the optimizers of its models
    assert type(fresh.setup(ones()).optimizers["pair/a"]).__name__ == "SGD"


def test_files_hold_it_once_and_are_read_both_ways(tmp_path):
    system = fitted(Pair())
    system.save_weights(tmp_path / "new.weights.h5")
    entries = _keras.file_entries(tmp_path / "new.weights.h5")
    assert [where for where in entries if "optimizer" in where] == ["optimizer"]
    # A model that was trained alone before had its own in the files of earlier versions.
    other = Pair()
    other.a.compile("adam")
    with pytest.warns(UserWarning, match="'a' was given an optimizer"):
        fitted(other)
    other.a.optimizer = vars(other.a)["optimizer"]
    assert type(other.a.optimizer) is not type(other.optimizers["a"])
    other.save(tmp_path / "old.keras")
    other.a.optimizer.build(other.a.trainable_weights)
    other.save_weights(tmp_path / "old.weights.h5")
    assert "a/optimizer" in _keras.file_entries(tmp_path / "old.weights.h5")
    for name in ("old.weights.h5", "new.weights.h5", "old.keras"):
        system.load_weights(tmp_path / name)
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert loaded.a.optimizer is loaded.optimizers["a"]
    np.testing.assert_array_equal(loaded.get_weights(), other.get_weights())
