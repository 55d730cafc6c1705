"""EMA: a frozen copy that follows its source."""

from typing import Any

import keras
from keras import ops

from mlsystem.model import MLModel


class _Reference:
    """Holds a model without Keras taking it for a part of the holder."""

    def __init__(self, model: Any) -> None:
        self.model = model


@keras.saving.register_keras_serializable("mlsystem")
class EMA(MLModel):
    r"""A frozen copy of a model whose weights follow those of the model.

    After each `every`-th update of the source, each weight of the copy becomes
    `momentum * copy + (1 - momentum) * source`: trained weights and batch-norm statistics alike;
    integer weights are copied. The copy starts equal to its source. This is the mean teacher of
    Tarvainen & Valpola (2017, arXiv:1703.01780, eq. 2), the target network of BYOL
    (Grill et al. 2020, arXiv:2006.07733, eq. 1) and the weight average for sampling from GANs.

    It is a model: it can be called in `forward` (in inference mode, unless `training` is given),
    evaluated, exported. It has no trainable weights and no loss.

    Args:
        model: the source, an MLModel or any Keras model that can be rebuilt from its
            configuration (`get_config`).
        momentum: number from 0 to 1, or a Keras schedule of the number of the source's updates
            before this one.
        every: number of updates of the source per update of the copy.
        name: name of the copy, by default that of the source with `_ema` behind it.

    ```python
    class BYOL(ml.MLSystem):
        def __init__(self, encoder, predictor):
            super().__init__()
            self.online, self.predictor = encoder, predictor
            self.target = ml.EMA(self.online, momentum=0.99)
    ```
    """

    def __init__(
        self, model: Any, momentum: Any = 0.99, every: int = 1, name: str | None = None
    ) -> None:
        super().__init__(name=name or f"{model.name}_ema")
        _check(momentum, every)
        self.momentum, self.every = momentum, every
        self._source = _Reference(model)
        self.copy = _clone(model)
        self.copy.trainable = False
        self.updates = self.add_weight(shape=(), dtype="int32", trainable=False, name="updates")
        self.started = False
        if model.built:
            self.start()

    @property
    def source(self) -> Any:
        """The model that is followed."""
        return self._source.model

    def call(self, *inputs: Any, training: Any = False, **kwargs: Any) -> Any:
        """Calls the copy, in inference mode unless `training` is given."""
        return self.copy(*inputs, training=training, **kwargs)

    def start(self) -> None:
        """Makes the copy equal to its source; done once, when both are built."""
        if not self.copy.built:
            self.copy.build_from_config(self.source.get_build_config())
        for source, copy in zip(self.source.weights, self.copy.weights, strict=True):
            copy.assign(ops.copy(source.value))  # its own buffer: jax gives the state away
        self.started = True

    def follow(self) -> None:
        """Moves the copy towards its source; the system calls it after each update of the source."""
        momentum = self.momentum
        if isinstance(momentum, keras.optimizers.schedules.LearningRateSchedule):
            momentum = momentum(self.updates.value)
        self.updates.assign_add(1)
        due = ops.equal(self.updates.value % self.every, 0)
        for source, copy in zip(self.source.weights, self.copy.weights, strict=True):
            copy.assign(ops.where(due, _mixed(copy, source, momentum), copy.value))


def _check(momentum: Any, every: int) -> None:
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"EMA got every={every!r}; give a whole number from 1.")
    if not callable(momentum) and not 0 <= float(momentum) <= 1:
        raise ValueError(f"EMA got momentum={momentum!r}; give a number from 0 to 1 or a schedule.")


def _mixed(copy: Any, source: Any, momentum: Any) -> Any:
    new = ops.cast(source.value, copy.dtype)
    if not keras.backend.is_float_dtype(copy.dtype):
        return new
    momentum = ops.cast(momentum, copy.dtype)
    return momentum * copy.value + (1 - momentum) * new


def _clone(model: Any) -> Any:
    """A second model of the same configuration, also where its classes were never registered."""
    classes = {layer.__class__.__name__: layer.__class__ for layer in _layers(model)}
    try:
        with keras.saving.CustomObjectScope(classes):
            return model.__class__.from_config(model.get_config())
    except Exception as error:
        raise ValueError(
            f"EMA cannot copy '{model.name}' ({type(model).__name__}), because it cannot be rebuilt "
            "from its configuration. Give its class a `get_config` that returns the arguments of "
            f"its constructor. {type(error).__name__}: {error}"
        ) from error


def _layers(model: Any) -> list[Any]:
    return [model, *model._flatten_layers(include_self=False)]
