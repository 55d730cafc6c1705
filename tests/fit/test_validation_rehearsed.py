"""Validation data are looked at before the first training step, and left as they were."""

import keras
import numpy as np
import pytest

import mlsystem as ml

pytestmark = pytest.mark.once

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X.sum(-1, keepdims=True)


class Rows(keras.utils.PyDataset):
    """Noisy rows, by a generator of its own and by NumPy's."""

    def __init__(self, x=X):
        super().__init__()
        self.x, self.rng, self.read = x, np.random.default_rng(1), 0

    def __len__(self):
        return 2

    def __getitem__(self, i):
        self.read += 1
        more = float(keras.ops.convert_to_numpy(keras.random.normal(())))
        noise = self.rng.normal(size=(5, 1)) + np.random.normal() + more
        return self.x[:5], (Y[:5] + noise).astype("float32")


def regressor(loss="mse"):
    keras.utils.set_random_seed(0)
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss=loss)
    model.compile("sgd", run_eagerly=True)
    return model


def batches(*parts):
    while True:
        yield parts


BAD = {
    "a wrong width": lambda: (np.ones((8, 4), "float32"), Y[:8]),
    "no y": lambda: (X,),
    "no y in an array": lambda: X,
    "one bad set of several": lambda: {"good": (X, Y), "bad": (X[:, :2], Y)},
    "a PyDataset": lambda: Rows(X[:, :2]),
    "an MLData": lambda: ml.Streams({"a": X, "b": X}, batch_size=4),
    "a generator": lambda: batches(X[:, :2], Y),
    "a generator of no tuples": lambda: (x for x in [X]),
    "an empty generator": lambda: (x for x in []),
    "other lengths": lambda: (X, Y[:5]),
    "text": lambda: "text",
    "none at all": lambda: (X[:0], Y[:0]),
    "weights without y": lambda: (X, None, np.ones(12)),
}


class Never(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise AssertionError("training began")


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_an_error_that_changes_nothing(kind):
    model = regressor()
    model.setup((X, Y))
    before, random = model.get_weights(), np.random.get_state()[1].tolist()
    with pytest.raises((ValueError, TypeError)) as caught:
        given = {"callbacks": [Never()], "verbose": 0, "shuffle": False}  # which draws in Keras
        model.fit(X, Y, validation_data=BAD[kind](), **given)
    text = "".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    if kind == "one bad set of several":
        assert "the validation set 'bad'" in text
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.random.get_state()[1].tolist() == random
    assert int(model.optimizer.iterations) == 0
    model.fit(X, Y, validation_data=(X, Y), verbose=0)


def test_an_mldata_is_looked_at():
    model = regressor()
    data = ml.MLData((X, Y), validation={"a": (X, Y), "b": (X[:, :2], Y)}, batch_size=4)
    with pytest.raises(ValueError) as caught:
        model.fit(data, callbacks=[Never()], verbose=0)
    assert "the validation set 'b'" in "".join(caught.value.__notes__)


def test_data_that_draw_at_random_are_as_if_unseen():
    seen = []
    for validates in (True, False):
        model, data = regressor(), Rows()
        given = {"validation_data": data} if validates else {}
        model.fit(X, Y, verbose=0, callbacks=[Reads(data, seen)], **given)
    assert seen[0] == seen[1]


class Reads(keras.callbacks.Callback):
    """Notes the state of all that some data draw from when training begins."""

    def __init__(self, data, seen):
        super().__init__()
        self.data, self.seen = data, seen

    def on_train_begin(self, logs=None):
        draw = float(keras.ops.convert_to_numpy(keras.random.normal(())))
        numpy = np.random.get_state()[1].tolist()
        self.seen.append((self.data.rng.bit_generator.state, numpy, self.data.read, draw))


@pytest.mark.each_backend
def test_a_generator_loses_no_batch():
    def numbered():
        for i in range(100):
            yield np.full((4, 3), i, "float32"), np.zeros((4, 1), "float32")

    for data in (numbered(), {"a": numbered()}):
        model = regressor()
        model.setup((X, Y))
        model.set_weights([np.ones_like(w) for w in model.get_weights()])
        model.optimizer.learning_rate = 0.0
        history = model.fit(X, Y, verbose=0, validation_data=data, validation_steps=3).history
        losses = [v for name, v in history.items() if name.startswith("val_")]
        np.testing.assert_allclose(losses, [[np.mean([1, 16, 49])]], rtol=1e-5)  # (3 i + 1) ** 2


class Counted(ml.MLModel):
    """Notes the width of each batch that its test step is run on."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(1), []

    def forward(self, x):
        return self.dense(x)

    def loss(self, x, y, outputs, training):
        if not training:
            self.seen.append(tuple(x.shape))
        return keras.ops.mean((outputs - y) ** 2)


def test_each_shape_is_rehearsed_once_and_only_where_fit_validates():
    model = Counted()
    model.compile("sgd", run_eagerly=True)
    kinds = {"a": (X, Y), "b": (X, Y), "c": (X[:5], Y[:5])}

    def looked(**given):
        model.seen.clear()
        model.fit(X, Y, verbose=0, callbacks=[Shown(model)], **given)
        return model.seen_first

    assert looked(validation_data=(X, Y), validation_freq=2) == []
    assert looked(validation_data=(X, Y), validation_freq=[3]) == []
    assert looked(validation_data=kinds, validation_freq=2, epochs=2) == [(12, 3), (5, 3)]
    assert len(model.seen) == 3 + 2  # and no more of them
    assert looked(validation_data=kinds) == []
    assert looked(validation_split=0.25) == [(3, 3)]
    assert looked(validation_split=0.5, validation_every=1) == [(6, 3)]


class Shown(keras.callbacks.Callback):
    def __init__(self, counted):
        super().__init__()
        self.counted = counted

    def on_train_begin(self, logs=None):
        self.counted.seen_first = list(self.counted.seen)
