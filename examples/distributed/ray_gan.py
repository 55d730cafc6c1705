"""The GAN of `gan.py` in the workers of Ray Train, which restarts them if one dies.

    python -m pip install 'mlsystem[ray,examples]'
    KERAS_BACKEND=torch python ray_gan.py --workers 2
    KERAS_BACKEND=jax JAX_PLATFORMS=cpu python ray_gan.py --workers 2

trains in two workers on CPUs. On a cluster with GPUs, leave out JAX_PLATFORMS and add --gpu. Each
epoch is reported to Ray. If a worker dies, Ray starts all of them again, and training resumes from
the last epoch without anybody's help. The storage must be a place that all machines share.
"""

import argparse
import os
from pathlib import Path

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig


def train(config):
    """Runs in each worker."""
    os.environ["KERAS_BACKEND"] = config["backend"]
    import gan  # calls ml.distribute(), which joins the processes that Ray has connected

    import mlsystem as ml

    report = ml.callbacks.RayReport()
    model = gan.GAN()
    given = {"batch_size": 100, "epochs": config["epochs"], "verbose": 2}
    images = gan.digits(config["samples"])
    model.fit(images, **given, callbacks=[report], resume=report.folder)


def trainer(backend, workers, gpu, storage, epochs, samples, function=train):
    """A trainer of Ray for the backend."""
    given = {
        "train_loop_per_worker": function,
        "train_loop_config": {"backend": backend, "epochs": epochs, "samples": samples},
        "scaling_config": ScalingConfig(num_workers=workers, use_gpu=gpu),
        "run_config": RunConfig(
            name="gan",
            storage_path=str(Path(storage).resolve()),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    }
    if backend == "jax":
        from ray.train.v2.jax import JaxTrainer
        from ray.train.v2.jax.config import JaxConfig

        # Ray connects the processes of JAX only with use_gpu or use_tpu, also for CPUs.
        return JaxTrainer(jax_config=JaxConfig(use_gpu=True), **given)
    from ray.train.torch import TorchTrainer

    return TorchTrainer(**given)


def main(workers=2, gpu=False, storage="runs/ray", epochs=10, samples=5000):
    backend = os.environ.get("KERAS_BACKEND", "torch")
    result = trainer(backend, workers, gpu, storage, epochs, samples).fit()
    print(f"epoch {result.metrics['epoch']}: {result.metrics['loss']:.4f}, {result.checkpoint}")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--storage", default="runs/ray")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=5000)
    main(**vars(parser.parse_args()))
