"""MLData: the parts of the data of a system, and what is done to each batch of them."""

import functools

import keras
import numpy as np
import pytest
from data_sets import WEIGHT, X, Y
from interrupted import Interrupt, Interrupted
from keras import layers, ops
from toys import Pair, Scale, number

import mlsystem as ml
from mlsystem.fit import data_arguments

PLAIN = {"verbose": 0, "shuffle": False}


class Linear(ml.MLSystem):
    def __init__(self):
        super().__init__()
        net = layers.Dense(1, kernel_initializer="ones")
        self.net = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.SGD(0.1))

    def forward(self, x, training=None):
        return {"net": self.net(x)}


def trained(*data, system=Linear, **given):
    keras.utils.set_random_seed(0)
    system = system()
    history = system.fit(*data, **(PLAIN | {"epochs": 2} | given)).history
    return system.get_weights(), history


# Many tests compare with the same training: on the arrays and weights that a transform leaves.
@functools.cache
def from_arrays(kind=None):
    x, y, weight = (X, Y, WEIGHT) if kind is None else TRANSFORMS[kind][1]
    validation = {} if kind is None else {"validation_data": (x, y, weight)}
    return trained(x, y, sample_weight=weight, batch_size=4, **validation)


def assert_same(found, expected, rtol=1e-6):
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)
    assert list(found[1]) == list(expected[1])
    for name, values in found[1].items():
        np.testing.assert_allclose(values, expected[1][name], rtol=max(rtol, 1e-5))


# The parts ----------------------------------------------------------------------------------


class Parts(ml.MLData):
    """Notes what is called."""

    batch_size = 4

    def __init__(self, **given):
        super().__init__(**given)
        self.calls = []

    def prepare(self):
        self.calls.append("prepare")
        self.x, self.y = X, Y

    def train(self):
        self.calls.append("train")
        return self.x[:6], self.y[:6]

    def validation(self):
        self.calls.append("validation")
        return self.x[6:], self.y[6:]

    def test(self):
        self.calls.append("test")
        return self.x[4:], self.y[4:], WEIGHT[4:]


@pytest.mark.once
def test_each_part_is_made_once_and_when_it_is_needed():
    data, system = Parts(), Linear()
    assert data.calls == []
    system.evaluate(data, verbose=0)
    assert data.calls == ["prepare", "test"]
    for _ in range(2):
        system.fit(data, **PLAIN)
    assert data.calls == ["prepare", "test", "train", "validation"]


@pytest.mark.once
def test_fit_and_evaluate_take_the_parts():
    whole = {"batch_size": 4, "validation_data": (X[6:], Y[6:])}
    expected = trained(X[:6], Y[:6], **whole)
    assert "val_loss" in expected[1]
    given = ml.MLData((X[:6], Y[:6]), lambda: (X[6:], Y[6:]), batch_size=4)
    for data in (Parts(), given):
        assert_same(trained(data), expected)
    assert_same(trained(Parts(), batch_size=2), trained(X[:6], Y[:6], **whole | {"batch_size": 2}))
    other = {"validation_data": (X[:2], Y[:2])}
    assert_same(trained(Parts(), **other), trained(X[:6], Y[:6], **whole | other))
    system, test = Linear(), (X[4:], Y[4:])
    expected = system.evaluate(*test, sample_weight=WEIGHT[4:], batch_size=4, verbose=0)
    np.testing.assert_allclose(system.evaluate(Parts(), verbose=0), expected, rtol=1e-6)
    expected = system.evaluate(X[6:], Y[6:], verbose=0)  # without test data
    np.testing.assert_allclose(system.evaluate(given, verbose=0), expected, rtol=1e-6)


@pytest.mark.once
def test_class_weights_and_orders_are_as_in_keras():
    labels = np.arange(10) % 2
    given = {"class_weight": {0: 0.5, 1: 3.0}, "shuffle": True, "batch_size": 10}
    expected = trained(X, labels[:, None], **given)
    for more in ({}, {"transform": lambda x: x}):
        assert_same(trained(ml.MLData((X, labels[:, None]), **more), **given), expected, 1e-5)


def dataset(*parts):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return tuple(part[4 * i : 4 * i + 4] for part in parts)

    return Batches()


