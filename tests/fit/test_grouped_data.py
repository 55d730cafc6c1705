"""`compile(steps_per_execution="auto")`: steps on any data run in groups, which change no bit."""

import functools

import keras
import numpy as np
import pytest
from test_loop import PER_EPOCH, ROWS, Groups, Listening, Rare, assert_close, assert_equal, result
from toys import Drawing, Pair, ones

import mlsystem as ml
from mlsystem.data import stacked_batches
from mlsystem.data.stacked_batches import StackedBatches, window_size
from mlsystem.engine import group_growth

BACKEND = keras.backend.backend()
GROUPS = ("jax", "tensorflow")
in_groups = pytest.mark.skipif(BACKEND not in GROUPS, reason="torch takes one step at a time")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="one program holds all steps on jax")


@pytest.fixture(autouse=True)
def _groups_grow_on_a_slow_machine(monkeypatch):
    monkeypatch.setattr(group_growth, "LONG", 60.0)


def noisy(x):
    return x + np.random.normal(size=x.shape).astype("float32")


def data():
    """Arrays as a data set of TensorFlow, or elsewhere a transform with NumPy's generator."""
    if BACKEND == "tensorflow":
        return {"x": ROWS}
    return {"x": ml.MLData(train=ROWS, transform=noisy), "on_device": False}


def trained(system, *callbacks, steps="auto", **given):
    given = data() | given
    system.compile(steps_per_execution=steps)
    return result(system, *callbacks, rows=given.pop("x"), **given)


@functools.cache
def drawn(how):
    listening = [Listening()] if how == "one by one" else []
    return trained(Drawing(), *listening, steps=1 if how == "plain" else "auto")


@in_groups
def test_groups_change_no_bit():
    assert max(drawn("grouped")[3]) > 2
    assert sum(drawn("grouped")[3]) == 3 * PER_EPOCH
    assert set(drawn("one by one")[3]) == {1}
    assert_equal(drawn("grouped"), drawn("one by one"))


def test_the_order_the_draws_and_the_logs_are_those_of_single_steps():
    assert set(drawn("plain")[3]) == {1}
    assert_close(drawn("grouped"), drawn("plain"))


@pytest.mark.skipif(BACKEND != "torch", reason="the others run groups")
def test_torch_takes_single_steps_without_a_warning():
    found = trained(Drawing())  # a warning is an error in all tests
    assert set(found[3]) == {1}
    assert_equal(found, drawn("plain"))


def test_models_that_are_due_at_times():
    grouped = trained(Rare())
    assert BACKEND != "jax" or max(grouped[3]) > 3
    assert_equal(grouped, trained(Rare(), Listening()))
    assert_close(grouped, trained(Rare(), steps=1))


def test_a_resumed_run_ends_like_one_in_groups(tmp_path):
    folder = tmp_path / "runs"
    whole = trained(Drawing(), epochs=2)

    def stop(batch, logs):
        if batch == 6:
            raise KeyboardInterrupt

    killed = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(KeyboardInterrupt):
        trained(Drawing(), ml.callbacks.Checkpoint(folder, every=5), killed, epochs=2)
    resumed = trained(Drawing(), ml.callbacks.Checkpoint(folder, every=5), epochs=2, resume=folder)
    assert resumed[3][:5] == [1] * 5  # restored with the callback
    assert sum(resumed[3]) == 2 * PER_EPOCH
    assert BACKEND not in GROUPS or max(resumed[3]) > 1
    assert_equal(whole, resumed)


@in_groups
def test_groups_end_where_something_is_due(tmp_path):
    checkpoint = ml.callbacks.Checkpoint(tmp_path / "runs", every=3, keep=None)
    system = Drawing()
    found = trained(system, checkpoint, validation_data=(ROWS[:8],), validation_every=4)
    assert max(found[3]) > 1
    assert system.history.validations["batch"] == [4, 8, 12, 16, 20, 24, 28, 32]
    names = sorted(path.name for path in (tmp_path / "runs").glob("step-*"))
    assert [int(name[5:15]) for name in names] == list(range(3, 34, 3))


def test_the_batches_before_an_error_of_the_data_are_trained_on():
    def batches():
        yield from (ROWS[:4] for _ in range(21))
        raise OSError("the disk is gone")

    system = Drawing()
    system.compile(steps_per_execution="auto")
    due = {"validation_data": (ROWS[:8],), "validation_every": 24}  # after more than there are
    for fits, steps in enumerate((40, 24), start=1):  # also within the last group of an epoch
        with pytest.raises(OSError, match="the disk is gone"):
            system.fit(ml.MLData(train=batches), steps_per_epoch=steps, verbose=0, **due)
        assert not system.history.validations
        assert int(system.optimizer.iterations) == system._mlsystem.compiled.batches == 21 * fits


