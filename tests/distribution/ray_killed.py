"""Runs `examples/distributed/ray_gan.py` on this machine twice, and kills one of its workers.

    python ray_killed.py FOLDER

The first run is unbroken. In the second run, the last worker kills itself in the third epoch, once.
Prints what Ray reports at the end of both as JSON.
"""

# ruff: noqa: E402

import json
import os
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "distributed"))

import ray
import ray_gan


def train(config):
    """Trains as the example does, with a callback that kills one worker."""
    import signal

    os.environ["KERAS_BACKEND"] = config["backend"]
    import keras

    import mlsystem as ml

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if ml.process_index() == 0:
                with open(FOLDER / "epochs.txt", "a") as file:
                    print(epoch, file=file)
            if ml.process_index() == 1 and epoch == 2 and not (FOLDER / "killed").exists():
                (FOLDER / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

    keras.utils.set_random_seed(3)
    fit = ml.MLSystem.fit

    def killed(self, *arrays, callbacks, **given):
        callbacks = [*callbacks, Kill()] if (FOLDER / "kills").exists() else callbacks
        return fit(self, *arrays, callbacks=callbacks, **given)

    ml.MLSystem.fit = killed
    ray_gan.train(config)


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27)
    backend = os.environ["KERAS_BACKEND"]
    found = []
    for name in ("whole", "kills"):
        storage = FOLDER / name
        storage.mkdir()  # `train` looks for the second one
        trainer = ray_gan.trainer(backend, 2, False, storage, 4, 200, function=train)
        result = trainer.fit()
        found.append({"metrics": result.metrics, "checkpoint": result.checkpoint.path})
    print("RESULT " + json.dumps(found))
