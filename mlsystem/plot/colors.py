"""One color for each model, used in every picture, plot and live view of a system."""

from collections.abc import Iterable

# Read well on white and on black, and apart for most color-blind readers.
PALETTE = (
    "#e07a1f",
    "#2f6fb5",
    "#2e8b57",
    "#8a5cb8",
    "#1b9aaa",
    "#9c6b30",
    "#d160a0",
    "#8a8d1f",
)
NEGATIVE = "#c8372d"  # a gradient with a negative weight, and a dead route
NEUTRAL = "#7a8794"  # what belongs to no trained model


def model_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a color for each model, by its place among the names.

    >>> model_colors(["generator", "discriminator"])
    {'generator': '#e07a1f', 'discriminator': '#2f6fb5'}
    """
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
