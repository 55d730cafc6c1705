"""The launchers of the examples: torchrun, processes by hand, Slurm, Kubernetes and Ray Train."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from optional import needs, ship_only
from processes import HERE, run

from mlsystem._keras import file_entries
from mlsystem.engine.distribution import launch

EXAMPLES = HERE.parents[1] / "examples" / "distributed"
BACKEND = keras.backend.backend()
SMALL = ("--epochs", 1, "--samples", 200)


def started_by_torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "--rdzv-backend=c10d"]
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=240
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@ship_only
def test_the_example_runs_by_the_launcher_of_its_backend(tmp_path):
    script, options = EXAMPLES / "gan.py", ("--folder", tmp_path, *SMALL)
    if BACKEND == "torch":
        text = started_by_torchrun(script, *options)
    else:
        text = "".join(run(script, *options))
    assert text.count("2 processes: loss of the generator") == 1
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000000002.weights.h5"]


@pytest.mark.once
def test_kubernetes_tells_the_processes_who_they_are():
    yaml = needs("yaml")
    job = yaml.safe_load((EXAMPLES / "jobset.yaml").read_text())["spec"]["replicatedJobs"][0]
    pods = job["template"]["spec"]
    [container] = pods["template"]["spec"]["containers"]
    index = {"valueFrom": {"fieldRef": {"fieldPath": INDEX}}}
    told = {v["name"]: "1" if v.items() >= index.items() else v["value"] for v in container["env"]}
    found = launch.detected(told)
    assert (found.index, found.count) == (1, pods["completions"])
    assert pods["completions"] == pods["parallelism"]
    assert found.address == "gan-workers-0-0.gan:1234"


INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@ship_only
@pytest.mark.skipif(BACKEND == "tensorflow", reason="Ray Train does not connect its processes")
def test_ray_restarts_a_killed_worker(tmp_path):
    needs("ray")
    env = os.environ | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": f"{EXAMPLES}:{env.get('PYTHONPATH', '')}", "RAY_USAGE_STATS_ENABLED": "0"}
    # Ray listens at the address of the machine. Here it sees none but 127.0.0.1.
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command = [*alone, sys.executable, str(HERE / "ray_killed.py"), str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    whole, result = json.loads(re.search(r"^RESULT (.*)$", found.stdout, re.M)[1])
    assert result["metrics"]["epoch"] == 4
    assert result["metrics"] == whole["metrics"]
    arrays, expected = (arrays_of(one["checkpoint"]) for one in (result, whole))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    epochs = [int(line) for line in (tmp_path / "epochs.txt").read_text().split()]
    assert epochs[0] == 0 and epochs[-1] == 3 and epochs.count(0) == 1  # resumed, not started anew
    assert len(epochs) > 4


def arrays_of(folder):
    """The weights, optimizers and seeds in the checkpoint of the last step."""
    [path] = Path(folder).glob("step-0000000008*")
    return {f"{where}/{key}": x for where, e in file_entries(path).items() for key, x in e.items()}


@pytest.mark.once
def test_a_report_needs_a_worker_of_ray():
    needs("ray.train")
    import mlsystem as ml

    with pytest.raises(RuntimeError, match="which has not started this process"):
        ml.callbacks.RayReport()


@pytest.mark.once
def test_a_report_needs_ray(monkeypatch):
    import mlsystem as ml

    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(ImportError, match=r"pip install 'mlsystem\[ray\]'"):
        ml.callbacks.RayReport()
