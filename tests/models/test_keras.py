"""Where no feature of this library is used, an MLModel gives what a keras.Model gives, exactly."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 3)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5]]) + 0.1).astype("float32")
LABEL = (Y[:, 0] > 0).astype("int32")
WEIGHT = RNG.uniform(0.5, 2.0, size=10).astype("float32")


def twins(build, run):
    """What `run` gives for the same model as a keras.Model and as an MLModel, and its weights."""
    found = []
    for base in (keras.Model, ml.MLModel):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        model = build(base)
        start = model.get_weights()
        keras.utils.set_random_seed(2)
        found.append((start, run(model), model.get_weights()))
    return found


def same(build, run):
    """Asserts that the twins agree: to the digit, where the same operations run."""
    expected, got = twins(build, run)
    equal(got, expected)
    return got[1]


def equal(got, expected):
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        got, expected = list(got.values()), list(expected.values())
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            equal(g, e)
    elif isinstance(expected, str):
        assert got == expected
    else:
        # On torch, the captured step sums in another order than Keras' eager one.
        close = {"rtol": 1e-5, "atol": 1e-7} if keras.backend.backend() == "torch" else {"rtol": 0}
        np.testing.assert_allclose(np.asarray(got), np.asarray(expected), **close)


def functional(base, hidden=None, loss="mse", optimizer=None, **given):
    """A small compiled network; `hidden` are layers put in the middle."""
    x = inputs = keras.Input((3,))
    for layer in [layers.Dense(4, activation="tanh"), *(hidden() if hidden else [])]:
        x = layer(x)
    model = base(inputs, layers.Dense(1)(x))
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **given)
    return model


def subclass(base, **given):
    """The same as a subclass with a `call` of its own."""

    class Net(base):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(4, activation="tanh")
            self.dropout = layers.Dropout(0.5)
            self.head = layers.Dense(1)

        def call(self, x, training=None):
            return self.head(self.dropout(self.hidden(x), training=training))

    model = Net()
    model(np.zeros((1, 3), "float32"))
    model.compile(keras.optimizers.SGD(0.1), "mse", **given)
    return model


def two_outputs(base, **given):
    inputs = keras.Input((3,), name="x")
    hidden = layers.Dense(4)(inputs)
    outputs = {n: layers.Dense(1, name=n)(hidden) for n in ("a", "b")}
    model = base(inputs, outputs if given.pop("named", True) else list(outputs.values()))
    model.compile("adam", **given)
    return model


def fit(model, x=X, y=Y, **given):
    """All that Keras reports of a short training: the logs of each epoch and of each batch."""
    batches = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: batches.append(logs))
    callbacks = [record, *given.pop("callbacks", [])]
    given = {"batch_size": 4, "epochs": 2, "verbose": 0} | given
    return model.fit(x, y, callbacks=callbacks, **given).history, batches


class Sum(layers.Layer):
    """Passes its input on and adds to the loss, as `add_loss` does."""

    def call(self, x):
        self.add_loss(0.1 * ops.sum(ops.square(x)))
        return x


FITS = {
    "shuffled": {"metrics": ["mae"], "weighted_metrics": ["mse"]},
    "in order": {"shuffle": False, "sample_weight": WEIGHT, "weighted_metrics": ["mse"]},
    "validation_split": {"validation_split": 0.3, "metrics": ["mae"]},
    "validation_data": {"validation_data": (X[:5], Y[:5], WEIGHT[:5])},
    "steps_per_epoch": {"steps_per_epoch": 2, "epochs": 1},
}


@pytest.mark.parametrize("build", [functional, subclass])
@pytest.mark.parametrize("given", FITS.values(), ids=FITS)
@pytest.mark.spread
def test_fit(build, given):
    compiled = {n: v for n, v in given.items() if "metrics" in n}
    fitted = {n: v for n, v in given.items() if n not in compiled}
    same(lambda base: build(base, **compiled), lambda model: fit(model, **fitted))


def optimizer_of_many_options():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    return keras.optimizers.AdamW(rate, weight_decay=0.1, clipnorm=0.1)


def averaging_optimizer():
    return keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=2
    )


COMPILED = {
    "decay, clipping, schedule": {"optimizer": optimizer_of_many_options},
    "accumulation, average": {"optimizer": averaging_optimizer},
    "loss object": {"loss": lambda: keras.losses.Huber(reduction="sum"), "loss_weights": 0.5},
    "loss function": {"loss": lambda: lambda y, p: ops.mean(ops.abs(y - p), axis=-1)},
    "eager": {"run_eagerly": True, "hidden": lambda: [layers.Dropout(0.5)]},
    "without jit": {"jit_compile": False},
    "random layers and batch norm": {
        "hidden": lambda: [
            layers.Dropout(0.5),
            layers.GaussianNoise(1.0, seed=3),
            layers.BatchNormalization(),
        ]
    },
    "regularizers and add_loss": {
        "hidden": lambda: [
            layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1"),
            Sum(),
            layers.Dense(4, trainable=False, bias_regularizer="l2"),
        ]
    },
    "add_loss alone": {"hidden": lambda: [Sum()], "loss": None},
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # Keras' own
@pytest.mark.parametrize("given", COMPILED.values(), ids=COMPILED)
@pytest.mark.spread
def test_compile(given):
    def build(base):
        made = {n: v() if callable(v) and n != "hidden" else v for n, v in given.items()}
        return functional(base, **made)

    same(build, lambda model: (fit(model), model.evaluate(X, Y, verbose=0, return_dict=True)))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras runs one step per execution on torch")
def test_steps_per_execution():
    same(lambda base: functional(base, steps_per_execution=2), lambda m: fit(m, batch_size=2))


@pytest.mark.once
def test_class_weight():
    def build(base):
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        return functional(base, loss=loss, weighted_metrics=["accuracy"])

    same(build, lambda model: fit(model, y=LABEL, class_weight={0: 0.5, 1: 3.0}))


MULTI = {
    "one loss": {"loss": "mse", "weighted_metrics": {"a": ["mae"], "b": ["mse"]}},
    "one of two": {"loss": {"a": "mse"}},
    "each its own": {
        "loss": {"a": "mse", "b": "mae"},
        "loss_weights": {"a": 0.3, "b": 2.0},
        "metrics": {"b": ["mse"]},
    },
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # Keras' own
@pytest.mark.parametrize("given", MULTI.values(), ids=MULTI)
@pytest.mark.once
def test_multiple_outputs(given):
    y = {"a": Y, "b": 2 * Y}
    same(lambda base: two_outputs(base, **given), lambda model: fit(model, y=y))


@pytest.mark.once
def test_multiple_outputs_in_a_list():
    given = {"loss": ["mse", "mae"], "loss_weights": [1.0, 0.2], "metrics": [["mae"], ["mse"]]}

    def run(model):
        return fit(model, y=[Y, 2 * Y], sample_weight=[WEIGHT, WEIGHT[::-1].copy()])

    same(lambda base: two_outputs(base, named=False, **given), run)


def test_compute_loss_and_compute_metrics_are_hooks():
    def build(base):
        class Net(base):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                loss = super().compute_loss(x, y, y_pred, sample_weight, training)
                return loss + 0.1 * ops.mean(ops.abs(y_pred))

            def compute_metrics(self, x, y, y_pred, sample_weight=None):
                logs = super().compute_metrics(x, y, y_pred, sample_weight)
                self.largest.update_state(ops.max(y_pred))
                return {**logs, "largest": self.largest.result(), "three": 3.0}

        model = functional(Net, metrics=["mae"])
        model.largest = keras.metrics.Mean(name="largest")
        return model

    logs = same(build, lambda model: (*fit(model), model.evaluate(X, Y, verbose=0)))[0]
    assert {"loss", "mae", "largest", "three"} <= set(logs)


def test_compute_loss_without_compiled_loss():
    def build(base):
        class Net(base):
            def compute_loss(self, x, y, y_pred, sample_weight=None):
                return ops.mean(ops.abs(y - y_pred)) + sum(self.losses)

        return functional(Net, loss=None, hidden=lambda: [layers.Dense(4, kernel_regularizer="l2")])

    same(build, lambda model: (*fit(model), model.evaluate(X, Y, verbose=0)))


def test_on_batch():
    def run(model):
        first = model.train_on_batch(X, Y, sample_weight=WEIGHT)
        second = model.train_on_batch(X, Y, return_dict=True)
        tested = model.test_on_batch(X, Y), model.test_on_batch(X, Y, return_dict=True)
        last = model.train_on_batch(X, Y, sample_weight=WEIGHT)
        return first, second, *tested, last, model.predict_on_batch(X), model.metrics_names

    same(lambda base: functional(base, metrics=["mae"]), run)


def test_evaluate_and_predict():
    def run(model):
        before = model.evaluate(X, Y, batch_size=4, verbose=0), model.predict(X, verbose=0)
        fit(model)
        return before, model.evaluate(X, Y, batch_size=4, verbose=0), model.predict(X, verbose=0)

    same(lambda base: functional(base, metrics=["mae"]), run)


@pytest.mark.once
def test_callbacks(tmp_path):
    def run(model):
        path = str(tmp_path / f"{type(model).__mro__[1].__name__}.weights.h5")
        callbacks = [
            keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * (3 if epoch else 1)),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=0),
            keras.callbacks.ModelCheckpoint(
                path, "val_loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.TerminateOnNaN(),
        ]
        history = fit(model, epochs=6, validation_split=0.2, callbacks=callbacks)
        last = model.get_weights()
        model.load_weights(path)
        return history, last, model.stop_training, float(model.optimizer.learning_rate)

    same(lambda base: functional(base, optimizer=keras.optimizers.SGD(0.3)), run)


def test_what_changes_between_fits():
    def run(model):
        first = fit(model)
        model.set_weights([0.1 * np.ones_like(w) for w in model.get_weights()])
        model.optimizer.learning_rate = 0.01
        second = fit(model, epochs=1)
        model.layers[1].trainable = False
        model.compile(keras.optimizers.SGD(0.05), "mae", metrics=["mse"])
        return first, second, fit(model, epochs=1), len(model.trainable_weights)

    same(functional, run)


def test_saved_cloned_and_configured(tmp_path):
    def run(model):
        fit(model)
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        again = type(model).from_config(model.get_config())
        again.set_weights(model.get_weights())
        path = tmp_path / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        kept = [type(m) is type(model) for m in (clone, again, loaded)]
        predictions = [m.predict(X, verbose=0) for m in (model, clone, again, loaded)]
        return kept, predictions, fit(loaded), fit(model)

    kept, predictions, *_ = same(lambda base: functional(base, optimizer="adam"), run)
    assert kept == [True] * 3
    equal(predictions[1:], predictions[:1] * 3)


# The forms a model comes in -----------------------------------------------------------------


class Plain(ml.MLModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2, kernel_initializer="ones")

    def forward(self, x, training=None):
        return self.dense(x)


class Positional(ml.MLModel):
    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2, kernel_initializer="ones")(inputs))


class Keyword(ml.MLModel):
    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        outputs = layers.Dense(2, kernel_initializer="ones")(inputs)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.calls = []

    def forward(self, x, training=None):
        self.calls.append(training)
        return super().forward(x, training=training)


class Below(Keyword):
    def loss(self, x, y, outputs):
        return ops.mean(outputs**2)


def direct():
    inputs = keras.Input((3,))
    return ml.MLModel(inputs, layers.Dense(2, kernel_initializer="ones")(inputs))


FORMS = [direct, Plain, Positional, Keyword, Below]


@pytest.mark.parametrize("order", [FORMS, FORMS[::-1], [Plain, direct, Plain, Below, Plain]])
@pytest.mark.once
def test_forms_live_side_by_side(order):
    bases = ml.MLModel.__bases__, [cls.__bases__ for cls in FORMS[1:]]
    for form in [*order, *order]:
        model = form()
        assert isinstance(model, ml.MLModel) and isinstance(model, keras.Model)
        assert form is direct or isinstance(model, form)
        assert bases == (ml.MLModel.__bases__, [cls.__bases__ for cls in FORMS[1:]])
        equal(ops.convert_to_numpy(model(ops.ones((1, 3)))), [[3.0, 3.0]])
    assert len(model.calls) == 1 if form in (Keyword, Below) else True


def test_functional_subclass_trains_by_its_loss():
    model = Below(optimizer=keras.optimizers.SGD(0.1))
    model.fit(np.ones((2, 3), "float32"), verbose=0)
    # mean of squares of two outputs of 3: 9; the gradient of each of the weights is 3
    assert model.history.history["loss"] == [9.0]
    np.testing.assert_allclose(model.get_weights()[0], 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        *FORMS,
        lambda: ml.MLModel(layers.Dense(2)),
        lambda: ml.MLModel(keras.Sequential([layers.Dense(2)])),
    ],
)
@pytest.mark.once
def test_a_model_is_a_layer_of_another(form):
    inner = form()
    inputs = keras.Input((3,))
    outer = keras.Model(inputs, layers.Dense(1)(inner(inputs)))
    assert outer.output_shape == (None, 1) and len(outer.trainable_weights) == 4
    outer.compile("sgd", "mse")
    before = inner.get_weights()
    outer.fit(X, Y, batch_size=5, verbose=0)
    assert not np.array_equal(inner.get_weights()[0], before[0])


@pytest.mark.once
def test_net_alone_uses_adam():
    def build(base):
        net = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(1)])
        if base is ml.MLModel:
            return ml.MLModel(net, loss="mse", metrics=["mae"])
        net.compile("adam", "mse", metrics=["mae"])
        return net

    (_, expected, weights), (_, got, ours) = twins(build, fit)
    equal([got, ours], [expected, weights])


@pytest.mark.once
def test_the_optimizer_is_that_of_keras():
    optimizer = keras.optimizers.SGD(0.1)
    model = ml.MLModel(layers.Dense(1), loss="mse", optimizer=optimizer)
    model.fit(X, Y, batch_size=5, verbose=0)
    assert model.optimizer is optimizer and int(optimizer.iterations) == 2
    model = ml.MLModel(layers.Dense(1), loss="mse")
    model.fit(X, Y, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    model.compile(loss="mse")
    assert type(model.optimizer) is type(keras_default())


def keras_default():
    model = functional(keras.Model)
    model.compile(loss="mse")
    return model.optimizer


# What a model may say of itself -------------------------------------------------------------


class Double(ml.MLModel):
    """outputs = 2 x, with a weight to train."""

    def __init__(self):
        super().__init__()
        self.two = self.add_weight(
            shape=(), initializer=lambda *_, **__: ops.convert_to_tensor(2.0)
        )


ONE = np.array([[1.0], [3.0]], "float32")


@pytest.mark.parametrize("name", ["forward", "call"])
@pytest.mark.once
def test_forward_and_call_are_one(name):
    compute = {name: lambda self, x: x * self.two, "loss": lambda self, x, y, out: ops.mean(out)}
    model = type("Named", (Double,), compute)()
    assert type(model).forward is type(model).call
    model.fit(ONE, verbose=0)
    assert model.history.history == {"loss": [4.0]}


@pytest.mark.once
def test_forward_of_several_inputs():
    class Many(Double):
        def forward(self, a, *more, training=None):
            return a * self.two + sum(more)

    model = Many()
    inputs = [keras.Input((1,)) for _ in range(3)]
    outer = keras.Model(inputs, model(*inputs))
    equal(outer.predict([ONE, ONE, ONE], verbose=0), 4 * ONE)
    equal(ops.convert_to_numpy(model(ONE, ONE)), 3 * ONE)


def test_forward_may_name_y():
    class Teacher(Double):
        def forward(self, x, y=None):
            return x * self.two if y is None else x * self.two + y

        def loss(self, x, y, outputs):
            return ops.mean(outputs)

    model = Teacher()
    equal(model.predict(ONE, verbose=0), 2 * ONE)
    assert model.fit(ONE, 10 * ONE, verbose=0).history == {"loss": [24.0]}


LOSSES = {
    "scalar": (lambda out: ops.mean(out), {"loss": 4.0}),
    "per sample": (lambda out: out[:, 0], {"loss": 4.0}),
    "terms": (
        lambda out: {"far": ops.mean(out), "near": 0.5 * out[:, 0]},
        {"loss": 6.0, "model_far": 4.0, "model_near": 2.0},
    ),
}


@pytest.mark.parametrize("value, logs", LOSSES.values(), ids=LOSSES)
@pytest.mark.once
def test_what_a_loss_returns(value, logs):
    class Model(Double):
        def forward(self, x):
            return x * self.two

        def loss(self, x, y, outputs):
            return value(outputs)

    model = Model()
    assert model.evaluate(ONE, verbose=0, return_dict=True) == logs
    model.compile("sgd", metrics=["mae"])
    history = model.fit(ONE, ONE, verbose=0).history
    assert history == {name: [number] for name, number in ({"mae": 2.0} | logs).items()}


@pytest.mark.once
def test_metric_set_as_an_attribute():
    class Counting(Double):
        def __init__(self):
            super().__init__()
            self.largest = keras.metrics.Mean(name="largest")

        def forward(self, x):
            return x * self.two

        def loss(self, x, y, outputs):
            self.largest.update_state(ops.max(x))
            return 0 * ops.mean(outputs)

    model = Counting()
    history = model.fit(np.array([[1.0], [5.0]], "float32"), batch_size=1, epochs=2, verbose=0)
    assert history.history == {"loss": [0.0, 0.0], "largest": [3.0, 3.0]}


@pytest.mark.skipif(BACKEND != "torch", reason="takes a network of torch's own")
def test_torch_module():
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    model = ml.MLModel(net, loss="mse", optimizer=keras.optimizers.SGD(0.1))
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, epochs=5, verbose=0)
    assert len(model.trainable_weights) == 4
    assert model.evaluate(X, Y, verbose=0) < before
    again = net.eval()(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_allclose(model.predict(X, verbose=0), again, rtol=1e-5)
