"""Streams: what is in each batch, where an epoch ends, and that every `fit` takes it."""

import keras
import numpy as np
import pytest
from data_sets import grain, only_tensorflow, only_torch, unsized
from interrupted import Interrupt, Interrupted
from keras import ops
from toys import Target

import mlsystem as ml

BACKEND = keras.backend.backend()

# The host mixes the batches, before an engine sees them.
pytestmark = pytest.mark.once

A, B = np.arange(4.0, dtype="float32")[:, None], np.arange(10.0, 16.0, dtype="float32")[:, None]


def streams(length="cycle", size=2, **given):
    return ml.Streams({"a": A, "b": B}, size, length, **({"shuffle": False} | given))


def seen(data):
    """The numbers in each batch of an epoch, by stream."""
    return [{name: part.ravel().tolist() for name, part in batch[0].items()} for batch in data]


# What is in the batches ---------------------------------------------------------------------


def test_min_stops_with_the_shortest():
    expected = [{"a": [0, 1], "b": [10, 11]}, {"a": [2, 3], "b": [12, 13]}]
    data = streams("min")
    assert seen(data) == seen(data) == expected and data.num_batches == 2


def test_cycle_starts_the_shorter_over():
    expected = [
        {"a": [0, 1], "b": [10, 11]},
        {"a": [2, 3], "b": [12, 13]},
        {"a": [0, 1], "b": [14, 15]},
    ]
    data = streams("cycle")
    assert seen(data) == seen(data) == expected and data.num_batches == 3


def test_sequential_reads_one_after_another():
    parts = [{"a": [0, 1]}, {"a": [2, 3]}, {"b": [10, 11]}, {"b": [12, 13]}, {"b": [14, 15]}]
    data = streams("sequential")
    assert seen(data) == seen(data) == parts and data.num_batches == 5


def test_a_number_of_batches_starts_all_over():
    data = streams(5)
    assert [batch["b"] for batch in seen(data)] == [
        [10, 11],
        [12, 13],
        [14, 15],
        [10, 11],
        [12, 13],
    ]
    assert data.num_batches == 5 and len(seen(data)) == 5


def test_each_stream_has_its_batch_size():
    data = streams("min", {"a": 1, "b": 3})
    assert seen(data) == [{"a": [0], "b": [10, 11, 12]}, {"a": [1], "b": [13, 14, 15]}]
    assert seen(streams("min", {"a": 1}))[0]["b"] == B.ravel().tolist()  # Keras' 32


def test_targets_and_weights_are_those_of_the_streams_that_have_them():
    def parts(**more):
        [batch] = ml.Streams({"a": (A, A, A[:, 0]), "b": (B, B), "c": B} | more, 8, "min")
        return [None if part is None else list(part) for part in batch]

    assert parts() == [["a", "b", "c"], ["a", "b"], ["a"]]
    assert len(next(iter(ml.Streams({"a": (A, A), "c": (B,)})))) == 2
    assert len(next(iter(ml.Streams({"a": A, "c": B})))) == 1


def test_arrays_come_in_another_order_each_time():
    x = np.arange(64.0)[:, None]
    data = ml.Streams({"a": x, "b": np.zeros((128, 1))}, batch_size=64)
    orders = [batch["a"] for _ in range(2) for batch in seen(data)]
    assert all(sorted(order) == x.ravel().tolist() for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    keras.utils.set_random_seed(3)
    again = seen(data)
    keras.utils.set_random_seed(3)
    assert seen(data) == again


def test_shuffling_is_said_by_name():
    x = np.arange(64.0)[:, None]
    [batch] = seen(ml.Streams({"a": x, "b": x}, 64, shuffle={"a": False}))
    assert batch["a"] == x.ravel().tolist() != batch["b"] and sorted(batch["b"]) == batch["a"]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, [4]),
        ({"shuffle": False}, [4, 2]),
        ({"drop_last": False}, [4, 2]),
        ({"shuffle": False, "drop_last": True}, [4]),
        ({"batch_size": 8}, [6]),  # the only one
    ],
)
def test_the_last_batch(given, sizes):
    data = ml.Streams({"b": B}, **({"batch_size": 4} | given))
    assert [len(batch["b"]) for batch in seen(data)] == sizes and data.num_batches == len(sizes)


