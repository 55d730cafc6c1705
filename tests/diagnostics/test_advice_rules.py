"""The rules of the advice: numbers in, a sentence or None out."""

import pytest

from mlsystem.diagnostics.advice_rules import (
    collapsed,
    dead_route,
    solved,
    stalled,
    update_ratio,
    winner,
)

pytestmark = pytest.mark.once
nan = float("nan")


# A model that wins --------------------------------------------------------------------------

WON = {
    "names": ("judge", "maker"),
    "losses": ([1.4, 0.5, 0.04, 0.03, 0.02], [0.7, 1.0, 3.0, 4.0, 5.0]),
    "norms": [2.0, 1.0, 0.03, 0.02, 0.01],
}


def test_a_winner_is_named_with_figures_and_what_to_write():
    sentence = winner(**WON)
    assert sentence.startswith("'judge' wins: its loss fell from 1.4 to 0.02")
    assert "'maker' fell 200-fold" in sentence
    assert 'update_when = {"judge": lambda losses: losses["judge"] > 0.5}' in sentence
    assert "fell to zero" in winner(**WON | {"norms": [2.0, 1.0, 0.0, 0.0, 0.0]})


@pytest.mark.parametrize(
    "change",
    [
        {"losses": ([1.4, 0.5, 0.15, 0.03, 0.02], WON["losses"][1])},  # for two measurements
        {"losses": ([0.3, 0.2, 0.04, 0.04, 0.04], WON["losses"][1])},  # began near zero
        {"losses": (WON["losses"][0], [0.7, 1.0, 0.3, 0.1, 0.0])},  # both converge
        {"norms": [2.0, 1.0, 0.03, 0.05, 0.01]},  # fell 40-fold only, once
        {"near_zero": 0.01},
        {"fall": 500},
        {"looks": 4},
        {"looks": 5},
        {"norms": [2.0, 1.0, nan, 0.02, 0.01]},
    ],
)
def test_no_winner(change):
    assert winner(**WON | change) is None


# Samples that collapse ----------------------------------------------------------------------


def test_collapse_is_measured_from_the_largest_distance():
    sentence = collapsed([2.0, 8.0, 0.4], [6.0, 6.0, 30.0])
    assert "fell from 8 to 0.4 (95% less)" in sentence
    assert collapsed([2.0, 8.0, 0.9], [100.0] * 3) is None
    assert collapsed([2.0, 8.0, 0.9], [100.0] * 3, fall=0.8) is not None
    assert collapsed([8.0, 0.0], [6.0, 0.0]) is not None


@pytest.mark.parametrize("distances", [[], [0.0], [0.0, 0.0], [1.0, 2.0, 4.0], [8.0, nan]])
def test_no_collapse(distances):
    assert collapsed(distances, [1e3] * len(distances)) is None


@pytest.mark.parametrize("size", [0.01, 0.2])  # data around zero, and around a mean
def test_data_of_a_small_spread_is_no_collapse(size):
    assert collapsed([1.4, 0.014], [1.0, size]) is None


# Routes without a gradient ------------------------------------------------------------------


def test_a_route_that_died_and_one_that_never_lived():
    died = dead_route(["b"], "a", [0.5, 0.1, 0.0, 0.0, 0.0], is_expected=False)
    assert "'a' gets no gradient from the loss 'b'" in died and "up to 0.5 before" in died
    never = dead_route(["b"], "a", [0.0, 0.0, 0.0])
    assert "`stop_gradient`" in never and "before" not in never


@pytest.mark.parametrize("norms", [[], [0.0, 0.0], [0.0, 0.0, 1e-30], [nan, nan, nan]])
def test_a_route_that_lives_or_is_not_known(norms):
    assert dead_route(["b"], "a", norms) is None


def test_a_loss_that_need_not_reach_a_model():
    assert dead_route(["b"], "a", [0.0, 0.0, 0.0], is_expected=False) is None


