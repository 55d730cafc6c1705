"""Several validation sets by name, and validation inside an epoch, which training does not feel."""

import re
from typing import ClassVar

import keras
import numpy as np
import pytest
from interrupted import Interrupt, Interrupted, Shuffled
from keras import callbacks as kc
from killed import System, images, state
from toys import Drawing, Scale, TinyGAN, ones
from trained import after, approx, train

import mlsystem as ml
from mlsystem.callbacks import Checkpoint, For

# The host decides what is evaluated, and when.
pytestmark = pytest.mark.once

NOISY = {"clean": (ones(),), "noisy": (2 * ones(),)}  # of mean 1 and 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = X.sum(-1, keepdims=True)


def losses(batches, mean):
    """What a `TinyGAN` logs after some batches with mean 1, on data of a mean."""
    g, d = after(batches)
    return {"generator_loss": -d * g * mean, "discriminator_loss": (d * g - d) * mean}


class Rows(keras.utils.PyDataset):
    """Some rows in batches of 5, of which it counts how many are read."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.read = rows, 0

    def __len__(self):
        return 2

    def __getitem__(self, i):
        self.read += 1
        return X[self.rows][i * 5 : i * 5 + 5], Y[self.rows][i * 5 : i * 5 + 5]


def regressor():
    keras.utils.set_random_seed(0)
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)]))
    model.compile("adam", "mse", metrics=["mae"])
    return model


# Several sets -------------------------------------------------------------------------------


@pytest.mark.each_backend
def test_each_set_is_logged_under_its_name():
    history = train(TinyGAN(), validation_data=NOISY)
    for epoch in range(3):
        for name, mean in (("clean", 1.0), ("noisy", 2.0)):
            for log, value in losses(2 * epoch + 2, mean).items():
                assert history[f"val_{name}_{log}"][epoch] == approx(value)
    assert not [log for log in history if log.startswith("val_") and log.split("_")[1] not in NOISY]


def endless():
    while True:
        yield X[:5], Y[:5]


SETS = {
    "arrays": lambda: (X[:7], Y[:7]),
    "weights": lambda: (X[:7], Y[:7], np.arange(7.0)),
    "data set": lambda: Rows(slice(0, 10)),
    "generator": endless,
}


@pytest.mark.each_backend
def test_a_set_among_others_is_measured_as_by_keras():
    model, given = regressor(), {"validation_freq": 2, "validation_batch_size": 3}

    def fit(data):
        keras.utils.set_random_seed(0)
        model.set_weights([np.ones_like(w) for w in model.get_weights()])
        model.compile("sgd", "mse", metrics=["mae"])
        # Not shuffled, for torch draws from one generator for that and for each pass over any data.
        data = {"validation_data": data, "validation_steps": 2, "shuffle": False}
        return model.fit(X, Y, 5, 4, 0, **data, **given).history

    model.setup((X, Y))
    together = fit({name: data() for name, data in SETS.items()})
    for name, data in SETS.items():
        for log, values in fit(data()).items():
            other = log.replace("val_", f"val_{name}_")
            assert together[other] == values and len(values) == (4 if log == other else 2), other


def test_a_set_is_read_as_often_as_by_keras():
    counts = []
    for wrap in (lambda data: data, lambda data: {"a": data, "b": (X, Y)}):
        data = Rows(slice(0, 10))
        regressor().fit(X, Y, epochs=3, verbose=0, validation_data=wrap(data))
        counts.append(data.read)
    assert counts[0] == counts[1]


def test_callbacks_find_the_logs_of_each_set(tmp_path):
    class Tests(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.ended, self.batches, self.epochs = [], [], []

        def on_test_batch_end(self, batch, logs=None):
            self.batches.append(set(logs))

        def on_test_end(self, logs=None):
            self.ended.append(set(logs))

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(set(logs))

    whole, part = Tests(), Tests()
    stop = kc.EarlyStopping("val_noisy_discriminator_loss")  # which rises
    save = kc.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5",
        "val_clean_generator_loss",  # which falls
        save_best_only=True,
        save_weights_only=True,
    )
    best = Checkpoint(tmp_path / "run", best=("val_clean_loss", "min"))
    given = [whole, For("generator", part), stop, save, best]
    history = train(TinyGAN(), *given, validation_data=NOISY)
    assert len(history["loss"]) == 2 and stop.monitor_op is save.monitor_op is keras.ops.less
    assert {"1.weights.h5", "2.weights.h5"} <= {path.name for path in tmp_path.iterdir()}
    assert best.best_value == min(history["val_clean_loss"])
    assert all(
        {f"{name}_generator_loss"} <= logs for name, logs in zip(NOISY, whole.ended, strict=False)
    )
    assert whole.batches[0] == whole.ended[0] and whole.batches[1] == whole.ended[1]
    assert {"loss", "val_clean_loss", "val_noisy_loss"} <= part.epochs[0]
    assert "clean_loss" in part.ended[0] and "val_clean_generator_loss" not in part.epochs[0]


def test_a_model_of_the_system_watches_one_set():
    plateau = kc.ReduceLROnPlateau("val_clean_loss", 0.5, patience=1, mode="max")
    stop = kc.EarlyStopping("val_noisy_loss")
    callbacks = [For("generator", plateau), For("discriminator", stop)]
    history = train(TinyGAN(), *callbacks, validation_data=NOISY, epochs=4)
    assert len(history["loss"]) == 2  # the discriminator's rises
    assert stop.best == history["val_noisy_discriminator_loss"][0]


def test_the_way_to_go_is_found_out_for_a_model_alone():
    model = ml.MLModel(keras.Sequential([keras.layers.Dense(1, "sigmoid")]))
    model.compile("sgd", "bce", metrics=["accuracy"])
    stops = [kc.EarlyStopping(f"val_a_{log}") for log in ("loss", "accuracy")]
    y = (Y > 0).astype("float32")
    model.fit(X, y, verbose=0, validation_data={"a": (X, y)}, callbacks=stops)
    assert [stop.monitor_op for stop in stops] == [keras.ops.less, keras.ops.greater]


CLASH = "would be 'val_{}', which is the name of"
WRONG = {
    "empty dict": {},
    "names a set 1; give names": {1: (X,)},
    "names a set ''": {"": (X,)},
    "set 'a' is None": {"a": None},
    CLASH.format("generator_loss"): {"generator": (ones(),)},
    CLASH.format("a_generator_loss"): {"a": (ones(),), "a_generator": (ones(),)},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_sets_are_errors_before_training(message):
    gan = TinyGAN()
    with pytest.raises(ValueError, match=re.escape(message)):
        train(gan, validation_data=WRONG[message])
    assert float(gan.generator.weight.numpy() if gan.built else 2.0) == 2.0


def test_a_dict_of_inputs_is_a_tuple_of_it():
    class Sum(Scale):
        def forward(self, x):
            return (x["a"] + x["b"]) * self.weight

        def loss(self, x, y, outputs):
            return keras.ops.mean(outputs)

    both = {"a": ones(), "b": ones()}
    with pytest.raises(ValueError, match=r"keys of x, 'a', 'b'.*give a tuple"):
        Sum().fit(both, validation_data=both)
    history = Sum().fit(both, verbose=0, validation_data={"c": (both,), "d": both}).history
    assert history["val_c_loss"] == history["val_d_loss"]


# Inside an epoch ----------------------------------------------------------------------------


class Watch(keras.callbacks.Callback):
    """Listens to the batches: their logs, and the mode that torch modules are in."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_train_batch_begin(self, batch, logs=None):
        assert getattr(self.model, "training", True)


