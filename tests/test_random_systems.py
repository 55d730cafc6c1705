"""Systems drawn at random train compiled as they do eagerly."""

import pytest
from random_systems import compare_steps, draw

# The first ones on every backend, and each of the others on one: any system may find a fault.
SEEDS = [*range(5), *(pytest.param(seed, marks=pytest.mark.once) for seed in range(5, 20))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_compiled_step_is_the_eager_one(seed):
    description = draw(seed, steps=2)
    found = compare_steps(description)
    assert not found, f"{description}\n{found[:5]}"