def short():
    """Batches of data of unknown length, which end before the steps of an epoch do."""
    return (ROWS[:4] for _ in range(140))


def test_data_that_end_within_the_last_group_warn_and_begin_anew():
    def found(*callbacks):
        system = Drawing()
        system.compile(steps_per_execution="auto")
        with pytest.warns(UserWarning, match="ran out of data"):
            system.fit(
                ml.MLData(train=short),
                epochs=2,
                steps_per_epoch=160,
                shuffle=False,
                verbose=0,
                callbacks=list(callbacks),
            )
        return int(system.optimizer.iterations)

    assert found() == found(Listening()) == 2 * 140


@on_jax
def test_batches_of_several_shapes_in_a_group():
    def batches():
        return (ROWS[i : i + 3 + i % 2] for i in range(20))

    def found(*callbacks):
        system = Drawing()
        system.compile(steps_per_execution="auto")
        given = {"batch_size": None, "steps_per_epoch": 20, "epochs": 1}
        return result(system, *callbacks, rows=ml.MLData(train=batches), **given)

    grouped = found()
    assert max(grouped[3]) > 2
    assert_equal(grouped, found(Listening()))


@in_groups
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_data_of_unknown_length_run_in_groups_once_it_is_known():
    def batches():
        return (ones(4) for _ in range(9))

    def found(steps):
        pair, groups = Pair(), Groups()
        pair.compile(optimizer=keras.optimizers.SGD(0.01), steps_per_execution=steps)
        data = ml.MLData(train=batches)
        pair.fit(data, epochs=3, verbose=0, callbacks=[groups])
        return pair.get_weights(), groups.found

    weights, groups = found("auto")
    assert groups[:9] == [1] * 9 and sum(groups) == 27
    assert BACKEND != "jax" or max(groups) > 1
    np.testing.assert_allclose(weights, found(1)[0], rtol=1e-6)


@in_groups
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_data_that_end_within_a_group(tmp_path):
    pair, groups = Pair(), Groups()
    pair.compile(steps_per_execution="auto")
    checkpoint = ml.callbacks.Checkpoint(tmp_path)
    batches = ((ones(4),) for _ in range(9))
    given = {"steps_per_epoch": 20, "shuffle": False, "verbose": 0}
    pair.fit(batches, callbacks=[groups, checkpoint], **given)
    assert groups.found == [1, 1, 2, 4, 1]  # the last one of 8
    assert int(pair.optimizer.iterations) == pair._mlsystem.compiled.batches == 9
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000000009.weights.h5"]


def test_it_is_saved_with_the_model(tmp_path):
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1)]), loss="mse")
    model.compile(steps_per_execution="auto")
    model.fit(ROWS, ROWS[:, :1], verbose=0)
    assert model.get_compile_config()["steps_per_execution"] == "auto"
    model.compile()
    assert model.get_compile_config()["steps_per_execution"] != "auto"


@pytest.mark.once
def test_other_values_are_an_error():
    with pytest.raises(ValueError, match="steps_per_execution='many'; give a whole number from 1"):
        Pair().compile(steps_per_execution="many")


@pytest.mark.once
def test_windows_hold_runs_of_equal_shapes(monkeypatch):
    monkeypatch.setattr(stacked_batches, "MOST_BYTES", 64)
    rows = [np.full(size, i, "float32") for i, size in enumerate((4, 4, 3, 4, 4, 4, 4, 4, 4))]
    batches, found = StackedBatches(iter([(row, None) for row in rows])), []
    assert next(batches)[0] is rows[0]
    batches.group = 10
    for start, stop in batches.runs():
        window, first = batches.current()
        found.append(window[0][first : first + stop - start, 0].tolist())
        assert len(window[0]) == batches.size and window[1] is None
        batches.move(stop - start)
    assert found == [[1], [2], [3, 4, 5, 6], [7, 8]]
    assert batches.missing == 2
    with pytest.raises(StopIteration):
        batches.runs()


@pytest.mark.once
def test_sizes_of_windows():
    assert window_size(np.zeros((32, 8), "float32")) == 128
    assert window_size((np.zeros((2**18, 3), "float32"), None)) == 1  # two take more than 4 MB
    assert window_size(np.zeros((2**20, 2), "float32")) == 0
    assert window_size((np.zeros(3), 1.0)) == window_size(np.array(["a"])) == 0
