"""What the data of a system and its transform draw from is kept, and validation leaves it alone."""

import functools
import random

import keras
import numpy as np
import pytest
from interrupted import Interrupt, Interrupted
from keras import layers, ops
from toys import Target, number

import mlsystem as ml
from mlsystem.data import transform_generators
from mlsystem.data.transforms import Transform

X = np.arange(12.0, dtype="float32")[:, None] / 12


class Two(ml.MLSystem):
    """A weight for each stream."""

    routing = "own"

    def __init__(self):
        super().__init__()
        sgd = keras.optimizers.SGD
        self.a, self.b = Target(1.0, optimizer=sgd(0.01)), Target(2.0, optimizer=sgd(0.01))

    def forward(self, x):
        return {name: getattr(self, name)(x[name]) for name in "ab"}


class Noisy(ml.MLData):
    """Streams with noise, from a generator of Keras and, before the step, one of NumPy."""

    def __init__(self, **given):
        super().__init__(**given)
        self.seed, self.rng = keras.random.SeedGenerator(3), np.random.default_rng(0)

    def train(self):
        return ml.Streams({"a": X, "b": 2 * X[:10]}, batch_size={"a": 4, "b": 3})

    def validation(self):
        return {name: ml.Streams({"a": X, "b": X + 1}, 6) for name in ("clean", "noisy")}

    def transform(self, x):
        noise = keras.random.normal((1, 1), seed=self.seed)
        if not self.transform_on_device:
            noise = noise + float(self.rng.normal())
        return {name: ops.add(part, noise) for name, part in x.items()}


class Unvalidated(Noisy):
    def validation(self):
        return None


def run(folder, stop=None, on_device=False, every=1, **given):
    """Weights, logs and the CSV file of three epochs of three batches."""
    folder.mkdir(exist_ok=True)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    system, rows = Two(), keras.callbacks.CSVLogger(folder / "rows.csv")
    system.compile(run_eagerly=on_device or "validation_every" not in given)
    checkpoint = ml.callbacks.Checkpoint(folder / "run", every=every)
    last = [Interrupt(stop)] if stop else []
    given = {"epochs": 3, "verbose": 0, "callbacks": [rows, checkpoint, *last]} | given
    try:
        data = Noisy(transform_on_device=on_device)
        history = system.fit(data, **given, resume=folder / "run")
    finally:
        if rows.csv_file:
            rows.csv_file.close()
    logs = history.history, getattr(history, "validations", None)
    return [number(w) for w in system.weights], logs, (folder / "rows.csv").read_bytes()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    "given", [{"validation_every": 2}, {}, {"steps_per_epoch": 2}], ids=["every", "epoch", "steps"]
)
@pytest.mark.spread
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(given, on_device, tmp_path):
    whole = run(tmp_path / "whole", on_device=on_device, **given)
    for every, stops in ((1, (5, 2)), ("epoch", (4,))):
        folder = tmp_path / f"broken {every}"
        for stop in stops:
            with pytest.raises(Interrupted):
                run(folder, stop, on_device, every, **given)
        assert run(folder, None, on_device, every, **given) == whole


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_training_does_not_feel_what_validation_draws(on_device):
    def trained(kind, **given):
        keras.utils.set_random_seed(0)
        system = Two()
        history = system.fit(kind(transform_on_device=on_device), epochs=2, verbose=0, **given)
        logs = {name: v for name, v in history.history.items() if not name.startswith("val_")}
        return [number(w) for w in system.weights], logs

    assert trained(Noisy, validation_every=2) == trained(Unvalidated)


# What is found --------------------------------------------------------------------------------

GLOBAL = random.Random(0)


class Augmenter:
    def __init__(self):
        self.inner = {"rng": np.random.RandomState(1)}

    def __call__(self, x):
        return x + self.inner["rng"].normal(size=x.shape)


class OfClass:
    rng = np.random.default_rng(3)

    def apply(self, x):
        return x + self.rng.normal()


class Helped:
    def apply(self, x):
        return self.help(x)

    def help(self, x):
        return x + GLOBAL.random()


def uses_global(x):
    return sum(x + GLOBAL.random() for _ in range(1))


def shifted(x, rng):
    return x + rng.normal()


def uses_closure():
    rng = np.random.default_rng(2)
    return lambda x: x + rng.normal()


def uses_default():
    def shift(x, rng=np.random.default_rng(2)):  # noqa: B008 -- one for all calls
        return x + rng.normal()

    return shift


def kinds():
    rng = np.random.default_rng(2)
    return {
        "object": Augmenter(),
        "method": Augmenter().__call__,
        "global": uses_global,
        "closure": uses_closure(),
        "partial": functools.partial(shifted, rng=rng),
        "bound": rng.normal,
        "class": OfClass().apply,
        "helper": Helped().apply,
        "default": uses_default(),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_generator_is_found_wherever_it_is_held(kind):
    found = transform_generators.find([kinds()[kind]])
    assert len(found) == 1 and all(map(transform_generators.is_generator, found.values()))


def test_the_generators_of_data_are_found_with_their_variables():
    data = Noisy()
    found = list(transform_generators.find([data.transform]).values())
    assert len(found) == 2 and any(f is data.rng for f in found)
    flip = Transform([layers.RandomFlip(seed=1), layers.Rescaling(2.0)])
    assert len(transform_generators.find(flip.given)) == len(flip.variables) == 1


def test_a_rehearsal_draws_nothing():
    data = Noisy()
    before = data.rng.bit_generator.state
    ml.setup(Two(), data)
    assert data.rng.bit_generator.state == before
