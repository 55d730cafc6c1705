"""Errors of processes that do not meet, equal on all backends."""

from typing import Any


def check_count(launch: Any, index: int, count: int) -> None:
    """Raise an error if another process was told another number of processes."""
    if count != launch.count:
        raise ValueError(
            f"Process {launch.index} was told that there are {launch.count} processes, and process "
            f"{index} that there are {count}. Give all processes the same number."
        )


def unreachable(launch: Any, timeout: float, error: Exception) -> Exception:
    """Return the error of a process that does not find the first one, or cannot be the first."""
    if launch.index == 0:
        return RuntimeError(
            f"The first process cannot listen at {launch.address} ({error}). Choose a free port."
        )
    return ConnectionError(
        f"Process {launch.index} of {launch.count} cannot reach the first process at "
        f"{launch.address} within {timeout:g} seconds ({error}). Check the address from "
        f"{launch.by}, the firewall, and that all processes run."
    )
