"""Pictures of systems and of their training, as matplotlib figures (extra `plot`).

- `gradients`: a heat map of a gradient report.
- `history`: the curves of a training run, one panel a model.
- `samples`: a grid of images.
"""

from mlsystem.plot.gradient_map import gradients
from mlsystem.plot.history_curves import history
from mlsystem.plot.sample_grid import samples

__all__ = ["gradients", "history", "samples"]