def test_several_dead_losses_are_one_sentence_and_only_a_table_can_leave_one_out():
    two = dead_route(["b", "c"], "a", [0.0, 0.0, 0.0], has_table=False)
    assert "from the losses 'b' and 'c'" in two and "out of the routing" not in two
    assert "take 'b' out of the routing of 'a'" in dead_route(["b"], "a", [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "values, expected",
    [
        ([2.0, 1.0, 0.0, 0.0, 0.0], True),  # a hinge loss
        ([0.0, 0.0, 0.0], True),
        ([2.0, 1.0, 0.5, 0.5, 0.5], True),  # free bits
        ([2.0, 1.0, 0.0, 0.0, 0.1], False),
        ([2.0, 1.0, 1.5, 1.5, 1.5], False),
        ([2.0, 2.0, 2.0, 2.0], False),
        ([2.0, 0.6, 0.52, 0.5, 0.51], False),
    ],
)
def test_a_loss_that_is_solved(values, expected):
    assert solved(values) is expected


# Updates too small or too large -------------------------------------------------------------


def test_updates_too_large_and_too_small_come_with_a_rate_to_try():
    large = update_ratio("a", [1e-3, 0.4, 0.0, 0.5, 0.6], rate=0.1)
    assert "far too large: a step changes its weights by 0.5" in large
    assert "Lower its learning rate from 0.1 to about 2e-04" in large
    small = update_ratio("a", [1e-6, 1e-6, 0.0, 1e-6], rate=1e-7)
    assert "far too small" in small and "Raise its learning rate from 1e-07 to about 1e-04" in small
    assert update_ratio("a", [0.5, 0.5, 0.5]).endswith("Lower its learning rate.")


@pytest.mark.parametrize(
    "ratios",
    [
        [1e-3, 1e-3, 1e-3],
        [0.5, 0.5, 0.05],
        [0.5, 0.0, 0.5],  # updated twice
        [1e-3, 1e-6, 1e-6, 1e-6],  # has converged
        [0.0, 0.0, 0.0],  # was not updated
        [nan, nan, nan],
        [float("inf")] * 3,
    ],
)
def test_updates_that_are_fine(ratios):
    assert update_ratio("a", ratios, rate=0.1) is None


@pytest.mark.parametrize("power", [1, 0.5])
def test_weights_that_start_at_zero_are_their_updates_at_first(power):
    ratios = [1e4] + [1 / n**power for n in range(1, 60)]
    found = [update_ratio("a", ratios[:looks], looks=3) for looks in range(1, 60)]
    assert found == [None] * 59
    assert update_ratio("a", ratios[:5] + [0.3] * 10) is not None  # it has stopped falling


def test_a_schedule_may_start_with_small_steps_and_limits_can_be_set():
    assert update_ratio("a", [1e-6] * 3, may_be_small=True) is None
    assert update_ratio("a", [0.5] * 3, may_be_small=True) is not None
    assert update_ratio("a", [0.5] * 3, limits=(1e-5, 0.6)) is None
    assert update_ratio("a", [0.5] * 3, looks=4) is None


# A loss that does not move ------------------------------------------------------------------


def test_a_loss_that_does_not_move():
    sentence = stalled("a", [2.31, 2.30, 2.31, 2.3, 2.3, 2.3])
    assert "The loss 'a' has not moved for 5 epochs: it is 2.3, and was 2.31" in sentence
    assert stalled("a", [-1.0] * 3, epochs=3) is not None


@pytest.mark.parametrize(
    "values",
    [
        [2.3] * 4,
        [2.3, 2.3, 2.3, 2.3, 2.2],
        [2.3, 2.0, 2.0, 2.0, 2.0, 2.0],  # fell by more than 10 % first
        [2.0, 2.3, 2.3, 2.3, 2.3, 2.3],  # as a KL term does
        [0.0] * 5,
        [nan] * 5,
    ],
)
def test_a_loss_that_moves_or_has_moved(values):
    assert stalled("a", values) is None
