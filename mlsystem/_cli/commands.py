"""The commands that work on a system: fit, evaluate, summary, picture, report and export.

The arguments of a function, with their types and descriptions, are the options of its command.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlsystem._cli import options, settings
from mlsystem._cli.mistake import Mistake
from mlsystem.callbacks import Checkpoint


def fit(
    system: Any,
    data: Any,
    *,
    epochs: int = 1,
    batch_size: int | None = None,
    validation_data: str | None = None,
    max_time: float | None = None,
    fast_run: bool | int = False,
    checkpoint: str | None = None,
    resume: str | None = None,
    save: str | None = None,
) -> None:
    """Train a system.

    Args:
        system: the system, with its settings.
        data: the training data.
        epochs: number of epochs
        batch_size: batch size of arrays
        validation_data: file.py:NAME of the data, or a function
        max_time: seconds
        fast_run: true tries one batch, a number as many
        checkpoint: folder to write checkpoints to
        resume: folder of checkpoints to go on from
        save: file.keras or file.weights.h5 at the end
    """
    folder = Path(resume).expanduser() if resume else None
    if folder and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        _weights(resume, "--resume")  # a folder that does not exist yet starts from scratch
    _check_file(save)
    saved = resume if checkpoint is None else checkpoint
    system.fit(
        data,
        epochs=epochs,
        batch_size=batch_size,
        validation_data=options.data_of(validation_data, "--validation_data"),
        callbacks=None if saved is None else [Checkpoint(saved)],
        resume=resume,
        max_time=max_time,
        fast_run=fast_run,
    )
    if save:
        (system.save if save.endswith(".keras") else system.save_weights)(save)


def evaluate(system: Any, data: Any, *, batch_size: int | None = None) -> str:
    """Print the losses and metrics of a system on data.

    Args:
        system: the system, with its weights.
        data: the data.
        batch_size: batch size of arrays
    """
    logs = system.evaluate(data, batch_size=batch_size, return_dict=True, verbose=0)
    return "\n".join(f"{name} {float(value):.6g}" for name, value in logs.items())


def summary(system: Any, data: Any) -> None:
    """Print the weights of a system, and how each model is trained."""
    system.summary()


def picture(system: Any, data: Any, *, save: str | None = None) -> Any:
    """Draw a system, as text or to a file.

    Args:
        system: the system, set up.
        data: the data.
        save: file to draw to: .svg, .md or .png
    """
    drawn = system.picture()
    return drawn.save(save) if save else drawn


def report(system: Any, data: Any) -> Any:
    """Print the gradient norm of each loss in each model."""
    return system.gradient_report(data)


def export(
    system: Any,
    data: Any,
    folder: str,
    *,
    format: str = "onnx",
    models: list[str] | str | None = None,
) -> str:
    """Export the models of a system for another runtime.

    Args:
        system: the system, with its weights.
        data: the data.
        folder: folder to write to
        format: a format of MLSystem.export
        models: name of a model, or [NAME,NAME]; by default all
    """
    system.export(folder, format=format, models=models)
    return f"wrote {folder}"


COMMANDS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (fit, evaluate, summary, picture, report, export)
}


def run(name: str, words: list[str]) -> int:
    """Read the options of a command, make the system ready, and print what the command returns."""
    found, system, data = options.read(name, COMMANDS[name], words)
    command, weights = COMMANDS[name], _weights(found.get("weights"), "--weights")
    if data is None and getattr(system, "data", lambda: None)() is None:
        raise Mistake(f"{found.system} has no data of its own. Give --data file.py:NAME.")
    settings.apply(found.set or [], system, data)
    if name != "fit":
        system.setup(data)
    if weights is not None:
        system.load_weights(weights)
    own = inspect.signature(command).parameters
    text = command(
        system, data, **{key: found[key] for key in own if key not in ("system", "data")}
    )
    if text is not None:
        print(text)
    return 0


def _weights(text: str | None, what: str) -> Path | None:
    """Return a file of weights, or the best or newest of a folder of checkpoints."""
    if text is None:
        return None
    path = Path(text).expanduser()
    files = [path, *sorted(path.glob("step-*.weights.h5")), path / "best.weights.h5"]
    files = [file for file in files if file.is_file()]
    if not files:
        expected = "a file, or a folder with checkpoints (step-*.weights.h5)"
        raise Mistake(f"{what} is '{text}', which is not {expected}.")
    return files[-1]


def _check_file(text: str | None) -> None:
    """Check the file of `--save` before training, not after it."""
    if text and not text.endswith((".keras", ".weights.h5")):
        raise Mistake(f"--save is '{text}'. End it in .keras or .weights.h5.")
    if text and not Path(text).parent.is_dir():
        raise Mistake(f"--save is '{text}', and there is no folder '{Path(text).parent}'.")
