"""What steps of one's own get wrong: models that are not due, names twice, updates in branches."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Pair, number, ones

import mlsystem as ml

EAGER = keras.backend.backend() == "torch"  # where branches assign like all else


class Steps(Pair):
    """Runs a function of itself and the batch as its step."""

    routing = "own"

    def __init__(self, run, **given):
        super().__init__()
        self.run = run
        for name, value in given.items():
            setattr(self, name, value)

    def train_step(self, data):
        self.run(self, data)
        return self.get_metrics_result()


def fit(system, n=4, **given):
    system.compile(run_eagerly=True)
    return system.fit(ones(n), batch_size=1, shuffle=False, verbose=0, **given).history


def refused(run, match, **given):
    system = Steps(run, **given).setup(ones())
    before = [np.array(v) for v in system.get_weights()]
    with pytest.raises(ValueError, match=match):
        fit(system, 1)
    for old, new in zip(before, system.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.once
def test_what_is_not_due_says_so():
    every = {"update_every": {"a": 2}}
    said = "no model was due on this batch"

    def logs_loss(system, data):
        _, losses = system.update(data, "a")
        system.log("kept", losses["a"])

    def logs_output(system, data):
        outputs, _ = system.update(data, "a")
        system.log("kept", outputs and outputs["a"])

    def logs_minimized(system, data):
        system.log("kept", system.minimize(lambda: ops.mean(system.a(data)), "a"))

    for run in (logs_loss, logs_output, logs_minimized):
        refused(run, f"(?i){said}", **every)

    def asks(system, data):
        outputs, losses = system.update(data, "a")
        assert outputs is None or losses["a"] is not None
        assert (losses == {}) is (outputs is None)
        if losses:
            system.log("kept", losses["a"])

    assert len(fit(Steps(asks, **every))["kept"]) == 1


@pytest.mark.once
def test_a_loss_that_is_logged_twice_says_that_it_is_logged_by_itself():
    def twice(system, data):
        loss = system.minimize(lambda: ops.mean(system.a(data)), "a", name="size")
        system.log("size_loss", loss)

    refused(twice, "Losses are logged by themselves: leave `self.log` out")

    def names(system, data):
        system.log("a_skipped", 1.0)

    refused(names, "Rename one of them")


def test_updates_in_a_branch_name_when():
    def updated(system, data):
        ops.cond(ops.mean(data) > 0, lambda: system.update(data)[1]["a"], lambda: ops.zeros(()))

    def minimized(system, data):
        x = system.a(data)
        ops.cond(
            ops.mean(x) > 0,
            lambda: system.minimize(lambda: ops.mean(system.a(data)), "a"),
            lambda: ops.zeros(()),
        )

    def applied(system, data):
        found = system.gradients(data)
        ops.cond(
            ops.mean(data) > 0,
            lambda: [system.apply_gradients(found), ops.zeros(())][1],
            lambda: ops.zeros(()),
        )

    for run in (updated, minimized, applied):
        system = Steps(run).setup(ones())
        if EAGER:
            fit(system, 1)
            continue
        with pytest.raises(ValueError, match=r"inside `ops.cond`.*when=condition"):
            system.fit(ones(), verbose=0)
        assert number(system.a.weight) == 1.0


def test_minimize_and_apply_gradients_take_a_condition():
    def run(system, data):
        due = ops.mean(data) > 0
        system.minimize(lambda: ops.mean(system.a(data)), "a", name="size", when=due)
        system.apply_gradients(system.gradients(data, "b"), when=due)

    system = Steps(run)
    logs = system.fit(-ones(), verbose=0).history
    assert number(system.a.weight) == 1.0 and number(system.b.weight) == 2.0
    assert "size_loss" not in logs and "b_loss" not in logs
    logs = system.fit(ones(), verbose=0).history
    assert number(system.a.weight) == pytest.approx(0.9)
    assert number(system.b.weight) != 2.0
    assert logs["size_loss"] == [1.0] and "b_loss" in logs


@pytest.mark.once
def test_the_weights_of_an_average_pair_with_those_of_its_source(tmp_path):
    source = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()])
    source.build((None, 3))
    average = ml.EMA(source, 0.5)
    assert average.weights[-1] is average.updates
    pairs = list(zip(average.weights, source.weights, strict=False))
    assert len(pairs) == len(source.weights)
    for mine, its in pairs:
        np.testing.assert_array_equal(mine, its)
    average.follow()
    # In files the count stands first, as ever.
    average.save_weights(tmp_path / "average.weights.h5")
    entries = ml._keras.file_entries(tmp_path / "average.weights.h5")[""]
    assert entries["0"].shape == () and entries["1"].shape == (3, 2)
    for weight in source.weights:
        weight.assign(weight + 1.0)
    other = ml.EMA(source)
    other.load_weights(tmp_path / "average.weights.h5")
    assert int(other.updates) == 1
    for mine, its in zip(other.weights, average.weights, strict=True):
        np.testing.assert_array_equal(mine, its)
    other.start()
    np.testing.assert_array_equal(other.weights[0], source.weights[0])
