"""The names of a user's class are the user's: the library sets one private attribute."""

import keras
import pytest
from keras import ops
from toys import Pair, Scale, TinyGAN, number, ones

import mlsystem as ml

PUBLIC = {
    ml.MLModel: {
        *("apply_gradients", "configure_optimizer", "explain", "forward", "gradients", "key"),
        *(
            "log",
            "loss",
            "memory",
            "minimize",
            "optimizer",
            "optimizers",
            "picture",
            "setup",
            "update",
        ),
    },
    ml.MLSystem: {
        *("balance", "compute_losses", "configure_optimizers", "data", "gradient_report"),
        *("nonfinite", "phases", "routing"),
        *("update_end", "update_every", "update_start", "update_when"),
    },
    ml.EMA: {"follow", "source", "start"},
}
# Hooks of Keras' trainers, of which each backend has its own.
OF_KERAS = {"_maybe_symbolic_build", "_purge_model_variables", "_symbolic_build"}


@pytest.mark.parametrize("cls", list(PUBLIC))
def test_a_subclass_sees_the_documented_names_alone(cls):
    base = keras.Model if cls is ml.MLModel else ml.MLModel
    kind = type("Users", (cls,), {})
    new = {name for name in dir(kind) if not name.startswith("__")} - set(dir(base))
    assert new - OF_KERAS == PUBLIC[cls] - set(dir(base))


@pytest.mark.parametrize("make", [Scale, TinyGAN, lambda: ml.EMA(Scale())])
def test_an_object_has_one_private_attribute_of_the_library(make):
    made, plain = make(), keras.Sequential([keras.layers.Dense(1)])
    # TensorFlow sets those that begin with `_self_`.
    private = {name for name in vars(made) if name[0] == "_" and not name.startswith("_self_")}
    found = private - set(vars(plain)) - set(vars(keras.Model()))
    assert found - {"_seeds", "_members"} == {"_mlsystem"}  # those two are groups in files


NAMES = ("_prepare", "_names", "_follow", "_flush", "_start", "_models", "_run", "_rows", "_due")


def named(kind, **more):
    """A class with attributes, or methods, under names that the library might use itself."""
    return type(kind.__name__, (kind,), more)


@pytest.mark.parametrize("kind", [Pair, TinyGAN])
def test_private_names_of_a_user_change_nothing(kind):
    def fail(self, *args, **kwargs):
        raise AssertionError("called by the library")

    plain = kind()
    plain.fit(ones(), epochs=2, verbose=0)
    for made in (named(kind, **dict.fromkeys(NAMES, fail))(), kind()):
        if type(made) is kind:
            for i, name in enumerate(NAMES):
                setattr(made, name, [i])
        made.fit(ones(), epochs=2, verbose=0)
        assert made.history.history == plain.history.history
        for mine, other in zip(made.weights, plain.weights, strict=True):
            assert number(mine) == number(other)


@pytest.mark.parametrize("name", ["_mlsystem", "_seeds", "_members"])
def test_names_of_the_library_are_refused(name):
    expected = pytest.raises(AttributeError, match=f"`{name}` of Pair is a name that mlsystem uses")
    with expected:
        setattr(Pair(), name, [1])
    with expected:
        named(Pair, **{name: [1]})


def test_a_system_is_trained_by_its_step_alone():
    gan = TinyGAN().setup(ones())
    logs = gan.train_step(ops.convert_to_tensor(ones()))
    assert number(gan.generator.weight) == pytest.approx(2.0 + 0.1 * 3.0)  # dL/dg = -d m
    assert number(gan.discriminator.weight) == pytest.approx(3.0 - 0.01 * (2.0 - 1.0))
    assert float(logs["generator_loss"]) == pytest.approx(-6.0)
