"""The options of a command: read from the command line and from `--config`, by jsonargparse."""

import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any

from mlsystem._checks import did_you_mean, nearest
from mlsystem._cli import named
from mlsystem._cli.mistake import Mistake
from mlsystem.models.model import MLModel

_MISSING = (
    "The command line reads its options by jsonargparse, which is not installed: "
    "python -m pip install 'mlsystem[cli]'. `mlsystem doctor` needs nothing."
)
_SYSTEM = "file.py:NAME of a system, its class, or a function"
_UNION = r"Does not validate against .*? Subtypes: \[(.*)\] Errors: .* Given value: (.*)$"
_EXITS = ("-h", "--help", "--print_config")


def read(name: str, command: Callable[..., Any], words: list[str]) -> tuple[Any, Any, Any]:
    """Return the options, the system and the data.

    The words are read twice. The first time finds the system: if that is a class or a function, its
    arguments are options of the second time, `--model.NAME`.
    """
    first, made = parser(name, command), parser(name, command)
    first.add_argument("--model", type=dict)
    word = _parsed(first, [each for each in words if not each.startswith(_EXITS)]).get("system")
    target: Any = None if word is None else named.find(str(word), "system")
    if is_maker := named.is_maker(target):
        add = made.add_class_arguments if inspect.isclass(target) else made.add_function_arguments
        add(target, "model", fail_untyped=False)
    found = _parsed(made, words)
    if word is None:
        raise Mistake(f"Name the system first: {name} file.py:NAME, such as gan.py:gan.")
    data = data_of(found.data, "--data")
    system = _made(target, made, found) if is_maker else target
    if not isinstance(system, MLModel):
        raise Mistake(
            f"system: {word} is a {type(system).__name__}. Name an MLSystem or MLModel, a class of "
            "one, or a function that returns one."
        )
    return found, system, data


def data_of(word: str | None, what: str) -> Any:
    """Return the data that an option names, or None without the option. A function is called."""
    if word is None:
        return None
    data: Any = named.find(word, what)
    data = data() if named.is_maker(data) else data
    if data is None:
        raise Mistake(f"{what}: {word} is None, or returns None. Name arrays or a data set.")
    return data


def parser(name: str, command: Callable[..., Any]) -> Any:
    """Make a parser of a command: the options that all commands have, and its own arguments."""
    try:
        import jsonargparse
    except ImportError:
        raise Mistake(_MISSING) from None
    made = jsonargparse.ArgumentParser(prog=f"mlsystem {name}", exit_on_error=False)
    made.description = (command.__doc__ or "").splitlines()[0]
    # Without a default, the parser takes the system of `--config` where the words name none.
    made.add_argument("system", nargs="?", default=argparse.SUPPRESS, help=_SYSTEM)
    made.add_argument("--config", action="config", help="a YAML file with these options")
    made.add_argument("--set", action="append", metavar="PATH=VALUE", help="set an attribute")
    made.add_argument("--data", type=str | None, help="file.py:NAME of the data, or a function")
    if name != "fit":
        made.add_argument("--weights", type=str | None, help="file, or folder of checkpoints")
    made.add_function_arguments(command, as_group=False, skip={"system", "data"})
    return made


def _parsed(made: Any, words: list[str]) -> Any:
    try:
        return made.parse_args(words)
    except argparse.ArgumentError as error:
        raise Mistake(_short(str(error), made)) from error


def _short(message: str, made: Any) -> str:
    """Write the message of the parser in one line, with the nearest option to an unknown one."""
    line = re.sub(r"<class '(.*?)'>", r"\1", " ".join(message.split()))
    line = re.sub(r'^Parser key "(.*?)": ', r"--\1: ", line)  # name the flag, not the key
    line = re.sub(_UNION, lambda found: _expected(found[1], found[2]), line)
    line = re.sub("(arguments are required: )", r"\1--", line)  # those of commands are all options
    line += ". Write lines such as epochs: 2." if line.startswith("Unexpected config") else ""
    unknown = re.match(r"(?:unrecognized arguments: --|Option ')([^\s='\"]+)", line, re.IGNORECASE)
    if unknown is None and line.startswith("unrecognized arguments: "):
        return f"{line}. Every argument but the system needs its option, as --data gan.py:images."
    if unknown is None:
        return line
    # Without the dashes, which make all options alike.
    known = [option[2:] for action in made._actions for option in action.option_strings]
    close = nearest(unknown[1], known)
    return f"{line}.{did_you_mean(f'--{close}' if close else None)}"


def _expected(types: str, value: str) -> str:
    """Write in short that a value has none of several types. None is written as null in YAML."""
    names = types.replace("NoneType", "null").split(", ")
    return f"Expected {' or '.join(names)}. Got value: {value}"


def _made(target: Callable[..., Any], made: Any, found: Any) -> Any:
    """Call a class or function with its options. Python names an argument without a value."""
    given = vars(
        made.instantiate(found, instantiate_groups=False).get("model", argparse.Namespace())
    )
    defaults = {name: made.get_default(f"model.{name}") for name in given}
    return target(**{k: v for k, v in given.items() if (v, defaults[k]) != (None, None)})
