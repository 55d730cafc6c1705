"""`ml.distribute`, and what a script asks about its processes."""

import os
from typing import Any

from mlsystem import _learner
from mlsystem.engine import engine
from mlsystem.engine.distribution import agreement
from mlsystem.engine.distribution import batch_norm as batch_norms
from mlsystem.engine.distribution.launch import Launch, detected, given
from mlsystem.engine.distribution.meeting import meet

_BATCH_NORM = ("sync", "local")


def distribute(
    distribution: Any = None,
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 60,
    batch_norm: str = "sync",
) -> Any:
    """Train on all devices and processes. Call it in the first line of a script.

    The same script then runs on one device and on many. On one device, nothing happens. It finds
    the processes that `torchrun`, Slurm (`srun`), MPI, `TF_CONFIG` or `KERAS_DISTRIBUTION_*`
    started. Pass the three arguments below if you start them otherwise. It joins processes that
    somebody else has connected. See docs/guides/distribution.md for what each backend does.

    ```python
    import mlsystem as ml

    ml.distribute()
    gan = GAN()
    gan.fit(images, batch_size=256)  # the global batch: each of 4 processes gets 64 rows
    ```

    Args:
        distribution: a Keras distribution, on JAX, or one layout map for each member of a system:
            `{"teacher": layout_map}`. With several processes, give a function that returns it, as
            it needs the devices of all processes. By default, data parallel.
        coordinator_address: `"host:port"` of the first process. Its port must be free.
        num_processes: the number of processes.
        process_id: the number of this process, from 0.
        timeout: how many seconds to wait for the other processes at the start.
        batch_norm: "sync": batch norm uses the statistics of the global batch. "local": each
            replica uses its own rows. The moving statistics are averaged.

    Returns:
        The Keras distribution (JAX), the process group (torch) or the strategy (TensorFlow). None
        on one device.

    Raises:
        ValueError: the arguments or environment variables do not fit together.
        ConnectionError: the first process cannot be reached.
        RuntimeError: a model was made before, or another process does not come.
    """
    if batch_norm not in _BATCH_NORM:
        raise ValueError(f"ml.distribute got batch_norm={batch_norm!r}; give 'sync' or 'local'.")
    if timeout < 0:
        raise ValueError(f"ml.distribute got timeout={timeout!r}; give a number of seconds.")
    launch = given(coordinator_address, num_processes, process_id, os.environ)
    launch = launch or detected(os.environ)
    if launch is not None and launch.count == 1:
        launch = None
    if engine.replicas.size > 1:
        return engine.distributed
    made, replicas = _start(launch, distribution, timeout)
    if replicas is None:
        return made
    if batch_norm == "local" and not replicas.reduces:
        raise ValueError(
            "ml.distribute got batch_norm='local'. On JAX, a step computes with the global batch, "
            "and so does batch norm. Leave it out."
        )
    engine.replicas, engine.distributed = replicas, made
    agreement.on_random_state()
    if replicas.reduces:
        batch_norms.share(batch_norm)
    return made


def _start(launch: Launch | None, distribution: Any, timeout: float) -> Any:
    """Connect the processes. Return what the backend made, and the replicas."""
    module = engine.distribution()
    will = launch is not None or distribution is not None or module.is_joined()
    if will or module.local_devices() > 1:
        _check_no_model()
    if launch is not None and not module.is_joined() and not module.MEETS:
        meet(launch, timeout)
    return module.start(launch, distribution, timeout)


def _check_no_model() -> None:
    if names := _learner.made():
        raise RuntimeError(
            f"ml.distribute was called after a model of the class {names[0]} was made. Its "
            "weights are on one device already. Call ml.distribute in the first line of the script."
        )


def process_index() -> int:
    """Return the number of this process, from 0. Process 0 writes files and draws progress.

    ```python
    if ml.process_index() == 0:
        gan.save("gan.keras")
    ```
    """
    return engine.replicas.index


def process_count() -> int:
    """Return the number of processes that train together. 1 without `ml.distribute`."""
    return engine.replicas.count


def gather(x: Any) -> Any:
    """Return the global batch of a tensor, from the rows of all replicas.

    Use it in a loss that is no mean over samples, because it compares samples with each other:
    InfoNCE, Barlow Twins. Each replica then computes the loss of the whole batch.

    ```python
    def loss(self, x, y, outputs):
        one, two = ml.gather(outputs["one"]), ml.gather(outputs["two"])
        return info_nce(one, two)
    ```

    Args:
        x: tensor whose first axis is the batch.

    Returns:
        The rows of all replicas, in the order of the batch. `x` itself on one device. It can be
        differentiated.
    """
    return engine.replicas.gather(x)
