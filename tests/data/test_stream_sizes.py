"""Streams: their batch sizes in an MLData, and the weights of their losses in the logs."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Scale

import mlsystem as ml

A = np.arange(7.0, dtype="float32")[:, None]
B = np.arange(5.0, dtype="float32")[:, None] + 1


class Sizes(ml.MLSystem):
    """Notes the batches; nothing is learned."""

    def __init__(self):
        super().__init__()
        self.one = Scale(1.0, keras.optimizers.SGD(0.0))
        self.seen = []

    def forward(self, x):
        self.seen.append([part.shape[0] for part in x.values()])
        return {name: self.one(part)[:, 0] for name, part in x.items()}

    def compute_losses(self, x, y, outputs):
        return {f"of_{name}": out**2 for name, out in outputs.items()}


def eager(kind=Sizes):
    system = kind()
    system.compile(run_eagerly=True)
    return system


def both(a=A, b=B, **given):
    return ml.Streams({"a": a, "b": b}, **({"shuffle": False} | given))


# Batch sizes --------------------------------------------------------------------------------


class WithSize(ml.MLData):
    batch_size = 3

    def train(self):
        return both()


@pytest.mark.parametrize(
    ("data", "given", "sizes"),
    [
        (lambda: ml.MLData(both()), {}, [7, 5]),
        (lambda: ml.MLData(both(), batch_size=3), {}, [3, 3]),
        (lambda: ml.MLData(both(), batch_size=3, transform=lambda x: x), {}, [3, 3]),
        (WithSize, {}, [3, 3]),
        (WithSize, {"batch_size": 2}, [2, 2]),
        (lambda: ml.MLData(both(batch_size={"a": 4}), batch_size=3), {}, [4, 3]),
        (lambda: ml.MLData(both(batch_size=4), batch_size=3), {}, [4, 4]),
    ],
)
def test_streams_have_the_batch_size_of_the_data(data, given, sizes):
    system = eager()
    system.fit(data(), verbose=0, **given)
    assert max(system.seen) == sizes
    system.seen.clear()
    test = ml.MLData(test=data().part("train"), batch_size=data().batch_size)
    system.evaluate(test, verbose=0, **given)
    assert max(system.seen) == sizes


def test_streams_in_streams_have_it_too():
    inner = ml.Streams({"c": both()}, length="min", shuffle=False)
    sized = inner.sized(3)
    assert [len(x["c"]["a"]) for (x,) in sized] == [3, 3, 1] and sized.sized(2) is sized
    assert next(iter(ml.Streams({"c": both()}, 2)))[0]["c"]["b"].shape == (2, 1)


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        (lambda: both(batch_size=2), {"batch_size": 4}, "train data of MLData are Streams with"),
        (
            lambda: both(),
            {"class_weight": {0: 1.0}},
            r"Streams, to which .*class_weight=\{0: 1.0\}",
        ),
        (lambda: lambda: ((A, A) for _ in range(3)), {"class_weight": {0: 1.0}}, "sample_weight"),
    ],
)
def test_what_cannot_take_effect_is_refused_before_training(data, given, words):
    system = Sizes()
    with pytest.raises(ValueError, match=words):
        system.fit(ml.MLData(data()), **given)
    assert not system.built


# The order ----------------------------------------------------------------------------------


def test_streams_in_streams_are_evaluated_in_order():
    data = ml.Streams({"c": ml.Streams({"a": A}, 4)}, length="min")
    assert data.num_batches == 1 and data.in_order().num_batches == 2
    found = [x["c"]["a"].ravel().tolist() for (x,) in data.in_order()]
    assert found == [[0, 1, 2, 3], [4, 5, 6]]


# The weights of losses ----------------------------------------------------------------------

SIZES = {"a": 4, "b": 3}  # in batches of 4 and 3, and of 3 and 2
MEAN_A, MEAN_B = 13.0, 11.0


def logs_of(kind, *data, **compiled):
    system = kind()
    system.compile(**compiled)
    return system, system.evaluate(*data, verbose=0, return_dict=True)


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=["compiled", "eager"])
def test_a_loss_is_weighted_by_the_samples_of_its_stream(compiled):
    system, logs = logs_of(Sizes, both(batch_size=SIZES), **compiled)
    expected = {"of_a_loss": MEAN_A, "of_b_loss": MEAN_B, "loss": MEAN_A + MEAN_B}
    assert logs == pytest.approx(expected, rel=1e-6)
    history = system.fit(
        both(batch_size=SIZES), validation_data=both(batch_size=SIZES), verbose=0
    ).history
    assert {n: history[f"val_{n}"][0] for n in expected} == pytest.approx(expected, rel=1e-6)
    assert history["of_b_loss"] == pytest.approx([MEAN_B], rel=1e-6)


def test_a_scalar_is_weighted_by_the_first_stream():
    class Means(Sizes):
        def compute_losses(self, x, y, outputs):
            return {n: ops.mean(loss) for n, loss in super().compute_losses(x, y, outputs).items()}

    _, logs = logs_of(Means, both(batch_size=SIZES), run_eagerly=True)
    of_b = (4 * np.mean(B[:3] ** 2) + 3 * np.mean(B[3:] ** 2)) / 7
    expected = {"of_a_loss": MEAN_A, "of_b_loss": of_b, "loss": MEAN_A + of_b}
    assert logs == pytest.approx(expected, rel=1e-6)


class Terms(ml.MLModel):
    """Terms of different streams, one of them for each sample."""

    def loss(self, x, y, outputs):
        return {name: out[:, 0] ** 2 for name, out in outputs.items()}


class Members(ml.MLSystem):
    """A loss with terms, and one that compares with targets of its own stream."""

    def __init__(self):
        super().__init__()
        self.terms = Terms(Scale(1.0))
        self.b = ml.MLModel(layers.Dense(1, kernel_initializer="ones"), loss="mse")

    def forward(self, x):
        return {"a": self.terms(x["a"]), "b": self.b(x["b"])}


def test_terms_and_given_losses_are_weighted_by_their_samples():
    data = ml.Streams({"a": (A, 0 * A), "b": (B, 0 * B)}, SIZES, shuffle=False)
    _, logs = logs_of(Members, data, run_eagerly=True)
    found = {name: logs[name] for name in ("terms_a", "terms_b", "b_loss")}
    assert found == pytest.approx({"terms_a": MEAN_A, "terms_b": MEAN_B, "b_loss": MEAN_B})
    assert logs["loss"] == pytest.approx(logs["terms_loss"] + logs["b_loss"])


def test_a_vector_of_no_stream_is_refused():
    class Wrong(Sizes):
        def compute_losses(self, x, y, outputs):
            return {"of": ops.concatenate([outputs["a"], outputs["b"]])}

    with pytest.raises(ValueError, match=r"shape \(7,\) for a batch of 4 or 3 samples"):
        eager(Wrong).fit(both(batch_size=SIZES), verbose=0)
