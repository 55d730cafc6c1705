"""What users of Keras and Lightning write by habit or by mistake is met with what to write here."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, TinyGAN, ones

import mlsystem as ml

pytestmark = pytest.mark.once

X = ones()
WIDE = np.random.default_rng(0).random((32, 8), dtype="float32")


class Digits(ml.MLData):
    def train(self):
        return X, X


def alone(loss="mse", **given):
    return ml.MLModel(layers.Dense(1), loss=loss, name="net", **given)


def fit(model, x=X, y=X, **given):
    return model.fit(x, y, **({"verbose": 0} | given))


def subclass(base=TinyGAN, **names):
    for name, value in names.items():
        if callable(value):
            value.__qualname__ = f"Sub.{name}"
    return type("Sub", (base,), names)


class Keyed(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean(outputs["fke"])


class Typed(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean(outputs + len(3))


class Forgets(Pair):
    def forward(self, x):
        self.b(self.a(x))


class Hides(ml.MLSystem):
    routing = {"_critic": {"actor": 1.0}}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.actor, self._critic = Scale(), keras.Sequential([layers.Dense(1)])

    def forward(self, x):
        return {"actor": self._critic(self.actor(x))}

    def compute_losses(self, x, y, outputs):
        return {"actor": ops.mean(outputs["actor"])}


class Two(ml.MLSystem):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return {"first": self.first(x), "second": self.second(x)}


class Late(ml.MLSystem):
    def __init__(self):
        self.actor = Scale()


def keyed():
    pair = Pair()
    pair.b = Keyed(layers.Dense(1))
    return pair


# What is done, and words of the error.
ERRORS = {
    "net of text": (lambda: ml.MLModel("net"), "name='net'"),
    "net of layers": (lambda: ml.MLModel([layers.Dense(3)]), "keras.Sequential"),
    "net of a class": (lambda: ml.MLModel(layers.Dense), r"Dense\(\.\.\.\)"),
    "two nets": (lambda: ml.MLModel(layers.Dense(1), layers.Dense(1)), "takes one network"),
    "net of a system": (lambda: ml.MLSystem(layers.Dense(1)), "MLSystem got a network"),
    "EMA of a name": (lambda: ml.EMA("actor"), "EMA got 'actor'.*the model itself"),
    "EMA fast": (lambda: ml.EMA(alone(), "fast"), "momentum='fast'"),
    "grad of a number": (lambda: ml.grad(3)(X), "ml.grad got 3"),
    "grad of nothing": (lambda: ml.grad(lambda x: None)(X), "returned None"),
    "setup of Keras": (
        lambda: ml.setup(keras.Sequential([layers.Dense(1)]), X),
        r"ml.MLModel\(net",
    ),
    "setup of a class": (lambda: ml.setup(TinyGAN, X), "made by its constructor"),
    "class as data": (lambda: fit(alone(), Digits, None), r"class Digits.*Digits\(\)"),
    "class to validate": (
        lambda: fit(alone(), validation_data=Digits),
        "`validation_data` of fit is the class Digits",
    ),
    "class as a member": (
        lambda: setattr(TinyGAN(), "actor", Scale),
        r"`actor` of TinyGAN is the class Scale.*self.actor = Scale\(",
    ),
    "no return": (lambda: fit(Forgets()), "Forgets.forward returned None"),
    "file as data": (lambda: fit(alone(), "images.csv", None), "text, or objects: images.csv"),
    "model as data": (
        lambda: fit(alone(), alone(), None),
        "`x` of fit is the model '.*', a MLModel",
    ),
    "symbol as data": (lambda: fit(alone(), keras.Input((3,)), None), "is a KerasTensor"),
    "words": (lambda: fit(alone(), ["one", "two"], None), "`x` of fit holds text"),
    "array of words": (lambda: fit(alone(), X, np.array([object()] * 4)), "`y` of fit holds text"),
    "None in x": (lambda: fit(alone(), [None]), "None in the place of arrays"),
    "hidden member": (lambda: fit(Hides()), "'_critic'.*underscore is no member"),
    "batch_size": (lambda: fit(alone(), batch_size=-4), "batch_size=-4"),
    "epochs": (lambda: fit(alone(), epochs="3"), "epochs='3'"),
    "split": (lambda: fit(alone(), validation_split=2.0), "validation_split=2.0"),
    "class_weight": (lambda: fit(alone(), class_weight=[1, 2]), r"class_weight=\[1, 2\]"),
    "argument": (lambda: fit(alone(), epoch=3), "fit got an unexpected.*'epoch'.*epochs"),
    "argument of Lightning": (
        lambda: fit(alone(), max_epochs=3),
        "'max_epochs'. Did you mean 'epochs'.*resume, validation_every, fast_run, overfit, max_ti",
    ),
    "evaluate": (lambda: alone().evaluate(X, X, steps=0), "evaluate got steps=0"),
    "predict": (lambda: alone().predict(Digits), r"Digits\(\)"),
    "executions": (lambda: alone().compile(steps_per_execution=0), "steps_per_execution=0"),
    "late init": (Late, r"Late.__init__ sets `actor` before.*super\(\).__init__\(\)"),
    "key": (lambda: fit(keyed()), r"The loss of 'b'.*'fke'.*outputs has 'a', 'b'; y is float32\["),
    "no phases": (lambda: fit(subclass(phases=[])()), "empty phase"),
    "empty phase": (lambda: fit(subclass(phases=[()])()), "empty phase.*'generator'"),
    "phase of no list": (lambda: fit(subclass(phases=3)()), "phases is 3"),
    "number as a phase": (lambda: fit(subclass(phases=[3])()), "phases names 3.*'generator'"),
    "losses of a balance": (lambda: ml.balance.PCGrad(3), "losses=3"),
    "alpha": (lambda: ml.balance.GradNorm(["a", "b"], "a", alpha="big"), "alpha='big'"),
    "names of streams": (lambda: ml.Streams({1: X}), "the name 1"),
    "drop_last": (lambda: ml.Streams({"a": X}, drop_last="no"), "drop_last='no'"),
    "loss that none needs": (
        lambda: (lambda gan: (gan.compile(loss="mse"), fit(gan)))(TinyGAN()),
        "loss='mse'.*own",
    ),
    "returned": (
        lambda: fit(subclass(train_step=lambda self, data: self.update(data))()),
        "returned a tuple, and no logs",
    ),
    "apply": (
        lambda: fit(subclass(train_step=lambda self, data: self.apply_gradients([1]))()),
        r"apply_gradients got \[1\].*\{model:",
    ),
    "minimize": (
        lambda: fit(subclass(train_step=lambda self, data: self.minimize(1.0, "generator"))()),
        "minimize got a float.*lambda",
    ),
    "step of Lightning": (
        lambda: subclass(train_step=lambda self, batch, batch_idx: None),
        r"Sub.train_step\(self, batch, batch_idx\).*\(self, data\)",
    ),
    "list of optimizers": (
        lambda: fit(subclass(configure_optimizers=lambda self: ["sgd"])()),
        "returned a list.*{model: optimizer}.*'generator', 'discriminator'",
    ),
    "pair of lists": (
        lambda: fit(subclass(configure_optimizers=lambda self: (["sgd"], []))()),
        "returned a tuple.*Schedules belong",
    ),
    "one optimizer": (
        lambda: fit(subclass(configure_optimizers=lambda self: keras.optimizers.SGD())()),
        "returned a SGD.*{model: optimizer}",
    ),
    "hyperparameters": (lambda: alone().save_hyperparameters(), "Leave it out"),
    "backward": (lambda: TinyGAN().manual_backward(1.0), "self.minimize"),
}


@pytest.mark.parametrize("act, words", ERRORS.values(), ids=ERRORS)
def test_mistakes_are_met_with_what_to_write(act, words):
    kinds = (ValueError, TypeError, RuntimeError, AttributeError)
    with pytest.raises(kinds, match=f"(?s){words}") as caught:
        act()
    assert len(str(caught.value)) < 700


def test_another_error_in_a_loss_names_the_model():
    with pytest.raises(TypeError) as caught:
        fit(Typed(layers.Dense(1), name="net"))
    notes = " ".join(caught.value.__notes__)
    assert "The loss of 'net'. There outputs is float32[4, 1], y is float32[4, 1]" in notes


@pytest.mark.filterwarnings("ignore:.*build:UserWarning")  # by Keras, which cannot trace the call
def test_the_error_for_two_inputs_in_a_list_prints_no_arrays():
    with pytest.raises(ValueError, match=r"x is .*expects 1 input") as caught:
        fit(alone(), [(WIDE, WIDE)], None)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(name="mse")])
def test_an_error_in_a_given_loss_names_it_and_the_shapes(loss):
    net = ml.MLModel(layers.Dense(3), loss=loss, name="net")
    with pytest.raises(Exception) as caught:  # each backend raises its own kind
        fit(net, WIDE, WIDE)
    notes = " ".join(caught.value.__notes__)
    assert "The loss 'mse' of 'net'. There outputs is float32[32, 3], y is float32[32, 8]" in notes


def test_an_error_of_keras_about_the_names_of_losses_keeps_its_words():
    inputs = keras.Input((8,))
    net = ml.MLModel(inputs=inputs, outputs={"a": layers.Dense(8)(inputs)}, name="net")
    net.compile("sgd", loss={"b": "mse"})
    with pytest.raises(KeyError, match=r"The path: \('b',\) in the `loss`") as caught:
        fit(net, WIDE, {"a": WIDE})
    assert "The loss given to 'net'. There outputs is {'a'" in " ".join(caught.value.__notes__)


def test_an_error_in_a_loss_given_to_a_member_names_it_and_the_shapes():
    pair = ml.MLModel(layers.Dense(3), loss="mse"), ml.MLModel(layers.Dense(8), loss="mse")
    system = Two(*pair)
    with pytest.raises(Exception) as caught:
        fit(system, WIDE, {"first": WIDE, "second": WIDE})
    notes = " ".join(caught.value.__notes__)
    assert "The loss 'mse' of 'first'. There outputs is float32[32, 3], y is float" in notes


STEPS = {
    "options of log": (lambda self, data: self.log("k", 1.0, prog_bar=True), "`self.log(name, v"),
    "optimizers()": (lambda self, data: self.optimizers(), "`self.optimizers['generator']`"),
}


@pytest.mark.parametrize("train_step, words", STEPS.values(), ids=STEPS)
def test_habits_in_a_step(train_step, words):
    with pytest.raises(TypeError) as caught:
        fit(subclass(train_step=train_step)())
    assert words in " ".join(caught.value.__notes__)


@pytest.mark.each_backend
def test_the_steps_of_keras_itself():
    """JAX' takes a state and torch's calls `backward`, which is said; TensorFlow's tape runs."""
    backend = keras.backend.backend()
    if backend == "jax":
        with pytest.raises(TypeError, match=r"Sub.train_step\(self, state, data\).*\(self, data\)"):
            subclass(Scale, train_step=lambda self, state, data: ({}, state))
    elif backend == "torch":

        def train_step(self, data):
            self(data[0]).mean().backward()

        with pytest.raises(RuntimeError) as caught:
            fit(subclass(Scale, train_step=train_step)(loss="mse"))
        assert "`self.minimize(lambda: loss, models)`" in " ".join(caught.value.__notes__)
    else:
        import tensorflow as tf

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=data[1], y_pred=self(data[0], training=True))
            found = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(found, self.trainable_variables)
            return {"loss": loss}

        scale = subclass(Scale, train_step=train_step)(2.0, loss="mse")
        fit(scale)  # (2 - 1)^2, at a rate of 0.1
        np.testing.assert_allclose(scale.weight, 1.8, rtol=1e-6)


