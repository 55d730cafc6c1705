"""Bad input gives one clear error before training starts, and changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import KERAS

import mlsystem as ml
from mlsystem.engine import _engine_of

# What is refused before a step is traced is refused by the host.
pytestmark = pytest.mark.once

X = np.arange(8, dtype="float32").reshape(4, 2) / 8
Y = X.sum(axis=1, keepdims=True)


def model(name, loss=None, optimizer=None):
    """A small model, with a loss that looks at its own entry of the outputs."""
    net = ml.MLModel(layers.Dense(1), optimizer=optimizer or keras.optimizers.Adam(0.1), name=name)
    if loss is None:
        return net

    class Named(ml.MLModel):
        def loss(self, x, y, outputs):
            return loss(outputs[self.key])

    return Named(layers.Dense(1), optimizer=keras.optimizers.Adam(0.1), name=name)


def square(outputs):
    return ops.mean(outputs**2)


class Painter(ml.MLSystem):
    """Two models with batch norm and a random layer, so that there is much to half-update."""

    def __init__(self, brush=square, critic=square):
        super().__init__()
        self.brush, self.critic = model("brush", brush), model("critic", critic)
        self.norm = layers.BatchNormalization(center=False, scale=False)
        self.dropout = layers.Dropout(0.5)

    def forward(self, x, training=None):
        x = self.dropout(self.norm(x, training=training), training=training)
        return {"brush": self.brush(x), "critic": self.critic(x)}


def painter(*losses, **attributes):
    system = Painter(*losses)
    for name, value in attributes.items():
        setattr(system, name, value)
    return system


def fails(system, *parts, error=ValueError, x=X, y=None, fit=None, **given):
    """Asserts that `fit` raises before the first batch, with all parts in the message."""
    started = []
    record = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: started.append(1))
    with pytest.raises(error) as caught:
        (fit or system.fit)(x, y, verbose=0, callbacks=[record], **given)
    assert not started
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.each_backend
def test_the_painter_itself_trains():
    logs = painter().fit(X, verbose=0).history
    rates = {"brush_learning_rate", "critic_learning_rate"}
    assert set(logs) == {"loss", "brush_loss", "critic_loss"} | rates


# Names --------------------------------------------------------------------------------------

NAMES = {
    "routing word": ({"routing": "each"}, ["'each'", "'sum'", "'own'"]),
    "routing model": ({"routing": {"brsh": {"brush": 1.0}}}, ["'brsh'", "'brush', 'critic'"]),
    "routing loss": (
        {"routing": {"brush": {"brush": 1}, "critic": {"critik": 1}}},
        ["'critic'", "'critik'", "'brush', 'critic'"],
    ),
    "routing row": ({"routing": {"brush": "brush", "critic": {"critic": 1}}}, ["'brush'", "dict"]),
    "routing weight": (
        {"routing": {"brush": {"brush": "much"}, "critic": {"critic": 1}}},
        ["'brush'", "'much'", "number"],
    ),
    "no row": ({"routing": {"brush": {"brush": 1.0}}}, ["'critic'", "trainable = False"]),
    "row of zeros": (
        {"routing": {"brush": {"brush": 1}, "critic": {"critic": 0}}},
        ["'critic'", "without a loss"],
    ),
    "phase": ({"phases": [("brush",), ("crtic",)]}, ["'crtic'", "'brush', 'critic'"]),
    "left out of the phases": ({"phases": ["brush"]}, ["'critic'", "phase"]),
    "update_every name": ({"update_every": {"crtic": 2}}, ["'crtic'", "'brush', 'critic'"]),
    "update_every of 0": ({"update_every": {"critic": 0}}, ["'critic'", "0", "whole number"]),
    "update_every of 1.5": ({"update_every": {"critic": 1.5}}, ["'critic'", "1.5", "whole number"]),
    "optimizer": (
        {"configure_optimizers": lambda: {"brsh": "sgd"}},
        ["'brsh'", "'brush', 'critic'"],
    ),
    "optimizer left out": ({"configure_optimizers": lambda: {"brush": "sgd"}}, ["'critic'"]),
}


@pytest.mark.parametrize("attributes, parts", NAMES.values(), ids=NAMES)
def test_names_that_do_not_exist(attributes, parts):
    fails(painter(**attributes), *parts)


COMPILED = {
    "optimizer": ({"optimizer": {"brsh": "sgd"}}, ["'brsh'", "'brush', 'critic'"]),
    "optimizer's own name": ({"optimizer": "adamant"}, ["adamant"]),
    "loss": ({"loss": {"brsh": "mse"}}, ["'brsh'", "'brush', 'critic'"]),
    "loss's own name": ({"loss": {"brush": "mes"}}, ["mes"]),
    "loss_weights": ({"loss_weights": {"brsh": 2.0}}, ["'brsh'", "'brush', 'critic'"]),
    "metrics": ({"metrics": {"brsh": ["mae"]}}, ["'brsh'", "'brush', 'critic'"]),
    "metric's own name": ({"metrics": {"brush": ["mea"]}}, ["mea"]),
    "weighted_metrics": ({"weighted_metrics": {"brsh": ["mae"]}}, ["'brsh'", "'brush', 'critic'"]),
}


@pytest.mark.parametrize("given, parts", COMPILED.values(), ids=COMPILED)
def test_compile_names_that_do_not_exist(given, parts):
    def fit(*args, **kwargs):
        system = painter()
        system.compile(**given)
        system.fit(*args, **kwargs)

    fails(None, *parts, fit=fit, y={"brush": Y, "critic": Y})


# Losses -------------------------------------------------------------------------------------


def test_no_model_with_a_loss():
    fails(painter(None, None), "loss", "compute_losses")
    fails(model("brush"), "'brush'", "loss")


def test_a_model_that_follows_no_loss():
    fails(painter(square, None, routing="own"), "'critic'", "loss", "trainable = False")


LOSSES = {
    "None": (lambda out: None, ["None", "return"]),
    "text": (lambda out: "low", ["'low'", "str", "scalar"]),
    "object": (lambda out: object(), ["object", "scalar"]),
    "matrix": (lambda out: out, ["(4, 1)", "scalar", "one loss per sample"]),
    "not per sample": (lambda out: out[:3, 0], ["(3,)", "4 samples", "one loss per sample"]),
    "term": (lambda out: {"far": ops.mean(out), "near": None}, ["'near'", "None"]),
}


@pytest.mark.parametrize("loss, parts", LOSSES.values(), ids=LOSSES)
def test_what_is_no_loss(loss, parts):
    fails(painter(square, loss), "'critic'", *parts)


@pytest.mark.parametrize("loss, parts", LOSSES.values(), ids=LOSSES)
def test_what_is_no_loss_of_a_model_alone(loss, parts):
    class Alone(ml.MLModel):
        def loss(self, x, y, outputs):
            return loss(outputs)

    fails(Alone(layers.Dense(1), name="critic"), "'critic'", *parts)


COMPUTED = {
    "no dict": (lambda out: square(out["brush"]), ["Bad.compute_losses", "dict"]),
    "None": (lambda out: {"cycle": None}, ["'cycle'", "Bad", "None"]),
    "matrix": (lambda out: {"cycle": out["brush"]}, ["'cycle'", "(4, 1)"]),
}


@pytest.mark.parametrize("losses, parts", COMPUTED.values(), ids=COMPUTED)
def test_what_compute_losses_may_not_return(losses, parts):
    class Bad(Painter):
        def compute_losses(self, x, y, outputs):
            return losses(outputs)

    fails(Bad(), *parts)


def test_sample_weights_that_a_loss_would_ignore():
    weight = np.ones(4, "float32")
    fails(painter(), "sample weights", "'brush'", "`sample_weight`", y=Y, sample_weight=weight)
    vector = lambda out: ops.mean(out, axis=-1)  # noqa: E731
    perhaps = painter(vector, vector)
    perhaps.fit(X, Y, sample_weight=weight, verbose=0)  # one loss per sample is weighted


def test_sample_weights_that_keras_drops_where_there_are_no_targets():
    fails(painter(), "sample", sample_weight=np.ones(4, "float32"))


def test_a_loss_without_targets():
    fails(ml.MLModel(layers.Dense(1), loss="mse", name="brush"), "'brush'", "y")


def test_a_system_with_a_loss_method():
    class Bad(Painter):
        def loss(self, x, y, outputs):
            return square(outputs["brush"])

    fails(Bad(), "Bad", "compute_losses")


@pytest.mark.each_backend
def test_a_model_that_no_followed_loss_depends_on_is_warned_of():
    system = painter(routing={"brush": {"brush": 1.0}, "critic": {"brush": 1.0}})
    with pytest.warns(UserWarning, match="'critic'.*will not learn") as caught:
        system.fit(X, epochs=2, verbose=0)
    found = [str(w.message) for w in caught if "will not learn" in str(w.message)]
    assert len(found) == 1 and "'brush'" not in found[0]


# Members ------------------------------------------------------------------------------------


def test_a_weight_in_two_members():
    class Shared(Painter):
        def __init__(self):
            ml.MLSystem.__init__(self)
            body = layers.Dense(1, name="body")
            self.brush, self.critic = (ml.MLModel(body, loss="mse") for _ in range(2))

        def forward(self, x):
            return {"brush": self.brush(x), "critic": self.critic(x)}

    fails(Shared(), "'brush'", "'critic'", "body/kernel", y={"brush": Y, "critic": Y})


@pytest.mark.filterwarnings("ignore:`build:UserWarning")  # Keras' own, of the unbuilt layer
@pytest.mark.each_backend
def test_a_member_that_forward_does_not_call():
    system = painter()
    system.spare = model("spare", square)
    fails(system, "'spare'", "Painter.forward")


EMAS = [
    ({"every": 0}, "every=0"),
    ({"every": 1.5}, "every=1.5"),
    ({"momentum": 1.5}, "momentum=1.5"),
    ({"momentum": -0.1}, "momentum=-0.1"),
]


@pytest.mark.parametrize("given, part", EMAS, ids=str)
def test_bad_averages(given, part):
    with pytest.raises(ValueError, match=part):
        ml.EMA(model("brush"), **given)


# Data ---------------------------------------------------------------------------------------


def no_batches():
    return
    yield


class NoBatches(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, i):
        raise IndexError


EMPTY = {"array": lambda: X[:0], "generator": no_batches, "data set": NoBatches}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Keras' own, of the length of the data
@pytest.mark.parametrize("data", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("learner", [painter, lambda: ml.MLModel(layers.Dense(1), loss="mse")])
def test_empty_data(learner, data):
    if data is no_batches and KERAS < (3, 15):
        pytest.skip("older Keras fails on an empty generator by itself, before it asks the model")
    with pytest.raises(ValueError, match=r"empty|has length 0"):
        learner().fit(data(), verbose=0)


@pytest.mark.each_backend
def test_data_that_forward_cannot_take():
    fails(painter(), "Painter.forward", "float32[4, 2]", "((a, b),)", x={"left": X, "right": X})

    class Both(Painter):
        def forward(self, x, training=None):
            left, right = x
            return super().forward(left + right, training)

    fails(Both(), "Both.forward", "x is", "y is", x=X, y=X[:, 0])
    Both().fit((X, X), verbose=0)


# Custom steps -------------------------------------------------------------------------------


def step(body):
    class Own(Painter):
        def train_step(self, data):
            body(self, data)
            return self.get_metrics_result()

    return Own()


def of_wrong_number(self, data):
    gradients = self.gradients(data, "brush")
    self.apply_gradients({"brush": gradients["brush"][:1]})


STEPS = {
    "update": (lambda s, d: s.update(d, "brsh"), ["'brsh'", "'brush', 'critic'"]),
    "gradients": (lambda s, d: s.gradients(d, ["brsh"]), ["'brsh'", "'brush', 'critic'"]),
    "minimize": (lambda s, d: s.minimize(lambda: 1.0, "brsh"), ["'brsh'", "'brush', 'critic'"]),
    "minimize no loss": (lambda s, d: s.minimize(lambda: None, "brush"), ["'brush'", "None"]),
    "apply to whom": (
        lambda s, d: s.apply_gradients({"brsh": []}),
        ["'brsh'", "'brush', 'critic'"],
    ),
    "apply how many": (of_wrong_number, ["'brush'", "1 gradients", "2 trainable"]),
    "when": (lambda s, d: s.update(d, "brush", when=[True, False]), ["`when`", "(2,)", "scalar"]),
    "log of a loss": (
        lambda s, d: (s.update(d), s.log("brush_loss", 1.0)),
        ["'brush_loss'", "Rename"],
    ),
    "log of all losses": (lambda s, d: (s.update(d), s.log("loss", 1.0)), ["'loss'", "Rename"]),
    "log before the loss": (
        lambda s, d: (s.log("critic_loss", 1.0), s.update(d)),
        ["'critic_loss'", "Rename"],
    ),
}


@pytest.mark.parametrize("body, parts", STEPS.values(), ids=STEPS)
@pytest.mark.each_backend
def test_mistakes_in_a_step(body, parts):
    fails(step(body), *parts)


def test_a_log_with_the_name_of_a_metric():
    class Bad(Painter):
        def compute_losses(self, x, y, outputs):
            self.log("brush_mean_absolute_error", 1.0)
            return super().compute_losses(x, y, outputs)

    given = {"metrics": {"brush": [keras.metrics.MeanAbsoluteError()]}}
    system = Bad()
    system.compile(**given)
    fails(system, "'brush_mean_absolute_error'", y={"brush": Y, "critic": Y})


@pytest.mark.parametrize("name", ["loss", "mean_absolute_error", "alone_near", "own"])
def test_a_log_with_a_name_that_is_taken_in_a_model_alone(name):
    class Bad(ml.MLModel):
        def loss(self, x, y, outputs):
            self.log(name, 1.0)
            return {"near": square(y - outputs)}

    alone = Bad(layers.Dense(1), metrics=[keras.metrics.MeanAbsoluteError()], name="alone")
    alone.own = keras.metrics.Mean(name="own")
    fails(alone, f"'{name}'", y=Y)


# Nothing is half-updated --------------------------------------------------------------------


def state(system):
    variables = [*system.variables, *system.optimizer.variables, *system.metrics_variables]
    return [(v, np.array(ops.convert_to_numpy(v))) for v in variables]


def unchanged(before):
    for variable, value in before:
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize("phases", [None, ["brush", "critic"]])
@pytest.mark.parametrize("entry", ["fit", "train_on_batch", "evaluate"])
@pytest.mark.spread
def test_nothing_is_half_updated(phases, entry):
    """The second model's loss is bad from the second call of `fit` on."""
    bad = []
    system = painter(square, lambda out: None if bad else square(out), phases=phases)
    system.fit(X, verbose=0)
    before = state(system)
    bad.append(True)
    system.compile()
    given = {} if "batch" in entry else {"verbose": 0}
    with pytest.raises(ValueError, match="'critic' returned None"):
        getattr(system, entry)(X, **given)
    unchanged(before)