def test_double_precision_becomes_that_of_keras():
    batches = ml.Streams(
        {"a": A.astype("float64"), "b": lambda: (x for x in [(np.ones(2),)])}, 4, 1
    )
    [batch] = batches
    assert {part.dtype for part in batch[0].values()} == {np.dtype("float32")}


@pytest.mark.each_backend
def test_tensors_of_the_backend_stay_as_they_are():
    tensor = ops.convert_to_tensor(A)
    streams = ml.Streams({"a": lambda: (x for x in [(tensor, tensor)]), "b": B}, 4, 1)
    [(x, y)] = streams
    assert x["a"] is tensor is y["a"] and isinstance(x["b"], np.ndarray)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no double precision by default")
def test_double_precision_of_tensors_becomes_that_of_keras():
    double = ops.convert_to_tensor(A.astype("float64"))
    [(x,)] = ml.Streams({"a": lambda: (x for x in [(double,)])}, length=1)
    assert keras.backend.standardize_dtype(x["a"].dtype) == "float32"


# Data sets of every kind --------------------------------------------------------------------


class Parts(keras.utils.PyDataset):
    """Counts the epochs it was told of."""

    def __init__(self, x, **given):
        super().__init__(**given)
        self.x, self.epochs = x, 0

    def __len__(self):
        return len(self.x) // 2

    def __getitem__(self, i):
        return (self.x[2 * i : 2 * i + 2],)

    def on_epoch_end(self):
        self.epochs += 1


def tf_data(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x,)).batch(2)


def torch_loader(x):
    import torch

    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.as_tensor(x)), 2)


def pairs(x):
    return ((x[i : i + 2],) for i in range(0, len(x), 2))


KINDS = [
    pytest.param(lambda x: x, id="arrays"),
    pytest.param(lambda x: lambda: x, id="function"),
    pytest.param(lambda x: lambda: pairs(x), id="generator function"),
    pytest.param(Parts, id="PyDataset"),
    pytest.param(lambda x: Parts(x, workers=2), id="PyDataset with workers"),
    pytest.param(tf_data, id="tf.data", marks=only_tensorflow),
    pytest.param(torch_loader, id="DataLoader", marks=only_torch),
]


class Both(ml.MLSystem):
    """The weight of each of its two models goes towards where the mean of its stream is 0."""

    routing = "own"

    def __init__(self):
        super().__init__()
        sgd = keras.optimizers.SGD
        self.a, self.b = Target(1.0, optimizer=sgd(0.01)), Target(2.0, optimizer=sgd(0.01))

    def forward(self, x):
        x = x.get("c", x)
        return {n: getattr(self, n)(x[n] if n in x else ops.zeros((1, 1))) for n in "ab"}


def trained(data, compiled=None, **given):
    keras.utils.set_random_seed(1)
    system = Both()
    system.compile(**(compiled or {}))
    history = system.fit(data, **({"epochs": 2, "verbose": 0} | given)).history
    return [*map(float, system.get_weights()), int(system.optimizer.iterations)], history


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    assert list(found[1]) == list(expected[1])
    np.testing.assert_allclose(found[1]["loss"], expected[1]["loss"], rtol=1e-5)


SCALED = {"a": A / 4, "b": B / 8}


def check_mixture(kind, length, batches):
    expected = trained(ml.Streams(SCALED, 2, length, shuffle=False))
    mixed = {"a": kind(SCALED["a"]), "b": SCALED["b"]}
    assert_same(trained(ml.Streams(mixed, 2, length, shuffle=False)), expected)
    assert expected[0][-1] == 2 * batches


@pytest.mark.parametrize("kind", KINDS)
def test_fit_takes_any_mixture(kind):
    check_mixture(kind, 3, batches=3)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # nobody knows the length
@pytest.mark.parametrize("kind", [Parts, lambda x: lambda: pairs(x)], ids=["known", "unknown"])
def test_fit_takes_one_after_another(kind):
    check_mixture(kind, "sequential", batches=5)


@unsized
def test_data_sets_of_unknown_length():
    rows = np.tile(np.arange(10.0, dtype="float32")[:, None], 2) / 10
    data = ml.Streams({"a": lambda: pairs(A), "b": grain(rows[:, :1])}, length="min")
    assert data.num_batches is None
    assert trained(data)[0][-1] == 4


