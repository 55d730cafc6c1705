"""Callbacks for the `fit` of models and systems. All callbacks of Keras work too.

- `Advice`: says in sentences what goes wrong in a run, and what to try.
- `Checkpoint`: saves checkpoints that `fit(resume=...)` resumes from exactly.
- `For`: applies a Keras callback to one model of a system.
- `GradientNorms`: logs the gradient norm of each loss in each model.
- `Live`: shows a training run while it lasts, in a terminal or a notebook.
- `Log`: sends a training run to TensorBoard, W&B, MLflow, trackio, Comet or your own logger.
- `Profile`: writes a profiler trace of some steps.
- `RayReport`: reports metrics and checkpoints to Ray Train.
"""

from mlsystem.callbacks.advice import Advice
from mlsystem.callbacks.checkpoint import Checkpoint
from mlsystem.callbacks.for_model import For
from mlsystem.callbacks.gradient_norms import GradientNorms
from mlsystem.callbacks.live import Live
from mlsystem.callbacks.profile import Profile
from mlsystem.callbacks.ray_report import RayReport
from mlsystem.callbacks.tracking import Log

__all__ = [
    "Advice",
    "Checkpoint",
    "For",
    "GradientNorms",
    "Live",
    "Log",
    "Profile",
    "RayReport",
]
