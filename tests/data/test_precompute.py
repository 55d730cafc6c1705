"""`MLData(precompute=)`: a frozen model runs once over the data, and trains as one in `forward`."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 6)).astype("float32"), RNG.normal(size=(10, 2)).astype("float32")


def frozen(*more, size=3):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(size, "tanh"), *more])
    model.trainable = False
    return model


def encoder():
    keras.utils.set_random_seed(1)
    return frozen(layers.BatchNormalization(), layers.Dropout(0.5))


class Head(ml.MLSystem):
    """A head on embeddings, which the data bring or a frozen encoder makes in each step."""

    def __init__(self, encoder=None):
        super().__init__()
        self.encoder = encoder
        keras.utils.set_random_seed(2)
        net = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
        self.head = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.SGD(0.1))

    def forward(self, x, training=None):
        found = x["embeddings"] if self.encoder is None else self.encoder(x, training=False)
        return {"head": self.head(found)}


def trained(system, data, **given):
    given = {"epochs": 2, "verbose": 0} | given
    history = system.fit(data, **given).history
    return [ops.convert_to_numpy(w) for w in system.head.weights], history


def same(found, expected):
    for mine, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, values in found[1].items():
        np.testing.assert_allclose(values, expected[1][name], rtol=1e-5)


@pytest.mark.parametrize("validation", [(X[:4], Y[:4]), {"a": (X[:4], Y[:4]), "b": (X, Y)}])
def test_training_equals_the_model_in_forward(validation):
    parts = {"train": (X, Y), "validation": validation, "batch_size": 4}
    expected = trained(Head(encoder()), ml.MLData(**parts), shuffle=False)
    data = ml.MLData(**parts, precompute={"embeddings": encoder()})
    same(trained(Head(), data, shuffle=False), expected)


def test_the_model_runs_once():
    calls = []

    class Counted(keras.Model):
        def call(self, x):
            calls.append(x.shape)
            return x

        def predict(self, x, **given):
            calls.clear()
            return super().predict(x, **given)

    model = Counted()
    data = ml.MLData(train=(X[:, :3], Y), batch_size=4, precompute={"embeddings": model})
    system = Head().setup(data)
    calls.clear()
    trained(system, data)
    trained(system, data)
    assert not calls


def test_evaluate_predict_and_own_validation_data():
    model = encoder()
    data = ml.MLData(
        train=(X, Y), test=(X[:4], Y[:4]), batch_size=4, precompute={"embeddings": model}
    )
    system, plain = Head(), Head(model)
    history = trained(system, data, validation_data=(X[:4], Y[:4]), shuffle=False)[1]
    assert "val_loss" in history
    plain.setup((X, Y))
    plain.head.set_weights(system.head.get_weights())
    logs = system.evaluate(data, verbose=0, return_dict=True)
    expected = plain.evaluate(X[:4], Y[:4], verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    np.testing.assert_allclose(
        system.predict(data, verbose=0)["head"], plain.predict(X[:4], verbose=0)["head"], rtol=1e-5
    )


def test_x_of_several_entries_and_outputs_of_several_parts():
    words, noise = keras.Input((6,), name="words"), keras.Input((1,), name="noise")
    both = keras.Model({"words": words, "noise": noise}, {"a": words * 2, "b": words + noise})
    data = ml.MLData(
        train={"words": X, "noise": X[:, :1]},
        precompute={"both": both, "one": (frozen(), "words")},
    )
    (x,) = data.part("train")
    assert [*x] == ["words", "noise", "both", "one"]
    np.testing.assert_allclose(x["both"]["a"], X * 2)
    np.testing.assert_allclose(x["both"]["b"], X + X[:, :1])
    assert x["one"].shape == (10, 3)


def test_the_transform_gets_the_outputs():
    seen = []

    def noted(x):
        seen.append(sorted(x))
        return x

    data = ml.MLData(train=(X, Y), transform=noted, precompute={"embeddings": encoder()})
    trained(Head(), data)
    assert all(names == ["embeddings", "x"] for names in seen) and seen


def test_outputs_in_bfloat16_are_read_as_float32():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3, dtype="bfloat16")])
    model.trainable = False
    (x, _) = ml.MLData(train=(X, Y), precompute={"embeddings": model}).part("train")
    assert x["embeddings"].dtype == "float32"
    expected = ops.convert_to_numpy(ops.cast(model(X), "float32"))
    np.testing.assert_allclose(x["embeddings"], expected, rtol=1e-2, atol=1e-2)


class Noisy(keras.Model):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed)


class Returning(keras.Model):
    """A model that returns what a function makes of x."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return self.function(x)


