"""Systems drawn at random train compiled as they do eagerly."""

import pytest
from random_systems import compare_steps, draw


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.spread
def test_the_compiled_step_is_the_eager_one(seed):
    description = draw(seed, steps=2)
    found = compare_steps(description)
    assert not found, f"{description}\n{found[:5]}"
