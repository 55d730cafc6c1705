"""Train steps as Keras' guides to custom training in PyTorch and TensorFlow write them.

They take gradients in their own ways, and are alike otherwise: `guide_torch` and `guide_tensorflow`
hold what differs. Their GAN draws noise and generates anew for each of its two updates.
"""

import importlib
from functools import partial
from typing import Any

import keras

from benchmarks.networks.keras import adam
from benchmarks.peers import guide_models, steps
from benchmarks.peers.keras_functions import KerasFunctions
from benchmarks.workloads import MOMENTUM, Workload

backend = importlib.import_module(f"benchmarks.peers.guide_{keras.backend.backend()}")
STEPS = steps.STEPS | {"gan": partial(steps.gan, anew=True)}


class Functions(KerasFunctions):
    """See `Functions`."""

    constant, slope = staticmethod(backend.constant), staticmethod(backend.slope)


class Guide(guide_models.Tracked):
    """A model whose step descends one loss after another."""

    functions = Functions

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, STEPS[workload.kind])

    def prepare(self, nets: dict[str, Any]) -> None:
        self.learned = {
            loss: [weight for name in names for weight in nets[name].trainable_weights]
            for loss, names in steps.trained(self.workload).items()
        }
        self.adams = {loss: adam(self.workload) for loss in self.learned}
        if "online" in nets:
            nets["target"] = self.target = keras.models.clone_model(self.online)
            self.target.set_weights(self.online.get_weights())

    def train_step(self, data: Any) -> Any:
        """Updates, and the means of their losses."""
        found = {}
        for name, loss_of in self.step(*data):
            weights = self.learned[name]
            found[name] = backend.descend(self, loss_of, weights, self.adams[name])
        if hasattr(self, "target"):
            self.follow()
        for tracker in self.trackers:
            tracker.update_state(found[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def follow(self) -> None:
        """Moves the target of BYOL towards the online network."""
        target, source = self.target.trainable_weights, self.online.trainable_weights
        with backend.constant():
            for mine, its in zip(target, source, strict=True):
                mine.assign(MOMENTUM * mine + (1 - MOMENTUM) * its)
