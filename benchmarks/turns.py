"""The programs of one backend and workload take turns."""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import catalog, data
from benchmarks.catalog import Entry
from benchmarks.client import Client, Failed
from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Plan:
    """What the command line says of all groups.

    Attributes:
        device: `cpu` or `gpu`.
        steps: in a segment, if not the workload's own number.
        wanted: programs are run whose name holds one of these.
    """

    device: str
    steps: int | None = None
    wanted: tuple[str, ...] = ("",)


class Group:
    """The programs of one backend and workload, with what came out of each.

    Attributes:
        results: a dict for each program that ran, by name.
        left_out: the reason for each that did not.
    """

    def __init__(self, backend: str, workload: Workload, plan: Plan) -> None:
        self.backend, self.workload, self.plan, self.device = backend, workload, plan, plan.device
        self.results: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        self.clients: dict[str, Client] = {}

    def measure(self, rounds: int) -> None:
        """Starts the programs, lets them take turns, and ends them."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.start(Path(folder))
                for each in self.clients.copy().values():
                    self.guard(each, self.first)
                for number in range(rounds + 1):  # the first one warms up
                    self.round(number)
                for each in self.clients.copy().values():
                    self.guard(each, self.finish)
            finally:
                for each in self.clients.values():
                    each.close()

    def start(self, folder: Path) -> None:
        """Starts all processes side by side; they import, and read their data."""
        data.save(self.workload, self.device, folder / "data.npz")
        setting = {"workload": self.workload.name, "backend": self.backend}
        setting |= {"device": self.device, "data": str(folder / "data.npz")}
        for i, entry in enumerate(self.entries()):
            if reason := catalog.left_out(entry, self.backend, self.workload):
                self.left_out[entry.name] = reason
            else:
                self.clients[entry.name] = Client(entry, setting, folder / str(i))
        for each in self.clients.copy().values():
            self.guard(each, Client.answer)

    def entries(self) -> list[Entry]:
        """The programs that are wanted."""
        found = catalog.entries(self.backend, self.workload, self.device)
        return [entry for entry in found if any(part in entry.name for part in self.plan.wanted)]

    def guard(self, client: Client, act: Any) -> None:
        """Does something with a program, and drops the program if that fails."""
        try:
            act(client)
        except Failed as error:
            self.left_out[client.entry.name] = f"failed: {error}"
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

    def round(self, number: int) -> None:
        """One segment of each program, starting with another one each time."""
        turns = list(self.clients.values())
        shift = number % max(1, len(turns))
        for client in turns[shift:] + turns[:shift]:
            self.guard(client, self.warm if number == 0 else self.segment)

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
        """Counts operations, and sums up."""
        result, steps = self.results[client.entry.name], self.steps(client)
        result["operations"] = None
        if self.workload.bfloat16:
            result["operations"] = client.ask("operations")["operations"]
        usual = steps * statistics.median(result["seconds"])
        result["warm_up_s"] = max(0.0, result["warm_up_s"] - usual)
        result["steps_per_segment"] = steps