def batches():
    yield X, Y


def trainable():
    model = frozen()
    model.trainable = True
    return model


def untrained(model):
    model.trainable = False
    return model


WRONG = {
    "not a dict": (lambda: {"precompute": [encoder()]}, TypeError, "Give a dict of frozen models"),
    "no name": (lambda: {"precompute": {3: encoder()}}, TypeError, "has the name 3"),
    "no model": (lambda: {"precompute": {"e": 3}}, TypeError, r"precompute\['e'\] is 3"),
    "a layer": (
        lambda: {"precompute": {"e": layers.Dense(1)}},
        TypeError,
        r"keras.Sequential\(\[layer\]\)",
    ),
    "trainable": (
        lambda: {"precompute": {"e": trainable()}},
        ValueError,
        "has trainable weights.*trainable = False",
    ),
    "an average": (
        lambda: {"precompute": {"e": ml.EMA(trainable())}},
        ValueError,
        "an EMA, which changes",
    ),
    "built late": (
        lambda: {"precompute": {"e": keras.Sequential([layers.Dense(1)])}},
        ValueError,
        "has trainable weights",
    ),
    "random": (lambda: {"precompute": {"e": Noisy()}}, ValueError, "gives other outputs"),
    "a taken name": (
        lambda: {"precompute": {"x": encoder()}},
        ValueError,
        "x has an entry of that name: it has x",
    ),
    "no entry": (
        lambda: {"precompute": {"e": (encoder(), "words")}},
        ValueError,
        "takes the entry 'words' of x, which has no entries",
    ),
    "one number": (
        lambda: {"precompute": {"e": Returning(ops.mean)}},
        ValueError,
        r"returns float32\[\] for 10 rows. Its outputs need a row for each row of x",
    ),
    "half of the rows": (
        lambda: {"precompute": {"e": Returning(lambda x: x[::2])}},
        ValueError,
        r"returns float32\[5, 6\] for 10 rows",
    ),
    "nothing": (
        lambda: {"precompute": {"e": Returning(lambda x: None)}},
        ValueError,
        "returns None for 10 rows",
    ),
    "an ensemble": (
        lambda: {"precompute": {"e": untrained(ml.Ensemble(frozen(), 3))}},
        ValueError,
        r"returns float32\[3, 10, 3\] for 10 rows",
    ),
    "no arrays": (
        lambda: {"precompute": {"e": encoder()}, "train": batches},
        TypeError,
        "precompute= needs arrays",
    ),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_errors(kind):
    given, error, match = WRONG[kind]
    with pytest.raises(error, match=match):
        ml.MLData(**({"train": (X, Y)} | given())).part("train")


def test_a_model_that_does_not_fit_x_is_named():
    data = ml.MLData(train=(X[:, :4], Y), precompute={"e": encoder()})
    with pytest.raises(ValueError, match="incompatible") as caught:
        data.part("train")
    note = "precompute['e'], the model '.*',. There x is float32\\[10, 4\\]"
    assert re.search(note.replace("['e']", "\\['e'\\]"), "".join(caught.value.__notes__))


def test_a_class_may_set_it():
    class Own(ml.MLData):
        precompute = {"embeddings": encoder()}  # noqa: RUF012

        def train(self):
            return X, Y

    (x, y) = Own().part("train")
    assert [*x] == ["x", "embeddings"] and y is Y
