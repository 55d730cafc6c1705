"""The command line `mlsystem`, also `python -m mlsystem`."""

import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from mlsystem._cli import commands, doctor
from mlsystem._cli.mistake import Mistake, near

_KNOWN = {"doctor": doctor.doctor, **commands.COMMANDS}


def main(given: list[str] | None = None) -> int:
    """Run one command. Return its exit code: 2 after a mistake on the command line."""
    words = list(sys.argv[1:] if given is None else given)
    try:
        name = next((word for word in words if word in _KNOWN), None)
        if name is None:
            return _without_command(words)
        words.remove(name)  # flags may stand before it
        return doctor.run(words) if name == "doctor" else commands.run(name, words)
    except (Mistake, ImportError, OSError, TypeError, ValueError) as error:
        if not isinstance(error, Mistake) and _is_of_user(error, error.__cause__):
            raise
        print(f"mlsystem: {error}", file=sys.stderr)
        return 2


def _is_of_user(*errors: BaseException | None) -> bool:
    """Return whether the code of the user's files was running. Its traceback helps then."""
    libraries = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<")
    tracebacks = [traceback.extract_tb(error.__traceback__) for error in errors if error]
    files = [frame.filename for frames in tracebacks for frame in frames]
    return any(not file.startswith(libraries) and "-packages" not in file for file in files)


def _without_command(words: Sequence[str]) -> int:
    # The word that stands where a command belongs, rather than an option behind it.
    wrong = next((word for word in words if word not in ("-h", "--help")), None)
    if wrong is not None:
        raise Mistake(
            f"'{wrong}' is no command.{near(wrong, _KNOWN)} The commands: {', '.join(_KNOWN)}."
        )
    print("mlsystem COMMAND ...", "Commands:", sep="\n\n")
    for name, command in _KNOWN.items():
        print(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}")
    print("\n`mlsystem COMMAND --help` lists the options of a command.")
    return 0