def hook(*given):
    raise AssertionError("nobody calls it")


HABITS = {
    "training_step": (hook, "compute_losses"),
    "validation_step": (hook, "`test_step(self, data)`"),
    "on_train_epoch_end": (hook, "`keras.callbacks.Callback` with `on_epoch_end`"),
    "on_train_start": (hook, "on_train_begin"),
    "train_dataloader": (hook, "ml.MLData"),
    "automatic_optimization": (False, "`train_step(self, data)`"),
    "configure_optimizer": (hook, "Override `configure_optimizers`"),
    "compute_loss": (hook, "Override `compute_losses`"),
    "update_evry": ({"generator": 2}, "Did you mean `update_every`"),
    "routng": ("sum", "Did you mean `routing`"),
    "phasess": ([("generator",), "discriminator"], "Did you mean `phases`"),
    "non_finite": ("keep", "Did you mean `nonfinite`"),
    "compute_loses": (hook, "Did you mean `compute_losses`"),
    "configure_optimzers": (hook, "Did you mean `configure_optimizers`"),
}


@pytest.mark.parametrize("name, how", HABITS.items(), ids=HABITS)
def test_names_that_nobody_reads_are_warned_of_once(name, how):
    value, words = how
    gan = subclass(**{name: value})()
    with pytest.warns(UserWarning, match=f"`{name}` of Sub") as caught:
        gan.setup(X)
    assert [words in str(w.message) for w in caught] == [True]
    gan.compile()
    gan.setup(X)


