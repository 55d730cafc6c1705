"""Measures the table of learning rates in the guide docs/guides/tuning.md.

    KERAS_BACKEND=torch python docs/measure_learning_rates.py [EXAMPLE ...]

Each example runs in full three times: with its own rates, with 1e-3 for each model (the default of
Keras' Adam), and with the rates that `ml.tune.learning_rate` suggests before the first `fit`.
Models in a game keep their own rates there.
"""

import mlsystem as ml  # first, so that it chooses an installed backend

# isort: split
import contextlib
import importlib.util
import io
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

# The figure of each example, as its `main` names it, and the arguments of `main` for each run.
FIGURES = {
    "classifier": ("accuracy", [{"seed": seed} for seed in range(3)]),
    "vae": ("loss", [{"seed": seed} for seed in range(3)]),
    "anomaly_detection": ("autoencoder", [{"seed": seed} for seed in range(3)]),
    "domain_adaptation": ("adapted", [{"seeds": (seed,)} for seed in range(3)]),
    "byol": ("after", [{"seed": seed} for seed in range(3)]),
    "td3": ("after", [{"seed": seed} for seed in range(2)]),
    "balanced_gan": ("always modes", [{"seeds": (seed,)} for seed in range(3)]),
}


def example(name):
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def before_fit(change):
    """Call `change(system, data, batch_size)` before the first `fit` of each system.

    It may return callbacks for this `fit`.
    """
    fit, seen = ml.MLModel.fit, []

    def changed(system, x=None, y=None, **given):
        if all(system is not other for other in seen):
            seen.append(system)
            given["callbacks"] = [
                *(given.get("callbacks") or []),
                *(change(system, x if y is None else (x, y), given.get("batch_size")) or []),
            ]
        return fit(system, x, y, **given)

    ml.MLModel.fit = changed
    try:
        yield
    finally:
        ml.MLModel.fit = fit


class Default(keras.callbacks.Callback):
    """Sets the learning rate of each model to 1e-3."""

    def on_train_begin(self, logs=None):
        for optimizer in self.model.optimizers.values():
            optimizer.learning_rate = 1e-3


class Suggested:
    """Applies the suggested rates, and keeps the first ones and the seconds."""

    def __init__(self):
        self.rates, self.seconds = {}, 0.0
        self.is_inside = False

    def __call__(self, system, data, batch_size):
        if self.is_inside:
            return
        self.is_inside, start = True, time.perf_counter()
        found = ml.tune.learning_rate(system, data, batch_size=batch_size)
        found.apply()
        self.is_inside, self.seconds = False, self.seconds + time.perf_counter() - start
        for name, curve in found.items():
            used = "" if curve.rival is None else ", not applied"
            self.rates[name] = f"{curve.rate:.1e} ({curve.source}{used})"


def measure(name, change):
    figure, runs = FIGURES[name]
    found = []
    for given in runs:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
            before_fit(change),
        ):
            found.append(float(example(name).main(folder=folder, **given)[figure]))
    return f"{np.mean(found):.4g} ({min(found):.4g} to {max(found):.4g})"


def main(names):
    for name in names or FIGURES:
        suggested = Suggested()
        print(f"{name}: own rates {measure(name, lambda *_: None)}", flush=True)
        print(f"    1e-3 {measure(name, lambda *_: [Default()])}", flush=True)
        print(f"    suggested {measure(name, suggested)}", flush=True)
        print(f"    {suggested.rates}, {suggested.seconds:.1f} s in all", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