def generator(*parts):
    while True:
        yield from (tuple(part[i : i + 4] for part in parts) for i in range(0, 10, 4))


KINDS = {
    "arrays": lambda: (X, Y, WEIGHT),
    "PyDataset": lambda: dataset(X, Y, WEIGHT),
    "generator": lambda: generator(X, Y, WEIGHT),
    "generator function": lambda: lambda: generator(X, Y, WEIGHT),
}
on_host, on_device = (
    {"transform": lambda x: x},
    {"transform": lambda x: x, "transform_on_device": True},
)
MORE = [
    pytest.param({}, id="plain", marks=pytest.mark.once),
    pytest.param(on_host, id="host", marks=pytest.mark.once),
    pytest.param(on_device, id="device"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", MORE)
def test_each_kind_of_data(kind, more):
    expected = from_arrays()
    steps = {"steps_per_epoch": 3} if "generator" in kind else {}
    assert_same(trained(ml.MLData(KINDS[kind](), batch_size=4, **more), **steps), expected)


@pytest.mark.parametrize("more", MORE)
def test_streams_are_data(more):
    streams = {"x": (X, Y), "z": X}

    class Two(Linear):
        def forward(self, x, training=None):
            return {"net": self.net(x["x"]) + ops.mean(x["z"])}

        def compute_losses(self, x, y, outputs):
            return {"net": ops.mean((y["x"] - outputs["net"]) ** 2)}

    def data():
        return ml.Streams(streams, {"x": 2, "z": 5}, shuffle=False)

    found = trained(ml.MLData(data(), data(), **more), system=Two)
    assert_same(found, trained(data(), validation_data=data(), system=Two))


# Several sets -------------------------------------------------------------------------------

SETS = {"clean": (X[6:], Y[6:]), "noisy": (X[:4] + 1, Y[:4])}


def fit_arguments(data):
    given = dict.fromkeys(("x", "y", "sample_weight", "class_weight", "validation_data"))
    given |= {"validation_split": 0.0, "batch_size": None, "shuffle": True}
    given |= {"validation_batch_size": None, "x": data}
    data_arguments.for_fit(Linear(), given)
    return given


@pytest.mark.once
def test_several_validation_sets_are_handed_to_fit_by_name():
    given = fit_arguments(ml.MLData((X, Y), SETS, batch_size=4))
    assert list(given["validation_data"]) == ["clean", "noisy"]
    assert given["validation_data"]["clean"] is SETS["clean"]
    assert given["batch_size"] == given["validation_batch_size"] == 4
    given = fit_arguments(ml.MLData((X, Y), SETS, transform=lambda x: -x))
    [(x, _)] = given["validation_data"]["noisy"]
    np.testing.assert_array_equal(x, -SETS["noisy"][0])


@pytest.mark.once
def test_a_dict_of_arrays_is_one_set_of_inputs():
    inputs = {"left": X, "right": X}
    given = fit_arguments(ml.MLData(inputs, inputs))
    assert given["x"] is inputs and given["validation_data"] == (inputs,)


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.once
def test_several_sets_are_evaluated_one_by_one(part):
    system, data = Linear(), ml.MLData(**{part: SETS}, transform=lambda x: 2 * x)
    logs = system.evaluate(data, verbose=0, return_dict=True)
    assert list(logs) == ["clean_loss", "clean_net_loss", "noisy_loss", "noisy_net_loss"]
    for name, (x, y) in SETS.items():
        expected = system.evaluate(2 * x, y, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs[f"{name}_net_loss"], expected["net_loss"], rtol=1e-5)
    np.testing.assert_allclose(system.evaluate(data, verbose=0), [*logs.values()], rtol=1e-5)


# Transforms ---------------------------------------------------------------------------------

# On the host, no engine sees a transform.
host_and_device = pytest.mark.parametrize(
    "on_device",
    [pytest.param(False, id="host", marks=pytest.mark.once), pytest.param(True, id="device")],
)


def half(x):
    return x / 2


def both(x, y):
    return x / 2, y + 1


def all_three(x, y, sample_weight):
    return x, y, sample_weight * 2


def by_keywords(**given):
    return given["x"] / 2, given["y"]


TRANSFORMS = {
    "x": (half, (X / 2, Y, WEIGHT)),
    "x and y": (both, (X / 2, Y + 1, WEIGHT)),
    "weights": (all_three, (X, Y, 2 * WEIGHT)),
    "keywords": (by_keywords, (X / 2, Y, WEIGHT)),
    "layer": (layers.Rescaling(0.5), (X / 2, Y, WEIGHT)),
    "list": ([half, layers.Rescaling(0.5), both], (X / 8, Y + 1, WEIGHT)),
    "a new weight": (lambda x, y: (x, y, ops.ones_like(y[:, 0]) / 2), (X, Y, 0.5 + 0 * WEIGHT)),
}


@host_and_device
@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.spread
def test_a_transform_takes_and_returns_what_it_names(kind, on_device):
    expected, whole = from_arrays(kind), (X, Y, WEIGHT)
    given = {"batch_size": 4, "transform": TRANSFORMS[kind][0], "transform_on_device": on_device}
    assert_same(trained(ml.MLData(whole, whole, **given)), expected, 1e-5)


class Shifted(Parts):
    """Adds 1 to what is trained on, and nothing to other data."""

    def transform(self, x, training):
        assert training in (True, False)
        return x + (1.0 if training else 0.0)


@host_and_device
def test_training_is_said_to_functions_and_layers(on_device):
    class Shift(layers.Layer):
        def call(self, x, training=None):
            return x + (1.0 if training else 0.0)

    given = {"batch_size": 4, "validation_data": (X[6:], Y[6:])}
    expected = trained(X[:6] + 1, Y[:6], **given)
    parts = {"train": (X[:6], Y[:6]), "validation": (X[6:], Y[6:]), "batch_size": 4}
    data = [Shifted(transform_on_device=on_device)]
    data += [ml.MLData(**parts, transform=Shift(), transform_on_device=on_device)]
    for each in data:
        assert_same(trained(each), expected)
    system = Linear()
    expected = system.evaluate(X[4:], Y[4:], sample_weight=WEIGHT[4:], batch_size=4, verbose=0)
    np.testing.assert_allclose(system.evaluate(data[0], verbose=0), expected, rtol=1e-6)


@host_and_device
def test_weights_are_built_from_transformed_shapes(on_device):
    def wide(x):
        return ops.concatenate([x, x, x], axis=-1)

    data = ml.MLData((X, Y), transform=wide, transform_on_device=on_device, batch_size=4)
    expected = trained(np.tile(X, 3), Y, batch_size=4)
    assert_same(trained(data), expected, 1e-5)
    assert ml.setup(Linear(), data).net.net.kernel.shape == (6, 1)
    assert Linear().setup(data).net.net.kernel.shape == (6, 1)


@host_and_device
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}])
def test_steps_of_ones_own_get_transformed_batches(on_device, compiled):
    class Own(Pair):
        def train_step(self, data):
            self.log("mean", data[0])
            return super().train_step(data)

        def test_step(self, data):
            self.log("mean", data[0])
            return super().test_step(data)

    system = Own()
    system.compile(**compiled)
    ones = np.ones((6, 1), "float32")
    data = ml.MLData((ones,), (ones,), transform=lambda x: 3 * x, transform_on_device=on_device)
    logs = system.fit(data, batch_size=2, verbose=0).history
    assert logs["mean"] == logs["val_mean"] == [3.0]


