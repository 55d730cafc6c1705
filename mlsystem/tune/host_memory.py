"""The memory of the host: how much is free, and how much this process has used at most."""

import sys
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free() -> int | None:
    """Return the bytes that this process may still allocate. None if the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min(found, *_left_in_container())


def _left_in_container() -> list[int]:
    try:
        limit, used = (int((_GROUP / f"memory.{n}").read_text()) for n in ("max", "current"))
    except (OSError, ValueError):  # "max": without a limit
        return [sys.maxsize]
    return [max(limit - used, 0)]


def peak() -> int | None:
    """Return the most bytes that this process has used so far. None if the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
