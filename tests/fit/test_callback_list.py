"""Callbacks are called and told as by Keras, and nothing is done for those that do nothing."""

import functools
import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import TinyGAN, ones

import mlsystem as ml
from mlsystem.engine import engine
from mlsystem.engine.base import Engine

X = np.ones((10, 3), "float32")
Y = X[:, :1]


def made(base):
    """A small model with a loss, unbuilt."""

    class Net(base):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model.compile("sgd", "mse")
    return model


class Recorder(keras.callbacks.Callback):
    """Writes down all that it is told, but for the numbers."""

    def __init__(self, hooks):
        super().__init__()
        self.told = []
        for hook in hooks:
            setattr(self, hook, self.recording(hook))

    def recording(self, hook):
        return lambda *given, logs=None: self.told.append((hook, *map(shown, (*given, logs))))

    def set_model(self, model):
        super().set_model(model)
        self.told.append(("set_model", model.train_function is None))
        self.was_built = model.built  # Keras' own is not, on TensorFlow

    def set_params(self, params):
        super().set_params(params)
        self.told.append(("set_params", params))


def shown(value):
    return list(value) if isinstance(value, dict) else value


HOOKS = [
    f"on_{what}_{when}"
    for what in ("train", "test", "epoch", "batch", "train_batch", "test_batch")
    for when in ("begin", "end")
]
ALONE = [[hook] for hook in HOOKS if "batch" in hook]
CALLS = {
    "fit": lambda model, c: model.fit(X, Y, 4, 2, 0, [c], validation_data=(X[:5], Y[:5])),
    "evaluate": lambda model, c: model.evaluate(X, Y, batch_size=4, verbose=2, callbacks=[c]),
    "generator": lambda model, c: model.fit(
        ((X, Y) for _ in range(5)), steps_per_epoch=2, epochs=2, callbacks=c, verbose=0
    ),
}


@pytest.mark.filterwarnings("ignore:.*shuffle=True")
@pytest.mark.parametrize(
    "hooks", [pytest.param(HOOKS, marks=pytest.mark.each_backend), *ALONE], ids=str
)
@pytest.mark.once
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_callbacks_are_told_what_keras_tells_them(call, hooks):
    told = []
    for base in (keras.Model, ml.MLModel):
        recorder = Recorder(hooks)
        call(made(base), recorder)
        told.append(recorder.told)
    told = [sorted(calls, key=str) for calls in told]  # Keras may call beside the next batch
    assert told[1] == told[0] and recorder.was_built


@pytest.mark.parametrize("verbose", [0, 1, 2, "auto"])
@pytest.mark.once
def test_what_is_printed(verbose, capsys):
    printed = []
    for base in (keras.Model, ml.MLModel):
        keras.utils.set_random_seed(0)
        model = made(base)
        if keras.backend.backend() == "torch":  # a slow first step has the bar print once more
            model.compile("sgd", "mse", jit_compile=False)
        model.fit(X, Y, batch_size=4, epochs=2, verbose=verbose, validation_split=0.5)
        model.evaluate(X, Y, batch_size=4, verbose=verbose)
        printed.append(capsys.readouterr().out)
    expected, got = map(left, printed)
    assert got == expected and bool(got) == bool(verbose)


def left(text):
    """The lines that stay: of the bar of an epoch the last, whenever it was drawn before."""
    lines = [timeless(line) for line in text.splitlines()]
    kept = [line for line in lines if line and bar(line) != "unfinished"]
    pairs = zip(kept, [*kept[1:], ""], strict=False)
    return [line for line, after in pairs if bar(line) is None or bar(line) != bar(after)]


def bar(line):
    found = re.search(r"(\d+)/(\d+)\x1b", line)
    if found is None:
        return None
    return found[0] if found[1] == found[2] else "unfinished"


def timeless(line):
    """What a line shows in the end, without times and the spaces that make up for their width."""
    line = re.sub(r".*[\x08\r]", "", line)
    return re.sub(r"\d+[mu]?s\b", "", line).rstrip()


@pytest.mark.once
def test_a_list_of_keras_own_is_left_as_it_is():
    model = made(ml.MLModel)
    given = keras.callbacks.CallbackList([], add_history=True, model=model, epochs=1, steps=3)
    assert list(model.fit(X, Y, batch_size=4, verbose=0, callbacks=given).history) == ["loss"]


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.once
def test_logs_of_batches_are_for_those_who_listen(listens, monkeypatch):
    calls = []
    for hook in ("on_train_batch_end", "on_test_batch_end"):
        monkeypatch.setattr(
            keras.callbacks.CallbackList, hook, lambda self, *given, hook=hook: calls.append(hook)
        )
    tell = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    model = made(ml.MLModel)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[tell] if listens else None)
    model.evaluate(X, Y, batch_size=4, verbose=0)
    assert calls == ["on_train_batch_end"] * 3 * listens


def test_no_step_is_waited_for(monkeypatch):
    class Sometimes(TinyGAN):
        def train_step(self, data):
            self.update(data, models=("discriminator",))
            self.update(data, ("generator",), when=self.optimizer.iterations >= first)
            return self.get_metrics_result()

    def looks(count, nonfinite="keep"):
        gan = Sometimes()
        gan.nonfinite = nonfinite
        gan.setup(ones())
        gan.fit(ones(), verbose=0)
        seen = []
        look = ops.convert_to_numpy
        monkeypatch.setattr(ops, "convert_to_numpy", lambda x: seen.append(x) or look(x))
        # JAX reads several numbers in its own way, which cannot be counted.
        monkeypatch.setattr(engine, "read", functools.partial(Engine.read, engine))
        gan.fit(ones(4 * count), batch_size=4, verbose=0)
        monkeypatch.undo()
        return len(seen)

    first = 0
    assert looks(2) == looks(20)
    # skipped updates are looked for after 1, 2, 4, 8 ... batches, of both models at once
    assert looks(20, "skip") == looks(17, "skip") == looks(9, "skip") + 1
    first = 5  # looks until there is something to show
    assert looks(10) == looks(20) > looks(2)