def test_a_stream_of_streams():
    inner = ml.Streams(SCALED, 2, "min", shuffle=False)
    outer = ml.Streams({"c": inner}, length="min")
    assert_same(trained(outer), trained(inner))


def test_a_data_set_hears_of_its_epochs():
    x = Parts(A)
    x.epochs = 0
    list(ml.Streams({"a": x, "b": np.zeros((10, 1))}, 2, shuffle=False))
    assert x.epochs == 3  # two whole ones, and one that the longer stream broke off


@pytest.mark.parametrize("length", ["min", "cycle", "sequential", 4])
@pytest.mark.parametrize("compiled", [{"run_eagerly": True}, {"steps_per_execution": 2}], ids=str)
def test_compiled_and_eager_agree(length, compiled):
    def data():
        return ml.Streams(SCALED, {"a": 1, "b": 2}, length)

    expected, found = trained(data()), trained(data(), compiled)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1]["loss"], expected[1]["loss"], rtol=1e-5)


class Apart(ml.MLSystem):
    """Trains the layer of the stream that is in the batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = keras.layers.Dense(1), keras.layers.Dense(1)

    def forward(self, x):
        return {name: getattr(self, name)(part) for name, part in x.items()}

    def compute_losses(self, x, y, outputs):
        return {name: ops.mean(part**2) for name, part in outputs.items()}

    def train_step(self, data):
        self.update(data, models=list(data[0]))
        return self.get_metrics_result()


@pytest.mark.each_backend
def test_sequential_streams_build_and_log_each_of_their_own():
    data = streams("sequential")
    for prepare in (lambda: Apart(), lambda: ml.setup(Apart(), data)):
        system = prepare()
        logs = system.fit(data, verbose=0).history
        assert len(system.weights) == 4 and {"loss", "a_loss", "b_loss"} <= set(logs)


@pytest.mark.each_backend
def test_streams_validate_evaluate_and_predict():
    data = ml.Streams(SCALED, 2, "min", shuffle=False)
    system = ml.setup(Both(), data)
    expected = system.evaluate({name: x[:4] for name, x in SCALED.items()}, batch_size=2, verbose=0)
    np.testing.assert_allclose(system.evaluate(data, verbose=0), expected, rtol=1e-6)
    np.testing.assert_allclose(system.predict(data, verbose=0)["b"], 2 * SCALED["b"][:4], rtol=1e-6)
    logs = system.fit(data, validation_data=data, verbose=0).history
    assert {"val_loss", "val_a_loss"} <= set(logs)


def test_the_length_is_known_to_callbacks():
    lengths = []
    note = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: lengths.append(note.params))
    trained(streams(7), callbacks=[note])
    assert lengths[0]["steps"] == 7


# Going on from a checkpoint -----------------------------------------------------------------

RESUMED = {
    "cycle": lambda: ml.Streams(SCALED, {"a": 1, "b": 2}),
    "min": lambda: ml.Streams(SCALED, {"a": 1, "b": 2}, "min"),
    "sequential": lambda: ml.Streams(SCALED, 1, "sequential"),
    "PyDataset": lambda: ml.Streams({"a": Shuffled(), "b": B / 8}, 2, 4),
    "generator": lambda: ml.Streams({"a": endless(), "b": B / 8}, 2, 4),
}


class Shuffled(Parts):
    def __init__(self):
        super().__init__(A / 4)
        self.order, self.generator = np.arange(4), np.random.default_rng(0)

    def __getitem__(self, i):
        rows = self.x[self.order[2 * i : 2 * i + 2]]
        return (rows + self.generator.normal(size=rows.shape).astype("float32") / 9,)

    def on_epoch_end(self):
        self.generator.shuffle(self.order)


def endless():
    rng = np.random.default_rng(1)
    while True:
        yield (rng.normal(size=(2, 1)).astype("float32"),)


@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(kind, tmp_path):
    def run(folder, *more):
        callbacks = [ml.callbacks.Checkpoint(folder, every=1), *more]
        return trained(RESUMED[kind](), epochs=3, callbacks=callbacks, resume=folder)

    for stop in (5, 2):
        with pytest.raises(Interrupted):
            run(tmp_path / "broken", Interrupt(stop))
    assert run(tmp_path / "broken") == run(tmp_path / "whole")


# What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"streams": {}}, ValueError, "by name"),
        ({"streams": [A, B]}, ValueError, "by name"),
        ({"length": "max"}, ValueError, "'max'.*'min', 'cycle', 'sequential'"),
        ({"length": 0}, ValueError, "length=0"),
        ({"batch_size": {"c": 2}}, ValueError, "batch_size names 'c'.*'a', 'b'"),
        ({"batch_size": {"a": 0}}, ValueError, "batch_size=0 for 'a'"),
        ({"shuffle": {"c": True}}, ValueError, "shuffle names 'c'"),
        ({"streams": {"a": Parts(A)}, "batch_size": {"a": 2}}, ValueError, "makes its own batches"),
        ({"streams": {"a": A[:0], "b": B}}, ValueError, "'a' is empty"),
        ({"streams": {"a": 3}}, TypeError, "stream 'a' is int, which"),
        ({"streams": {"a": (A, "text")}}, TypeError, r"\(ndarray, str\)"),
        ({"streams": {"a": (A, A, A, A)}}, TypeError, r"\(ndarray, ndarray, ndarray, ndarray\)"),
        ({"streams": {"a": A, "b": pairs(B)}}, ValueError, "'b' has no known length.*length=N"),
        ({"streams": {"a": A, "b": lambda: pairs(B)}}, ValueError, "'b' has no known length"),
    ],
)
def test_arguments_are_checked(wrong, error, words):
    with pytest.raises(error, match=words):
        ml.Streams(**({"streams": {"a": A, "b": B}} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"y": A}, {"sample_weight": A}, {"batch_size": 2}, {"class_weight": {0: 1.0}}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_streams_bring_themselves_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}= beside Streams"):
        Both().fit(streams(), **wrong)


def test_a_stream_that_yields_nothing_is_named_before_training():
    data = ml.Streams({"a": A, "b": lambda: pairs(B[:0])}, 2, "min")
    with pytest.raises(ValueError, match="'b' is empty"):
        Both().fit(data, verbose=0)


def test_a_generator_cannot_start_over():
    data = ml.Streams({"a": A / 4, "b": pairs(B / 8)}, 2, 4)
    with pytest.raises(ValueError, match="'b' ended after 3 batches, and a generator cannot start"):
        Both().fit(data, verbose=0)


class Reads(ml.MLSystem):
    """loss = mean(a w)."""

    def __init__(self):
        super().__init__()
        self.target = Target(1.0, optimizer=keras.optimizers.SGD(0.1))

    def forward(self, x):
        return self.target(x["a"])

    def compute_losses(self, x, y, outputs):
        return {"target": ops.mean(outputs**2)}


@pytest.mark.filterwarnings("ignore:'reads.*' has no trainable weights")
def test_nothing_is_shuffled_or_left_out_in_an_evaluation():
    x = np.arange(7.0, dtype="float32")[:, None]
    data = ml.Streams({"a": x}, batch_size=4)
    assert data.num_batches == 1 and data.in_order().num_batches == 2
    assert seen(data.in_order()) == seen(data.in_order()) == [{"a": [0, 1, 2, 3]}, {"a": [4, 5, 6]}]
    system = Reads()
    losses = [
        system.evaluate(given, return_dict=True, verbose=0)["loss"]
        for given in (data, ml.MLData(test=data), ml.MLData(test=data, transform=lambda x: x))
    ]
    assert losses == pytest.approx([13.0, 13.0, 13.0])
    system.target.trainable = False
    for given in (data, {"name": data}):
        history = system.fit(data, validation_data=given, verbose=0).history
        assert history["val_name_loss" if given is not data else "val_loss"] == pytest.approx(
            [13.0]
        )


def test_fit_may_ask_for_the_order():
    x = np.arange(1.0, 8.0, dtype="float32")[:, None] / 7

    def trained(data, **given):
        system = Reads()
        system.fit(data, shuffle=False, verbose=0, **given)
        return system.get_weights()

    expected = trained({"a": x}, batch_size=2)
    data = ml.Streams({"a": x}, batch_size=2)
    assert trained(data) == trained(ml.MLData(data)) == expected
