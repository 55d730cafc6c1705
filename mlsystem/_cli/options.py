"""The options of a command: read from the command line and from `--config`, by jsonargparse."""

import inspect
import itertools
import re
from pathlib import Path
from typing import Any

from mlsystem._cli import named
from mlsystem._cli.mistake import Mistake, near
from mlsystem._cli.settings import Setting

_MISSING = (
    "The command line reads its options by jsonargparse, which is not installed: "
    "python -m pip install 'mlsystem[cli]'. `mlsystem doctor` needs nothing."
)


def parser(command: str, function: Any) -> Any:
    """Make a parser of a command, with the options that all commands have."""
    try:
        import jsonargparse
    except ImportError:
        raise Mistake(_MISSING) from None

    class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc, unused-ignore]
        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise Mistake(_short(message, self)) from ex

    made = Parser(prog=f"mlsystem {command}", description=function.__doc__)
    made.add_argument(
        "system",
        nargs="?",
        type=str | None,
        help="file.py:NAME of a system, its class, or a function",
    )
    made.add_argument("--config", action="config", help="a YAML file with these options")
    made.add_argument("--set", action="append", metavar="PATH=VALUE", help="set an attribute")
    made.add_argument("--data", type=str | None, help="file.py:NAME of the data, or a function")
    return made


def read(made: Any, words: list[str]) -> Any:
    """Read the options. Those of a class or function named by `system` are `--model.NAME`."""
    if not any(":" in word for word in _positional(words)):
        words = [*_configured(words), *words]  # the parser prefers a missing word to the file's
    word = next((word for word in _positional(words) if ":" in word), None)
    made_from = None if word is None else named.find(word, "system")
    if is_maker(made_from):
        kind = "class" if inspect.isclass(made_from) else "function"
        getattr(made, f"add_{kind}_arguments")(made_from, "model", fail_untyped=False)
    found = made.parse_args(words)
    if found.system is None:
        raise Mistake("Name the system first: file.py:NAME, such as gan.py:gan.")
    found.settings = [Setting(text) for text in found.set or []]
    return found


def system_of(found: Any) -> Any:
    """Return the system that the options name. A class or function is called with `model`."""
    from mlsystem.models.model import MLModel

    target = named.find(found.system, "system")
    arguments = found.get("model") if is_maker(target) else None
    given = vars(arguments) if arguments else {}
    for name, each in inspect.signature(target).parameters.items() if given else ():
        if given.get(name, each) is None and each.default is each.annotation is each.empty:
            raise Mistake(f"--model.{name} is missing. {found.system} needs it.")
    made = target(**given) if is_maker(target) else target
    if not isinstance(made, MLModel):
        raise Mistake(
            f"system: {found.system} is a {type(made).__name__}. Name an MLSystem or MLModel, a "
            "class of one, or a function that returns one."
        )
    return made


def data_of(found: Any, word: str = "data") -> Any:
    """Return the data that an option names, or None. A function is called."""
    text = found.get(word)
    if text is None:
        return None
    data = named.find(text, f"--{word}")
    return data() if inspect.isfunction(data) or inspect.isclass(data) else data


def is_maker(target: Any) -> bool:
    """Return whether a target is a class or a function, and not a system."""
    return inspect.isclass(target) or inspect.isfunction(target)


def weights_of(text: str, what: str) -> Path:
    """Return a file of weights, or the best or newest of a folder of checkpoints."""
    path = Path(text).expanduser()
    files = [path] if path.is_file() else sorted(path.glob("step-*.weights.h5"))
    if (path / "best.weights.h5").is_file():
        files.append(path / "best.weights.h5")
    if not files:
        expected = "a file, or a folder with checkpoints (step-*.weights.h5)"
        raise Mistake(f"{what} is '{text}', which is not {expected}.")
    return files[-1]


def _positional(words: list[str]) -> list[str]:
    """Return the words that are neither flags nor their values."""
    flags = [i for i, word in enumerate(words) if word.startswith("-")]
    alone = ("-h", "--help", "--print_config")
    values = {i + 1 for i in flags if "=" not in words[i] and words[i] not in alone}
    return [word for i, word in enumerate(words) if i not in values.union(flags)]


def _configured(words: list[str]) -> list[str]:
    """Return the system that the file of `--config` names, if it names one."""
    import yaml  # comes with jsonargparse

    found = [b for a, b in itertools.pairwise(words) if a == "--config"]
    found += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    if not found or not Path(found[-1]).is_file():
        return []
    try:
        options = yaml.safe_load(Path(found[-1]).read_text())
    except yaml.YAMLError as error:
        raise Mistake(f"--config {found[-1]}: {' '.join(str(error).split())}") from None
    if not isinstance(options, dict):
        raise Mistake(f"--config {found[-1]} holds no options. Write lines such as epochs: 2.")
    return [str(options["system"])] if options.get("system") is not None else []


def _short(message: str, made: Any) -> str:
    """Write the message of the parser in one line, with the nearest option to an unknown one."""
    line = " ".join(message.split())
    line = re.sub(r'^Parser key "(.*?)": ', r"--\1: ", line)  # name the flag, not the key
    line = re.sub(r"<class '(.*?)'>", r"\1", line)
    unknown = re.match(r"(?:unrecognized arguments: --|Option ')([^\s='\"]+)", line, re.IGNORECASE)
    known = [option for action in made._actions for option in action.option_strings]
    return f"{line}.{near('--' + unknown[1], known)}" if unknown else line
