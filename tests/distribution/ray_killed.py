"""Runs `examples/distributed/ray_gan.py` on this machine, and kills one of its workers.

    python ray_killed.py FOLDER

The last worker kills itself in the third epoch, once. Prints what Ray reports at the end as JSON.
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

    fit = ml.MLSystem.fit

    def killed(self, *arrays, callbacks, **given):
        return fit(self, *arrays, callbacks=[*callbacks, Kill()], **given)

    ml.MLSystem.fit = killed
    ray_gan.train(config)


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27)
    backend = os.environ["KERAS_BACKEND"]
    trainer = ray_gan.trainer(backend, 2, False, FOLDER, 4, 200, function=train)
    result = trainer.fit()
    found = {"metrics": result.metrics, "checkpoint": result.checkpoint.path}
    print("RESULT " + json.dumps(found))
