"""The parts of `Live` that need no training."""

import math

import numpy as np
import pytest

from mlsystem.callbacks.live import clock, film, progress
from mlsystem.callbacks.live.figure import Limits, limits
from mlsystem.callbacks.live.sparkline import sparkline

pytestmark = pytest.mark.once


@pytest.fixture
def now(monkeypatch):
    """A time that stands still until a test sets it."""
    time = [100.0]
    for module in (clock, progress):
        monkeypatch.setattr(module.time, "perf_counter", lambda: time[0])
    return time


def test_updates_take_little_of_the_time(now):
    times = clock.Clock(5)
    assert times.is_due()
    times.updated(seconds=3.0)  # the first one imports and compiles
    assert not times.is_due()
    now[0] += 5
    assert times.is_due()
    times.updated(seconds=0.2)
    now[0] += 9.9
    assert not times.is_due()
    now[0] += 0.1
    assert times.is_due()
    times.updated(seconds=0.01)
    now[0] += 5
    assert times.is_due()


def test_speed_and_the_time_that_is_left(now):
    place = progress.Progress("gan", epochs=4, batches=100, batch_size=32)
    place.begin_epoch(1)  # a resumed run
    place.count(0, 0)
    now[0] += 10
    place.count(1, 20)
    assert place.parts() == ["gan", "epoch 2/4", "batch 21/100", "64 samples/s", "left 02:20"]
    assert place.position == 1.21 and place.first_epoch == 2
    now[0] += 10
    assert place.parts()[3:] == ["left 04:39"]  # no batch since then


def test_data_of_unknown_length(now):
    place = progress.Progress("gan", epochs=2)
    place.begin_epoch(0)
    for batch in range(3):
        now[0] += 1
        place.count(batch, batch)
    assert place.parts() == ["gan", "epoch 1/2", "batch 3", "1.0 batches/s", "took 00:03"]
    place.end_epoch()
    assert place.batches == 3 and place.line() == "epoch 1/2  3 batches  3.0 s"


def test_an_axis_stays_where_it_is():
    before = limits([[(0.0, 1.0), (1.0, 2.0)]], None)
    assert before == Limits(0.5, 2.5)
    curve = [(0.0, 1.0), (1.0, 2.0), (2.0, 2.4), (3.0, math.nan)]
    assert limits([curve], before) is before
    wider = limits([[*curve, (4.0, 8.0)]], before)
    assert wider.low == 0.0 and wider.high > 8.0
    assert limits([[]], None) is None and limits([[(0.0, math.inf)]], None) is None


def test_an_axis_follows_a_curve_that_has_become_small():
    start = [(0.0, 1000.0)]
    axis = limits([start], None)
    curve = start + [(x / 10, 1.0 + 0.1 * (x % 2)) for x in range(1, 20)]
    axis = limits([curve], limits([curve], axis))
    assert 0 <= axis.low < 1.0 and 1.1 < axis.high < 2 and axis.since > 0
    assert limits([curve], axis) is axis


def test_a_curve_in_characters():
    assert sparkline([]) == "" and sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([math.nan, 0.0, 7.0, math.inf]) == "▁█"
    assert sparkline([float(i) for i in range(80)]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 7.0], ascii_only=True) == "_#"


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 6, 5), (2, 4, 6)])
def test_other_samples_are_left_out(shape):
    drawn = iter([np.zeros((2, 4, 5)), np.zeros(shape)])
    strip = film.Film(lambda: next(drawn))
    strip.add("start")
    with pytest.warns(UserWarning, match="Live leaves samples out from now on"):
        strip.add("epoch 1")
    strip.add("epoch 2")  # draws none, and warns no more
    assert [name for name, _ in strip.shown()] == ["start"]


def test_the_strip_keeps_eight_moments(tmp_path):
    number = iter(range(1000))
    strip = film.Film(lambda: np.full((5, 2, 3), next(number)), tmp_path / "strip.png")
    strip.add("start")
    shape = strip.aspect
    for epoch in range(1, 41):
        strip.add(f"epoch {epoch}")
        strip.add(f"epoch {epoch}")  # once more in the same epoch
    names = [name for name, _ in strip.shown()]
    assert len(names) == 8 and names[0] == "start" and names[-1] == "epoch 40"
    assert len(strip.columns) <= 17 and strip.aspect == shape
    assert strip.shown()[-1][1].max() == 80 and (tmp_path / "strip.png").stat().st_size
