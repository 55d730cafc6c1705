"""How processes find out who they are, and which rows are theirs."""

import keras
import numpy as np
import pytest

import mlsystem as ml
from mlsystem._keras import data_adapter
from mlsystem.engine import engine
from mlsystem.engine.distribution import first_process, launch, rows, start
from mlsystem.engine.replicas import Replicas

pytestmark = pytest.mark.once

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
KERAS = {
    "KERAS_DISTRIBUTION_JOB_ADDRESSES": "one:1,two:2",
    "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    "KERAS_DISTRIBUTION_PROCESS_ID": "1",
}
WORKERS = '{"cluster": {"worker": ["a:1", "a:2", "b:1"]}, "task": {"type": "worker", "index": %d}}'
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "10007",
    "SLURM_STEP_NODELIST": "gpu[003-005,9]",
}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    "environ, expected",
    [
        (TORCHRUN | {"LOCAL_RANK": "1"}, (3, 4, "host:29500", 1)),
        (KERAS, (1, 2, "one:1", 0)),
        ({"TF_CONFIG": WORKERS % 1}, (1, 3, "a:1", 1)),
        ({"TF_CONFIG": WORKERS % 2}, (2, 3, "a:1", 0)),
        (SLURM, (5, 8, "gpu003:20007", 1)),
        (MPI | {"MASTER_ADDR": "host", "MASTER_PORT": "1"}, (1, 2, "host:1", 0)),
    ],
)
def test_each_launcher_is_found(environ, expected):
    found = launch.detected(environ)
    assert (found.index, found.count, found.address, found.local) == expected


@pytest.mark.parametrize(
    "environ",
    [{}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}],
)
def test_a_process_alone_has_no_launch(environ):
    assert launch.detected(environ) is None


@pytest.mark.parametrize(
    "environ, says",
    [
        (TORCHRUN | {"RANK": "4"}, "process 4 of 4. Processes are numbered from 0 to 3"),
        (MPI, "Set MASTER_ADDR and MASTER_PORT"),
        (KERAS | {"KERAS_DISTRIBUTION_JOB_ADDRESSES": "one"}, "Give 'host:port'"),
        (TORCHRUN | {"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"TF_CONFIG": "{bad"}, "TF_CONFIG is '{bad', which is no JSON"),
    ],
)
def test_what_does_not_fit_is_an_error(environ, says):
    with pytest.raises(ValueError, match=says):
        launch.detected(environ)


def test_arguments_come_together():
    with pytest.raises(ValueError, match="It got no process_id"):
        ml.distribute(coordinator_address="host:1", num_processes=2)
    assert launch.given("host:1", 2, 1, {}).index == 1


@pytest.mark.parametrize("nodes, first", [("a,b", "a"), ("n[7,9]", "n7"), ("a,n[1-2]", "a")])
def test_the_first_machine_of_slurm(nodes, first):
    assert launch.first_node(nodes) == first


def test_alone_nothing_happens(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    x = np.ones((2, 3))
    assert ml.distribute() is None
    assert (ml.process_index(), ml.process_count()) == (0, 1)
    assert ml.gather(x) is x
    with pytest.raises(ValueError, match="batch_norm='global'; give 'sync' or 'local'"):
        ml.distribute(batch_norm="global")
    with pytest.raises(ValueError, match="timeout=-1; give a number of seconds"):
        ml.distribute(timeout=-1)
    with pytest.raises(ValueError, match="num_processes='2'; give a whole number"):
        ml.distribute(coordinator_address="127.0.0.1:9", num_processes="2", process_id=0)


def test_a_model_must_not_be_older(monkeypatch):
    model = ml.MLModel()
    with pytest.raises(RuntimeError, match=r"after a model of the class .* was made"):
        ml.distribute(coordinator_address="127.0.0.1:9", num_processes=2, process_id=1, timeout=0)
    del model


def test_batch_norm_of_a_part_needs_parts(monkeypatch):
    whole = Two()
    whole.reduces = False
    monkeypatch.setattr(start, "_start", lambda *given: ("a distribution", whole))
    with pytest.raises(ValueError, match="On JAX, a step computes with the global batch"):
        ml.distribute(batch_norm="local")
    assert engine.replicas.size == 1


def test_every_row_is_read_once():
    batch = {"x": np.arange(7), "y": np.arange(14).reshape(7, 2), "no": None}
    parts = [rows.own(batch, index, 3) for index in range(3)]
    assert [len(part["x"]) for part in parts] == [2, 2, 3]
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts]), batch["x"])


class Two(Replicas):
    """The first of two processes, without the second."""

    count = size = shards = 2
    reduces = True

    def collect(self, value):
        return [value, value]


def test_a_batch_must_divide(monkeypatch):
    monkeypatch.setattr(engine, "replicas", Two())
    model = ml.MLModel(keras_net(), loss="mse")
    x = np.ones((9, 3), "float32")
    with pytest.raises(ValueError, match=r"A batch has 3 samples, .* the 2 replicas"):
        model.fit(x, x, batch_size=3, verbose=0)


def test_what_is_left_out_is_said_once(monkeypatch):
    monkeypatch.setattr(engine, "replicas", Two())
    x = np.arange(11)
    with pytest.warns(UserWarning, match="has 3 samples, which do not divide by the 2 replicas"):
        adapter = rows.OwnRows(data_adapter(x, batch_size=4), True, lambda: None)
        assert adapter.num_batches == 2
        read = [len(batch) for batch in adapter.get_numpy_iterator()]
    assert read == [2, 2]


def test_an_evaluation_reads_all_rows(monkeypatch):
    x, found = np.arange(9), []
    for index in range(2):
        monkeypatch.setattr(replicas := Two(), "shard", index)
        monkeypatch.setattr(engine, "replicas", replicas)
        adapter = rows.OwnRows(data_adapter(x, batch_size=4), False, lambda: None)
        assert adapter.num_batches == 2  # the last row joins the batch before
        found += list(adapter.get_numpy_iterator())
    assert sorted(map(len, found)) == [2, 2, 2, 3]
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), x)


def test_files_are_for_the_first_process(monkeypatch, tmp_path):
    rows_file, history = keras.callbacks.CSVLogger(tmp_path / "a"), keras.callbacks.History()
    monkeypatch.setattr(replicas := Two(), "index", 1)
    monkeypatch.setattr(engine, "replicas", replicas)
    given = {"verbose": 1, "callbacks": [rows_file, ml.callbacks.For("a", rows_file), history]}
    first_process.quiet(given)
    assert given == {"verbose": 0, "callbacks": [history]}
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    with pytest.raises(ValueError, match=r"ml\.callbacks\.Checkpoint\("):
        first_process.quiet({"callbacks": [backup]})


def keras_net():
    return keras.Sequential([keras.layers.Dense(3)])
