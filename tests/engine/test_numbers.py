"""Numbers in attributes, which a step captured on torch holds as they were."""

import keras
import pytest
from toys import Pair, Target, number, ones

BACKEND = keras.backend.backend()


class Raise(keras.callbacks.Callback):
    """Sets the goal of `a` to the number of the epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.a.goal = float(epoch)


def expected(goals):
    """The weight of a model with (w - goal)^2 after two steps by 0.1 towards each goal."""
    weight = 1.0
    for goal in goals:
        for _ in range(2):
            weight -= 0.1 * 2 * (weight - goal)
    return pytest.approx(weight, rel=1e-5)


def test_a_number_that_a_callback_sets_each_epoch_keeps_the_step_captured(monkeypatch):
    if BACKEND != "torch":
        return  # there, numbers stay what they were when the step was compiled
    from mlsystem.engine.torch import compiled_step

    monkeypatch.setattr(compiled_step, "MOST", 2)
    pair = Pair()
    pair.routing = "own"
    pair.fit(ones(8), batch_size=4, epochs=4, verbose=0, callbacks=[Raise()])
    assert number(pair.a.weight) == expected(range(4))
    [function] = pair.train_function.steps.values()
    [program] = function.programs.values()  # those of before are gone
    assert program is not None


def test_a_number_that_changes_in_each_step_ends_in_an_eager_step(monkeypatch):
    if BACKEND != "torch":
        return
    from mlsystem.engine.torch import compiled_step

    monkeypatch.setattr(compiled_step, "MOST", 2)
    pair = Pair()

    def change(batch, logs):
        pair.a.goal = float(batch)

    each = keras.callbacks.LambdaCallback(on_train_batch_begin=change)
    with pytest.warns(UserWarning, match="changed after each of 2 steps"):
        pair.fit(ones(6), batch_size=1, verbose=0, callbacks=[each])


class Shift(keras.layers.Layer):
    """Adds a number."""

    def __init__(self):
        super().__init__()
        self.by = 0.0

    def call(self, x):
        return x + self.by


class Shifted(Target):
    def __init__(self):
        super().__init__()
        self.shift = Shift()

    def forward(self, x):
        return self.shift(super().forward(x))


def test_a_number_of_a_layer_is_noticed_when_fit_starts():
    if BACKEND != "torch":
        return
    pair = Pair()
    pair.routing, pair.a = "own", Shifted()
    for shift in (0.0, -3.0, -3.0):
        pair.a.shift.by = shift
        pair.fit(ones(8), batch_size=4, verbose=0)
    assert number(pair.a.weight) == expected([0, 3, 3])


class Move(keras.callbacks.Callback):
    """Sets a number of a layer after each batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.a.shift.by = -float(batch + 1)


def test_a_validation_changes_nothing_of_the_training():
    def trained(**given):
        pair = Pair()
        pair.routing, pair.a = "own", Shifted()
        pair.fit(ones(16), batch_size=4, verbose=0, callbacks=[Move()], **given)
        return number(pair.a.weight)

    assert trained(validation_data=(ones(),), validation_every=1) == trained()
