"""Every callback of Keras works on a system as a whole, and the logs are what it needs."""

import csv
import http.server
import json
import threading

import keras
import numpy as np
import pytest
from keras import callbacks as kc
from toys import Scale, TinyGAN, number, ones
from trained import (
    TOYS,
    Apart,
    Around,
    after,
    approx,
    averages,
    averaging,
    loaded,
    train,
    weights,
)

import mlsystem as ml

# Callbacks are the host's; those that change what an engine holds run on each.
pytestmark = pytest.mark.once

BACKEND = keras.backend.backend()
RATES = {"generator_learning_rate", "discriminator_learning_rate"}


# Checkpoints --------------------------------------------------------------------------------

# The loss of the generator falls from epoch to epoch, that of the discriminator rises.
BEST = {
    "falls": ({"monitor": "val_generator_loss", "mode": "min"}, 3),
    "rises": ({"monitor": "val_discriminator_loss", "mode": "min"}, 1),
    "most": ({"monitor": "discriminator_loss", "mode": "max"}, 3),
    "found out": ({"monitor": "val_discriminator_loss"}, 1),
    "whole": ({"monitor": "val_loss"}, 1),
    "threshold": ({"monitor": "val_generator_loss", "initial_value_threshold": -100.0}, None),
}


def test_the_best_weights_are_saved(tmp_path):
    def best(name, given):
        path = tmp_path / f"{name}.weights.h5"
        return kc.ModelCheckpoint(path, save_weights_only=True, save_best_only=True, **given)

    train(TinyGAN(), *(best(name, given) for name, (given, _) in BEST.items()))
    for name, (_, epoch) in BEST.items():
        path = tmp_path / f"{name}.weights.h5"
        assert path.exists() == (epoch is not None), name
        assert epoch is None or loaded(path) == approx(after(2 * epoch)), name


def test_weights_are_saved_every_so_often(tmp_path):
    each = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    name = "{epoch}-{batch}-{generator_loss:.3f}.weights.h5"
    third = kc.ModelCheckpoint(tmp_path / name, save_weights_only=True, save_freq=3)
    train(TinyGAN(), each, third)
    saved = sorted(path.name.removesuffix(".weights.h5") for path in tmp_path.iterdir())
    # The mean of the epoch so far: of its first batch, and of both
    third, fifth, sixth = (-g * d for g, d in (after(2), after(4), after(5)))
    assert saved == ["1", "2", f"2-1-{third:.3f}", "3", f"3-2-{(fifth + sixth) / 2:.3f}"]
    assert loaded(tmp_path / "2.weights.h5") == approx(after(4))
    assert loaded(tmp_path / f"{saved[2]}.weights.h5") == approx(after(3))


