"""Steps on arrays run in groups, as one program. How they are grouped changes no bit."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from toys import Drawing, TinyGAN

import mlsystem as ml
from mlsystem.callbacks.batch_callback import BatchCallback
from mlsystem.data.indexed_batches import IndexedBatches, window_size
from mlsystem.engine import group_growth
from mlsystem.fit import loop

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the loop needs jax so far")
ROWS = np.random.default_rng(0).normal(size=(83, 5)).astype("float32")
PER_EPOCH = 11  # batches of 8 rows, of which the last has 3


class Groups(BatchCallback):
    """Notes how many batches each group had."""

    def __init__(self):
        super().__init__()
        self.found = []

    def most(self):
        return None

    def after_batches(self, first, last):
        self.found.append(last + 1 - first)


class Listening(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class Rare(Drawing):
    def __init__(self):
        super().__init__()
        self.update_every = {"discriminator": 3}


def result(system, *callbacks, rows=ROWS, **given):
    """What a fit leaves: all variables, the next random number, the logs, and its groups."""
    keras.utils.set_random_seed(1)
    groups = Groups()
    given = {"epochs": 3, "batch_size": 8, "verbose": 0} | given
    logs = system.fit(rows, callbacks=[*callbacks, groups], **given).history
    state = [keras.ops.convert_to_numpy(v) for v in system._mlsystem.state_variables()]
    return state, np.random.random(), logs, groups.found


@pytest.fixture(autouse=True)
def _groups_grow_on_a_slow_machine(monkeypatch):
    monkeypatch.setattr(group_growth, "LONG", 60.0)


@functools.cache
def drawn(how):
    if how == "one by one":
        return result(Drawing(), Listening())
    return result(Drawing(), on_device={"loop": "auto", "single": False}[how])


def assert_equal(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1:3] == other[1:3]


def assert_close(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert one[1] == other[1]
    for log, values in one[2].items():
        np.testing.assert_allclose(values, other[2][log], rtol=1e-5)


@on_jax
def test_groups_change_no_bit():
    assert max(drawn("loop")[3]) > 2
    assert sum(drawn("loop")[3]) == 3 * PER_EPOCH
    assert set(drawn("one by one")[3]) == {1}
    assert_equal(drawn("loop"), drawn("one by one"))


@on_jax
def test_the_order_the_draws_and_the_logs_are_those_of_single_steps():
    assert set(drawn("single")[3]) == {1}
    assert_close(drawn("loop"), drawn("single"))


@on_jax
def test_a_resumed_run_ends_like_one_in_groups(tmp_path):
    whole = result(Drawing(), epochs=2)
    folder = tmp_path / "runs"
    checkpoint = ml.callbacks.Checkpoint(folder, every=5)
    stopped = result(Drawing(), checkpoint, epochs=2, max_time=1e-9)
    resumed = result(Drawing(), ml.callbacks.Checkpoint(folder, every=5), epochs=2, resume=folder)
    assert stopped[3] == [1]
    assert resumed[3][0] == 1  # restored with the callback
    assert max(resumed[3]) > 1
    assert sum(resumed[3]) == 2 * PER_EPOCH
    assert_equal(whole, resumed)


@on_jax
def test_groups_end_where_something_is_due(tmp_path):
    checkpoint = ml.callbacks.Checkpoint(tmp_path / "runs", every=3, keep=None)
    system = Drawing()
    result(system, checkpoint, validation_data=(ROWS[:8],), validation_every=4)
    assert system.history.validations["batch"] == [4, 8, 12, 16, 20, 24, 28, 32]
    found = sorted(path.name for path in (tmp_path / "runs").iterdir())
    numbers = [int(name[5:15]) for name in found if name.startswith("step-")]
    assert numbers == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33]


@on_jax
def test_models_that_are_due_at_times():
    looped = result(Rare())
    assert max(looped[3]) > 3  # a group has batches with and without the discriminator
    assert_equal(looped, result(Rare(), Listening()))
    assert_close(looped, result(Rare(), on_device=False))


@on_jax
def test_a_step_is_traced_once():
    looped, single = Drawing(), Drawing()
    result(looped)
    result(single, on_device=False)
    assert len(looped.forwards) == len(single.forwards)


@on_jax
def test_convolutions_on_a_cpu_run_one_step_at_a_time():
    def convolved(**given):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((5, 1)), layers.Conv1D(1, 3), layers.Flatten()])
        model = ml.MLModel(net, loss="mse")
        return result(model, rows=ROWS[:80, :, None], y=ROWS[:80, :3], **given)

    looped = convolved()
    assert set(looped[3]) == {1}
    assert_equal(looped, convolved(on_device=False))
    insisted = convolved(on_device=True)
    assert max(insisted[3]) > 1
    assert_close(looped, insisted)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return ROWS[i : i + 8]


class Strict(TinyGAN):
    nonfinite = "raise"


CANNOT = {
    "eager": ("run eagerly", TinyGAN, {"run_eagerly": True}, {}),
    "executions": ("steps_per_execution", TinyGAN, {"steps_per_execution": 2}, {}),
    "data": ("no arrays", TinyGAN, {}, {"x": Batches()}),
    "shuffle": ("no arrays", TinyGAN, {}, {"shuffle": "batch"}),
    "one batch": ("two batches", TinyGAN, {}, {"batch_size": 80}),
    "callback": ("Listening is told", TinyGAN, {}, {"callbacks": [Listening()]}),
    "nonfinite": ("nonfinite='raise'", Strict, {}, {}),
}


@on_jax
@pytest.mark.parametrize("case", CANNOT)
def test_what_cannot_run_in_groups_is_an_error(case):
    words, make, compiled, given = CANNOT[case]
    system = make()
    system.compile(**compiled)
    before = [np.array(weight) for weight in system.get_weights()]
    with pytest.raises(ValueError, match=f"on_device=True, and .*{words}"):
        system.fit(**{"x": ROWS, "batch_size": 8, "verbose": 0, "on_device": True} | given)
    assert all((a == b).all() for a, b in zip(before, system.get_weights(), strict=True))


@pytest.mark.once
def test_other_values_are_an_error():
    with pytest.raises(ValueError, match="on_device='yes'; give True, False or 'auto'"):
        TinyGAN().fit(ROWS, on_device="yes")
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match="needs jax so far"):
            TinyGAN().fit(ROWS, on_device=True, verbose=0)


class Told(ml.callbacks.Checkpoint):
    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.once
def test_which_callbacks_are_told_of_each_batch(tmp_path):
    saves = functools.partial(keras.callbacks.ModelCheckpoint, tmp_path / "m.keras")
    silent = [keras.callbacks.EarlyStopping(), keras.callbacks.CSVLogger(tmp_path / "log"), saves()]
    silent += [keras.callbacks.ProgbarLogger(), ml.callbacks.Live(), ml.callbacks.For("a", saves())]
    heard = [Listening(), saves(save_freq=4), ml.callbacks.GradientNorms(), ml.callbacks.Advice()]
    heard += [ml.callbacks.Profile(tmp_path), ml.callbacks.Live(gradients=True)]
    heard += [ml.callbacks.Live(every=0.01), Told(tmp_path)]
    heard += [ml.callbacks.For("a", Listening()), keras.callbacks.TerminateOnNaN()]
    heard += [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]
    assert min(map(loop._most, silent)) > 1
    assert set(map(loop._most, heard)) == {1}


def indexed(rows, size, arrays=None):
    arrays = {"x": np.arange(10.0), "y": None} if arrays is None else arrays
    order = iter([rows[i : i + size] for i in range(0, len(rows), size)])
    return IndexedBatches(arrays, order, size, lambda found: arrays["x"][found])


@pytest.mark.once
def test_windows_hold_the_batches_in_order():
    order = np.random.default_rng(0).permutation(10)
    batches, found = indexed(order, 2), []
    assert batches.size == 8  # the power of two from five batches on
    assert batches.peek()["y"] is None
    found += list(next(batches)["x"])  # before there is a window
    for count in (1, 2):
        window, first = batches.current()
        found += list(window[first : first + count].ravel())
        batches.move(count)
    found += list(next(batches)["x"])
    assert found == list(order)
    assert batches.ready() == 0
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.once
def test_a_shorter_last_batch_is_in_no_window():
    batches = indexed(np.arange(10), 4)
    assert batches.ready() == 2
    batches.current()
    batches.move(2)
    assert batches.ready() == 0
    assert list(next(batches)["x"]) == [8, 9]


@pytest.mark.once
def test_sizes_of_windows():
    assert window_size(np.zeros((64, 2)), 64) == 0  # one batch
    assert window_size(np.zeros((640, 2)), 64) == 16
    assert window_size(np.zeros((10**6, 1)), 32) == 128
    assert window_size(np.zeros((40, 2**18), "float32"), 8) == 2  # 16 MB
    assert window_size(np.zeros((40, 2**18), "float32"), 20) == 0
