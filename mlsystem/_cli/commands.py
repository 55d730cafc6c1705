"""The commands that work on a system: fit, evaluate, summary, picture, report and export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlsystem._cli import options, settings
from mlsystem._cli.mistake import Mistake


def fit(command: str, words: list[str]) -> int:
    """Train a system."""
    from mlsystem.callbacks import Checkpoint

    made = options.parser(command, fit)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch_size", type=int | None)
    made.add_argument("--validation_data", type=str | None, help="file.py:NAME")
    made.add_argument("--max_time", type=float | None, help="seconds")
    made.add_argument("--fast_run", type=bool | int, default=False, help="true: try one batch")
    made.add_argument("--checkpoint", type=str | None, help="folder to write checkpoints to")
    made.add_argument("--resume", type=str | None, help="folder of checkpoints to go on from")
    made.add_argument("--save", type=str | None, help="file.keras or file.weights.h5 at the end")
    found = options.read(made, words)
    folder = _run_folder(found.resume)
    _check_file(found.save)
    system, data = _ready(found)
    saved = found.checkpoint or folder
    system.fit(
        data,
        epochs=found.epochs,
        **({} if found.batch_size is None else {"batch_size": found.batch_size}),
        validation_data=options.data_of(found, "validation_data"),
        callbacks=[Checkpoint(saved)] if saved else None,
        resume=folder,
        max_time=found.max_time,
        fast_run=found.fast_run,
    )
    if found.save:
        keep = system.save if found.save.endswith(".keras") else system.save_weights
        keep(found.save)
    return 0


def evaluate(command: str, words: list[str]) -> int:
    """Print the losses and metrics of a system on data."""
    made = options.parser(command, evaluate)
    made.add_argument("--batch_size", type=int | None)
    found, system, data = _loaded(made, words)
    more = {} if found.batch_size is None else {"batch_size": found.batch_size}
    for name, value in system.evaluate(data, return_dict=True, verbose=0, **more).items():
        print(f"{name} {float(value):.6g}")
    return 0


def summary(command: str, words: list[str]) -> int:
    """Print the weights of a system, and how each model is trained."""
    made = options.parser(command, summary)
    _, system, _ = _loaded(made, words)
    system.summary()
    return 0


def picture(command: str, words: list[str]) -> int:
    """Draw a system, as text or to a file (.svg, .md, .png)."""
    made = options.parser(command, picture)
    made.add_argument("--save", type=str | None, help="file to draw to")
    found, system, _ = _loaded(made, words)
    drawn = system.picture()
    if found.save:
        drawn.save(found.save)
    else:
        print(drawn)
    return 0


def report(command: str, words: list[str]) -> int:
    """Print the gradient norm of each loss in each model."""
    made = options.parser(command, report)
    _, system, data = _loaded(made, words)
    print(system.gradient_report(data))
    return 0


def export(command: str, words: list[str]) -> int:
    """Export the models of a system for another runtime."""
    made = options.parser(command, export)
    made.add_argument("folder", nargs="?", help="folder to write to")
    made.add_argument("--format", type=str, default="onnx")
    made.add_argument("--models", type=list[str] | None, help="by default all")
    found, system, _ = _loaded(made, words)
    if found.folder is None:
        raise Mistake(f"Name a folder to write to: export {found.system} FOLDER.")
    system.export(found.folder, format=found.format, models=found.models)
    print(f"wrote {found.folder}")
    return 0


COMMANDS: dict[str, Callable[[str, list[str]], int]] = {
    "fit": fit,
    "evaluate": evaluate,
    "summary": summary,
    "picture": picture,
    "report": report,
    "export": export,
}


def _loaded(made: Any, words: list[str]) -> tuple[Any, Any, Any]:
    """Return options, system and data. Weights are those of `--weights`."""
    made.add_argument("--weights", type=str | None, help="file, or folder of checkpoints")
    found = options.read(made, words)
    path = options.weights_of(found.weights, "--weights") if found.weights else None
    system, data = _ready(found)
    system.setup(data)
    if path is not None:
        system.load_weights(path)
    return found, system, data


def _ready(found: Any) -> tuple[Any, Any]:
    """Return the system, with its settings, and the data."""
    data = options.data_of(found)
    system = options.system_of(found)
    if data is None and system.data() is None:
        raise Mistake(
            f"{found.system} has no data of its own. Give --data file.py:NAME, or override `data`."
        )
    settings.apply(found.settings, system, data)
    return system, data


def _run_folder(text: str | None) -> str | None:
    """Check the folder of `--resume`. One that does not exist yet starts from scratch."""
    path = None if text is None else Path(text).expanduser()
    if path is not None and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        options.weights_of(str(path), "--resume")
    return text


def _check_file(text: str | None) -> None:
    """Check the file of `--save` before training, not after it."""
    if text is None:
        return
    if not text.endswith((".keras", ".weights.h5")):
        raise Mistake(f"--save is '{text}'. End it in .keras or .weights.h5.")
    if not Path(text).parent.is_dir():
        raise Mistake(f"--save is '{text}', and there is no folder '{Path(text).parent}'.")
