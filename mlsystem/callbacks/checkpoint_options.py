"""Check the arguments of `Checkpoint`."""

from typing import Any

from mlsystem._checks import is_count


def check(every: Any, keep: Any, best: Any) -> None:
    """Check the arguments that choose which checkpoints are written and kept."""
    if every != "epoch" and not is_count(every):
        raise ValueError(f"Checkpoint got every={every!r}; give 'epoch' or a number of batches.")
    if keep is not None and not is_count(keep):
        raise ValueError(f"Checkpoint got keep={keep!r}; give a number of files from 1, or None.")
    pair = best if isinstance(best, (tuple, list)) and len(best) == 2 else (None, None)
    if best is not None and (not isinstance(pair[0], str) or pair[1] not in ("min", "max")):
        raise ValueError(f"Checkpoint got best={best!r}; give (name of a log, 'min' or 'max').")


def check_writing(keep_best: Any, best: Any, async_write: Any, on_error: Any) -> None:
    """Check the number of best epochs to keep, and how files are written."""
    if not is_count(keep_best) or (keep_best > 1 and best is None):
        raise ValueError(
            f"Checkpoint got keep_best={keep_best!r} and best={best!r}; give a number of epochs "
            "from 1, and in `best` the log that tells which are the best."
        )
    if async_write not in (True, False, "auto"):
        raise ValueError(f"Checkpoint got async_write={async_write!r}; give True, False or 'auto'.")
    if on_error not in ("raise", "warn"):
        raise ValueError(f"Checkpoint got on_error={on_error!r}; give 'raise' or 'warn'.")