@pytest.mark.each_backend
def test_a_whole_system_is_saved(tmp_path):
    gan = TinyGAN()
    train(gan, kc.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    saved = keras.models.load_model(tmp_path / "2.keras", custom_objects=TOYS)
    assert weights(saved) == approx(after(4))
    train(saved, epochs=1)
    assert weights(saved) == approx(weights(gan))


@pytest.mark.skipif(
    BACKEND != "jax" or not hasattr(kc, "OrbaxCheckpoint"),
    reason="orbax-checkpoint brings JAX along, and Keras has had the callback since 3.13",
)
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_states_are_saved_by_orbax(tmp_path):
    checkpoint = kc.OrbaxCheckpoint(str(tmp_path), "val_generator_loss", save_best_only=True)
    gan = TinyGAN()
    gan.compile("adam")
    train(gan, checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    keras.utils.clear_session()  # Keras finds the variables again by their numbered names
    other = TinyGAN(0.0, 0.0)
    other.compile("adam")
    assert loaded(tmp_path, other) == weights(gan)
    assert train(other) == train(gan)


class Interrupt(kc.Callback):
    """Fails at the start of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


@pytest.mark.each_backend
def test_training_goes_on_after_an_interruption(tmp_path):
    def gan():
        made = TinyGAN()
        made.update_every = {"generator": 2}  # of three batches an epoch
        made.compile("adam")
        return made

    given = {"x": ones(12), "epochs": 3}
    with pytest.raises(InterruptedError):
        train(gan(), kc.BackupAndRestore(tmp_path / "backup"), Interrupt(1), **given)
    resumed, straight = gan(), gan()
    history = train(resumed, kc.BackupAndRestore(tmp_path / "backup"), **given)
    expected = train(straight, **given)
    assert resumed.history.epoch == [1, 2] and not (tmp_path / "backup").exists()
    assert history == {name: values[1:] for name, values in expected.items()}
    for one, other in zip(resumed.optimizer.variables, straight.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


# Stopping and slowing down ------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, epochs",
    [
        ({"monitor": "val_discriminator_loss"}, 2),
        ({"monitor": "val_generator_loss"}, 4),
        ({"monitor": "val_generator_loss", "mode": "max"}, 2),
        ({"monitor": "discriminator_fake"}, 2),
        ({"monitor": "val_loss"}, 2),
    ],
)
@pytest.mark.spread
def test_early_stopping_restores_the_best_weights(given, epochs):
    gan = TinyGAN()
    history = train(gan, kc.EarlyStopping(**given, restore_best_weights=True), epochs=4)
    assert len(history["loss"]) == epochs
    assert weights(gan) == approx(after(2 if epochs == 2 else 8))


def test_a_metric_of_a_model_says_which_way_is_better():
    class Judged(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.net = ml.MLModel(keras.layers.Dense(1), loss="mse", metrics=["accuracy", "mae"])

        def forward(self, x):
            return {"net": self.net(x)}

    stops = [kc.EarlyStopping(f"val_net_{name}") for name in ("accuracy", "mae")]
    train(Judged(), *stops, x=ones(8), y=ones(8), validation_data=(ones(), ones()), epochs=1)
    assert [stop.mode for stop in stops] == ["max", "min"]


def test_all_learning_rates_are_reduced_in_proportion():
    plateau = kc.ReduceLROnPlateau("val_discriminator_loss", 0.5, patience=1, min_lr=0.02)
    history = train(TinyGAN(), plateau, epochs=5)
    rates = [0.1, 0.1, 0.05, 0.025, 0.02]  # `min_lr` is that of the first model
    assert history["generator_learning_rate"] == history["learning_rate"] == approx(rates)
    assert history["discriminator_learning_rate"] == approx([rate / 10 for rate in rates])


@pytest.mark.each_backend
def test_all_learning_rates_are_scheduled_in_proportion():
    gan = TinyGAN()
    history = train(gan, kc.LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1)), epochs=3)
    assert history["generator_learning_rate"] == approx([0.1, 0.05, 0.05 / 3])
    assert history["discriminator_learning_rate"] == approx([0.01, 0.005, 0.005 / 3])


def test_rates_that_follow_a_schedule_are_not_set():
    gan = TinyGAN()
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    gan.compile({"discriminator": keras.optimizers.SGD(decay)})
    with pytest.raises(
        TypeError, match=r"'discriminator' cannot be set.*follows a schedule.*one by one"
    ):
        train(gan, kc.LearningRateScheduler(lambda epoch: 0.5))
    assert weights(gan) == [2.0, 3.0]
    assert number(gan.optimizers["generator"].learning_rate) == approx(0.1)


def apart(**attributes):
    system = Apart()
    for name, value in attributes.items():
        setattr(system, name, value)
    return system


@pytest.mark.parametrize(
    "system, value, spoiled, ends",
    [
        (apart, np.nan, 3, 3),
        (apart, np.inf, 3, 3),
        (Around, np.nan, 3, 3),
        (lambda: apart(phases=["a", "b"]), np.nan, 3, 3),
        (lambda: apart(update_every={"b": 2}), np.nan, 4, 4),
        (lambda: apart(update_every={"b": 2}), np.nan, 3, 6),  # nobody looks at that loss
    ],
    ids=["own", "infinite", "nested", "phase", "every second", "left out"],
)
def test_training_ends_when_any_loss_is_no_number(system, value, spoiled, ends):
    x, batches = np.ones((6, 2), "float32"), []
    x[spoiled - 1, 1] = value
    count = kc.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    learner = system()
    learner.nonfinite = "keep"
    learner.fit(x, batch_size=1, shuffle=False, verbose=0, callbacks=[kc.TerminateOnNaN(), count])
    assert len(batches) == ends and learner.stop_training == (ends < 6)


# Averages of weights ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("generator",), ("discriminator",), ("generator", "discriminator")], ids=str
)
@pytest.mark.spread
def test_averages_are_evaluated(names, tmp_path):
    gan = averaging(*names)
    save = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    history = train(gan, kc.SwapEMAWeights(), save)
    expected = [-np.prod(averages(2 * epoch, names)) for epoch in (1, 2, 3)]
    assert history["val_generator_loss"] == approx(expected)
    assert history["generator_loss"][1] == approx(np.mean([-np.prod(after(n)) for n in (2, 3)]))
    assert loaded(tmp_path / "2.weights.h5", averaging(*names)) == approx(after(4))
    assert weights(gan) == approx(averages(6, names))  # as Keras leaves them


def test_averages_are_saved(tmp_path):
    names = ("discriminator",)
    gan = averaging(*names)
    save = kc.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    train(gan, kc.SwapEMAWeights(swap_on_epoch=True), save, validation_data=None)
    for epoch in (1, 2, 3):
        saved = loaded(tmp_path / f"{epoch}.weights.h5", averaging(*names))
        assert saved == approx(averages(2 * epoch, names))
    assert weights(gan) == approx(averages(6, names))


def test_averages_that_nobody_keeps():
    with pytest.raises(ValueError, match="use_ema=True"):
        train(averaging(), kc.SwapEMAWeights())


# What is written down -----------------------------------------------------------------------


def test_the_csv_has_every_log_of_the_first_epoch(tmp_path):
    gan = TinyGAN()
    gan.update_every = {"generator": 2}
    history = train(gan, kc.CSVLogger(tmp_path / "log.csv"))
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"epoch", *history} >= {"generator_loss", "val_discriminator_real"}
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == approx(values)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the callback writes with TensorFlow")
def test_tensorboard_has_the_losses_of_each_model(tmp_path):
    import tensorflow as tf

    board = kc.TensorBoard(tmp_path, histogram_freq=1, update_freq="batch", write_images=True)
    history = train(TinyGAN(), board)
    written = {}
    for part, val in (("train", ""), ("validation", "val_")):
        [path] = (tmp_path / part).iterdir()
        for record in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                name = val + value.tag.removeprefix("epoch_")
                written.setdefault(name, []).append(tf.make_ndarray(value.tensor))
    for name, values in history.items():
        assert written[name] == approx(values)
    assert "batch_generator_loss" in written and "fooler/weight/histogram" in written


def test_logs_are_sent():
    pytest.importorskip("requests")
    sent = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        history = train(TinyGAN(), kc.RemoteMonitor(root, send_as_json=True))
        server.shutdown()
    assert [entry.pop("epoch") for entry in sent] == [0, 1, 2]
    assert {name: [entry[name] for entry in sent] for name in history} == history


def test_what_is_shown_and_told(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    told = {"batch": [], "epoch": [], "test": []}
    tell = kc.LambdaCallback(
        on_train_batch_end=lambda batch, logs: told["batch"].append(set(logs)),
        on_epoch_end=lambda epoch, logs: told["epoch"].append(set(logs)),
    )
    tell.on_test_end = lambda logs: told["test"].append(set(logs))
    gan = TinyGAN()
    history = train(gan, tell, verbose=2, epochs=1)
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("loss", "generator", "discriminator"))
    losses = {name for name in history if not name.startswith("val_")} - RATES
    assert told["batch"] == [losses] * 2 and told["test"] == [losses]
    assert told["epoch"] == [set(history)]
    assert set(history) == losses | RATES | {f"val_{name}" for name in losses}
    assert set(gan.evaluate(ones(), verbose=0, return_dict=True)) == losses
    assert set(gan.train_on_batch(ones(), return_dict=True)) == losses


# Learning rates in the logs -----------------------------------------------------------------


def test_a_schedule_is_logged_as_it_stands():
    gan = TinyGAN()
    gan.update_every = {"discriminator": 2}
    decay = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    gan.compile({name: keras.optimizers.SGD(decay) for name in ("generator", "discriminator")})
    history = train(gan, epochs=2)
    assert history["generator_learning_rate"] == [0.5**3, 0.5**5]
    assert history["discriminator_learning_rate"] == [0.5**2, 0.5**3]
    assert [int(inner.iterations) for inner in gan.optimizers.values()] == [4, 2]
    assert all(isinstance(rate, float) for rate in history["generator_learning_rate"])


def test_learning_rates_of_nested_systems_and_of_models_alone():
    x = np.ones((2, 2), "float32")
    history = Around().fit(x, verbose=0).history
    assert {name for name in history if "rate" in name} == {
        "inner/a_learning_rate",
        "inner/b_learning_rate",
    }

    class Alone(Scale):
        def loss(self, x, y, outputs):
            return outputs[:, 0]

    assert set(Alone().fit(x, verbose=0).history) == {"loss"}


def test_a_log_of_ones_own_cannot_be_called_as_a_rate():
    class Logging(TinyGAN):
        def forward(self, x, training=None):
            self.log("generator_learning_rate", 1.0)
            return super().forward(x)

    both = "self.log.'generator_learning_rate'.*the learning rate of 'generator'"
    with pytest.raises(ValueError, match=both):
        train(Logging())


def test_callbacks_may_hold_each_other_and_themselves(tmp_path):
    a, b = keras.callbacks.Callback(), keras.callbacks.Callback()
    a.other, b.other, a.itself, a.list = b, a, a, []
    a.list.append(a.list)
    train(TinyGAN(), a, b, epochs=1)
    train(TinyGAN(), a, b, ml.callbacks.Checkpoint(tmp_path), epochs=1)
