"""Counts the calls within the package in one eager training step of a GAN of two models.

    KERAS_BACKEND=torch python -m benchmarks.calls [--list]

Calls are those of functions of the package; a change of file is a call of a function in another
file of the package than the one that led to it. `--list` shows which functions are called most.
"""

import collections
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import mlsystem as ml

PACKAGE = str(Path(ml.__file__).parent)


class Generator(ml.MLModel):
    """Wants fakes to be scored high."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return -ops.mean(outputs["fake"])


class Discriminator(ml.MLModel):
    """Wants fakes to be scored low, and reals high."""

    def loss(self, x: Any, y: Any, outputs: Any) -> Any:
        return {"fake": ops.mean(outputs["fake"]), "real": -ops.mean(outputs["real"])}


class GAN(ml.MLSystem):
    """Two models, each of which follows its own loss."""

    routing = "own"

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator(layers.Dense(3), optimizer="adam")
        self.discriminator = Discriminator(layers.Dense(1), optimizer="adam")

    def forward(self, x: Any) -> dict[str, Any]:
        return {"real": self.discriminator(x), "fake": self.discriminator(self.generator(x))}


def counted(step: Any, batch: Any) -> tuple[collections.Counter[str], int]:
    """The calls by file and function, and the number of changes of file."""
    calls: collections.Counter[str] = collections.Counter()
    changes = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal changes
        code = frame.f_code
        if event == "call" and _is_ours(code) and code.co_name[0] != "<":
            calls[f"{Path(code.co_filename).relative_to(PACKAGE)}: {code.co_name}"] += 1
            changes += _caller(frame) != code.co_filename

    sys.setprofile(look)
    step(batch)
    sys.setprofile(None)
    return calls, changes


def _is_ours(code: Any) -> bool:
    return code.co_filename.startswith(PACKAGE)


def _caller(frame: Any) -> str | None:
    """The file of the package from which a call came, through whatever lies between."""
    while (frame := frame.f_back) is not None:
        if _is_ours(frame.f_code):
            return str(frame.f_code.co_filename)
    return None


def main() -> None:
    """Prints the counts."""
    gan, x = GAN(), np.ones((8, 3), "float32")
    gan.compile(run_eagerly=True)
    gan.fit(x, batch_size=8, verbose=0)
    calls, changes = counted(gan.train_step, x)
    files = {name.split(":")[0] for name in calls}
    found = f"{calls.total()} calls in {len(files)} files, {changes} changes of file"
    print(f"{keras.backend.backend()}: {found}")
    for name, count in calls.most_common(50 if "--list" in sys.argv else 0):
        print(f"{count:5} {name}")


if __name__ == "__main__":
    main()
