"""Find out how many processes were started, and which of them this is. Plain Python.

Each launcher tells its processes by environment variables.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Environ = Mapping[str, str]
LOCAL = ("127.0.0.1", "localhost")  # hosts that only this machine reaches


@dataclass(frozen=True)
class Launch:
    """One of several processes that were started together.

    Attributes:
        index: the number of this process.
        count: the number of processes.
        address: `host:port` of the first process.
        local: the number of this process on its machine.
        by: the name of the launcher.
    """

    index: int
    count: int
    address: str
    local: int
    by: str

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"{self.by} says that this is process {self.index} of {self.count}. Processes "
                f"are numbered from 0 to {self.count - 1}."
            )
        if self.count > 1 and not re.fullmatch(r"\S+:\d+", self.address):
            raise ValueError(
                f"{self.by} gives the address {self.address!r} of the first process. Give "
                "'host:port'."
            )

    @property
    def is_local(self) -> bool:
        """Whether the address is one that only this machine reaches."""
        return self.address.rpartition(":")[0] in LOCAL


def given(
    address: str | None, count: int | None, index: int | None, environ: Environ
) -> Launch | None:
    """Return the launch that the arguments describe. None if there are no arguments."""
    names = ("coordinator_address", "num_processes", "process_id")
    values = dict(zip(names, (address, count, index), strict=True))
    missing = [name for name, value in values.items() if value is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise ValueError(
            f"ml.distribute needs {', '.join(names)} together. It got no {' and no '.join(missing)}"
        )
    assert address is not None and count is not None and index is not None
    for name, value in (("num_processes", count), ("process_id", index)):
        if not isinstance(value, int):
            raise ValueError(f"ml.distribute got {name}={value!r}; give a whole number.")
    local = _number(environ, "LOCAL_RANK", index)
    return Launch(index, count, address, local, "The call of ml.distribute")


def detected(environ: Environ) -> Launch | None:
    """Return the launch that the environment describes. None for a process that runs alone."""
    for find in _LAUNCHERS:
        found = find(environ)
        if found is not None and found.count > 1:
            return found
    return None


def _number(environ: Environ, name: str, default: int = 0) -> int:
    """Return a variable of the environment as a number."""
    text = environ.get(name, str(default))
    if not re.fullmatch(r"\d+", text):
        raise ValueError(f"The environment variable {name} is {text!r}. Give a number from 0.")
    return int(text)


def _torchrun(environ: Environ) -> Launch | None:
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environ.keys():
        return None
    address = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    local = _number(environ, "LOCAL_RANK")
    return Launch(
        _number(environ, "RANK"), _number(environ, "WORLD_SIZE"), address, local, "torchrun"
    )


def _keras(environ: Environ) -> Launch | None:
    who, number, where = (
        f"KERAS_DISTRIBUTION_{name}" for name in ("PROCESS_ID", "NUM_PROCESSES", "JOB_ADDRESSES")
    )
    if not {who, number, where} <= environ.keys():
        return None
    index, count = _number(environ, who), _number(environ, number)
    return Launch(index, count, environ[where].split(",")[0], _number(environ, "LOCAL_RANK"), who)


def _tf_config(environ: Environ) -> Launch | None:
    text = environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG is {text!r}, which is no JSON: {error}.") from None
    workers = [
        *config.get("cluster", {}).get("chief", ()),
        *config.get("cluster", {}).get("worker", ()),
    ]
    if not workers:
        return None
    task = config.get("task", {})
    is_chief, has_chief = task.get("type") == "chief", "chief" in config["cluster"]
    index = 0 if is_chief else int(task.get("index", 0)) + has_chief
    host = workers[index].rpartition(":")[0] if index < len(workers) else ""
    local = sum(worker.rpartition(":")[0] == host for worker in workers[:index])
    return Launch(index, len(workers), workers[0], local, "TF_CONFIG")


def _slurm(environ: Environ) -> Launch | None:
    # A batch script has a SLURM_PROCID too. Only `srun` tells the number of tasks in its step.
    if not {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= environ.keys():
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    port = 20000 + _number(environ, "SLURM_JOB_ID") % 10000
    address = f"{environ.get('MASTER_ADDR') or first_node(nodes)}:{port}"
    local = _number(environ, "SLURM_LOCALID")
    count = _number(environ, "SLURM_STEP_NUM_TASKS")
    return Launch(_number(environ, "SLURM_PROCID"), count, address, local, "Slurm")


def first_node(nodes: str) -> str:
    """Return the first machine in Slurm's list of machines.

    >>> first_node("gpu[003-005,9],login")
    'gpu003'
    """
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return nodes.partition(",")[0]
    number, _, _ = rest.partition("]")
    return name + re.split("[-,]", number)[0]


def _mpi(environ: Environ) -> Launch | None:
    if not {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"} <= environ.keys():
        return None
    address = f"{environ.get('MASTER_ADDR', '')}:{environ.get('MASTER_PORT', '')}"
    index, count, local = (
        _number(environ, f"OMPI_COMM_WORLD_{name}") for name in ("RANK", "SIZE", "LOCAL_RANK")
    )
    if count > 1 and address.startswith(":"):
        raise ValueError(
            f"MPI started {count} processes, and does not tell them where the first one is. Set "
            "MASTER_ADDR and MASTER_PORT: `mpirun -x MASTER_ADDR=host -x MASTER_PORT=29500`."
        )
    return Launch(index, count, address, local, "MPI")


_LAUNCHERS: tuple[Callable[[Environ], Launch | None], ...] = (
    _torchrun,
    _keras,
    _tf_config,
    _slurm,
    _mpi,
)