class Sometimes(Drawing):
    update_every: ClassVar = {"discriminator": 2}


class Alone(ml.MLModel):
    """A model that draws whatever it does, and logs a mean of its own."""

    def __init__(self):
        super().__init__(loss="mse", optimizer="adam", metrics=["mae"])
        self.dense, self.seed = keras.layers.Dense(3), keras.random.SeedGenerator(1)

    def forward(self, x, training=None):
        noise = keras.random.normal(keras.ops.shape(x), seed=self.seed)
        self.log("noise" if training else "noise of evaluation", noise)
        return self.dense(x + noise)


ROUGH = {"clean": (images(8),), "noisy": (images(24),)}
RUNS = {
    "system": (System, {"x": images(), "batch_size": 16}, {}, ROUGH),
    "eager": (Drawing, {"x": images(), "batch_size": 16}, {"run_eagerly": True}, ROUGH),
    "steps": (Drawing, {"x": images(), "batch_size": 8}, {"steps_per_execution": 3}, ROUGH),
    "update_every": (Sometimes, {"x": images(), "batch_size": 16}, {}, ROUGH),
    "model": (Alone, {"x": images(), "y": images(), "batch_size": 16}, None, (images(8),) * 2),
}


def run(kind, *callbacks, **given):
    """All variables, the history and the object that holds it."""
    make, data, compiled, _ = RUNS[kind]
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    learner = make()
    if compiled:
        learner.compile(**compiled)
    history = learner.fit(**data, epochs=2, verbose=0, callbacks=[*callbacks], **given)
    return state(learner), history.history, history


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.spread
def test_training_does_not_feel_a_validation(kind):
    watches = [Watch(), Watch()] if kind in ("system", "eager") else []
    plain = run(kind, *watches[:1])
    every = 2 if kind != "steps" else 4
    beside = run(kind, *watches[1:], validation_every=every, validation_data=RUNS[kind][3])
    assert all(np.array_equal(a, b) for a, b in zip(plain[0], beside[0], strict=True))
    assert {log: v for log, v in beside[1].items() if not log.startswith("val_")} == plain[1]
    assert len(beside[2].validations["batch"]) >= 3 and np.isfinite(beside[1]["loss"]).all()
    assert not watches or watches[0].batches == watches[1].batches != []


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored")
def test_nor_do_data_that_draw_at_random():
    def fit(**given):
        keras.utils.set_random_seed(0)
        system = Drawing()
        system.fit(Shuffled(), epochs=2, verbose=0, **given)
        return state(system)

    beside = fit(validation_every=3, validation_data=(images(8),))
    assert all(np.array_equal(a, b) for a, b in zip(fit(), beside, strict=True))


