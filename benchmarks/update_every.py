"""What a step costs under `update_every`, beside the steps that it alternates.

    KERAS_BACKEND=jax python -m benchmarks.update_every

A GAN whose generator is updated on every fifth batch takes four steps without it and one with it.
Time per step is compared with the mean of the two, four to one, each measured on a system that
takes only that step, in turns. What is printed is the median of the ratio over rounds. The data
are noise, and the learning rate is too small to change much: a discriminator that has won makes
gradients so small that a CPU is slow with them.
"""

import statistics
import time

import keras
import numpy as np

import mlsystem as ml

EVERY, BATCH, STEPS, ROUNDS = 5, 64, 200, 18


class GAN(ml.MLSystem):
    """A GAN of dense layers, each model after its own loss."""

    routing = "own"

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.generator, self.discriminator = _net(width, 784), _net(width, 1)
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, images: object) -> dict[str, object]:
        z = keras.random.normal((BATCH, 64), seed=self.seed)
        fake = self.discriminator(self.generator(z))
        return {"real": self.discriminator(images), "fake": fake}

    def compute_losses(self, x: object, y: object, outputs: dict) -> dict[str, object]:
        bce = keras.losses.BinaryCrossentropy(from_logits=True)
        one, zero = keras.ops.ones((BATCH, 1)), keras.ops.zeros((BATCH, 1))
        against = bce(one, outputs["real"]) + bce(zero, outputs["fake"])
        return {"generator": bce(one, outputs["fake"]), "discriminator": against}


def _net(width: int, outputs: int) -> ml.MLModel:
    dense = [keras.layers.Dense(width, activation="relu") for _ in range(2)]
    net = keras.Sequential([*dense, keras.layers.Dense(outputs)])
    return ml.MLModel(net, optimizer=keras.optimizers.Adam(1e-7))


def main() -> None:
    """Prints the time of each step, and the ratio."""
    images = np.random.default_rng(0).random((BATCH * STEPS, 784), dtype="float32")
    systems = {"with": GAN(), "without": GAN(), "every fifth": GAN()}
    systems["without"].update_start = {"generator": 10**9}
    systems["every fifth"].update_every = {"generator": EVERY}
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
    system.fit(images, batch_size=BATCH, shuffle=False, verbose=0)
    return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
