"""Programs that train by Keras' `fit`: mlsystem, and train steps as in Keras' guides."""

import importlib
import math
from typing import Any

import keras

from benchmarks import feeds
from benchmarks.program import Program, Setting


class Steps(keras.callbacks.Callback):
    """Tells the clock of each step, where drawing a batch does not."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.on_train_batch_begin = lambda step, logs=None: clock.before(step)


class KerasFit(Program):
    """Any Keras model whose `fit` is given the batches."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.workload.bfloat16:
            keras.config.set_dtype_policy("mixed_bfloat16")
        self.model: Any = None

    def batches(self) -> list[tuple[Any, ...]]:
        """See `Program`."""
        if self.setting.backend != "torch":
            return self.setting.batches
        return feeds.torch_batches(self.setting.batches, self.setting.device, False)

    def train(self, segment: Any) -> dict[str, float]:
        """See `Program`."""
        on_tensorflow = self.setting.backend == "tensorflow"
        callbacks = [Steps(segment.clock)] if on_tensorflow else None
        data = feeds.for_keras(self.setting.backend, segment)
        history = self.model.fit(data, verbose=0, callbacks=callbacks).history
        return self.losses({name: float(values[-1]) for name, values in history.items()})

    def losses(self, logs: dict[str, float]) -> dict[str, float]:
        """The losses by the names that all programs use."""
        return logs

    def operations(self, segment: Any) -> float | None:
        """See `Program`."""
        if self.setting.backend != "torch":
            return None
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.train(segment)
        return float(counter.get_total_flops())


class MLSystem(KerasFit):
    """The workload in mlsystem, compiled with the options of the setting."""

    def build(self) -> None:
        """See `Program`."""
        from benchmarks.keras_systems import SYSTEMS

        options = dict(self.setting.options)
        many = {name: options.pop(name) for name in ("models", "routing") if name in options}
        self.every = options.get("steps_per_execution", 1)
        self.model = SYSTEMS[self.workload.kind](self.workload, **many)
        if options:
            self.model.compile(**options)

    def losses(self, logs: dict[str, float]) -> dict[str, float]:
        """See `KerasFit`."""
        if self.workload.kind in ("gan", "wgan_gp"):
            judge = "discriminator" if self.workload.kind == "gan" else "critic"
            return {name: logs[f"{name}_loss"] for name in ("generator", judge)}
        return {"loss": logs["loss"] / self.setting.options.get("models", 1)}

    def parameters(self) -> dict[str, int]:
        """See `Program`."""
        if self.workload.kind == "mlp":
            return {"model": _count(self.model)}
        if self.workload.kind == "many":
            return {"regressor": _count(self.model.regressors[0])}
        return {name: _count(getattr(self.model, name)) for name in self.workload.networks}

    def operations(self, segment: Any) -> float | None:
        """See `Program`; a captured step is not looked into."""
        if self.setting.backend == "torch" and not self.setting.options.get("run_eagerly"):
            return None
        return super().operations(segment)


class Guide(KerasFit):
    """A Keras model with a train step as Keras' guide for the backend writes it."""

    def build(self) -> None:
        """See `Program`."""
        module = importlib.import_module(f"benchmarks.peers.keras_{self.setting.backend}")
        self.model = module.MODELS[self.workload.kind](self.workload)

    def parameters(self) -> dict[str, int]:
        """See `Program`."""
        return {name: _count(getattr(self.model, name)) for name in self.workload.networks}


def _count(network: Any) -> int:
    return sum(math.prod(weight.shape) for weight in network.trainable_weights)
