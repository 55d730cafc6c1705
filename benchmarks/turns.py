"""The programs of one backend and workload take turns."""

import statistics
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import catalog, data
from benchmarks.worker import Client, Failed
from benchmarks.workloads import Workload


class Group:
    """The programs of one backend and workload, with what came out of each.

    `given` are the options of the command line.
    """

    def __init__(self, backend: str, workload: Workload, given: Namespace) -> None:
        self.backend, self.workload, self.given = backend, workload, given
        self.usual_steps = given.steps or workload.steps[given.device]
        self.results: dict[str, dict[str, Any]] = {}  # of each program that ran
        self.left_out: dict[str, str] = {}  # why others did not
        self.clients: dict[str, Client] = {}
        self.failed = False

    def measure(self) -> None:
        """Starts the programs, lets them take turns, and ends them."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.start(Path(folder))
                self.each(self.first)
                self.each(self.warm)
                for number in range(self.given.rounds):
                    self.each(self.segment, number + 1)
                self.each(self.finish)
            finally:
                for client in self.clients.values():
                    client.close()
        self.add_speeds()

    def start(self, folder: Path) -> None:
        """Starts all processes side by side; they import, and read their data."""
        device, path = self.given.device, folder / "data.npz"
        data.save(self.workload, device, path)
        shared = {"backend": self.backend, "device": device, "workload": self.workload.name}
        for entry in self.entries():
            own = folder / str(len(self.clients))
            self.clients[entry.name] = Client(entry, own, data=path, **shared)
        self.each(Client.answer)

    def entries(self) -> list[catalog.Entry]:
        """The programs that are wanted and can run."""
        found = catalog.entries(self.backend, self.workload, self.given.device)
        parts = (self.given.program or "").split(",")
        found = [entry for entry in found if any(part in entry.name for part in parts)]
        reasons = {e.name: catalog.left_out(e, self.backend, self.workload) for e in found}
        self.left_out |= {name: reason for name, reason in reasons.items() if reason}
        return [entry for entry in found if entry.name not in self.left_out]

    def each(self, act: Callable[[Client], Any], number: int = 0) -> None:
        """Does something with each program, starting with another one for each number."""
        turns = list(self.clients.values())
        shift = number % max(1, len(turns))
        for client in turns[shift:] + turns[:shift]:
            try:
                act(client)
            except Failed as error:
                self.failed, self.left_out[client.entry.name] = True, f"failed: {error}"
                self.results.pop(client.entry.name, None)
                self.clients.pop(client.entry.name).close()

    def first(self, client: Client) -> None:
        entry = client.entry
        is_ours, models = entry.path.endswith(":MLSystem"), entry.options.get("models", 1)
        found = {"is_ours": is_ours, "models": models, "seconds": []}
        self.results[entry.name] = found | client.ask("first")

    def steps(self, client: Client) -> int:
        """The steps in a segment of a program."""
        steps = self.given.steps or client.entry.steps or self.usual_steps
        together = client.entry.options.get("steps_per_execution", 1)
        return steps if together == 1 else max(steps // together, 4) * together

    def warm(self, client: Client) -> None:
        """A segment whose whole time is kept: the program may still be compiling."""
        found = client.ask("run", steps=self.steps(client))
        self.results[client.entry.name]["warm_up_s"] = found["whole"]

    def segment(self, client: Client) -> None:
        found, result = client.ask("run", steps=self.steps(client)), self.results[client.entry.name]
        result["seconds"].append(found["seconds"])
        result |= {"loss_last": found["losses"], "memory_mib": found["memory"]}

    def finish(self, client: Client) -> None:
        """Counts operations, where another program's do not count, and sums up."""
        result, steps = self.results[client.entry.name], self.steps(client)
        result["like"] = client.entry.like or client.entry.name
        if self.workload.bfloat16 and not client.entry.like:
            result |= client.ask("operations")
        usual = steps * statistics.median(result["seconds"])
        result["warm_up_s"] = max(0.0, result["warm_up_s"] - usual)
        result["steps_per_segment"] = steps

    def add_speeds(self) -> None:
        """Adds TFLOP/s to each result whose operations were counted, itself or in its like."""
        for result in self.results.values():
            like = self.results.get(result["like"], result)
            if operations := like.get("operations"):
                result["tflops"] = operations / statistics.median(result["seconds"]) / 1e12
