"""The gradient of a function with respect to its input."""

from collections.abc import Callable
from typing import Any

from mlsystem.engine import engine


def grad(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function that gives the gradient of `fn(x)` with respect to `x`.

    Where `fn(x)` is not a scalar, it is the gradient of its sum: for a network that treats samples
    one by one, the gradient of each sample's output. The result can be differentiated again,
    inside a loss or by `grad` itself.

    ```python
    def loss(self, x, y, outputs):
        slope = ml.grad(self.critic)(outputs["between"])  # WGAN-GP, arXiv:1704.00028, eq. 3
        norm = ops.sqrt(ops.sum(slope**2, axis=(1, 2, 3)))
        return {"critic": outputs["score"], "penalty": 10 * (norm - 1) ** 2}
    ```

    `keras.ops.grad(fn)(x)`, in Keras 3.16, gives the same numbers, and takes functions of several
    arguments. Use it on tensors that nothing is differentiated by afterwards. Use `ml.grad` in a
    loss or inside another gradient: on torch, the result of `keras.ops.grad` is a constant there,
    so that its gradient is zero or an error.

    Args:
        fn: function of one argument, a float tensor or a structure of them, that returns a
            tensor.

    Returns:
        A function that takes `x` and returns the gradient, of the structure and shapes of `x`.
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
