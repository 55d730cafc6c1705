"""EMA: a frozen copy that follows its source."""

from typing import Any

import keras
from keras import ops

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem._learner import CopyBase, OwnLoss
from mlsystem.engine import select
from mlsystem.engine.variable_scope import Scope
from mlsystem.models.model import MLModel
from mlsystem.models.model_attributes import KINDS
from mlsystem.models.model_learner import ModelLearner


class Copy(ModelLearner, CopyBase):
    """The learner of a copy. It stores the source where Keras does not see it."""

    own_loss = OwnLoss()  # a copy does not learn
    source: Any = None

    def averaged_state(self) -> list[Any]:
        """Return the averages that a call in training mode changes, as in batch norm."""
        layers = _keras.flat_layers(self.source)
        state = {id(variable) for layer in layers for variable in _keras.own_state(layer)}
        pairs = zip(self.source.weights, self.model.averages, strict=False)
        return [average for weight, average in pairs if id(weight) in state]


@keras.saving.register_keras_serializable("mlsystem")
class EMA(MLModel):
    r"""A frozen copy of a model. Its weights are a moving average of the model's weights.

    Use it as a teacher, as a target network, or to evaluate a model with averaged weights.

    ```python
    class BYOL(ml.MLSystem):
        def __init__(self, encoder, predictor):
            super().__init__()
            self.online, self.predictor = encoder, predictor
            self.target = ml.EMA(self.online, momentum=0.99)
    ```

    After every `every`-th update of the source, each weight of the copy becomes
    `momentum * copy + (1 - momentum) * source`. This applies to trained weights and to batch-norm
    statistics. Integer weights are copied. The copy starts equal to its source. It is the mean
    teacher of Tarvainen & Valpola (2017, arXiv:1703.01780, eq. 2), the target network of BYOL
    (Grill et al. 2020, arXiv:2006.07733, eq. 1) and the weight average for sampling from GANs.

    The copy counts updates, not batches. If an optimizer accumulates gradients over 4 batches, the
    copy changes on one batch of 4.

    The averages of float16 and bfloat16 weights are stored in float32, because small steps would be
    rounded away. A call casts them to the dtype of the weights.

    The copy is a model. You can call it in `forward`, evaluate it and export it. A call runs in
    inference mode, unless you pass `training`. The copy has no trainable weights and no loss. Its
    `weights` are the averages, in the order of the source's weights, and then the number of
    updates, `updates`.

    Call `start()` after you load or set the weights of the source. It makes the copy equal to them.

    Args:
        model: the source, an MLModel or any Keras model.
        momentum: number from 0 to 1, or a Keras schedule of the number of the source's updates
            before this one.
        every: number of updates of the source per update of the copy.
        name: name of the copy. By default the name of the source with `_ema` appended.
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
        self.built = True  # its weights are created together with the source's weights
        if model.built:
            self.start()

    @property
    def weights(self) -> list[Any]:
        """The averages, in the order of the source's weights, then the number of updates."""
        return [v for v in super().weights if v is not self.updates] + [self.updates]

    @property
    def source(self) -> Any:
        """The model that the copy follows."""
        return self._mlsystem.source

    def __dir__(self) -> list[str]:
        # Keras saves the attributes among these names, and would save the source a second time.
        return [name for name in super().__dir__() if name != "source"]

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the copy. The first call builds the copy, and its source if necessary."""
        if not self.source.built:
            _keras.compute_output_spec(self.source, *inputs)
        _make_averages(self)
        if not _keras.was_called(self):
            self.built = False  # so that Keras stores the shapes, because export needs them
        kwargs.setdefault("training", False)  # or Keras would use the mode of the model around it
        return super().__call__(*inputs, **kwargs)

    def call(self, inputs: Any, *more: Any, training: Any = False, **kwargs: Any) -> Any:
        """Run the source with the averaged weights, in inference mode by default."""
        pairs = list(zip(self.source.weights, self.averages, strict=True))
        with Scope((w, _as(average.value, w)) for w, average in pairs) as scope:
            outputs = self.source(inputs, *more, training=training, **kwargs)
        copies = {id(weight): average for weight, average in pairs}
        for key, value in scope.updates().items():  # batch-norm statistics, and seeds
            copies.get(key, scope.assigned[key]).assign(value)
        return outputs

    def start(self) -> None:
        """Make the copy equal to its source. `updates` does not change.

        This happens automatically when the source gets its weights. It also happens when a system
        is set up before the first update of the source. Call it yourself after you set the weights
        of the source, for example after `source.load_weights(path)`.
        """
        _make_averages(self)
        for weight, average in zip(self.source.weights, self.averages, strict=True):
            average.assign(ops.copy(weight.value))  # its own buffer, because jax donates the state
        self.started = True

    def follow(self, updated: Any = None) -> None:
        """Move the copy towards its source. Called after each update of the source.

        Args:
            updated: a boolean scalar tensor: whether the source was updated. None means it was.
        """
        momentum = self.momentum
        if isinstance(momentum, keras.optimizers.schedules.LearningRateSchedule):
            momentum = momentum(self.updates.value)
        self.updates.assign_add(1 if updated is None else ops.cast(updated, "int32"))
        turn = ops.equal(self.updates.value % self.every, 0) if self.every > 1 else None
        due = select.all_of([updated, turn])
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
