"""The programs of one backend and workload take turns."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import catalog, data
from benchmarks.catalog import Entry
from benchmarks.client import Client
from benchmarks.worker import Failed
from benchmarks.workloads import Workload

# A captured or compiled step is not looked into: it computes what this one does.
SAME_AS = {
    "mlsystem auto": "mlsystem eager",
    "mlsystem True": "mlsystem eager",
    "raw compiled": "raw loop",
    "mlsystem": "raw optax+flax",
    "mlsystem x32": "raw optax+flax",
    "keras guide": "raw optax+flax",
}


@dataclass(frozen=True)
class Plan:
    """What the command line says of all groups."""

    device: str  # cpu or gpu
    steps: int | None = None  # in a segment, if not the workload's own number
    wanted: tuple[str, ...] = ("",)  # programs are run whose name holds one of these


class Group:
    """The programs of one backend and workload, with what came out of each.

    Attributes:
        results: a dict for each program that ran, by name.
        left_out: the reason for each that did not.
    """

    def __init__(
        self, backend: str, workload: Workload, plan: Plan, entries: list[Entry] | None = None
    ) -> None:
        self.backend, self.workload, self.plan, self.device = backend, workload, plan, plan.device
        found = entries or catalog.entries(backend, workload, plan.device)
        self.entries = [e for e in found if any(part in e.name for part in plan.wanted)]
        self.results: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        self.clients: dict[str, Client] = {}

    @property
    def failed(self) -> bool:
        """Whether a program was left out because it failed."""
        return any(reason.startswith("failed") for reason in self.left_out.values())

    def measure(self, rounds: int) -> None:
        """Starts the programs, lets them take turns, and ends them."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.start(Path(folder))
                self.each(self.first)
                self.each(self.warm)
                for number in range(rounds):
                    self.each(self.segment, number + 1)
                self.each(self.finish)
                self.add_speeds()
            finally:
                for client in self.clients.values():
                    client.close()

    def start(self, folder: Path) -> None:
        """Starts all processes side by side; they import, and read their data."""
        data.save(self.workload, self.device, folder / "data.npz")
        setting = {"workload": self.workload.name, "backend": self.backend}
        setting |= {"device": self.device, "data": folder / "data.npz"}
        for i, entry in enumerate(self.entries):
            if reason := catalog.left_out(entry, self.backend, self.workload):
                self.left_out[entry.name] = reason
            else:
                client = Client(entry, self.backend, self.device, folder / str(i))
                self.clients[entry.name] = client
                client.tell("open", path=entry.path, options=entry.options, **setting)
        self.each(Client.answer)

    def each(self, act: Callable[[Client], Any], number: int = 0) -> None:
        """Does something with each program, starting with another one for each number."""
        turns = list(self.clients.values())
        shift = number % max(1, len(turns))
        for client in turns[shift:] + turns[:shift]:
            try:
                act(client)
            except Failed as error:
                self.drop(client, f"failed: {error}")

    def drop(self, client: Client, reason: str) -> None:
        """Ends a program, and forgets its results."""
        self.left_out[client.entry.name] = reason
        self.results.pop(client.entry.name, None)
        self.clients.pop(client.entry.name).close()

    def first(self, client: Client) -> None:
        """The first step of one program."""
        found = client.ask("first")
        self.results[client.entry.name] = {
            "is_ours": client.entry.is_ours,
            "models": client.entry.options.get("models", 1),
            "first_step_s": found["seconds"],
            "parameters": found["parameters"],
            "loss_first": found["losses"],
            "seconds": [],
        }

    def steps(self, client: Client) -> int:
        """The steps in a segment of a program."""
        together = client.entry.options.get("steps_per_execution", 1)
        if self.plan.steps is None:
            return client.entry.steps or self.usual_steps()
        return max(self.plan.steps // together, 3) * together

    def usual_steps(self) -> int:
        """The steps in a segment of a program that says nothing else."""
        return self.plan.steps or self.workload.steps[self.device]

    def warm(self, client: Client) -> None:
        """A segment whose whole time is kept: the program may still be compiling."""
        found = client.ask("run", steps=self.steps(client))
        self.results[client.entry.name]["warm_up_s"] = found["whole"]

    def segment(self, client: Client) -> None:
        """A segment that counts."""
        found, result = client.ask("run", steps=self.steps(client)), self.results[client.entry.name]
        result["seconds"].append(found["seconds"])
        result |= {"loss_last": found["losses"], "memory_mib": found["memory"]}

    def finish(self, client: Client) -> None:
        """Counts operations, where another program's do not count, and sums up."""
        result, steps = self.results[client.entry.name], self.steps(client)
        if self.workload.bfloat16 and client.entry.name not in SAME_AS:
            result["operations"] = client.ask("operations")["operations"]
        usual = steps * statistics.median(result["seconds"])
        result["warm_up_s"] = max(0.0, result["warm_up_s"] - usual)
        result["steps_per_segment"] = steps

    def add_speeds(self) -> None:
        """Adds TFLOP/s to each result whose operations were counted, itself or in its like."""
        for name, result in self.results.items():
            like = self.results.get(SAME_AS.get(name, name), result)
            if operations := like.get("operations"):
                result["tflops"] = operations / statistics.median(result["seconds"]) / 1e12
