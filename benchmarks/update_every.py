"""What a step costs under `update_every`, beside the steps that it alternates.

    KERAS_BACKEND=jax python -m benchmarks.update_every

A GAN whose generator is updated on every fifth batch takes four steps without it and one with it.
Time per step is compared with the mean of the two, four to one, each measured on a system that
takes only that step, in turns. What is printed is the median of the ratio over rounds. The data
are noise, and the learning rate is too small to change much: a discriminator that has won makes
gradients so small that a CPU is slow with them.
"""

import dataclasses
import statistics
import time

import keras
import numpy as np

from benchmarks.networks.keras import build
from benchmarks.networks.layers import dense
from benchmarks.peers.keras_systems import GAN
from benchmarks.workloads import WORKLOADS

EVERY, STEPS, ROUNDS = 5, 200, 18
WORKLOAD = dataclasses.replace(WORKLOADS["dcgan"], rate=1e-7)


def gan(**schedule: dict[str, int]) -> GAN:
    """A GAN of dense layers, each model after its own loss."""
    latent, hidden = WORKLOAD.sizes["latent"], (256, 256)
    described = {"generator": dense(latent, hidden, 784), "discriminator": dense(784, hidden, 1)}
    found = GAN(WORKLOAD, {name: build(network) for name, network in described.items()})
    for name, value in schedule.items():
        setattr(found, name, value)
    return found


def main() -> None:
    """Prints the time of each step, and the ratio."""
    images = np.random.default_rng(0).random((WORKLOAD.batch * STEPS, 784), dtype="float32")
    systems = {"with": gan(), "without": gan(update_start={"generator": 10**9})}
    systems["every fifth"] = gan(update_every={"generator": EVERY})
    rounds = []
    for n in range(ROUNDS):  # each comes first, second and third in turn
        names = list(systems)[n % 3 :] + list(systems)[: n % 3]
        rounds.append({name: _time(systems[name], images) for name in names})
    rounds = rounds[3:]  # after what is compiled
    for name in systems:
        print(f"{name}: {1e6 * statistics.median(r[name] for r in rounds):.0f} us")
    ratios = [r["every fifth"] * EVERY / (r["with"] + (EVERY - 1) * r["without"]) for r in rounds]
    name, median = keras.backend.backend(), statistics.median(ratios)
    print(f"{name}: ratio {median:.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def _time(system: GAN, images: np.ndarray) -> float:
    start = time.perf_counter()
    system.fit(images, batch_size=WORKLOAD.batch, shuffle=False, verbose=0)
    return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
