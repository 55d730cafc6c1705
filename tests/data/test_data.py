"""Data as Keras takes it, for a model alone and for a system: nothing lost, nothing reordered."""

import functools

import keras
import numpy as np
import pytest
from data_sets import BATCHES, KINDS, SIZE, WEIGHT, Sequence, X, Y, generator, grain, unsized
from keras import layers, ops
from toys import Pair

import mlsystem as ml


class Regressor(ml.MLModel):
    """A linear map of inputs of any structure, and the sum of what the batches it saw hold."""

    def __init__(self):
        super().__init__(loss="mse", optimizer=keras.optimizers.SGD(0.1), metrics=["mae"])
        self.dense = layers.Dense(1, kernel_initializer="ones")
        self.batches = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.samples = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def forward(self, x, training=None):
        if isinstance(x, dict):
            x = [x["left"], x["right"]]
        x = ops.concatenate(x, axis=-1) if isinstance(x, (tuple, list)) else x
        if training:
            self.batches.assign_add(1)
            self.samples.assign_add(ops.cast(ops.shape(x)[0], "float32"))
        return self.dense(x)


class Two(ml.MLSystem):
    """Two regressors of the same targets, each by its own loss."""

    routing = "own"

    def __init__(self):
        super().__init__()
        self.first, self.second = Regressor(), Regressor()

    def forward(self, x, training=None):
        return {n: getattr(self, n)(x, training=training) for n in ("first", "second")}


LEARNERS = {"model": Regressor, "system": Two}
learners = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)


def trained(learner, *data, **given):
    """The state after two epochs and what was logged."""
    model = learner()
    given = {"epochs": 2, "verbose": 0, "shuffle": False} | given
    history = model.fit(*data, **given).history
    return model.get_weights(), history


@functools.cache
def from_arrays(learner, weighted=False):
    """Two epochs on arrays; or one with weights, validated on the same data."""
    whole = {"sample_weight": WEIGHT, "validation_data": (X, Y, WEIGHT), "epochs": 1}
    return trained(learner, X, Y, batch_size=SIZE, **(whole if weighted else {}))


def close(got, expected):
    (weights, history), (expected_weights, expected_history) = got, expected
    for a, b in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert list(history) == list(expected_history)
    for name, values in history.items():
        np.testing.assert_allclose(values, expected_history[name], rtol=1e-5)


@learners
@pytest.mark.parametrize("kind, given", KINDS)
@pytest.mark.spread
def test_data_sets_train_and_validate_as_arrays_do(learner, kind, given):
    close(trained(learner, kind(X, Y), **given), from_arrays(learner))
    steps = {"validation_steps": BATCHES} if given else {}
    steps |= {"validation_data": kind(X, Y, WEIGHT), "epochs": 1}
    found = trained(learner, kind(X, Y, WEIGHT), **given, **steps)
    close(found, from_arrays(learner, weighted=True))


@learners
@pytest.mark.once
def test_structures_of_arrays(learner):
    expected = from_arrays(learner)
    left, right = X[:, :1], X[:, 1:]
    for x in ((left, right), {"left": left, "right": right}):
        close(trained(learner, x, Y, batch_size=SIZE), expected)


@pytest.mark.once
def test_a_system_takes_targets_and_weights_by_member():
    expected = trained(Two, X, Y, batch_size=SIZE, sample_weight=WEIGHT)
    named = {"first": Y, "second": Y}
    weights = {"first": WEIGHT, "second": WEIGHT}
    close(trained(Two, X, named, batch_size=SIZE, sample_weight=weights), expected)


@learners
@pytest.mark.once
def test_class_weights_are_sample_weights(learner):
    labels = np.arange(10) % 2
    weight = np.where(labels == 1, 3.0, 0.5)
    expected = trained(learner, X, labels[:, None], batch_size=SIZE, sample_weight=weight)
    given = {"batch_size": SIZE, "class_weight": {0: 0.5, 1: 3.0}}
    close(trained(learner, X, labels[:, None], **given), expected)


@learners
@pytest.mark.once
def test_validation_split_is_validation_data(learner):
    data = {"validation_data": (X[6:], Y[6:])}
    expected = trained(learner, X[:6], Y[:6], batch_size=2, **data)
    close(trained(learner, X, Y, batch_size=2, validation_split=0.4), expected)
    assert {"val_loss", "loss"} <= set(expected[1])