@pytest.mark.each_backend
def test_an_evaluation_may_have_fewer_losses():
    class Parts(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.routing = {"net": {"labelled": 1.0, "other": 0.5}}
            self.net = ml.MLModel(keras.layers.Dense(1))

        def forward(self, x):
            return {name: self.net(part) for name, part in x.items()}

        def compute_losses(self, x, y, outputs):
            return {name: keras.ops.mean(out**2) for name, out in outputs.items()}

    system, data = Parts(), ({"labelled": X},)
    both = {"labelled": X, "other": X}
    for _ in range(2):
        history = system.fit(both, epochs=2, verbose=0, validation_data=data).history
        assert {"other_loss", "val_labelled_loss"} <= set(history)
        system.evaluate(*data, verbose=0)
        assert set(system.gradient_report(both)) == {"labelled", "other"}


def test_an_error_names_the_validation_set():
    with pytest.raises(Exception) as error:
        regressor().fit(X, Y, verbose=0, validation_data={"wide": (X[:, :1], Y)})
    assert "'wide'" in "".join(getattr(error.value, "__notes__", []))


def test_too_few_batches_to_validate_are_told():
    with pytest.warns(UserWarning, match="validation_every=4, and trained on 3 batches"):
        TinyGAN().fit(ones(12), batch_size=4, verbose=0, validation_data=NOISY, validation_every=4)


def test_validations_are_counted_over_the_whole_fit():
    gan = TinyGAN()
    history = gan.fit(
        ones(12), batch_size=4, epochs=4, verbose=0, validation_data=NOISY, validation_every=4
    )
    assert history.validations["batch"] == [4, 8, 12]
    expected = [losses(batches, 2.0)["generator_loss"] for batches in (4, 8, 12)]
    assert history.validations["val_noisy_generator_loss"] == approx(expected)
    # Epochs of three batches end after 3, 6, 9 and 12; the first has no validation in it.
    assert history.history["val_noisy_generator_loss"] == approx(expected)
    assert len(history.history["loss"]) == 4


def test_the_latest_of_several_in_an_epoch_is_logged_and_none_is_made_twice():
    ended = []
    tell = kc.LambdaCallback()
    tell.on_test_end = lambda logs=None: ended.append(logs)
    history = train(TinyGAN(), tell, validation_every=1, epochs=2)
    assert len(ended) == 4
    assert history["val_generator_loss"] == approx(
        [losses(n, 1.0)["generator_loss"] for n in (2, 4)]
    )


def test_what_is_printed(capsys):
    train(TinyGAN(), validation_every=3, validation_data=NOISY, epochs=2, verbose=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "After batch" in line]
    assert len(lines) == 1 and lines[0].startswith("After batch 3: val_clean_")


def test_a_part_of_the_arrays_is_held_out_as_by_keras():
    def fit(**given):
        return regressor().fit(X, Y, 5, 2, 0, validation_split=0.5, shuffle=False, **given)

    by_keras, ours = fit(), fit(validation_every=2)
    assert ours.history == by_keras.history  # epochs are of two batches
    assert ours.validations["val_mae"] == by_keras.history["val_mae"]


def test_a_run_that_was_broken_off_has_all_its_validations(tmp_path):
    def fit(folder, stop=None):
        callbacks = [Checkpoint(folder, every=1), *([Interrupt(stop)] if stop else [])]
        given = {"validation_data": ROUGH, "validation_every": 3, "resume": folder}
        return run("update_every", *callbacks, **given)

    with pytest.raises(Interrupted):
        fit(tmp_path / "broken", 6)
    resumed, whole = fit(tmp_path / "broken"), fit(tmp_path / "whole")
    assert resumed[2].validations == whole[2].validations and resumed[1] == whole[1]
    assert whole[2].validations["batch"] == [3, 6]
    assert all(np.array_equal(a, b) for a, b in zip(resumed[0], whole[0], strict=True))


def test_the_evaluate_of_a_mixin_runs_on_each_set():
    class Counts(keras.Model):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs) | {"mine": 1.0}

    class Mixed(ml.MLModel, Counts):
        pass

    model = Mixed(keras.layers.Dense(1), loss="mse")
    sets = {"clean": (X, Y), "noisy": (X, Y)}
    logs = model.fit(X, Y, validation_data=sets, verbose=0).history
    assert logs["val_clean_mine"] == logs["val_noisy_mine"] == [1.0]


REFUSED = {
    "validation_every=0; give a number of batches": {"validation_every": 0},
    "validation_every=1.5; give": {"validation_every": 1.5},
    "without data to validate on": {"validation_every": 2, "validation_data": None},
    "counts batches, and validation_freq=2": {"validation_every": 2, "validation_freq": 2},
    "as a list, not a CallbackList": {
        "validation_every": 2,
        "callbacks": kc.CallbackList([], add_history=True, epochs=1, steps=1),
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_together(message):
    given = {"validation_data": (ones(),), "verbose": 0} | REFUSED[message]
    with pytest.raises(ValueError, match=re.escape(message)):
        TinyGAN().fit(ones(), **given)