@pytest.mark.each_backend
def test_nothing_is_half_updated_in_a_step_of_ones_own():
    system = step(lambda s, d: (s.update(d, "brush"), s.update(d, "brsh")))
    system.setup(X)
    before = state(system)
    fails(system, "'brsh'")
    unchanged(before)


# Backends without gradients -----------------------------------------------------------------


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras' numpy backend imports jax, installed there"
)
def test_a_backend_that_cannot_train_predicts():
    code = """
import keras, numpy as np
import mlsystem as ml

def alone():
    return ml.MLModel(keras.layers.Dense(1, kernel_initializer="ones"), loss="mse")

class Whole(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.part = alone()
    def forward(self, x):
        return {"part": self.part(x)}

x = np.ones((4, 2), "float32")
for make in (alone, Whole):
    out = make().predict(x, verbose=0)
    print(float(np.sum(out["part"] if isinstance(out, dict) else out)))
    for call in (lambda m: m.fit(x, x[:, :1]), lambda m: m.train_on_batch(x, x[:, :1])):
        try:
            call(make())
        except RuntimeError as error:
            print(error)
"""
    path = str(Path(ml.__file__).parent.parent)
    env = {**os.environ, "KERAS_BACKEND": "numpy", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [float(lines[0]), float(lines[3])] == [8.0, 8.0]
    errors = lines[1:3] + lines[4:6]
    assert len(errors) == 4
    for error in errors:
        assert "'numpy'" in error and "predict" in error and "KERAS_BACKEND" in error


def test_what_lacks_targets_is_told_with_the_batch():
    class Lacking(ml.MLModel):
        def loss(self, x, y, outputs):
            return ops.mean((outputs - y.missing) ** 2)

    with pytest.raises(AttributeError) as error:
        Lacking(keras.layers.Dense(1)).fit(np.ones((4, 2), "float32"), verbose=0)
    note = " ".join(error.value.__notes__)  # JAX has one of its own
    assert "x is float32[4, 2] and y is None" in note and "train_step" in note


@pytest.mark.parametrize("name", ["numpy", "openvino"])
def test_the_engine_of_such_a_backend(name):
    stands_in = _engine_of(name)
    assert stands_in.as_layer("net") == "net"
    with pytest.raises(
        RuntimeError, match=f"'{name}'.*only predict.*'jax', 'torch' or 'tensorflow'"
    ):
        stands_in.train_function(None)
