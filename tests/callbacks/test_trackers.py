"""`Log` with each tracker's own package. What was written is read back by that package."""

import json
import socket
import struct
import zipfile

import numpy as np
import pytest
from interrupted import Interrupt, Interrupted
from optional import needs
from toys import TinyGAN
from trained import after, approx, train, weights

from mlsystem.callbacks import Checkpoint, Log

pytestmark = [
    pytest.mark.once,
    # Their own imports warn, and so does what they leave open.
    pytest.mark.filterwarnings("default"),
]
STEPS = [2, 4, 6, 8]
BEST = np.mean([-np.prod(after(batch)) for batch in (6, 7)])  # see `TinyGAN`


def eager():
    gan = TinyGAN()
    gan.compile(run_eagerly=True)
    return gan


def logged(name, folder):
    """Trains 4 epochs of 2 batches, is interrupted in the third, and resumes. Returns the run."""

    def log():
        return Log(name, "gan", samples=lambda: np.eye(4)[None])

    steps = folder / "steps"
    with pytest.raises(Interrupted):
        train(eager(), log(), Checkpoint(steps, every=2), Interrupt(5), epochs=4)
    resumed, gan = log(), eager()
    train(gan, resumed, Checkpoint(steps, every=2), epochs=4, resume=steps)
    assert weights(gan) == approx(after(8))
    return resumed.kept["run"]


def refused(name, text):
    gan = eager()
    with pytest.raises(RuntimeError, match=rf"(?s)Log cannot open a run.*{text}"):
        train(gan, Log(name, "gan"))
    assert weights(gan) == [2.0, 3.0]


@pytest.fixture
def port():
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_mlflow_in_sqlite(tmp_path, monkeypatch):
    mlflow = needs("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where its files go
    run = logged("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    [found] = client.search_runs([client.get_experiment_by_name("gan").experiment_id])
    assert found.info.run_id == run and found.info.status == "FINISHED"
    for name in ("generator/loss", "generator/val_loss", "discriminator/learning_rate"):
        assert [metric.step for metric in client.get_metric_history(run, name)] == STEPS
    assert found.data.metrics["best/generator/loss"] == approx(BEST)
    assert found.data.params["discriminator/optimizer"] == "SGD"
    assert "versions/keras" in found.data.params
    assert "<svg" in mlflow.artifacts.load_text(f"runs:/{run}/picture.svg")
    names = [file.path for file in client.list_artifacts(run, "images")]
    assert all(any(f"+step+{step}+" in name for name in names) for step in [0, *STEPS])


def test_mlflow_without_its_server(port):
    mlflow = needs("mlflow")
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    refused("mlflow", "Start the server, set MLFLOW_TRACKING_URI=sqlite")


def test_wandb_offline(tmp_path, monkeypatch):
    needs("wandb")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = logged("wandb", tmp_path)
    rows, summary, config = [], {}, {}
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime)
    assert [file.name for file in files] == [f"run-{run}.wandb"] * 2
    for file in files:
        for record in wandb_records(file):
            if record.HasField("history"):
                rows.append(items(record.history.item))
            summary |= items(record.summary.update)
            config |= items(record.config.update)
    losses = [row["batch"] for row in rows if "generator/loss" in row]
    assert losses == STEPS and [row["batch"] for row in rows if "samples/_type" in row] == [
        0,
        *STEPS,
    ]
    assert summary["best/generator/loss"] == approx(BEST)
    assert config["discriminator/optimizer"] == "SGD" and "versions/keras" in config


def wandb_records(path):
    """The records in a file: blocks of 32 KiB, each with pieces of records behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, record = path.read_bytes(), 7, b""  # after the head of the file
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def items(found):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found}


def test_wandb_without_a_login(tmp_path, monkeypatch):
    needs("wandb").teardown()  # it remembers the mode
    for name in ("HOME", "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    refused("wandb", "set WANDB_MODE=offline, or leave the callback out")


@pytest.fixture(scope="module")
def trackio(tmp_path_factory):
    """Trackio with a folder of its own, which it reads once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield needs("trackio")


def test_trackio_on_this_machine(trackio, tmp_path):
    run = logged("trackio", tmp_path)
    [found] = trackio.Api().runs("gan")
    assert found.name == run
    assert found.config["discriminator/optimizer"] == "SGD" and "versions/keras" in found.config
    points = trackio.SQLiteStorage.get_logs("gan", run)
    assert [point["step"] for point in points if "generator/loss" in point] == STEPS
    assert [point["step"] for point in points if "samples" in point] == [0, *STEPS]
    [best] = [point["best/generator/loss"] for point in points if "best/loss" in point]
    assert best == approx(BEST)


def test_trackio_without_its_server(trackio, port, monkeypatch):
    monkeypatch.setenv("TRACKIO_SERVER_URL", f"http://127.0.0.1:{port}/?write_token=none")
    refused("trackio", "unset TRACKIO_SERVER_URL")


def test_comet_offline(tmp_path, monkeypatch):
    needs("comet_ml")
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path))
    run = logged("comet", tmp_path)
    found = []
    files = sorted(tmp_path.glob("*.zip"), key=lambda p: p.stat().st_mtime)
    assert [file.name[:32] for file in files] == [run] * 2
    for file in files:
        with zipfile.ZipFile(file) as archive:
            lines = archive.read("messages.json").decode().splitlines()
        found += [json.loads(line) for line in lines]
    metrics = [m["payload"]["metric"] | m["payload"] for m in found if m["type"] == "metric_msg"]
    losses = [m["step"] for m in metrics if m["metricName"] == "generator/loss"]
    assert losses == STEPS
    [best] = [m["metricValue"] for m in metrics if m["metricName"] == "best/generator/loss"]
    assert float(best) == approx(BEST)


def test_comet_without_a_key(tmp_path, monkeypatch):
    needs("comet_ml")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("COMET_API_KEY", "COMET_START_ONLINE"):
        monkeypatch.delenv(name, raising=False)
    refused("comet", "set COMET_START_ONLINE=0")