def test_a_misspelt_attribute_of_a_system_is_warned_of():
    gan = TinyGAN().setup(X)
    gan.routng = {"generator": {"generator": 1.0}, "discriminator": {"discriminator": 1.0}}
    gan.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match="`routng` of TinyGAN. Did you mean `routing`"):
        fit(gan)


def test_what_a_member_defines_is_warned_of():
    gan = TinyGAN()
    gan.generator = subclass(type(gan.generator), configure_optimizers=hook)()
    with pytest.warns(UserWarning, match="of Sub. Override `configure_optimizer`"):
        gan.setup(X)


def test_a_system_may_call_methods_of_these_names_itself():
    gan = subclass(
        compute_loss=lambda self, x, y, outputs: super(type(self), self).compute_losses(
            x, y, outputs
        ),
        compute_losses=lambda self, x, y, outputs: self.compute_loss(x, y, outputs),
        configure_optimizer=lambda self: keras.optimizers.SGD(),
        configure_optimizers=lambda self: {
            "generator": self.configure_optimizer(),
            "discriminator": self.configure_optimizer(),
        },
    )()
    gan.setup(X)  # warnings are errors here


# Names that users give to things of their own.
OWN = {
    **{"phase": 0, "phase_names": ["generator"], "route": "sum", "routes": {"warm": 1}},
    **{"losses_": [], "loss_fn": hook, "loss_weight": 0.5, "g_loss": hook, "loss_terms": {}},
    **{"router": {"a": 1}, "balanced": True, "balances": {}, "update_everything": True},
    **{"update_rate": {"generator": 2}, "updates": [1], "forward_features": hook, "forwards": []},
    **{"train_step_generator": hook, "train_steps": 100, "best_step": hook, "finite": True},
    **{"critics_per_step": 5, "date": "2020", "training_steps": 3, "configure": hook},
    **{"generators": ["generator"], "start": 3, "every": 2, "momentum": 0.9, "backward": hook},
}


