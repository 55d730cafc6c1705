"""What a user changes between two calls of `fit` counts, and nothing else compiles anew."""

import types

import keras
import pytest
from keras import layers, ops
from toys import Pair, Target, number, ones

import mlsystem as ml
from mlsystem.preparation import recompilation
from mlsystem.step import user_methods

FACTOR = 1.0


def helper(value):
    return FACTOR * value


class Shift(layers.Layer):
    by = 0.0

    def call(self, x):
        return x + self.by


class Weighted(Target):
    """Its loss holds numbers from an attribute, a layer, a helper and a global."""

    def loss(self, x, y, outputs):
        return helper(self.goal * ops.mean(outputs[self.key]))


class System(ml.MLSystem):
    traces = None

    def __init__(self):
        super().__init__()
        self.a = Weighted(1.0, 1.0)
        self.shift = Shift()
        self.calls, self.slopes = 0, (1.0, {"bias": 0.0})

    def forward(self, x):
        self.calls += 1  # by itself
        self.traces.append(1)
        return {"a": self.a(self.shift(x))}


def system():
    System.traces = []
    made = System()
    made.compile(optimizer=keras.optimizers.SGD(0.0))
    return made


def loss(learner, **given):
    return learner.fit(ones(), verbose=0, **given).history["loss"][0]


@pytest.mark.filterwarnings("ignore:.*sets an attribute to a number:UserWarning")
def test_what_changes_between_two_fits_counts(monkeypatch):
    made = system()
    assert loss(made) == pytest.approx(1.0)
    known = len(System.traces)
    if keras.backend.backend() != "torch":  # where a step that counts runs eagerly
        made.stop_training = True
        assert loss(made) == pytest.approx(1.0) and len(System.traces) == known
    made.a.goal = 3.0
    assert loss(made) == pytest.approx(3.0)
    made.shift.by = 1.0
    assert loss(made) == pytest.approx(6.0)
    monkeypatch.setattr(Weighted, "loss", lambda self, x, y, outputs: 7.0 * ops.mean(outputs["a"]))
    assert loss(made) == pytest.approx(14.0)
    assert made.evaluate(ones(), verbose=0)[0] == pytest.approx(14.0)


# What is compared is decided on the host ------------------------------------------------------


def changes(act, made=None):
    """Whether a step of a system that was trained is made anew after a change."""
    made = made or system()
    made.compile(run_eagerly=True)
    made.fit(ones(), verbose=0)
    act(made)
    recompilation.see(made._mlsystem)
    return made._mlsystem.compiled.made_from is None


def recoded(made):
    Weighted.loss.__code__ = (lambda self, x, y, outputs: ops.mean(outputs["a"])).__code__


CHANGES = {
    "number": lambda made: setattr(made.a, "goal", 2.0),
    "number of a layer": lambda made: setattr(made.shift, "by", 2.0),
    "new attribute": lambda made: setattr(made, "beta", 2.0),
    "None": lambda made: setattr(made.a, "goal", None),
    "tuple": lambda made: setattr(made, "slopes", (1.0, {"bias": 1.0})),
    "class attribute": lambda made: setattr(Shift, "by", 2.0),
    "in a routing": lambda made: made.routing["a"].update({"a": 3.0}),
    "optimizer": lambda made: setattr(made.optimizers["a"], "clipnorm", 1.0),
    "global": lambda made: globals().update(FACTOR=2.0),
    "helper": lambda made: globals().update(helper=lambda value: 2 * value),
    "code": recoded,
}


@pytest.mark.once
@pytest.mark.parametrize("act", CHANGES.values(), ids=CHANGES)
def test_what_is_compared(act, monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", FACTOR)
    monkeypatch.setitem(globals(), "helper", helper)
    monkeypatch.setattr(Shift, "by", 0.0)
    copied = types.FunctionType(Weighted.loss.__code__, globals(), "loss")
    monkeypatch.setattr(Weighted, "loss", copied)
    made = system()
    made.routing = {"a": {"a": 1.0}}
    assert changes(act, made)


@pytest.mark.once
def test_what_changes_by_itself_is_no_change():
    assert not changes(lambda made: made.evaluate(ones(), verbose=0))
    assert not changes(lambda made: made.fit(ones(), verbose=0, epochs=2))
    assert not changes(lambda made: setattr(made, "calls", 100))
    assert not changes(lambda made: setattr(made, "stop_training", True))
    assert not changes(lambda made: setattr(made.a, "trainable", False))


@pytest.mark.once
def test_new_methods_are_steps_and_both_names_of_forward(monkeypatch):
    made = system()
    made.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    made.fit(ones(), verbose=0)
    monkeypatch.setattr(System, "call", System.call)
    known = user_methods._computes
    monkeypatch.setitem(known, System, known[System])
    monkeypatch.setattr(System, "train_step", System.train_step)
    monkeypatch.setattr(
        System, "forward", lambda self, x, training=None: {"a": self.a(5 * x * training)}
    )

    def train_step(self, data):
        self.update(data)
        self.log("mine", 4.0)
        return self.get_metrics_result()

    System.train_step = train_step
    logs = made.fit(ones(), verbose=0).history
    assert (logs["loss"], logs["mine"]) == ([5.0], [4.0])


@pytest.mark.once
def test_an_attribute_that_changes_before_each_call_is_left_alone_with_a_warning():
    made = system()
    made.compile(run_eagerly=True)
    for i in range(recompilation.MOST):
        made.epsilon = float(i)
        made.train_on_batch(ones())
    made.epsilon = -1.0
    with pytest.warns(UserWarning, match=r"`epsilon` had changed.*keras.Variable"):
        made.train_on_batch(ones())
    made.epsilon = -2.0
    recompilation.see(made._mlsystem)
    assert made._mlsystem.compiled.made_from is not None


@pytest.mark.once
def test_a_method_of_a_reloaded_module_takes_the_place_of_the_wrapped_one():
    class Own(Pair):
        def train_step(self, data):
            return self.get_metrics_result()

    def new(self, data):
        return {"new": 1}

    Own.train_step.__dict__["__wrapped__"] = new  # as IPython's autoreload does
    pair = Own().setup(ones())
    assert pair.train_step(ones()) == {"new": 1}
    assert number(pair.optimizer.iterations) == 1


@pytest.mark.filterwarnings("ignore:None of the losses")
@pytest.mark.parametrize("start", ["setup", "fit"])
def test_a_loss_that_a_class_gets_later_counts(start):
    class Silent(ml.MLModel):
        pass

    class Two(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.a, self.b = Silent(keras.Sequential([layers.Dense(1)])), Target(1.0, 1.0)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    two = Two()
    getattr(two, start)(ones())
    assert list(two.gradient_report(ones())) == ["b"]
    Silent.loss = lambda self, x, y, outputs: ops.mean(outputs["a"] ** 2)
    assert start == "setup" or list(two.gradient_report(ones())) == ["a", "b"]
    assert "a_loss" in two.fit(ones(), verbose=0).history
