"""`Advice`: say in sentences what goes wrong in a training run, and what to try."""

import math
import numbers
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from mlsystem import _keras
from mlsystem.callbacks.advice_arguments import check
from mlsystem.callbacks.advice_run import AdviceRun
from mlsystem.callbacks.measured_steps import MeasuredSteps
from mlsystem.callbacks.undisturbed import sampling
from mlsystem.diagnostics import advice_rules
from mlsystem.diagnostics.gradient_measurement import Norms
from mlsystem.diagnostics.gradient_report import followed

_MOST = 64  # samples in a comparison
_FEW = 10  # a model of fewer numbers, as a temperature near zero, has no usual size of updates


class Advice(MeasuredSteps):
    """A callback that warns in sentences when a training run goes wrong, and says what to try.

    ```python
    noise = keras.random.normal((64, 100), seed=1)
    advice = ml.callbacks.Advice(samples=lambda: gan.generator(noise))
    gan.fit(images, epochs=20, callbacks=[advice])
    print(advice.sentences())
    ```

    Each advice is a warning, and is given once in a `fit`. It names the models, says what the
    numbers mean, and what to try. The rules:

    - A model wins. Its loss is below `winning_loss` and below a tenth of its first value. The
      gradient of another model is `gradient_fall` times smaller than at its largest, and the loss
      of that model is not smaller than at first.
    - The samples collapse. The mean distance between samples is `sample_fall` (90 %) below its
      largest value, and below 2 % of their size (the root mean square of their norms).
    - A route is dead. A model follows a loss and gets a gradient of zero from it. Under `"sum"` and
      `"own"`, a loss that never reached a model is fine if the model gets a gradient from another.
      A loss that is solved is fine too: it is about zero, or has fallen to a smallest value and
      stays there, as a hinge loss does.
    - Updates are too small or too large. The norm of an update, divided by the norm of the weights,
      is above the second of `update_ratios` and no longer falling, as it does from weights of zero.
      Or it was never above the first. Models of fewer than 10 numbers do not count.
    - A loss does not move. All losses that a model follows stay within 1 % for `stalled_epochs`,
      and within 10 % of their first values. Losses that models play against each other, as in a
      GAN, do not count.

    A run that continues an earlier one, as a second `fit` or after `resume`, gets no advice that
    compares with its start: on winners, small updates, and losses that do not move. A run starts
    anew if no optimizer has made a step.

    The rules on winners, routes and updates must hold in the last `looks` measurements. None or
    False for `winning_loss`, `sample_fall`, `dead_routes`, `update_ratios` or `stalled_epochs`
    switches a rule off. The sources of the limits are in `mlsystem/diagnostics/advice_rules.py`.

    Training with and without this callback is the same, bit for bit. A measured batch costs one
    extra forward pass, one backward pass per loss, and a copy of the weights. If `forward` takes
    `phase`, each model is measured in its first phase, at that cost per phase. Other batches cost
    nothing. That is why `fit` does not use this callback by itself.

    Args:
        every: number of batches between measurements. Each epoch measures its first batch. Give an
            odd number if a model is updated on every second batch, or its updates are never seen.
        samples: a function without arguments that returns samples of shape (number, ...), from the
            same noise each time. It is called at the end of each epoch. The first 64 are compared.
        winning_loss: the loss of a model that may have won.
        gradient_fall: how many times smaller the gradient of the other model has become.
        sample_fall: the share by which the distance between samples has fallen.
        dead_routes: whether to look for routes without a gradient.
        update_ratios: the limits of the norm of an update, divided by the norm of the weights.
        stalled_epochs: number of epochs, from 2, in which no loss of a model moves.
        looks: number of measurements in a row, from 1.
        warn: whether each advice is a warning. `sentences` has it in any case.

    Raises:
        ValueError: if an argument has another value, or the callback is not given to the `fit` of
            an MLModel or MLSystem.
    """

    def __init__(
        self,
        every: int = 100,
        samples: Callable[[], Any] | None = None,
        *,
        winning_loss: float | None = 0.1,
        gradient_fall: float = 50,
        sample_fall: float | None = 0.9,
        dead_routes: bool = True,
        update_ratios: tuple[float, float] | None = (1e-5, 1e-1),
        stalled_epochs: int | None = 5,
        looks: int = 3,
        warn: bool = True,
    ) -> None:
        super().__init__(every)
        self.samples, self.warn, self.looks = samples, warn, looks
        self.winning_loss, self.gradient_fall = winning_loss, gradient_fall
        self.sample_fall, self.dead_routes = sample_fall, dead_routes
        self.update_ratios, self.stalled_epochs = update_ratios, stalled_epochs
        check(self)
        self._run = AdviceRun()

    def sentences(self) -> list[str]:
        """Return the advice of the latest `fit`, in the order in which it was given."""
        return list(self._run.said.values())

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget the run before, and watch the training steps of this `fit`."""
        self._run = AdviceRun()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note at the first epoch whether the run starts anew. See Keras."""
        super().on_epoch_begin(epoch, logs)
        if self._run.is_new is None:  # a checkpoint is restored by now
            self._run.is_new = not any(map(_steps, self.model._mlsystem.optimizers.values()))

    def measured(self, norms: Norms, ratios: dict[str, float]) -> None:
        """Apply the rules on gradients and updates to a new measurement. See `MeasuredSteps`."""
        run, learner = self._run, self.model._mlsystem
        run.routes = followed(learner, norms)
        run.add(self.influence.losses, norms, ratios, self.model.steps_per_execution)
        if self.winning_loss and run.is_new:
            self._see_winners()
        if self.dead_routes:
            self._see_dead_routes()
        if self.update_ratios:
            for name, model in learner.models().items():
                if _size(model) >= _FEW:
                    self._see_updates(name, run.ratios[name], learner.optimizers[name])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Apply the rules on losses and samples. See Keras."""
        if self.stalled_epochs and self._run.is_new:
            self._run.add_epoch(logs or {})
            self._see_stalled(self.stalled_epochs)
        if self.samples is not None and self.sample_fall:
            distances, sizes = self._run.distances, self._run.sizes
            for values, value in zip((distances, sizes), self._spread(self.samples), strict=True):
                values.append(value)
            self._say("samples", advice_rules.collapsed(distances, sizes, self.sample_fall))

    def _say(self, rule: Any, sentence: str | None) -> None:
        if sentence is not None and rule not in self._run.said:
            self._run.said[rule] = sentence
            if self.warn:
                warnings.warn(sentence, stacklevel=2)

    def _see_winners(self) -> None:
        run = self._run
        for won, lost in run.games():
            found = advice_rules.winner(
                (won, lost),
                (run.losses[won], run.losses[lost]),
                run.norms[lost, lost],
                self.winning_loss or 0.0,
                self.gradient_fall,
                self.looks,
            )
            self._say(("winner", won, lost), found)

    def _see_dead_routes(self) -> None:
        learner, names = self.model._mlsystem, list(self._run.losses)
        for model, row in learner.rows(names).items():
            losses = [loss for loss in names if (loss, model) in self._run.routes]
            # The sum of the losses of a nested system counts through its parts.
            losses = [loss for loss in losses if loss in row] or losses
            if not self._see_dead(model, losses):
                for loss in losses:
                    self._see_dead(model, [loss], is_alone=False)

    def _see_dead(self, model: str, losses: list[str], is_alone: bool = True) -> bool:
        """Advise on losses without a gradient in a model. Return whether all are dead.

        `is_alone` says that the model follows no others. Then one must reach it.
        """
        run, has_table = self._run, isinstance(getattr(self.model, "routing", None), Mapping)
        norms = [max(found) for found in zip(*(run.norms[n, model] for n in losses), strict=False)]
        found = advice_rules.dead_route(
            losses, model, norms, is_alone or has_table, has_table, self.looks
        )
        if found and not run.is_solved(losses, model, self.looks):
            self._say(("route", model, "all" if is_alone else losses[0]), found)
        return found is not None

    def _see_updates(self, name: str, values: list[float], optimizer: Any) -> None:
        may_be_small = not self._run.is_new or _keras.schedule(optimizer) is not None
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        assert self.update_ratios is not None
        found = advice_rules.update_ratio(
            name, values, rate, may_be_small, self.update_ratios, self.looks
        )
        self._say(("update", name), found)

    def _see_stalled(self, epochs: int) -> None:
        run, learner = self._run, self.model._mlsystem
        for model, row in learner.rows(list(run.losses)).items():
            losses = [loss for loss, other in run.routes if other == model]
            against = run.plays(model) or any(_is_negative(factors) for factors in row.values())
            found = {n: advice_rules.stalled(n, run.epochs.get(n, []), epochs) for n in losses}
            if not against and all(found.values()):
                for loss, sentence in found.items():
                    self._say(("stalled", loss), sentence)

    def _spread(self, samples: Callable[[], Any]) -> tuple[float, float]:
        """Return the mean distance between two samples, and the root mean square of their norms."""
        callbacks = self.model._mlsystem.call.callbacks
        with sampling(self.model, callbacks.parts[0] if callbacks is not None else None):
            made = np.asarray(ops.convert_to_numpy(samples()), "float64")
        if made.ndim == 0 or len(made) < 2:
            raise ValueError(
                f"Advice got samples of shape {made.shape}. `samples` returns an array of at least "
                "two samples."
            )
        flat = made.reshape(len(made), -1)[:_MOST]
        squares = ((flat[:, None] - flat[None]) ** 2).sum(-1)
        distance = np.sqrt(squares).sum() / (len(flat) * (len(flat) - 1))
        return float(distance), float(np.sqrt((flat**2).sum(1).mean()))


def _steps(optimizer: Any) -> int:
    return int(ops.convert_to_numpy(optimizer.iterations))


def _size(model: Any) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _is_negative(factors: tuple[Any, ...]) -> bool:
    return math.prod(f for f in factors if isinstance(f, numbers.Real)) < 0
