"""Ensemble: models of equal architecture, run as one vectorized program."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras
from mlsystem._learner import OwnLoss
from mlsystem._signature import extras
from mlsystem._tensors import describe
from mlsystem.data.batch import own_entry
from mlsystem.engine import engine
from mlsystem.models import stacked_weights
from mlsystem.models.model import MLModel
from mlsystem.models.model_attributes import KINDS
from mlsystem.models.model_learner import ModelLearner
from mlsystem.models.stacked_weights import Members
from mlsystem.optimizers import member_rates
from mlsystem.step.reduction import check_targets


class EnsembleLearner(ModelLearner):
    """The learner of an ensemble. It stores the network where Keras does not see its weights."""

    net: Any = None
    inputs: Any = None  # shapes and dtypes of the inputs of one member
    frozen: Any = None  # whether each weight of the network was, when the members were made
    member_loss: Any = None
    count: int = 0
    is_batch_first: bool = False  # while Keras' `predict` joins batches along the first axis

    @cached_property
    def own_loss(self) -> OwnLoss:  # type: ignore[override]
        """A loss that was given, or that of a subclass."""
        return OwnLoss(self.member_loss is not None or type(self.model).loss is not Ensemble.loss)

    def check_optimizer(self, optimizer: Any) -> None:
        """Raise an error for an optimizer that does not work on each number alone."""
        stacked_weights.check_optimizer(self.key, optimizer)
        if self.multipliers is not None:
            member_rates.check_optimizer(self.key, optimizer)


@keras.saving.register_keras_serializable("mlsystem")
class Ensemble(MLModel):
    """Members of equal architecture, each with its own weights, run as one vectorized program.

    Use it for a deep ensemble (Lakshminarayanan et al. 2017, arXiv:1612.01474), a population, or
    many agents. It is much faster than as many separate models: see the guide to performance.

    ```python
    net = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ensemble = ml.Ensemble(net, 8, loss=loss, optimizer="adam")
    ensemble.fit(x, labels)
    logits = ensemble.predict(x)  # (8, number of samples, 10)
    one = ensemble.members[3]  # a Keras model
    ```

    `ensemble(x)` gives the inputs to all members and returns `(members, batch, ...)`.
    `ensemble.each(x)` takes `(members, batch, ...)`: each member gets its own inputs.

    The given loss is applied to each member and summed, so that each member trains as if it were
    alone. Each member starts from its own weights, drawn by the initializers of `net`. An
    initializer with a fixed seed gives all members the same start. Each weight of the ensemble
    holds those of all members, with the members as first axis.

    Optimizers must work on each number alone, as SGD, Adam and AdamW do. One that looks at a whole
    weight or at all of them (Lamb, Muon, Adafactor, `clipnorm`, `global_clipnorm`) is refused.
    On torch, a network that draws random numbers (dropout) runs one member after the other in
    training. A NaN in one member skips the update of all with `nonfinite="skip"`, and so does an
    overflow with loss scaling (`mixed_float16`). Metrics take the outputs of all members as one
    batch: the accuracy is the mean of theirs.

    Args:
        net: any Keras model or layer with one input and one output. Its own weights are not used.
            What it has frozen at the first call is frozen in all members.
        count: number of members.
        loss: as in `MLModel`, of the targets and one member's outputs.
        optimizer: as in `MLModel`.
        name: name of the ensemble.
        learning_rate_multipliers: one number for each member. Its learning rate is that of the
            optimizer, times this number. Schedules and callbacks change the rates of all members.
            Ftrl, `use_ema`, weights with a constraint and weights stored in 16 bits are refused.

    Raises:
        TypeError: `net` is no Keras model or layer, or has no `get_config` to copy it by.
        ValueError: `count` is no number from 1, or an optimizer does not work on each number alone.
    """

    _mlsystem: EnsembleLearner

    def __init__(
        self,
        net: Any,
        count: int,
        loss: Any = None,
        optimizer: Any = None,
        name: str | None = None,
        learning_rate_multipliers: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        stacked_weights.check(net, count)
        multipliers = member_rates.check(learning_rate_multipliers, count)
        kwargs.setdefault("dtype", net.dtype_policy)
        super().__init__(optimizer=optimizer, name=name, **kwargs)
        self.stacked: list[Any] = []
        self._mlsystem.net, self._mlsystem.count = net, int(count)
        self._mlsystem.multipliers = multipliers
        self._mlsystem.member_loss = _as_loss(keras.losses.get(loss))

    def build(self, input_shape: Any) -> None:
        """Create the weights of all members.

        Args:
            input_shape: the shape of a batch that all members get, such as `(None, 3)`.
        """
        if not self.stacked:
            _keras.unlock(self)
            spec = stacked_weights.spec_of_shape(input_shape)
            stacked_weights.make(self, self._mlsystem.net, spec)
        self.built = True

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call all members. The first call creates their weights."""
        if not self.stacked:
            _keras.unlock(self)
            spec = stacked_weights.spec(inputs[0], kwargs.get("own_inputs", False))
            stacked_weights.make(self, self._mlsystem.net, spec)
        return super().__call__(*inputs, **kwargs)

    def each(self, x: Any, training: Any = None) -> Any:
        """Call each member with its own inputs.

        Args:
            x: inputs of shape `(members, batch, ...)`.
            training: whether the members run in training mode.

        Returns:
            Outputs of shape `(members, batch, ...)`.
        """
        if not getattr(x, "shape", ()) or x.shape[0] != self.count:
            found = f"of shape {tuple(x.shape)}" if hasattr(x, "shape") else describe(x)
            raise ValueError(
                f"'{self.name}' has {self.count} members, and `each` got inputs {found}. "
                f"Give one array. Its first axis must be {self.count}."
            )
        return self(x, training=training, own_inputs=True)

    def call(self, inputs: Any, training: Any = None, own_inputs: bool = False) -> Any:
        """Run all members at once: with the same inputs, or each with its own."""
        trained, rest = stacked_weights.split(self)

        def member(given: Any) -> Any:
            weights, state, *own = given
            x = own[0] if own else inputs
            return net.stateless_call(weights, state, x, **given_mode, return_losses=True)

        net, own = self._mlsystem.net, (inputs,) if own_inputs else ()
        given_mode = extras(net.call, training=training)
        values = [variable.value for variable in trained], [variable.value for variable in rest]
        draws = bool(training) and stacked_weights.draws(net)
        outputs, state, losses = engine.vectorized(member, (*values, *own), draws)
        if training:
            for variable, value in zip(rest, state, strict=True):
                variable.assign(value)
        for loss in losses:  # regularizers
            self.add_loss(ops.sum(loss))
        if self._mlsystem.is_batch_first:
            return tree.map_structure(lambda one: ops.swapaxes(one, 0, 1), outputs)
        return outputs

    forward = call

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of all members, `(members, samples, ...)`. See `MLModel.predict`."""
        return self._members_first(super().predict, x, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the outputs of all members for one batch. See `MLModel.predict_on_batch`."""
        return self._members_first(super().predict_on_batch, x)

    def _members_first(self, predict: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict with the batch as first axis, which Keras needs, and put the members first."""
        self._mlsystem.is_batch_first = True
        try:
            outputs = predict(*args, **kwargs)
        finally:
            self._mlsystem.is_batch_first = False
        return tree.map_structure(lambda one: np.swapaxes(one, 0, 1), outputs)

    @property
    def count(self) -> int:
        """The number of members."""
        return self._mlsystem.count

    @count.setter
    def count(self, value: Any) -> None:
        raise _fixed(self, "count")

    @property
    def learning_rate_multipliers(self) -> tuple[float, ...] | None:
        """The multiple of the optimizer's learning rate that each member has, if they differ."""
        found = self._mlsystem.multipliers
        return None if found is None else tuple(found)

    @learning_rate_multipliers.setter
    def learning_rate_multipliers(self, value: Any) -> None:
        raise _fixed(self, "learning_rate_multipliers")

    @property
    def members(self) -> Members:
        """The members as Keras models: `ensemble.members[3]` is a copy with the present weights.

        `ensemble.members[3] = model` sets the weights of a member.
        """
        return Members(self)

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """Return the sum of the members' losses, a scalar tensor."""
        loss = self._mlsystem.member_loss
        if loss is None:
            raise NotImplementedError(
                f"'{self.key}' has no loss. Override `loss`, or give `loss=`."
            )
        check_targets(self.key, y)
        y, outputs, sample_weight = (
            own_entry(each, self.key) for each in (y, outputs, sample_weight)
        )
        if tree.is_nested(outputs):
            raise ValueError(
                f"The loss given to '{self.key}' takes one output, and its network returns "
                f"{describe(outputs)}. Give a network of one output, or override `loss`."
            )
        losses = ops.vectorized_map(lambda one: loss(y, one, sample_weight), outputs)
        return ops.sum(losses)

    def get_build_config(self) -> Any:
        """Return the build config. Add the inputs of an ensemble that was only called."""
        config = super().get_build_config() or {}
        if "batch" in config or self._mlsystem.inputs is None:
            return config
        return {"inputs": keras.saving.serialize_keras_object(self._mlsystem.inputs)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the weights of a loaded ensemble. Called by Keras."""
        if "inputs" in (config or {}):
            spec = keras.saving.deserialize_keras_object(config["inputs"])
            stacked_weights.make(self, self._mlsystem.net, spec)
            self.built = True
        else:
            super().build_from_config(config)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Update the metrics with the outputs of all members, as if they were one batch."""

        def repeated(one: Any) -> Any:
            return None if one is None else ops.concatenate([one] * self.count)

        y, sample_weight = tree.map_structure(repeated, (y, sample_weight))
        y_pred = tree.map_structure(lambda o: ops.reshape(o, (-1, *o.shape[2:])), y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)


def _fixed(ensemble: Ensemble, name: str) -> AttributeError:
    return AttributeError(
        f"`{name}` of '{ensemble.name}' is {getattr(ensemble, name)}, and fixed: the weights and "
        "the compiled step depend on it. Make a new Ensemble, and set its `members`."
    )


class _FunctionLoss(keras.losses.Loss):  # type: ignore[misc, unused-ignore]
    """A function `(y_true, y_pred)` as a Keras loss, so that it takes sample weights."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _as_loss(loss: Any) -> Any:
    return loss if loss is None or isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)


KINDS[Ensemble] = EnsembleLearner