class Noisy(ml.MLData):
    """Replaces what is trained on by noise."""

    def __init__(self, n=12, **given):
        super().__init__(**given)
        self.seed, self.x = keras.random.SeedGenerator(3), np.zeros((n, 1), "float32")

    def train(self):
        return (self.x,)

    validation = train

    def transform(self, x, training=None):
        return keras.random.normal(ops.shape(x), seed=self.seed) if training else x + 1


class Seen(ml.MLSystem):
    """Keeps the mean of the last batch."""

    def __init__(self):
        super().__init__()
        self.one = Scale(1.0, keras.optimizers.SGD(0.0))
        self.last = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def forward(self, x, training=None):
        self.last.assign(ops.mean(x))
        return self.one(x)

    def compute_losses(self, x, y, outputs):
        return {"one": ops.mean(outputs)}


def means(data, epochs=2, **compiled):
    """What the batches of a fit held."""
    found, system = [], Seen()
    system.compile(**compiled)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: found.append(number(system.last))
    )
    system.fit(data, batch_size=4, epochs=epochs, callbacks=[note], **PLAIN)
    return found


@host_and_device
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=["compiled", "eager"])
def test_noise_is_fresh_at_each_batch(on_device, compiled):
    found = means(Noisy(transform_on_device=on_device), **compiled)
    assert len(set(found)) == 6
    layer = layers.GaussianNoise(1.0, seed=4)
    zeros = np.zeros((12, 1), "float32")
    data = ml.MLData((zeros,), transform=layer, transform_on_device=on_device)
    assert len(set(means(data, **compiled))) == 6


