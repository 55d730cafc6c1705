"""Train steps as Keras' guides to custom training write them, in PyTorch, TensorFlow and JAX.

In PyTorch, the generator's update computes gradients of the discriminator too. In TensorFlow there
is a tape for each update. In both, the GAN draws noise and generates anew for each of its updates.

In JAX, the guide has no step for several optimizers, and `fit` carries the state of one. The GAN
gives all weights to one Adam, which is the same as two with the same settings, updated together.
WGAN-GP, which updates one network more often, and BYOL, whose target no optimizer may touch while
its batch norm trains, have no such form and are left out.
"""

import importlib
from functools import partial
from typing import Any

import keras

from benchmarks.networks.keras import adam, networks
from benchmarks.peers import steps
from benchmarks.peers.keras_fit import KerasFunctions
from benchmarks.workloads import MOMENTUM, Workload

BACKEND = keras.backend.backend()
module: Any = importlib.import_module(BACKEND)  # jax, torch or tensorflow


class TorchFunctions(KerasFunctions):
    """How the guide for PyTorch takes gradients."""

    def constant(self) -> Any:
        return module.no_grad()

    def descend(self, model: Any, loss_of: Any, weights: list[Any], optimizer: Any) -> Any:
        """One update of some weights, down a loss; the loss."""
        model.zero_grad()
        loss = loss_of()
        loss.backward()
        gradients = [weight.value.grad for weight in weights]
        with module.no_grad():
            optimizer.apply(gradients, weights)
        return loss

    def slope(self, network: Any, x: Any) -> Any:
        scores = network(x.requires_grad_()).sum()
        return module.autograd.grad(scores, x, create_graph=True)[0]


class TensorFlowFunctions(KerasFunctions):
    """How the guide for TensorFlow takes gradients. What is outside of a tape is constant."""

    def descend(self, model: Any, loss_of: Any, weights: list[Any], optimizer: Any) -> Any:
        with module.GradientTape() as tape:
            loss = loss_of()
        gradients = tape.gradient(loss, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return loss

    def slope(self, network: Any, x: Any) -> Any:
        with module.GradientTape() as tape:
            tape.watch(x)
            scores = network(x)
        return tape.gradient(scores, x)


FUNCTIONS = {"torch": TorchFunctions, "tensorflow": TensorFlowFunctions, "jax": KerasFunctions}
STEPS = steps.STEPS | {"gan": partial(steps.gan, anew=BACKEND != "jax")}


class Tracked(keras.Model):
    """The networks of a workload, and the mean of each of its losses."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload, nets = workload, networks(workload)
        for name, network in nets.items():
            setattr(self, name, network)
        self.trackers = [keras.metrics.Mean(name=name) for name in steps.trained(workload)]
        self.built = True  # its networks are
        self.compile(optimizer=adam(workload))
        if BACKEND != "jax":
            self.prepare(nets)
        self.seed = keras.random.SeedGenerator(0)
        self.f = FUNCTIONS[BACKEND](workload.sizes.get("latent"), self.seed)
        called = {name: partial(network, training=True) for name, network in nets.items()}
        self.step = partial(STEPS[workload.kind], self.f, called)

    @property
    def metrics(self) -> list[Any]:
        """The trackers, which `fit` resets at the start of each epoch."""
        return self.trackers


class Imperative(Tracked):
    """The model in PyTorch and TensorFlow, whose step descends one loss after another."""

    def prepare(self, nets: dict[str, Any]) -> None:
        """Makes one optimizer for each loss, and the target of BYOL."""
        self.learned = {
            loss: [weight for name in names for weight in nets[name].trainable_weights]
            for loss, names in steps.trained(self.workload).items()
        }
        self.adams = {loss: adam(self.workload) for loss in self.learned}
        if "online" in nets:
            nets["target"] = self.target = keras.models.clone_model(self.online)
            self.target.set_weights(self.online.get_weights())

    def train_step(self, data: Any) -> Any:
        found = {}
        for name, loss_of in self.step(*data):
            weights = self.learned[name]
            found[name] = self.f.descend(self, loss_of, weights, self.adams[name])
        if self.workload.kind == "byol":
            self.follow()
        for tracker in self.trackers:
            tracker.update_state(found[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def follow(self) -> None:
        target, source = self.target.trainable_weights, self.online.trainable_weights
        with self.f.constant():
            for mine, its in zip(target, source, strict=True):
                mine.assign(MOMENTUM * mine + (1 - MOMENTUM) * its)


class Stateless(Tracked):
    """The model in JAX, which is called for its losses. Its step leads from state to state."""

    def call(self, *data: Any) -> dict[str, Any]:
        return {name: loss_of() for name, loss_of in self.step(*data)}

    def train_step(self, state: Any, data: Any) -> Any:
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        losses, gradients, after = {}, [], non_trainable
        for name, names in steps.trained(self.workload).items():
            count = sum(len(getattr(self, n).trainable_variables) for n in names)
            own = slice(len(gradients), len(gradients) + count)
            found, more = self.differentiate(name, own, trainable, non_trainable, data)
            losses[name], after = found
            gradients += more
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        logs, metrics_variables = self.track(metrics_variables, losses)
        return logs, (trainable, after, optimizer_variables, metrics_variables)

    def differentiate(self, name: str, own: slice, trainable: Any, others: Any, data: Any) -> Any:
        """A loss with the new state, and its gradients in some of the weights."""

        def loss_and_updates(weights: Any) -> Any:
            weights = [*trainable[: own.start], *weights, *trainable[own.stop :]]
            losses, after = self.stateless_call(weights, others, *data)
            return losses[name], after

        return module.value_and_grad(loss_and_updates, has_aux=True)(trainable[own])

    def track(self, variables: Any, losses: Any) -> Any:
        """The means of the losses, and the new state of their trackers."""
        logs, after = {}, []
        for tracker in self.trackers:
            own = variables[len(after) : len(after) + len(tracker.variables)]
            own = tracker.stateless_update_state(own, losses[tracker.name])
            logs[tracker.name] = tracker.stateless_result(own)
            after += own
        return logs, after


Guide = Stateless if BACKEND == "jax" else Imperative
