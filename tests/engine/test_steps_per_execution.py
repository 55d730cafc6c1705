"""Several steps in one execution give what one at a time gives."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, TinyGAN, number, ones

import mlsystem as ml

BACKEND = keras.backend.backend()
SEVERAL = [3, 8, 100]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(38, 3)).astype("float32")  # ten batches of four, the last one of two
Y = X.sum(1, keepdims=True)


class Noisy(ml.MLModel):
    """A network with dropout, batch norm, and a mean of its own in the logs."""

    def __init__(self):
        super().__init__(loss="mse", metrics=["mae"])
        self.hidden = layers.Dense(8)
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5, seed=1)
        self.head = layers.Dense(1)
        self.forwards = []

    def forward(self, x, training=None):
        self.forwards.append(training)
        x = self.norm(self.hidden(x), training=training)
        self.log("size", ops.mean(x**2))
        return self.head(self.dropout(x, training=training))


class Two(ml.MLSystem):
    """One noisy network behind another, and a phase for each."""

    phases = ("front", "back")

    def __init__(self):
        super().__init__()
        self.front, self.back = Noisy(), Noisy()

    def forward(self, x, training=None):
        front = self.front(x, training=training)
        return {"front": front, "back": self.back(front, training=training)}


def trained(build, steps, **given):
    """The logs of a training, what callbacks were told, and the weights that it ends with."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    model = build()
    told = []
    tell = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: told.append(("begin", batch)),
        on_train_batch_end=lambda batch, logs: told.append(("end", batch, sorted(logs))),
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), steps_per_execution=steps)
    given = {"epochs": 2, "callbacks": [tell], "validation_data": (X[:10], Y[:10])} | given
    history = model.fit(X, Y, batch_size=4, verbose=0, **given).history
    return model, history, told


one_at_a_time = functools.cache(lambda build: trained(build, 1))


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", SEVERAL)
@pytest.mark.parametrize("build", [Noisy, Two])
@pytest.mark.spread
def test_training_is_the_same(build, steps):
    one, expected, _ = one_at_a_time(build)
    model, history, _ = trained(build, steps)
    assert list(history) == list(expected)
    for name in expected:
        close(history[name], expected[name])
    for got, weight in zip(model.get_weights(), one.get_weights(), strict=True):
        close(got, weight)
    assert number(model.optimizer.iterations) == 20
    one, model = (m.evaluate(X, Y, batch_size=4, verbose=0) for m in (one, model))
    close(model, one)


@pytest.mark.parametrize("steps", SEVERAL)
@pytest.mark.spread
def test_callbacks_are_told_the_steps_that_were_taken(steps):
    _, history, told = trained(Pair, steps, epochs=1)
    begins = list(range(0, 10, steps))
    logs = sorted(name for name in history if not name.startswith("val_") and "rate" not in name)
    assert [event[1] for event in told if event[0] == "begin"] == begins
    ends = [("end", begin + steps - 1, logs) for begin in begins]
    assert [event for event in told if event[0] == "end"] == ends


def test_what_a_callback_assigns_holds_from_the_next_execution():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                self.model.optimizer.learning_rate = 0.0

    def weight(count, callbacks=()):
        pair = Pair()
        pair.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=2)
        pair.fit(ones(count), batch_size=4, verbose=0, callbacks=list(callbacks))
        return number(pair.a.weight)

    assert weight(32, [Stop()]) == weight(16) != weight(32)


@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_data_of_unknown_length_runs_out_in_the_middle():
    def train(steps):
        pair = Pair()
        pair.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=steps)
        pair.fit(((ones(4),) for _ in range(7)), epochs=1, verbose=0, shuffle=False)
        return number(pair.optimizer.iterations), number(pair.a.weight)

    iterations, weight = train(3)
    assert iterations == 7 and weight == pytest.approx(train(1)[1], rel=1e-5)


