"""The tests run beside one backend, also where the others are installed."""

import importlib.util
import sys
from types import SimpleNamespace

import keras
import pytest
from conftest import BACKENDS, turn

OTHERS = [b for b in ("jax", "torch", "tensorflow") if b != keras.backend.backend()]


@pytest.mark.parametrize("other", OTHERS)
def test_the_other_backends_are_not_there(other):
    assert importlib.util.find_spec(other) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(other)
    assert not any(name.partition(".")[0] == other for name in sys.modules)


@pytest.mark.once
@pytest.mark.parametrize("names", ["a", "a, b", ["a", "b", "c"]], ids=len)
def test_cases_are_dealt_out_to_all_backends(names):
    def case(i, j):
        marks = [
            pytest.mark.spread.mark,
            pytest.mark.parametrize(names, []).mark,
            pytest.mark.parametrize("other", []).mark,
        ]
        places = {name: i for name in "abc" if name in names} | {"other": j}
        return SimpleNamespace(
            iter_markers=lambda name=None: [m for m in marks if name in (None, m.name)],
            callspec=SimpleNamespace(indices=places),
        )

    assert [turn(case(i, 0)) for i in range(4)] == [*BACKENDS, "jax"]
    assert {turn(case(i, j)) for i in range(2) for j in range(2)} == set(BACKENDS)
