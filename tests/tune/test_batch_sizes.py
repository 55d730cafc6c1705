"""Which batch sizes are measured, and when the search ends."""

import itertools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from toys import Pair, ones

import mlsystem as ml
from mlsystem.engine import engine
from mlsystem.tune import batch_sizes, host_memory, timed_steps
from mlsystem.tune.timed_steps import TimedSteps


def rows(batch):
    return len(keras.tree.flatten(batch)[0])


@pytest.fixture
def seen(monkeypatch):
    """The numbers of rows of all steps. A batch of 16 rows is too much."""
    seen, step = [], TimedSteps.step

    def noted(self, function, *given):
        seen.append(rows(self.batch))
        if seen[-1] >= 16:
            raise MemoryError("Out of memory")
        return step(self, function, *given)

    monkeypatch.setattr(TimedSteps, "step", noted)
    return seen


def test_sizes_double_up_to_the_limit(seen):
    sizes = ml.tune.batch_size(Pair(), (ones(3),), start=2, limit=9, steps=1)
    assert list(sizes) == [2, 4, 8] and seen == [2, 2, 4, 4, 8, 8]
    assert sizes.largest == 8 and sizes[sizes.fastest] == max(sizes.values()) > 0
    assert sizes.end == "The limit is 9." and "samples/s" in str(sizes)
    with pytest.raises(KeyError, match="batch size 7 was not measured"):
        sizes[7]


@pytest.mark.once
def test_several_steps_in_one_execution_are_timed_together(monkeypatch):
    clock = itertools.count()  # a second passes in each execution
    timer = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr(timed_steps, "time", timer)
    model = Pair()
    model.compile(steps_per_execution=8)
    sizes = ml.tune.batch_size(model, (ones(3),), start=2, limit=4, steps=3)
    assert dict(sizes) == {2: 16.0, 4: 32.0}


@pytest.mark.once
def test_memory_that_runs_out_ends_the_search(seen):
    model = Pair()
    sizes = ml.tune.batch_size(model, (ones(3),), start=8, limit=64, steps=1)
    assert list(sizes) == [8] and sizes.end == "16 is too large: memory ran out."
    model.fit(ones(4), verbose=0)  # still usable
    with pytest.raises(ValueError, match="Give a smaller start"):
        ml.tune.batch_size(model, (ones(3),), start=16)


@pytest.mark.once
def test_a_step_that_would_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(engine, "device_memory", lambda: 3 * 2**30)
    monkeypatch.setattr(engine, "step_memory", lambda system, data: 2**30 * rows(data))
    sizes = ml.tune.batch_size(Pair(), (ones(3),), start=2, limit=64, steps=1)
    assert list(sizes) == [2]
    assert sizes.end == "4 is too large: a step needs 4 GiB, and there are 3 GiB."


@pytest.mark.once
def test_the_host_is_not_filled(monkeypatch):
    monkeypatch.setattr(host_memory, "free", lambda: 2**20)
    used = iter(range(0, 100 * 2**20, 2**20))  # a step takes 1 MiB more than the last
    monkeypatch.setattr(host_memory, "peak", lambda: next(used))
    sizes = ml.tune.batch_size(Pair(), ones(3), start=2, limit=64, steps=1)
    assert list(sizes) == [2] and "the host" in sizes.end


def test_the_memory_of_a_step_grows_with_the_batch():
    if keras.backend.backend() != "jax":
        assert engine.step_memory(None, None) is None
        return
    system, found = Pair(), []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.extend(engine.step_memory(self.model, ones(n)) for n in (1000, 100_000))

    system.fit(ones(4), verbose=0, callbacks=[Look()])
    assert found[1] - found[0] >= 4 * 99_000


@pytest.mark.once
def test_streams_grow_together():
    assert [
        len(part)
        for part in keras.tree.flatten(
            batch_sizes._resized({"a": np.ones((4, 2)), "b": np.ones((8, 2))}, 16)
        )
    ] == [16, 32]


@pytest.mark.once
@pytest.mark.parametrize(
    "given, text",
    [
        ({"start": 0}, "got start=0"),
        ({"start": 64, "limit": 32}, "above limit=32"),
        ({"steps": 1.5}, "got steps=1.5"),
        ({"data": np.ones((0, 1), "float32")}, "is empty"),
    ],
)
def test_what_makes_no_search_is_refused(given, text):
    with pytest.raises(ValueError, match=text):
        ml.tune.batch_size(**({"system": Pair(), "data": ones()} | given))