def test_names_of_ones_own_raise_no_alarm():
    class_names = {name: value for name, value in OWN.items() if value is hook}
    gan = subclass(**class_names)()
    for name in set(OWN) - set(class_names):
        setattr(gan, name, OWN[name])
    gan.setup(X)  # warnings are errors here


def test_what_looks_like_a_mistake_and_is_none_works():
    """Names that Keras' own methods use, classes made in a function, a member by a second name."""

    class Named(ml.MLModel):
        def loss(self, x, y, y_pred):
            return ops.mean((y - y_pred) ** 2)

    assert "<locals>" not in keras.saving.get_registered_name(Named)  # there may be several
    Named(layers.Dense(1)).fit(X, X, verbose=0, validation_split=np.float32(0.5))
    pair = Pair().setup(X)
    pair.again = pair.a
    pair.kind = layers.Dense


def test_a_step_of_ones_own_may_need_what_training_makes_first():
    class Bank(Pair):
        bank = None

        def test_step(self, data):
            assert self.bank is not None
            return super().test_step(data)

    def fill(logs):
        system.bank = 1

    system = Bank()
    filled = keras.callbacks.LambdaCallback(on_train_begin=fill)
    system.fit(X, validation_data=(X,), verbose=0, callbacks=[filled])


def test_an_optimizer_that_does_not_exist_is_named():
    gan = TinyGAN()
    with pytest.raises(KeyError, match=r"no optimizer of 'net'. Call setup first"):
        gan.optimizers["net"]
    gan.setup(X)
    with pytest.raises(KeyError, match=r"'net'. There are those of 'generator', 'discriminator'"):
        gan.optimizers["net"]
    with pytest.raises(KeyError, match=r"no optimizer of 'generator'.*'net'"):
        alone(optimizer="sgd").setup((X, X)).optimizers["generator"]
    assert gan.optimizers.get("net") is None and "net" not in gan.optimizers


@pytest.mark.parametrize(
    "name, hint",
    [
        ("optimiser", "Did you mean 'optimizer'"),
        ("routing", "`routing` is an attribute"),
        ("on_device", "takes optimizer, loss"),
    ],
)
def test_a_name_that_compile_does_not_take(name, hint):
    for model in (TinyGAN(), alone()):
        if name != "routing" or isinstance(model, ml.MLSystem):
            with pytest.raises(TypeError, match=f"compile got `{name}`.*{hint}"):
                model.compile(**{name: None})


def test_a_function_is_called_by_the_user():
    def batches():
        yield X, X

    with pytest.raises(
        ValueError, match=r"is the function `batches`. Call it, as in `batches\(\)`"
    ):
        alone().fit(batches, verbose=0)
