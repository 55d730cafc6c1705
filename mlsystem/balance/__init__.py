"""Ways to balance several losses during training. Set one of them as `balance` of a system.

- `Uncertainty`: weights learned as the noise of each loss (Kendall, Gal & Cipolla 2018).
- `GradNorm`: weights learned so that all losses train at similar rates (Chen et al. 2018).
- `PCGrad`: gradients without their conflicting parts (Yu et al. 2020).

```python
class Rooms(ml.MLSystem):
    def __init__(self, encoder, depth, normals):
        super().__init__()
        self.encoder, self.depth, self.normals = encoder, depth, normals
        self.balance = ml.balance.GradNorm(["depth", "normals"], shared="encoder")
```

A balance acts in addition to `routing` and `loss_weights`. It does not change losses that it does
not name. It does not change the gradients of `minimize` or `gradients(loss_fn)` in your own step.
The weights are logged as `LOSS_weight`. They are saved and loaded with the system.
"""

from mlsystem.balance.base import Balance
from mlsystem.balance.gradnorm import GradNorm
from mlsystem.balance.pcgrad import PCGrad
from mlsystem.balance.uncertainty import Uncertainty

__all__ = ["Balance", "GradNorm", "PCGrad", "Uncertainty"]
