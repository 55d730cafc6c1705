"""Several processes on torch: one process for each device, and sums over `torch.distributed`.

A captured step holds the sums as functional collectives, which are operations like others.
"""

import atexit
import contextlib
import datetime
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from mlsystem import _keras
from mlsystem.engine import engine
from mlsystem.engine.meeting_errors import check_count, unreachable
from mlsystem.engine.replicas import FAR, Replicas, buckets, fold_noise

# How long an exchange may take. A process that ends is noticed at once on CPUs.
_EXCHANGE = datetime.timedelta(minutes=30)
# Whether `start` waits for the other processes and says which are missing.
MEETS = True


class TorchReplicas(Replicas):
    """The processes of `torch.distributed`. See `Replicas`."""

    reduces = True

    def __init__(self) -> None:
        self.index, self.count = dist.get_rank(), dist.get_world_size()
        self.size = self.shards = self.count
        self.shard = self.index
        group: Any = dist.group.WORLD
        self.group = group.group_name

    def total(self, x: Any) -> Any:
        return _wait(self.start(x.detach()))

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """Start a sum over the replicas. `_wait` gives its result."""
        if self.is_alone:
            return x * self.size
        found: torch.Tensor = torch.ops._c10d_functional.all_reduce(
            x.contiguous(), "sum", self.group
        )
        return found

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of all replicas, as a constant."""
        if self.is_alone:
            return x.repeat(self.size, *[1] * (x.ndim - 1))
        sizes = self.sizes(x)
        if missing := max(sizes) - len(x):
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
        gather = torch.ops._c10d_functional.all_gather_into_tensor
        found = _wait(gather(x.contiguous(), self.size, self.group))
        if len(set(sizes)) == 1:
            return found
        most = max(sizes)
        return torch.cat([found[i * most : i * most + size] for i, size in enumerate(sizes)])

    def sizes(self, x: torch.Tensor) -> tuple[int, ...]:
        """Return the number of rows on each replica."""
        if self.parts is None or self.is_alone or len(x) != self.parts[self.index]:
            return (len(x),) * self.size
        return self.parts

    def gather(self, x: Any) -> Any:
        found: Any = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return found

    def mean_later(self, gradients: list[Any], again: bool = False) -> Callable[[], list[Any]]:
        if again:
            means = [g if g is None else _Mean.apply(g, self) for g in gradients]  # type: ignore
            return lambda: means
        started = [(bucket, self._start_mean(gradients, bucket)) for bucket in buckets(gradients)]

        def finish() -> list[Any]:
            found = list(gradients)
            for bucket, flat in started:
                _split(_wait(flat), bucket, found)
            return found

        return finish

    def _start_mean(self, gradients: list[Any], bucket: list[int]) -> torch.Tensor:
        flat = torch.cat([gradients[i].reshape(-1) for i in bucket])
        return self.start(flat / self.size)  # first, since a sum of half-precision overflows

    def collect(self, value: Any) -> list[Any]:
        if self.is_alone:
            return [value] * self.count
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def any(self, value: bool) -> bool:
        if self.is_alone:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        number = torch.tensor(int(value), device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return bool(number)

    @contextlib.contextmanager
    def noise(self, system: Any) -> Iterator[None]:
        # Layers may draw from torch's own generator, which also decides the order of the data.
        # What they draw follows from the number of the batch, so that all processes have one state.
        if torch.cuda.is_available():  # where layers draw from the generator of their device
            yield
            return
        generator, optimizer = torch.default_generator, getattr(system, "optimizer", None)
        number = 0 if optimizer is None else int(optimizer.iterations)
        before = generator.get_state()
        generator.manual_seed(
            (generator.initial_seed() + (number + 1) * self.count + self.index) % 2**62
        )
        try:
            yield
        finally:
            generator.set_state(before)

    def vary_noise(self) -> None:
        if torch.cuda.is_available():
            states = self.collect(torch.cuda.get_rng_state().numpy().tobytes())
            if len(set(states)) < self.count:  # somebody has set one seed on all of them
                torch.cuda.manual_seed(torch.cuda.initial_seed() + self.index * FAR)

    def share(self, variables: list[Any]) -> None:
        with torch.no_grad():
            for value in _keras.values(variables):
                whole = value.contiguous()
                dist.broadcast(whole, 0)
                value.copy_(whole)


def _wait(x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops._c10d_functional.wait_tensor(x)
    return found


def _split(flat: torch.Tensor, bucket: list[int], found: list[Any]) -> None:
    """Put the parts of a flat tensor in place of gradients."""
    start = 0
    for i in bucket:
        end = start + found[i].numel()
        found[i] = flat[start:end].view(found[i].shape)
        start = end


# With losses that are averaged over the processes, the gradient of what each process got is the
# sum of what all of them pass back. Each of these functions is differentiated by another.


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, replicas: TorchReplicas) -> Any:
        ctx.replicas = replicas
        return _wait(replicas.start(x.detach() / replicas.size))

    @staticmethod
    def backward(ctx: Any, given: Any) -> Any:
        return _Mean.apply(given, ctx.replicas), None  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, replicas: TorchReplicas) -> Any:
        ctx.replicas, ctx.sizes = replicas, replicas.sizes(x)
        return replicas.rows(x.detach())

    @staticmethod
    def backward(ctx: Any, given: Any) -> Any:
        found = _OwnSum.apply(given, ctx.replicas, ctx.sizes)  # type: ignore[no-untyped-call]
        return found, None


class _OwnSum(torch.autograd.Function):
    """The sum over the replicas, of which each keeps its own rows."""

    @staticmethod
    def forward(ctx: Any, x: Any, replicas: TorchReplicas, sizes: Any) -> Any:
        ctx.replicas = replicas
        start = sum(sizes[: replicas.index])
        return replicas.total(x)[start : start + sizes[replicas.index]].clone()

    @staticmethod
    def backward(ctx: Any, given: Any) -> Any:
        return _Gather.apply(given, ctx.replicas), None, None  # type: ignore[no-untyped-call]


# Start ------------------------------------------------------------------------------------------


def is_joined() -> bool:
    """Tell whether somebody else has set up the processes."""
    return dist.is_available() and dist.is_initialized()


def local_devices() -> int:
    """Return 1: a process on torch uses one device. Warn of GPUs that no process will use."""
    idle = torch.cuda.device_count() - 1
    if idle > 0:
        warnings.warn(
            f"One process on torch uses one GPU, and {idle} more are here. Start the script by "
            f"`torchrun --nproc-per-node={idle + 1} SCRIPT` to use all.",
            stacklevel=4,
        )
    return 1


def start(launch: Any, distribution: Any, timeout: float) -> tuple[Any, TorchReplicas | None]:
    """Connect the processes of a launch. Return the process group and the replicas."""
    if distribution is not None:
        raise ValueError(
            f"ml.distribute got {type(distribution).__name__}. On torch, each process holds all "
            "weights (data parallel): call ml.distribute() without it. Sharded weights need JAX."
        )
    if not is_joined():
        if launch is None:
            return None, None
        _connect(launch, timeout)
    if dist.get_world_size() == 1:
        return dist.group.WORLD, None
    replicas = TorchReplicas()
    fold_noise(_keras.torch_modules().random, replicas.index)
    return dist.group.WORLD, replicas


def _connect(launch: Any, timeout: float) -> None:
    """Set up the processes. Each takes the GPU of its number on its machine."""
    host, _, port = launch.address.rpartition(":")
    # `torchrun` runs a store of its own at the address.
    is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            int(port),
            launch.count,
            is_master=launch.index == 0 and not is_served,
            timeout=datetime.timedelta(seconds=max(timeout, 1)),
            wait_for_workers=False,
        )
    except dist.DistError as error:
        raise unreachable(launch, timeout, error) from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    met = dist.PrefixStore(f"mlsystem/{attempt}", store)  # type: ignore[attr-defined]
    _meet(met, launch, timeout)
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=met, rank=launch.index, world_size=launch.count, timeout=_EXCHANGE
    )
    atexit.register(_leave)


def _leave() -> None:
    """End the threads of the process group. They live for as long as somebody holds the group."""
    engine.distributed = None
    if dist.is_initialized():
        dist.destroy_process_group()


def _meet(store: Any, launch: Any, timeout: float) -> None:
    """Wait until all processes have come."""
    store.set(f"here/{launch.index}", str(launch.count))
    for index in range(launch.count):
        try:
            store.wait([f"here/{index}"], datetime.timedelta(seconds=timeout))
        except Exception as error:
            raise RuntimeError(
                f"Process {index} of {launch.count} has not come to {launch.address} within "
                f"{timeout:g} seconds. Start all {launch.count} processes, or give a longer "
                "`timeout` to ml.distribute."
            ) from error
        check_count(launch, index, int(store.get(f"here/{index}")))
