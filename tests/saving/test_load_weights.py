"""`load_weights` of a model alone reads what Keras reads, from files of Keras' models too."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

X = np.ones((4, 3), "float32")
Y = np.ones((4, 1), "float32")
FAST = {"run_eagerly": True}
bases = pytest.mark.parametrize("base", [keras.Model, ml.MLModel])
registered = keras.saving.register_keras_serializable("tests")


def model(base, names=("first", "last"), optimizer="adam", train=True):
    """Two layers set under some names: `first` also under `again`, if that is one of them."""

    class Net(base):
        def __init__(self):
            super().__init__(name="net")
            dense = layers.Dense(3)
            for name in names[:-1]:
                setattr(self, name, dense)
            setattr(self, names[-1], layers.Dense(1))

        def call(self, x):
            for name in names:
                x = getattr(self, name)(x)
            return x

    made = Net()
    if optimizer:
        made.compile(optimizer, "mse", **FAST)
    made.train_on_batch(X, Y) if train and optimizer else made(X)
    return made


def numbers(variables):
    return [ops.convert_to_numpy(variable).copy() for variable in variables]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@bases
@pytest.mark.parametrize("saved", [None, "sgd", keras.optimizers.Nadam])
def test_an_optimizer_that_is_not_in_the_file_starts_from_scratch(tmp_path, base, saved):
    path = tmp_path / "a.weights.h5"
    saved = saved() if callable(saved) else saved
    source = model(base, optimizer=saved)
    source.save_weights(path)
    target = model(ml.MLModel, optimizer=keras.optimizers.Adagrad(0.25))
    with pytest.warns(UserWarning, match="state of 'optimizer' .Adagrad.*from scratch") as found:
        target.load_weights(path)
    assert len([w for w in found if w.category is UserWarning]) == 1
    assert_equal(target.get_weights(), source.get_weights())
    iterations, rate, *sums = numbers(target.optimizer.variables)
    assert iterations == 0 and rate == 0.25
    assert all((total == np.float32(0.1)).all() for total in sums)  # as Adagrad begins


@bases
def test_an_optimizer_in_the_file_is_loaded(tmp_path, base):
    source, target = model(base), model(ml.MLModel, train=False)
    source.save_weights(tmp_path / "a.weights.h5")
    target.load_weights(tmp_path / "a.weights.h5")
    assert_equal(numbers(target.optimizer.variables), numbers(source.optimizer.variables))


@bases
def test_a_file_with_an_optimizer_that_the_model_has_no_use_for(tmp_path, base):
    source, target = model(base), model(ml.MLModel, optimizer=None)
    source.second_optimizer = keras.optimizers.SGD()
    source.save_weights(tmp_path / "a.weights.h5")
    target.load_weights(tmp_path / "a.weights.h5")
    assert_equal(target.get_weights(), source.get_weights())


@bases
@pytest.mark.parametrize("saved", [("first", "last"), ("again", "first", "last")])
def test_a_layer_set_under_two_names(tmp_path, base, saved, loaded=("again", "first", "last")):
    for suffix in ("weights.h5", "keras"):
        path = tmp_path / f"a.{suffix}"
        source = model(ml.MLModel, saved)
        (source.save_weights if suffix == "weights.h5" else source.save)(path)
        target = model(base, loaded)
        target.load_weights(path)
        assert_equal(target.get_weights(), source.get_weights())


def test_layers_that_differ_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    model(ml.MLModel, ("alpha", "last"), optimizer=None).save_weights(path)
    target = model(ml.MLModel, optimizer=None)
    before = target.get_weights()
    with pytest.raises(ValueError, match=r"first: is not in the file(.|\n)*alpha: is in the file"):
        target.load_weights(path)
    assert_equal(target.get_weights(), before)


def with_own_compile(base):
    class Own(base):
        def __init__(self, name="own"):
            super().__init__(name=name)
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def compile(self, first, second, strength):
            super().compile(first, "mse", **FAST)
            self.second, self.strength = second, strength

        def get_config(self):
            return {"name": self.name}

    return keras.saving.register_keras_serializable("tests", f"Own{base.__name__}")(Own)


@bases
def test_a_subclass_with_its_own_compile(tmp_path, base):
    cls = with_own_compile(base)
    source = cls()
    source.compile("adam", keras.optimizers.SGD(), 2.0)
    source.train_on_batch(X, Y)
    source.save(tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="`compile..` was not called as part of model loading"):
        loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert type(loaded) is cls and not hasattr(loaded, "strength")
    assert_equal(loaded.get_weights(), source.get_weights())

    fresh = cls()
    fresh(X)  # and is not compiled
    trained = cls()
    trained.compile("adam", keras.optimizers.SGD(), 2.0)
    trained.train_on_batch(X, Y)
    for other in (fresh, trained):
        other.load_weights(tmp_path / "a.keras")
        assert_equal(other.get_weights(), source.get_weights())
    assert_equal(numbers(trained.optimizer.variables), numbers(source.optimizer.variables))


@registered
class OwnSystem(ml.MLSystem):
    routing = "own"

    def __init__(self):
        super().__init__()
        self.net = ml.MLModel(keras.Sequential([layers.Dense(1)]), loss="mse")

    def forward(self, x):
        return self.net(x)

    def compile(self, rate):
        super().compile(keras.optimizers.SGD(rate), **FAST)


def test_a_system_with_its_own_compile_is_loaded_for_it_to_compile(tmp_path):
    system = OwnSystem()
    system.compile(0.5)
    system.setup((X, Y)).save(tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="not called as part of model loading"):
        loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert_equal(loaded.get_weights(), system.get_weights())
    loaded.compile(0.25)
    loaded.fit(X, Y, verbose=0)
    assert float(loaded.optimizers["net"].learning_rate) == 0.25


def test_what_the_model_has_not_is_never_dropped(tmp_path):
    class Counter(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), dtype="int32", trainable=False, name="count")

        def call(self, x):
            return x

    class Counted(ml.MLModel):
        def __init__(self):
            super().__init__(name="net")
            self.again, self.last, self.counter = layers.Dense(3), layers.Dense(1), Counter()

        def call(self, x):
            return self.counter(self.last(self.again(x)))

    source = Counted()
    source(X)
    source.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match=r"counter: is in the file alone"):
        model(ml.MLModel, ("again", "last")).load_weights(tmp_path / "a.weights.h5")

    class Two(ml.MLModel):
        def __init__(self):
            super().__init__(name="net")
            self.first, self.again, self.last = (layers.Dense(n) for n in (3, 3, 1))

        def call(self, x):
            return self.last(self.again(self.first(x)))

    source = Two()
    source(X)
    source.save_weights(tmp_path / "b.weights.h5")
    with pytest.raises(ValueError, match=r"(first|again): is in the file alone"):
        model(ml.MLModel, ("again", "first", "last"), None).load_weights(tmp_path / "b.weights.h5")