def test_an_update_under_a_condition():
    class Sometimes(TinyGAN):
        def train_step(self, data):
            self.update(data, models=("discriminator",))
            self.update(data, ("generator",), when=self.optimizer.iterations % 3 == 2)
            return self.get_metrics_result()

    def train(steps):
        gan = Sometimes()
        gan.compile(steps_per_execution=steps)
        history = gan.fit(ones(40), batch_size=4, epochs=2, verbose=0).history
        return [number(gan.generator.weight), *(v for logs in history.values() for v in logs)]

    assert train(4) == pytest.approx(train(1), rel=1e-5)


@pytest.mark.parametrize("steps", SEVERAL)
@pytest.mark.skipif(BACKEND != "jax", reason="only jax makes a program for each length")
def test_few_programs_are_compiled(steps):
    model, _, _ = trained(Noisy, steps, epochs=1)
    first = len(model.forwards)
    # building, two rehearsals; training and validating: full runs, the rest, the last batch
    assert first <= 1 + 2 + 3 + 3
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, validation_data=(X[:10], Y[:10]))
    assert len(model.forwards) == first


@pytest.mark.skipif(BACKEND != "jax", reason="only jax makes a program for each length")
def test_runs_of_many_lengths_share_programs():
    def batches():
        for length in (1, 2, 3, 4, 5, 6, 7):
            yield from ((ones(4 + length % 2),) for _ in range(length))

    pair = Pair()
    pair.compile(steps_per_execution=7)
    pair.fit(batches(), steps_per_epoch=28, epochs=1, verbose=0, shuffle=False)
    train = next(iter(pair.train_function.steps.values()))
    assert number(pair.optimizer.iterations) == 28
    assert train.scan._cache_size() <= 4 and train.step._cache_size() <= 2


@pytest.mark.skipif(BACKEND != "jax", reason="weak types are a matter of jax")
def test_a_weak_type_compiles_nothing_again():
    class Flagging(Pair):
        def __init__(self):
            super().__init__()
            self.flag = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def forward(self, x):
            self.flag.assign(ops.where(ops.mean(x) > 0, 1.0, 2.0))
            return super().forward(x)

    for steps in (1, 2):
        pair = Flagging()
        pair.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=steps)
        pair.fit(ones(32), batch_size=4, verbose=0)
        train = next(iter(pair.train_function.steps.values()))
        programs = [train.step, train.scan, *train.loop.programs.values()]
        assert sum(program._cache_size() for program in programs) == 1


@pytest.mark.parametrize("given", [{"run_eagerly": True}, {"jit_compile": False}], ids=str)
def test_steps_that_are_not_compiled(given):
    def train(**given):
        pair = Pair()
        pair.compile(optimizer=keras.optimizers.SGD(0.01), **given)
        pair.fit(ones(38), batch_size=4, verbose=0)
        return number(pair.a.weight)

    assert train(steps_per_execution=3, **given) == pytest.approx(train(), rel=1e-5)


DISTRIBUTED = """
import jax, keras, numpy as np
devices = keras.distribution.list_devices()
assert len(devices) == 4
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
import mlsystem as ml

x = np.random.default_rng(0).normal(size=(44, 3)).astype("float32")  # five batches of 8, one of 4
for steps in (1, 2, 4):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.Adam(0.01))
    seen = []
    model.compile("adam", steps_per_execution=steps)
    history = model.fit(x, x[:, :1], batch_size=8, epochs=2, shuffle=False, verbose=0).history
    model.evaluate(x, x[:, :1], batch_size=8, verbose=0)
    kinds = {type(v.value.sharding).__name__ for v in model.variables}
    spread = {len(v.value.sharding.device_set) for v in model.variables}
    train = next(iter(model.train_function.steps.values()))
    programs = train.step._cache_size() + train.scan._cache_size()
    print(steps, *kinds, *spread, programs, *(f"{v:.5f}" for v in history["loss"]), sep=";")
"""


@pytest.mark.skipif(BACKEND != "jax", reason="Keras distributes on jax")
def test_the_state_stays_on_all_devices():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    env = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(";") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "4"]
    assert len({tuple(line[4:]) for line in lines}) == 1  # the losses
    for _, kind, devices, programs, *_ in lines:
        assert kind == "NamedSharding" and devices == "4" and int(programs) <= 3
