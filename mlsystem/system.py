"""MLSystem: a model made of models, which learn together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mlsystem import _keras, data, losses, members, optimizers, routing, schedule, step, variants
from mlsystem.data import Batch
from mlsystem.ema import EMA
from mlsystem.learner import Learner
from mlsystem.model import MLModel
from mlsystem.routing import Rows
from mlsystem.step import Taken


@keras.saving.register_keras_serializable("mlsystem")
class MLSystem(MLModel):
    """Models that learn together, each by its own optimizer and from the losses it follows.

    Its members are the models set as attributes, in lists and in dicts, named by their path:
    `generator`, `critics/0`. Override `forward`, which runs them once and returns everything
    that the losses look at, and say who follows which loss:

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
            return {"real": self.discriminator(images), "fake": self.discriminator(self.generator(z))}
    ```

    Attributes:
        routing: which losses each model follows, one row per model. `"sum"` (default): all.
            `"own"`: the loss of its own name, and those that bear no model's name. A table
            `{model: {loss: weight}}`: a weight may be negative (gradient reversal), a Keras
            variable, or a Keras schedule of the number of batches before this one.
        phases: groups of models that are updated one after another on each batch, each from a
            forward pass of its own: `[("critic",)] * 5 + [("generator",)]`. By default one phase
            with all models, from one forward pass and the old weights.
        update_every: `{model: n}`: the model is updated when the number of batches seen, this
            one included, is a multiple of n.

    `forward` may name `y`, `training` and `phase` (the index of the phase; None outside training).
    """

    routing: Any = "sum"
    phases: Any = None
    update_every: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name != "net" and not name.startswith("_") and members.holds_layer(value):
            self.__dict__.setdefault("_member_names", {})[name] = None

    # What users override ---------------------------------------------------------------------

    def forward(self, x: Any, training: Any = None) -> Any:
        """Runs the models once and returns everything that the losses look at."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say how to compute: override `forward(self, x)`."
        )

    def compute_losses(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> dict[str, Any]:
        """The losses by name: by default each member's own `loss`, under the member's name.

        Override it to add losses that belong to no single model, or to write all in one place:

        ```python
        def compute_losses(self, x, y, outputs):
            cycle = keras.ops.mean(keras.ops.abs(outputs["again"] - x))
            return super().compute_losses(x, y, outputs) | {"cycle": cycle}
        ```

        Args:
            x: the inputs in the batch.
            y: the targets in the batch; None without any.
            outputs: what `forward` returned.
            sample_weight: the weight of each sample; None without any.
            training: whether this is a training step.

        Returns:
            `{loss name: value}`: scalars, vectors of one loss per sample, or dicts of named terms.
        """
        this = step.running()
        if this is not None and sample_weight is None:
            sample_weight, training = this.batch.sample_weight, this.training
        return {
            name: self._member_loss(name, member, x, y, outputs, sample_weight, training)
            for name, member in self._direct_members().items()
            if self._member_has_loss(name, member)
        }

    def loss(
        self, x: Any, y: Any, outputs: Any, sample_weight: Any = None, training: Any = None
    ) -> Any:
        """The sum of the losses of the system, a scalar tensor."""
        batch = Batch(x, y, sample_weight)
        taken = self._find_losses(batch, outputs, bool(training))
        self._run.taken = taken
        return sum((taken.losses[n] for n in self._top(taken.losses)), ops.zeros(()))

    def configure_optimizers(
        self, optimizer: Any = None, learning_rate: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The optimizer of each model: by default each model's own.

        ```python
        def configure_optimizers(self):
            return super().configure_optimizers("adam", 2e-4, beta_1=0.5) | {"critic": "sgd"}
        ```

        Args:
            optimizer: class or name of which each model gets one.
            learning_rate: its learning rate.
            kwargs: its other arguments.

        Returns:
            `{model: optimizer}`.
        """
        names = list(self._models())
        if optimizer is not None:
            return optimizers.one_each(optimizer, names, learning_rate, **kwargs)
        return {name: _optimizer_of(member) for name, member in self._models().items()}

    # What users call -------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training; `fit` does without it.

        Args:
            optimizer: Keras optimizer, class or name of which each model gets a copy, or a dict
                of these by model. By default what `configure_optimizers` returns.
            loss: Keras loss of each model that has none of its own, or a dict of losses by model.
            loss_weights: weight of all losses, or a dict of weights by loss, on top of `routing`.
            metrics: list of Keras metrics of each model with a given loss, or a dict by model.
            weighted_metrics: likewise, weighted by the sample weights.
            kwargs: the other arguments of `keras.Model.compile`.
        """
        self._run.given = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self._run.reset()
        keras.Model.compile(self, optimizer=None, **kwargs)

    @property
    def optimizers(self) -> dict[str, Any]:
        """The Keras optimizer of each model, by name."""
        optimizer = getattr(self, "optimizer", None)
        return {} if optimizer is None else optimizer.optimizers

    # The models ------------------------------------------------------------------------------

    def _direct_members(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.__dict__.get("_member_names", ()):
            found |= members.walk(name, getattr(self, name, None))
        return {n: m for n, m in found.items() if isinstance(m, keras.Model) or m.weights or not m.built}

    def _leaves(self) -> dict[str, Any]:
        """The members, those of nested systems under their path, and the system's own weights."""
        direct = self._direct_members()
        leaves: dict[str, Any] = {}
        for name, member in direct.items():
            inner = member._leaves() if isinstance(member, MLSystem) else {"": member}
            leaves |= {f"{name}/{leaf}" if leaf else name: m for leaf, m in inner.items()}
        own = members.Own(self, list(direct.values()))
        return leaves | {"self": own} if own.weights else leaves

    def _models(self) -> dict[str, Any]:
        leaves = self._run.members if self._run.members is not None else self._leaves()
        return {name: model for name, model in leaves.items() if model.trainable_weights}

    def _nested(self) -> dict[str, Any]:
        return {n: m for n, m in self._direct_members().items() if isinstance(m, MLSystem)}

    def _finish_build(self) -> None:
        """Checks the members once there are weights, and gives each its optimizer."""
        self._run.members = self._leaves()
        self._name_members()
        self._check_members()
        if self._run.purpose == "train_step" or self.optimizer is None:
            self._build_optimizers()
        self._plan()

    def _name_members(self) -> None:
        for name, member in self._direct_members().items():
            if isinstance(member, MLModel):
                member.key = name
            if isinstance(member, MLSystem):
                member._run.members = member._leaves()
                member._name_members()

    def _check_members(self) -> None:
        if type(self).loss is not MLSystem.loss:
            raise ValueError(
                f"{type(self).__name__} overrides `loss`. The losses of a system have names: "
                "override `compute_losses(self, x, y, outputs)`, which returns {name: loss}."
            )
        for name, member in self._leaves().items():
            if isinstance(member, EMA) and not member.started and member.source.built:
                member.start()
            if not member.built:
                raise ValueError(
                    f"'{name}' has no weights yet: `{type(self).__name__}.forward` does not call it. "
                    "Call it there, build it beforehand, or do not set it as an attribute."
                )
        members.check_shared(self._leaves())

    def _build_optimizers(self) -> None:
        models = self._models()
        given = self._run.given.get("optimizer")
        chosen = {
            name: optimizers.make(optimizer)
            for name, optimizer in self._configured(list(models)).items()
        }
        if given is not None:
            chosen |= _one_each_copied(given, list(models))
        if missing := [name for name in models if name not in chosen]:
            raise ValueError(
                f"configure_optimizers returns no optimizer for {', '.join(map(repr, missing))}. "
                f"{routing.listing(chosen)}"
            )
        chosen = optimizers.distinct({name: chosen[name] for name in models})
        chosen = {n: optimizers.scaled(o, models[n]) for n, o in chosen.items()}
        for name, optimizer in chosen.items():
            if not optimizer.built:
                optimizer.build(models[name].trainable_weights)
        with _keras.DotNotTrackScope():
            self.optimizer = optimizers.SystemOptimizer(chosen) if chosen else None

    def _configured(self, names: Sequence[str]) -> dict[str, Any]:
        return routing.by_name(self.configure_optimizers(), names, "configure_optimizers")

    def _plan(self) -> None:
        """Reads phases and `update_every`, and the losses and metrics given to `compile`."""
        names = list(self._models())
        self._run.phases = schedule.read_phases(self.phases, names)
        self._run.every = schedule.read_every(self.update_every, names)
        self._run.due = None
        supervised = [n for n, m in self._direct_members().items() if not isinstance(m, EMA)]
        given = self._run.given
        self._run.losses = _per_model(given.get("loss"), supervised, "loss", self._lacks_loss)
        self._run.losses = {n: _keras.CompileLoss(v) for n, v in self._run.losses.items()}
        self._run.metrics = {
            n: _keras.CompileMetrics(v, w) for n, (v, w) in self._given_metrics(supervised).items()
        }

    def _lacks_loss(self, name: str) -> bool:
        member = self._direct_members()[name]
        return bool(member.trainable_weights) and not _has_own_loss(member)

    def _given_metrics(self, names: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        plain = _per_model(self._run.given.get("metrics"), names, "metrics", self._is_supervised)
        weighted = _per_model(
            self._run.given.get("weighted_metrics"), names, "weighted_metrics", self._is_supervised
        )
        return {n: (plain.get(n), weighted.get(n)) for n in names if n in plain or n in weighted}

    def _is_supervised(self, name: str) -> bool:
        return name in self._run.losses or _keras.compile_loss(self._direct_members()[name]) is not None

    # The losses ------------------------------------------------------------------------------

    def _has_loss(self) -> bool:
        overridden = type(self).compute_losses is not MLSystem.compute_losses
        return overridden or any(
            self._member_has_loss(n, m) for n, m in self._direct_members().items()
        )

    def _member_has_loss(self, name: str, member: Any) -> bool:
        return name in self._run.losses or _has_own_loss(member)

    def _member_loss(
        self,
        name: str,
        member: Any,
        x: Any,
        y: Any,
        outputs: Any,
        sample_weight: Any,
        training: Any,
    ) -> Any:
        if name in self._run.losses:
            value = losses.compiled(self._run.losses[name], name, y, outputs, sample_weight)
            return losses.scalar(value, f"The loss of '{name}'")
        if isinstance(member, MLSystem):
            y, outputs = data.own(y, name), data.own(outputs, name)
            return member.loss(x, y, outputs, data.own(sample_weight, name), training)
        value, terms = losses.of_model(member, x, y, outputs, sample_weight, training)
        self._run.terms[name] = terms
        return value

    def _find_losses(self, batch: Batch, outputs: Any, training: bool) -> Taken:
        layer_losses = self._layer_losses()
        self._run.terms = {}
        for nested in self._nested().values():
            nested._run.taken = None
        offered = {"sample_weight": batch.sample_weight, "training": training}
        offered = losses.extras(self.compute_losses, **offered)
        given = self.compute_losses(batch.x, batch.y, outputs, **offered)
        ignored = "sample_weight" not in offered
        values, terms = losses.named(given, type(self).__name__, batch, ignored)
        terms = {n: t for n, t in self._run.terms.items() if n in values} | terms
        for name, extra in layer_losses.items():
            values[name] = values[name] + extra if name in values else extra
        return self._with_nested(values, terms)

    def _layer_losses(self) -> dict[str, Any]:
        """Regularizers and `add_loss` of each member's layers, and of the system itself."""
        found = {name: member.losses for name, member in self._direct_members().items()}
        own = members.Own(self, list(self._direct_members().values()))
        regularized = [v.regularizer(v) for v in own.trainable_weights if v.regularizer is not None]
        found["self"] = [*_keras.own_losses(self), *regularized]
        return {name: losses.total(extra) for name, extra in found.items() if extra}

    def _with_nested(self, values: dict[str, Any], terms: dict[str, dict[str, Any]]) -> Taken:
        flat_terms = {f"{n}_{term}": v for n, parts in terms.items() for term, v in parts.items()}
        self._run.term_owner = {
            f"{n}_{term}": n for n, parts in terms.items() for term in parts
        }
        for name, nested in self._nested().items():
            if name in values and (taken := nested._run.taken) is not None:
                values |= {f"{name}/{n}": v for n, v in taken.losses.items()}
                flat_terms |= {f"{name}/{n}": v for n, v in taken.terms.items()}
                self._run.term_owner |= {
                    f"{name}/{n}": f"{name}/{nested._term_owner(n)}" for n in taken.terms
                }
        return Taken(values, flat_terms)

    def _term_owner(self, term: str) -> str:
        return self._run.term_owner[term]

    def _top(self, names: Iterable[str]) -> list[str]:
        """The system's own losses, without those inside its nested systems."""
        nested = tuple(f"{name}/" for name in self._nested())
        return [name for name in names if not name.startswith(nested)] if nested else list(names)

    def _rows(self, losses: Sequence[str]) -> Rows:
        direct = self._trained_members()
        given = self._run.given.get("loss_weights")
        rows = routing.read(self.routing, direct, self._top(losses), given)
        inner: dict[str, Rows] = {}
        for name, nested in self._nested().items():
            if name in rows:
                inside = [n[len(name) + 1 :] for n in losses if n.startswith(f"{name}/")]
                inner[name] = nested._rows(inside) if inside else nested._whole_rows(name)
        return routing.expand(rows, inner)

    def _trained_members(self) -> list[str]:
        """The direct members with weights to train, a nested system as one."""
        nested = self._nested()
        found: dict[str, None] = {}
        for name in self._models():
            found[next((n for n in nested if name.startswith(f"{n}/")), name)] = None
        return list(found)

    # Logs ------------------------------------------------------------------------------------

    def _update_metrics(self, batch: Batch, outputs: Any, models: Iterable[str] | None) -> None:
        trained = self._models()
        for name, metrics in self._metrics_of_members().items():
            updated = models is None or routing.followed([dict.fromkeys(models)], [name])
            if updated or not routing.named(name, trained):
                y, weight = data.own(batch.y, name), data.own(batch.sample_weight, name)
                metrics.update_state(y, data.own(outputs, name), weight)

    def _metrics_of_members(self) -> dict[str, Any]:
        own = {n: _keras.compile_metrics(m) for n, m in self._direct_members().items()}
        own = {n: m for n, m in own.items() if m is not None and not isinstance(m, EMA)}
        return own | self._run.metrics

    def _flush(self, this: step.Step) -> None:
        means = this.means()
        top = [name for name in self._top(means) if name not in self._run.term_owner]
        for name, (value, weight) in means.items():
            term = name in self._run.term_owner
            log, owner = (name, "the term") if term else (f"{name}_loss", "the loss")
            self._track(log, f"{owner} '{name}'", value, weight, name in this.gated)
        if top:
            total = sum(means[name][0] for name in top)
            weight = _any([means[n][1] for n in top])
            self._track("loss", "the sum of the losses", total, weight, this.gated.issuperset(top))

    def _close_step(self, this: step.Step) -> None:
        self._flush(this)
        if this.training and self.optimizer is not None:
            self.optimizer.count_batch()

    def get_metrics_result(self) -> dict[str, Any]:
        """The running means: in a step, of what it updated; after an epoch, of all that hold one."""
        this = step.of(self)
        if this:
            self._flush(this)
        logs = self._run.logs.results(this.touched if this else None)
        logs = {name: logs[name] for name in sorted(logs, key=lambda n: n != "loss")}
        for name, metric in self._metrics_of_members().items():
            logs |= {f"{name}_{n}": value for n, value in metric.result().items()}
        return logs | {metric.name: metric.result() for metric in self._metrics}

    @property
    def metrics(self) -> list[Any]:
        """The trackers of losses and logs, the metrics of the members and those set as attributes."""
        if not hasattr(self, "_run"):
            return super().metrics
        return [*self._run.logs.metrics(), *self._metrics_of_members().values(), *self._metrics]

    # Keras' doors ----------------------------------------------------------------------------

    def _ensure_compiled(self) -> None:
        if not self.compiled:
            self.compile()

    def _phase_models(self) -> list[list[str]]:
        return self._run.phases

    def _follow(self, models: Iterable[str]) -> None:
        trained = self._models()
        updated = {id(v) for name in models for v in trained[name].trainable_weights}
        for member in self._run.members.values():
            if isinstance(member, EMA):
                if any(id(v) in updated for v in member.source.trainable_weights):
                    member.follow()

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the training step, one for each set of models that `update_every` makes due."""
        if force or self.train_function is None:
            self.train_function = variants.TrainFunction(self)
        return self.train_function

    def _state_variables(self) -> list[Any]:
        routed = [f for f in _factors(self.routing, self._run.given.get("loss_weights"))]
        variables = [*super()._state_variables(), *routed]
        return list({id(v): v for v in variables}.values())


def _has_own_loss(member: Any) -> bool:
    return isinstance(member, MLModel) and not isinstance(member, EMA) and member._has_loss()


def _optimizer_of(member: Any) -> Any:
    return member.configure_optimizer() if isinstance(member, MLModel) else keras.optimizers.Adam()


def _one_each_copied(given: Any, names: Sequence[str]) -> dict[str, Any]:
    """The optimizers given to `compile`: one instance for all is copied for each."""
    return optimizers.one_each(given, names)


def _per_model(given: Any, names: Sequence[str], what: str, takes: Any) -> dict[str, Any]:
    """What `compile` was given for each model: a dict by name, or one value for those that take it."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return routing.by_name(given, names, what)
    return {name: given for name in names if takes(name)}


def _any(weights: list[Any]) -> Any:
    """The weight of a sum that counts where any of its parts does."""
    weight = weights[0]
    for other in weights[1:]:
        weight = weight if other is weight else ops.maximum(weight, other)
    return weight


def _factors(routing: Any, loss_weights: Any) -> list[Any]:
    """The variables in a routing table and among the loss weights."""
    rows = list(routing.values()) if isinstance(routing, Mapping) else []
    tables = [t for t in [*rows, loss_weights] if isinstance(t, Mapping)]
    return [w for t in tables for w in t.values() if isinstance(w, keras.Variable)]