def test_host_and_device_draw_the_same():
    host, device = (means(Noisy(transform_on_device=on_device)) for on_device in (False, True))
    np.testing.assert_allclose(host, device, rtol=1e-5)


@host_and_device
def test_other_data_is_not_transformed(on_device):
    system, data = (
        Linear(),
        ml.MLData((X, Y), test=(X, Y), transform=half, transform_on_device=on_device),
    )
    plain = system.evaluate(X, Y, verbose=0)
    transformed = system.evaluate(data, verbose=0)
    np.testing.assert_allclose(transformed, system.evaluate(X / 2, Y, verbose=0), rtol=1e-6)
    assert not np.allclose(plain, transformed)
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(system.evaluate(data, verbose=0))
    )
    system.fit(X, Y, callbacks=[note], **PLAIN)  # evaluated inside a fit on other data
    np.testing.assert_allclose(seen[0], transformed, rtol=1e-6)
    expected = trained(X, Y, epochs=1)
    assert_same(([*system.get_weights()], {}), (expected[0], {}))


@host_and_device
def test_predict_takes_the_inputs_of_the_test_data(on_device):
    system = Linear()
    data = ml.MLData(test=(X, Y), transform=half, transform_on_device=on_device, batch_size=4)
    expected = X.sum(axis=1, keepdims=True) / 2
    np.testing.assert_allclose(system.predict(data, verbose=0)["net"], expected, rtol=1e-4)
    plain = ml.MLData(test=(X, Y))
    np.testing.assert_allclose(Linear().predict(plain, verbose=0)["net"], 2 * expected, rtol=1e-4)


# A system with data of its own --------------------------------------------------------------


@pytest.mark.once
def test_a_system_may_have_data_of_its_own():
    class Owner(Linear):
        asked = 0

        def data(self):
            self.asked += 1
            return Parts()

    system = Owner()
    assert ml.setup(system).net.built
    system.fit(**PLAIN)
    logs = system.evaluate(verbose=0)
    assert system.asked == 1 and logs == system.evaluate(Parts(), verbose=0)
    assert system.predict(verbose=0)["net"].shape == (6, 1)


@pytest.mark.once
def test_the_data_of_a_system_may_be_anything_that_fit_takes():
    class Owner(Linear):
        def data(self):
            return X, Y

    assert_same(trained(system=Owner), trained(X, Y))
    assert Owner().evaluate(verbose=0) == Linear().evaluate(X, Y, verbose=0)
    attribute = Linear()
    attribute.data = ml.MLData((X, Y))
    attribute.fit(**PLAIN)

    class Alone(ml.MLModel):
        def data(self):
            return X, Y

    Alone(layers.Dense(1), loss="mse").fit(**PLAIN)


# Going on from a checkpoint -----------------------------------------------------------------


@host_and_device
@pytest.mark.parametrize("layered", [False, True], ids=["function", "layer"])
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(on_device, layered, tmp_path):
    def run(folder, *more):
        keras.utils.set_random_seed(0)
        zeros = np.arange(12.0, dtype="float32")[:, None] / 12
        noise = layers.GaussianNoise(0.1, seed=4)
        given = {"transform_on_device": on_device}
        data = ml.MLData((zeros,), transform=noise, **given) if layered else Noisy(**given)
        system = Pair()
        callbacks = [ml.callbacks.Checkpoint(folder, every=1), *more]
        given = {"batch_size": 4, "epochs": 3, "verbose": 0, "callbacks": callbacks}
        history = system.fit(data, resume=folder, **given).history
        return [number(weight) for weight in system.weights], history["loss"]

    for stop in (4, 2):
        with pytest.raises(Interrupted):
            run(tmp_path / "broken", Interrupt(stop))
    assert run(tmp_path / "broken") == run(tmp_path / "whole")


