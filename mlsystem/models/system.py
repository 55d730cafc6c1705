"""MLSystem: a model made of models, which learn together."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from mlsystem import _keras
from mlsystem._signature import bind
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.batch import Batch
from mlsystem.data.mldata import MLData
from mlsystem.diagnostics import gradient_report, summary
from mlsystem.diagnostics.gradient_report import GradientReport
from mlsystem.export import system_export
from mlsystem.fit import data_arguments
from mlsystem.fit.trainer import Trainer
from mlsystem.models.ensemble import Ensemble
from mlsystem.models.model import MLModel
from mlsystem.models.model_attributes import KINDS
from mlsystem.models.system_attributes import SystemAttributes
from mlsystem.models.system_learner import SystemLearner
from mlsystem.models.system_saving import SystemSaving
from mlsystem.optimizers import creation
from mlsystem.preparation import member_optimizers
from mlsystem.routing import members, system_routing
from mlsystem.step import context, system_losses, train_function
from mlsystem.step.loss_values import ForwardLosses
from mlsystem.step.train_function import SystemTrainFunction


@keras.saving.register_keras_serializable("mlsystem")
class MLSystem(SystemAttributes, SystemSaving, MLModel):
    """Several models that are trained together, each with its own optimizer and losses.

    Set the models as attributes, in lists or in dicts. They are the members of the system, named
    by their path: `generator`, `critics/0`. Override `forward` to run the models once and to
    return all outputs that the losses need. Set `routing` to choose the losses of each model:

    ```python
    class GAN(ml.MLSystem):
        routing = "own"

        def __init__(self, generator, discriminator, latent=64):
            super().__init__()
            self.generator, self.discriminator = generator, discriminator
            self.latent = latent
            self.seed = keras.random.SeedGenerator(0)

        def forward(self, images, training=None):
            z = keras.random.normal((keras.ops.shape(images)[0], self.latent), seed=self.seed)
            fake = self.generator(z)
            return {"real": self.discriminator(images), "fake": self.discriminator(fake)}
    ```

    A system can be a member of another system. There it counts as one member with one loss, the
    sum of its losses.

    `save` writes all that is needed to resume training. `keras.saving.load_model` returns the
    compiled system. `MLModel` lists the arguments that a constructor may take. In the file,
    models are stored by name, so their order does not matter.

    Attributes:
        routing: the losses that each model follows, one row per model. `"sum"` (default): all
            losses. `"own"`: the loss of its own name, and losses that have no model's name. A table
            `{model: {loss: weight}}`: a weight may be negative (gradient reversal), a Keras
            variable, or a Keras schedule of the number of batches before this one. A loss may also
            be a term of a loss, as in `compile(loss_weights=)`.
        phases: groups of models that are updated one after another on each batch, such as
            `[("critic",)] * 5 + [("generator",)]`. Each phase has its own forward pass. By default,
            one phase updates all models, from one forward pass with the old weights.
        update_every: `{model: n}`: update the model if the number of batches, including this one,
            is a multiple of n. On other batches, your own steps skip the model too, and it costs
            nothing. The same holds for `update_start` and `update_end`.
        update_start: `{model: n}`: do not update the model on the first n batches.
        update_end: `{model: n}`: update the model on the first n batches only.
        update_when: `{model: condition}`: update the model only if the condition is true. It is a
            function from a dict of the losses and their terms to a boolean scalar:
            `{"critic": lambda losses: losses["critic"] > 0.5}`. The compiled step evaluates it.
            The share of batches with an update is logged as `MODEL_updated`.
        nonfinite: the treatment of an update whose gradient is NaN or infinite. "skip" (default):
            the model, its optimizer, its EMA copies and the logs do not change. Variables that
            `forward` assigned on the batch, such as batch-norm statistics and queues, are restored,
            but not random seeds. `MODEL_skipped` in the logs of the epoch counts the skipped
            updates, and one warning reports them. "raise": skip the update and end training with a
            FloatingPointError. "keep": apply the update. An optimizer that scales the loss still
            lowers its scale. If only the scale caused an overflow, the update is skipped but not
            counted.
        balance: an object of `ml.balance` that weighs the losses during training, or prevents
            conflicts between their gradients. None uses `routing` alone.

    Freeze and unfreeze a model by its `trainable`, or by the `trainable` of its layers. You can do
    so at any time, also from a callback during training. The optimizer keeps its state meanwhile.

    `forward` may take `y`, `training` and `phase` (the index of the phase, None outside training).
    Each phase runs it once, so batch norm is updated once per phase.
    Trainable weights that the system itself owns are the member `self`.
    """

    _mlsystem: SystemLearner
    routing: Any = "sum"
    phases: Any = None
    update_every: Any = None
    update_start: Any = None
    update_end: Any = None
    update_when: Any = None
    nonfinite: str = "skip"
    balance: Any = None

    # Methods to override ---------------------------------------------------------------------

    def forward(self, x: Any, training: Any = None) -> Any:
        """Run the models once and return all outputs that the losses need."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say how to compute: override `forward(self, x)`."
        )

    def compute_losses(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> dict[str, Any]:
        """Compute the losses by name. Default: each member's own `loss`, under the member's name.

        Override it to add losses that belong to no single model, or to write all in one place:

        ```python
        def compute_losses(self, x, y, outputs):
            cycle = keras.ops.mean(keras.ops.abs(outputs["again"] - x))
            return super().compute_losses(x, y, outputs) | {"cycle": cycle}
        ```

        Args:
            x: the inputs in the batch.
            y: the targets in the batch. None if there are none.
            outputs: the result of `forward`.
            sample_weight: the weight of each sample. None if there are none.
            training: whether this is a training step.

        Returns:
            `{loss name: value}`: scalars, vectors of one loss per sample, or dicts of named terms.
        """
        this = context.running()
        if this is not None and sample_weight is None and training is None:
            sample_weight, training = this.batch.sample_weight, this.training
        return system_losses.member_losses(
            self._mlsystem, Batch(x, y, sample_weight), outputs, training
        )

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """Return the sum of the losses of the system, a scalar tensor. See `compute_losses`."""
        learner = self._mlsystem
        taken = system_losses.find(learner, Batch(x, y, sample_weight), outputs, bool(training))
        learner.losses = ForwardLosses(taken=taken)
        names = system_routing.top(learner.nested, taken.losses)
        return sum((taken.losses[name] for name in names), ops.zeros(()))

    def data(self) -> Any:
        """Return the data of the system, for a `fit` or `evaluate` without data.

        Override it, or set the attribute, to return an `ml.MLData` or anything that `fit` takes.
        """
        return None

    def configure_optimizers(
        self, optimizer: Any = None, learning_rate: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the optimizer of each model. Default: each model's own optimizer.

        Override it to choose optimizers in one place:

        ```python
        def configure_optimizers(self):
            return super().configure_optimizers("adam", 2e-4, beta_1=0.5) | {"critic": "sgd"}
        ```

        Args:
            optimizer: class or name. Each model gets an optimizer of it.
            learning_rate: the learning rate of each optimizer.
            kwargs: its other arguments.

        Returns:
            `{model: optimizer}`.
        """
        if optimizer is not None:
            return creation.one_each(
                optimizer, list(self._mlsystem.models()), learning_rate, **kwargs
            )
        return member_optimizers.own_optimizers(self)

    # Methods to call -------------------------------------------------------------------------

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Print Keras' summary, and a table of each model's training.

        A row shows the number of weights and of trained weights, and the optimizer with its
        learning rate. It also shows when the model is updated, and the losses it follows with
        their weights. A schedule is shown by class and present value, a variable by its value.
        The losses are known after the system has seen a batch. `setup` is enough if
        `compute_losses` can run on shapes alone.

        Args:
            args: as in `keras.Model.summary`.
            kwargs: as in `keras.Model.summary`. `print_fn` gets the table too.
        """
        call = bind(super().summary, *args, **kwargs)
        super().summary(*args, **kwargs)
        (call.arguments["print_fn"] or print)(summary.text(self))

    def gradient_report(self, data: Any = None) -> GradientReport:
        """Compute the gradient norm of each loss in each model. Report problems, change nothing.

        Use it to find losses that do not reach their model.

        ```python
        report = gan.gradient_report(images[:64])
        print(report)
        assert not report.dead
        report["generator"]["discriminator"]  # a norm
        ```

        Args:
            data: one batch as the data set yields it, or an `MLData` or another data set, whose
                first batch is used, as in `setup`.

        Returns:
            The norms by loss and model. `dead` lists the routes without a gradient: the model
            follows a loss but does not affect it. `unfollowed` lists the opposite: a gradient
            exists, but the model does not follow the loss. The system is set up first, if it is
            not yet. If `forward` takes `phase`, each model is measured in its first phase.
        """
        batch = data_arguments.examples(self._mlsystem, data)[0]
        self.setup(batch)
        return gradient_report.report(self, batch)

    def export(
        self, folder: Any, format: str, models: Any = None, check: bool = True
    ) -> dict[str, Any]:
        """Export each member to a file that other programs run, and write a manifest.

        `gan.export("exported", format="onnx")` exports all members. With `models=["generator"]`
        it exports one.

        Files hold the members in inference mode. A member at `vae/encoder` becomes
        `vae/encoder.onnx`. `manifest.json` lists for each its file, the names, shapes and dtypes of
        inputs and outputs, versions and SHA-256 checksums. The inputs are those with which
        `forward` calls the member. It runs once on made-up data, without effects.

        If the present backend cannot write the format, or fails on a member, another installed
        backend does so in a process of its own. It imports the modules of your classes, and runs
        your script up to its first `setup` or `fit`, if classes are defined there. The folder
        appears whole or not at all.

        Args:
            folder: a new folder. A folder of an earlier export is replaced.
            format: `"tf_saved_model"`, `"onnx"`, `"openvino"`, `"litert"` or `"torch"`.
            models: names of members to export. By default all. A list or nested system stands for
                its members.
            check: whether to run each file in its own runtime, if it is installed, and to compare
                its outputs with the member's to 1e-5, at the batch sizes 1 and 7.

        Returns:
            The content of the manifest.

        Raises:
            ImportError: no installed backend can write the format. The message has the command.
            ValueError: an unknown format or model, a folder with other files, a system that is not
                set up, or members that cannot be exported. The message lists all of these.
        """
        return system_export.export(self._mlsystem, folder, format, models, check)

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configure training. Without a call, `fit` uses the defaults.

        Args:
            optimizer: Keras optimizer, class or name, copied for each model, or a dict of these by
                model. By default the result of `configure_optimizers`.
            loss: Keras loss for each model without its own loss, or a dict of losses by model.
            loss_weights: weight of all losses, or a dict of weights by loss, on top of `routing`.
                Name a term of a loss as in the logs (`encoder_kl`), or by its own name (`kl`) if
                only one loss has it. Its weight replaces the weight of its loss. Logs are
                unweighted.
            metrics: list of Keras metrics for each model with a given loss, or a dict by model.
            weighted_metrics: like `metrics`, but weighted by the sample weights.
            kwargs: the other arguments of `keras.Model.compile`.
        """
        learner = self._mlsystem
        learner.given = replace(
            learner.given,
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            auto_scale_loss=kwargs.get("auto_scale_loss", True),
        )
        learner.reset()
        Trainer.compile(self, optimizer=None, **kwargs)
        learner.role = replace(learner.role, own=optimizer if learner.role.outer else None)

    compile._is_default = compile  # type: ignore[attr-defined]

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """The Keras optimizer of each model, by name."""
        return self._mlsystem.optimizers

    @property
    def metrics(self) -> list[Any]:
        """The trackers of losses and logs, the members' metrics, and metrics set as attributes."""
        own = _keras.own_metrics(self)
        return [*self._mlsystem.logs.metrics(), *self._mlsystem.metrics.values(), *own]

    def reset_metrics(self) -> None:
        """Reset the running means. Called by Keras at the start of each epoch."""
        super().reset_metrics()
        learner = self._mlsystem
        learner.logs.reset()
        learner.compiled.shown = {}
        if self.optimizer is not None:
            learner.compiled.batches = int(self.optimizer.iterations)

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the running means: in a step the updated ones, else all that have a value."""
        return self._mlsystem.results()

    def make_train_function(self, force: bool = False) -> Any:
        """Create the training step, compiled for each set of models that are updated on a batch."""
        train_function.check_rehearsed(self._mlsystem, "train_step")
        if force or self.train_function is None:
            self.train_function = SystemTrainFunction(self._mlsystem)
        return self.train_function

    def build(self, input_shape: Any) -> None:
        """Mark the system as built. Keras calls it after a `forward` that may call members only."""
        members.mark_built(self)
        super().build(input_shape)

    build._is_default = True  # type: ignore[attr-defined]

    def predict(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of `forward`, computed batch by batch. See `keras.Model.predict`.

        Args:
            x: as in Keras, an `ml.MLData` (its test data) or `ml.Streams`.
            args: the other arguments of `keras.Model.predict`.
            kwargs: the other arguments of `keras.Model.predict`.

        Raises:
            ValueError: an output of an `ml.Ensemble` has the members as first axis. Keras joins
                batches along that axis. In `forward`, move the batch there.
        """
        if not self.built and (isinstance(x, (dict, tuple, list)) or hasattr(x, "shape")):
            self.setup((x,))
        if not self.built and (x is None or isinstance(x, (MLData, BatchAdapter))):
            self.setup(x)
        outputs = super().predict(x, *args, **kwargs)
        _check_joined(self, x, outputs)
        return outputs


def _check_joined(system: Any, x: Any, outputs: Any) -> None:
    """Raise an error if batches were joined along the members of an ensemble."""
    ensembles = [n for n, m in members.leaves(system).items() if isinstance(m, Ensemble)]
    rows = {len(leaf) for leaf in tree.flatten(x) if isinstance(leaf, np.ndarray)}
    if not ensembles or len(rows) != 1:
        return
    for path, leaf in tree.flatten_with_path(outputs):
        if len(leaf) not in rows:
            where = "/".join(map(str, path)) or "the output"
            raise ValueError(
                f"predict of '{system.name}' got {rows.pop()} samples, and '{where}' has the shape "
                f"{leaf.shape}: the first axis of what '{ensembles[0]}' returns is its members. "
                "Return it from `forward` with the batch first: keras.ops.swapaxes(outputs, 0, 1)."
            )


KINDS[MLSystem] = SystemLearner