class Centre(ml.MLModel):
    """Learns a point from data without targets."""

    def __init__(self):
        super().__init__(optimizer=keras.optimizers.SGD(0.1))
        self.point = self.add_weight(shape=(2,), initializer="zeros")

    def forward(self, x):
        return x - self.point

    def loss(self, x, y, outputs):
        assert y is None
        difference = outputs["centre"] if isinstance(outputs, dict) else outputs
        return ops.sum(difference**2, axis=-1)


class Centred(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.centre = Centre()

    def forward(self, x):
        return {"centre": self.centre(x)}


@pytest.mark.parametrize("learner", [Centre, Centred])
@pytest.mark.parametrize("kind, given", KINDS)
@pytest.mark.spread
def test_data_sets_without_targets(learner, kind, given):
    histories = []
    for data, more in [(X, {"batch_size": SIZE}), (kind(X), given)]:
        model = learner()
        histories.append(
            (model.fit(data, verbose=0, shuffle=False, **more).history, model.get_weights()[0])
        )
    np.testing.assert_allclose(histories[1][0]["loss"], histories[0][0]["loss"], rtol=1e-6)
    np.testing.assert_allclose(histories[1][1], histories[0][1], rtol=1e-5)


# No batch is lost ---------------------------------------------------------------------------


def once(n=5):
    """A generator that can be read only once, and each batch of which counts."""
    for i in range(n):
        yield np.full((2, 2), float(i), "float32"), np.full((2, 1), float(i), "float32")


@unsized
@learners
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.spread
def test_a_generator_that_ends_trains_on_all_its_batches(learner, built):
    model = learner()
    if built:
        model.setup((X, Y))
    seen = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: seen.append(i))
    model.fit(once(), verbose=0, shuffle=False, callbacks=[record])
    assert seen == [0, 1, 2, 3, 4] and int(model.optimizer.iterations) == 5
    one = model if learner is Regressor else model.first
    assert [float(v) for v in (one.batches, one.samples)] == [5, 10]


@unsized
def test_the_end_of_an_epoch_is_not_counted_as_a_batch():
    system = Two()
    system.update_every = {"second": 2}
    system.fit(grain(X, Y), epochs=2, shuffle=False, verbose=0)
    updates = {name: int(inner.iterations) for name, inner in system.optimizers.items()}
    assert updates == {"first": 6, "second": 3} and int(system.optimizer.iterations) == 6


@unsized
@learners
def test_a_generator_that_ends_is_evaluated_and_predicted_whole(learner):
    model = learner().setup((X, Y))
    expected = model.evaluate(
        *map(np.concatenate, zip(*once(), strict=True)), batch_size=2, verbose=0
    )
    np.testing.assert_allclose(model.evaluate(once(), verbose=0), expected, rtol=1e-6)
    predicted = model.predict(once(), verbose=0)
    predicted = predicted if learner is Regressor else predicted["second"]
    assert predicted.shape == (10, 1)


@learners
@pytest.mark.parametrize("data", [(X, Y), Sequence(X, Y), "generator"], ids=type)
@pytest.mark.spread
def test_setup_reads_one_batch_and_trains_nothing(learner, data):
    model = learner()
    assert model.setup(generator(X, Y) if data == "generator" else data) is model
    before = model.get_weights()
    assert len(before) == 4 * len(model.optimizers) and int(model.optimizer.iterations) == 0
    assert {float(w.max()) for w in before} == {0.0, 1.0}
    expected = trained(learner, X, Y, batch_size=SIZE)
    history = model.fit(X, Y, batch_size=SIZE, epochs=2, shuffle=False, verbose=0).history
    close((model.get_weights(), history), expected)


@learners
@pytest.mark.once
def test_setup_from_structures(learner):
    left, right = X[:, :1], X[:, 1:]
    for data in [((left, right), Y), ({"left": left, "right": right}, Y)]:
        model = learner().setup(data)
        assert all(len(m.weights) == 4 for m in model._mlsystem.models().values())


def test_setup_takes_inputs_alone():
    for data in (X, (X,), [X]):
        assert Centred().setup(data).centre.point.shape == (2,)


@learners
@pytest.mark.once
def test_predict_needs_no_targets(learner):
    model = learner()
    predicted = model.predict(X, batch_size=SIZE, verbose=0)
    predicted = predicted if learner is Regressor else predicted["first"]
    np.testing.assert_allclose(predicted, X.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_arrays_come_in_another_order_in_each_epoch():
    class Logged(Pair):
        def forward(self, x):
            self.log("first", x[0])
            return super().forward(x)

    firsts = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: firsts.append(logs["first"])
    )
    x = np.arange(64, dtype="float32")[:, None] / 64
    Logged().fit(x, batch_size=64, epochs=4, verbose=0, callbacks=[note])
    assert len({float(first) for first in firsts}) == 4
