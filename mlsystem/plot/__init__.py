"""Pictures of systems and of their training.

- `gradients`: a heat map of a gradient report.
- `history`: the curves of a training run, one panel a model.
- `samples`: a grid of images.
- `system`: a system: its models, its losses, and which model follows which loss.

All but `system` are matplotlib figures (extra `plot`).
"""

from mlsystem.plot.gradient_map import gradients
from mlsystem.plot.history_curves import history
from mlsystem.plot.picture import Picture, system
from mlsystem.plot.sample_grid import samples

__all__ = ["Picture", "gradients", "history", "samples", "system"]
