"""The command line `mlsystem`, also `python -m mlsystem`."""

import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path

from mlsystem._cli.mistake import Mistake, near


def main(given: list[str] | None = None) -> int:
    """Run one command. Return its exit code: 2 after a mistake on the command line."""
    words = list(sys.argv[1:] if given is None else given)
    try:
        return _run(words)
    except Mistake as mistake:
        print(f"mlsystem: {mistake}", file=sys.stderr)
        return 2
    except (ImportError, OSError, TypeError, ValueError) as error:
        if _is_of_user(error):
            raise
        print(f"mlsystem: {error}", file=sys.stderr)
        return 2


def _is_of_user(error: BaseException | None) -> bool:
    """Return whether the code of the user's files was running. Its traceback helps then."""
    if error is None:
        return False
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return not all(map(_is_library, files)) or _is_of_user(error.__cause__)


def _is_library(file: str) -> bool:
    libraries = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<")
    return file.startswith(libraries) or "-packages" in file


def _run(words: list[str]) -> int:
    from mlsystem._cli import commands, doctor

    known = {"doctor": doctor.run, **commands.COMMANDS}
    at = next((i for i, word in enumerate(words) if word in known), None)
    if at is None:
        return _without_command(words, known)
    name = words.pop(at)  # flags may stand before it
    return known[name](name, words)


def _without_command(words: list[str], known: Mapping[str, object]) -> int:
    wrong = next((word for word in words if word not in ("-h", "--help")), None)
    if wrong is not None:
        raise Mistake(
            f"'{wrong}' is no command.{near(wrong, known)} The commands: {', '.join(known)}."
        )
    print("mlsystem COMMAND ...", "Commands:", sep="\n\n")
    for name, command in known.items():
        print(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}")
    print("\n`mlsystem COMMAND --help` lists the options of a command.")
    return 0
