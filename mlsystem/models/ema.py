"""EMA: a frozen copy that follows its source."""

from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem._learner import CopyLearner
from mlsystem.engine import select
from mlsystem.engine.scope import Scope
from mlsystem.models.model import KINDS, MLModel
from mlsystem.models.one_model import OneModel


class Copy(OneModel, CopyLearner):
    """What stands for a copy. It holds the source out of the sight of Keras."""

    source: Any = None

    def has_loss(self) -> bool:
        """It has nothing to learn."""
        return False

    def averaged_state(self) -> list[Any]:
        """The averages that a call in training mode moves, as those of batch norm's statistics."""
        layers = _keras.flat_layers(self.source)
        state = {id(variable) for layer in layers for variable in _keras.own_state(layer)}
        pairs = zip(self.source.weights, self.model.averages, strict=False)
        return [average for weight, average in pairs if id(weight) in state]


@keras.saving.register_keras_serializable("mlsystem")
class EMA(MLModel):
    r"""A frozen copy of a model whose weights follow those of the model.

    After each `every`-th update of the source, each weight of the copy becomes
    `momentum * copy + (1 - momentum) * source`: trained weights and batch-norm statistics alike;
    integer weights are copied. The copy starts equal to its source. This is the mean teacher of
    Tarvainen & Valpola (2017, arXiv:1703.01780, eq. 2), the target network of BYOL
    (Grill et al. 2020, arXiv:2006.07733, eq. 1) and the weight average for sampling from GANs.

    It follows updates, not batches: with an optimizer that accumulates gradients over 4 batches, it
    moves on one batch of 4.

    The averages of float16 and bfloat16 weights are kept in float32, since small steps would be
    rounded away. A call casts them to the dtype of the weights.

    It is a model: it can be called in `forward` (in inference mode, unless `training` is given),
    evaluated, exported. It has no trainable weights and no loss. Its `weights` are the averages, in
    the order of the weights of its source, and last the number of updates, `updates`.

    Call `start()` after you have loaded or set the weights of the source: it makes the copy equal
    to them again.

    Args:
        model: the source, an MLModel or any Keras model.
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

    _mlsystem: Copy

    def __init__(
        self, model: Any, momentum: Any = 0.99, every: int = 1, name: str | None = None
    ) -> None:
        _check(model, momentum, every)
        super().__init__(name=name or f"{model.name}_ema")
        self.momentum, self.every = momentum, every
        self._mlsystem.source = model
        self.updates = self.add_weight(shape=(), dtype="int32", trainable=False, name="updates")
        self.averages: list[Any] = []
        self.started = False
        self.built = True  # its weights are made when those of the source are
        if model.built:
            self.start()

    @property
    def weights(self) -> list[Any]:
        """The averages, in the order of the weights of the source, then the count of updates."""
        return [v for v in super().weights if v is not self.updates] + [self.updates]

    @property
    def source(self) -> Any:
        """The model that is followed."""
        return self._mlsystem.source

    def __dir__(self) -> list[str]:
        # Keras saves what it finds among these names, and would save the source a second time.
        return [name for name in super().__dir__() if name != "source"]

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Calls the copy; the first call builds it, and its source if need be."""
        if not self.source.built:
            _keras.compute_output_spec(self.source, *inputs)
        _make_averages(self)
        if not _keras.was_called(self):
            self.built = False  # so that Keras notes the shapes, which export needs
        kwargs.setdefault("training", False)  # or Keras would take that of the model around it
        return super().__call__(*inputs, **kwargs)

    def call(self, inputs: Any, *more: Any, training: Any = False, **kwargs: Any) -> Any:
        """Runs the source with the averaged weights, in inference mode unless told otherwise."""
        pairs = list(zip(self.source.weights, self.averages, strict=True))
        with Scope((w, _as(average.value, w)) for w, average in pairs) as scope:
            outputs = self.source(inputs, *more, training=training, **kwargs)
        copies = {id(weight): average for weight, average in pairs}
        for key, value in scope.updates().items():  # batch-norm statistics, and seeds
            copies.get(key, scope.assigned[key]).assign(value)
        return outputs

    def start(self) -> None:
        """Makes the copy equal to its source. `updates` stays.

        This is done by itself when the source gets its weights, and when a system is set up whose
        source was not updated yet. Call it where you set the weights of the source later, as after
        `source.load_weights(path)`.
        """
        _make_averages(self)
        for weight, average in zip(self.source.weights, self.averages, strict=True):
            average.assign(ops.copy(weight.value))  # its own buffer: jax gives the state away
        self.started = True

    def follow(self, updated: Any = None) -> None:
        """Moves the copy towards its source; called after each update of the source.

        Args:
            updated: a boolean scalar tensor, whether there was an update; None where there was.
        """
        momentum = self.momentum
        if isinstance(momentum, keras.optimizers.schedules.LearningRateSchedule):
            momentum = momentum(self.updates.value)
        self.updates.assign_add(1 if updated is None else ops.cast(updated, "int32"))
        turn = ops.equal(self.updates.value % self.every, 0) if self.every > 1 else None
        due = select.both(updated, turn)
        for weight, average in zip(self.source.weights, self.averages, strict=True):
            new = _mixed(average, weight, momentum)
            average.assign(new if due is None else ops.where(due, new, average.value))


def _check(model: Any, momentum: Any, every: int) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"EMA got {model!r} to follow. Give the model itself: an MLModel or a Keras model."
        )
    if any(type(layer).__name__ == "TorchModuleWrapper" for layer in _layers(model)):
        raise ValueError(
            f"EMA cannot follow '{model.name}': it holds a torch.nn.Module, whose parameters Keras "
            "cannot exchange. Write the network with Keras layers."
        )
    if not is_count(every):
        raise ValueError(f"EMA got every={every!r}; give a whole number from 1.")
    if not _is_momentum(momentum):
        raise ValueError(f"EMA got momentum={momentum!r}; give a number from 0 to 1 or a schedule.")


def _is_momentum(value: Any) -> bool:
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return True
    try:
        return 0 <= float(value) <= 1
    except (TypeError, ValueError):
        return False


def _average_dtype(dtype: str) -> str:
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _as(value: Any, weight: Any) -> Any:
    return ops.cast(value, _keras.stored_dtype(weight))


def _mixed(average: Any, weight: Any, momentum: Any) -> Any:
    new = ops.cast(weight.value, average.dtype)
    if not keras.backend.is_float_dtype(average.dtype):
        return new
    momentum = ops.cast(momentum, average.dtype)
    return momentum * average.value + (1 - momentum) * new


def _layers(model: Any) -> list[Any]:
    return [model, *(layer for child in model.layers for layer in _layers_of(child))]


def _layers_of(layer: Any) -> list[Any]:
    return _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _make_averages(copy: EMA) -> None:
    if copy.averages or not copy.source.weights:
        return
    _keras.unlock(copy)  # the state of a layer that was called is locked
    for weight in copy.source.weights:
        copy.averages.append(
            copy.add_weight(
                shape=weight.shape,
                dtype=_average_dtype(_keras.stored_dtype(weight)),
                initializer="zeros",
                trainable=False,
                autocast=False,
                name=weight.path.replace("/", "_"),
            )
        )


KINDS[EMA] = Copy