# What is refused ----------------------------------------------------------------------------


class Wrong(ml.MLData):
    def train(self):
        return X, Y


@pytest.mark.parametrize(
    ("data", "given", "error", "words"),
    [
        (lambda: ml.MLData(test=(X, Y)), {}, ValueError, "MLData has no training data"),
        (lambda: ml.MLData((X, Y)), {"y": Y}, ValueError, "y= beside MLData"),
        (lambda: ml.MLData((X, Y)), {"sample_weight": Y}, ValueError, "sample_weight= beside"),
        (lambda: ml.MLData((X, Y)), {"validation_split": 0.5}, ValueError, "validation_split"),
        (lambda: (X, Y), {"validation_data": ml.MLData((X, Y))}, TypeError, "Give it as x"),
        (lambda: ml.MLData(SETS), {}, ValueError, "ml.Streams"),
        (lambda: ml.MLData(3), {}, TypeError, "train data of MLData is int"),
        (lambda: ml.MLData((X, Y), "text"), {}, TypeError, "validation data of MLData is str"),
        (lambda: None, {}, ValueError, "fit needs data.*Linear"),
    ],
)
@pytest.mark.once
def test_fit_says_what_is_wrong(data, given, error, words):
    system = Linear()
    with pytest.raises(error, match=words):
        system.fit(data(), **given)
    assert not system.built


@host_and_device
@pytest.mark.parametrize(
    ("transform", "error", "words"),
    [
        (lambda x: None, ValueError, "returned None"),
        (lambda x: "text", ValueError, "returned text"),
        (lambda x: (x, x, x, x), ValueError, "Return a batch"),
        (lambda x: 3.0, ValueError, "returned 3.0"),
        (lambda x: x[:2], ValueError, "of 2, 4 samples"),
        (lambda images: images, TypeError, "asks for 'images'"),
        ("text", TypeError, "transform got 'text'"),
        (layers.Dense, TypeError, "Give a function"),
    ],
)
@pytest.mark.once
def test_a_transform_that_is_wrong_is_told_before_training(transform, error, words, on_device):
    given = {"transform": transform, "transform_on_device": on_device}
    system = Linear()
    with pytest.raises(error, match=words):
        system.fit(ml.MLData((X, Y), batch_size=4, **given), **PLAIN)
    assert not system.built


def test_a_transform_on_the_host_is_given_arrays():
    def flipped(x):
        assert isinstance(x, np.ndarray)
        return x[:, ::-1].copy()

    data = ml.MLData((X, Y), transform=flipped)
    assert_same(trained(data, shuffle=False), trained(X[:, ::-1].copy(), Y, shuffle=False))
    system = Linear()
    system.gradient_report(data)
    system.evaluate(ml.MLData(test=(X, Y), transform=flipped), verbose=0)
    tensors = tuple(map(ops.convert_to_tensor, (X, Y)))
    made = ml.MLData(lambda: (batch for batch in [tensors]), transform=flipped)
    system.fit(made, steps_per_epoch=1, **PLAIN)


@pytest.mark.once
def test_what_is_missing_or_unknown():
    with pytest.raises(ValueError, match="has no test or validation data"):
        Linear().evaluate(ml.MLData((X, Y)))
    with pytest.raises(ValueError, match="has no test data"):
        Linear().setup((X, Y)).predict(ml.MLData((X, Y)))
    with pytest.raises(ValueError, match="several sets: clean, noisy"):
        Linear().setup((X, Y)).predict(ml.MLData(test=SETS))
    with pytest.raises(ValueError, match=r"no part 'valid'.*train, validation, test"):
        ml.MLData((X, Y)).part("valid")
    with pytest.raises(ValueError, match="MLData has batch_size=0; give a number"):
        ml.MLData(X, batch_size=0)
    with pytest.raises(ValueError, match="has its own `train`"):
        Wrong(train=(X, Y))
    with pytest.raises(ValueError, match="has no data"):
        Linear().setup(ml.MLData())
    with pytest.raises(ValueError, match="setup needs data"):
        ml.setup(Linear())
    with pytest.raises(ValueError, match="cannot be called 'data'"):
        Linear().data = layers.Dense(1)
