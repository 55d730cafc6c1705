"""`ml.grad`: the gradient of a function with respect to its input."""

from collections.abc import Callable
from typing import Any

from mlsystem.engine import engine


def grad(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that computes the gradient of `fn(x)` with respect to `x`.

    Use it for losses that contain a gradient, such as a gradient penalty. If `fn(x)` is not a
    scalar, its elements are summed first. For a network that treats samples independently, this
    gives the gradient of each sample's output. The result can be differentiated again.

    ```python
    def loss(self, x, y, outputs):
        slope = ml.grad(self.critic)(outputs["between"])  # WGAN-GP, arXiv:1704.00028, eq. 3
        norm = ops.sqrt(ops.sum(slope**2, axis=(1, 2, 3)))
        return {"critic": outputs["score"], "penalty": 10 * (norm - 1) ** 2}
    ```

    `keras.ops.grad(fn)(x)`, in Keras 3.16, gives the same numbers and accepts several arguments.
    Use `ml.grad` in a loss or inside another gradient. On torch, the result of `keras.ops.grad`
    is a constant there: its gradient is zero or raises an error.

    Args:
        fn: function of one argument, a float tensor or a structure of float tensors. It returns
            a tensor.

    Returns:
        A function that takes `x` and returns the gradient, with the structure and shapes of `x`.
    """
    if not callable(fn):
        raise TypeError(
            f"ml.grad got {fn!r}. Give a function of one argument: ml.grad(lambda x: ...)(x)."
        )

    def checked(x: Any) -> Any:
        if (value := fn(x)) is None:
            raise ValueError("The function given to ml.grad returned None. Let it return a tensor.")
        return value

    return engine.grad(checked)
