"""What the train steps of Keras' guides share on every backend."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from benchmarks.networks.keras import adam, networks
from benchmarks.peers import steps
from benchmarks.peers.keras_functions import KerasFunctions
from benchmarks.workloads import Workload


class Tracked(keras.Model):
    """The networks of a workload, and the mean of each of its losses, as in the guides."""

    functions = KerasFunctions

    def __init__(self, workload: Workload, step: Callable[..., steps.Updates]) -> None:
        super().__init__()
        self.workload = workload
        nets = networks(workload)
        for name, network in nets.items():
            setattr(self, name, network)
        self.trackers = [keras.metrics.Mean(name=name) for name in steps.trained(workload)]
        self.seed = keras.random.SeedGenerator(0)
        self.built = True  # its networks are
        self.compile(optimizer=adam(workload))
        self.prepare(nets)
        called = {name: partial(network, training=True) for name, network in nets.items()}
        f = self.functions(workload.sizes.get("latent"), self.seed)
        self.step = partial(step, f, called)

    def prepare(self, nets: dict[str, Any]) -> None:
        """Makes what else there is."""

    @property
    def metrics(self) -> list[Any]:
        """The trackers, which `fit` resets at the start of each epoch."""
        return self.trackers
