"""Ways to balance several losses while they are minimized, each given to a system as `balance`.

- `Uncertainty`: weights learned as the noise of each loss (Kendall, Gal & Cipolla 2018).
- `GradNorm`: weights learned so that all losses train at similar rates (Chen et al. 2018).
- `PCGrad`: gradients without the parts in which they conflict (Yu et al. 2020).

```python
class Rooms(ml.MLSystem):
    def __init__(self, encoder, depth, normals):
        super().__init__()
        self.encoder, self.depth, self.normals = encoder, depth, normals
        self.balance = ml.balance.GradNorm(["depth", "normals"], shared="encoder")
```

What they do comes on top of `routing` and `loss_weights`. Losses that are not named are left alone,
and so is what a step of one's own takes by `minimize` or `gradients(loss_fn)`. Their weights are
logged as `LOSS_weight`, and are saved and loaded with the system.
"""

from mlsystem.balance.base import Balance
from mlsystem.balance.gradnorm import GradNorm
from mlsystem.balance.pcgrad import PCGrad
from mlsystem.balance.uncertainty import Uncertainty

__all__ = ["Balance", "GradNorm", "PCGrad", "Uncertainty"]
