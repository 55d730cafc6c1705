"""What happens in a notebook: rerun cells, wrong names, wrong data, prints in losses."""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, Target, number, ones

import mlsystem as ml

X, Y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")


def model(**given):
    return ml.MLModel(layers.Dense(1), loss="mse", **given)


# Files ----------------------------------------------------------------------------------------


def cell(module, base=Scale, factor=1.0):
    """A class as a cell of a notebook defines it."""

    def forward(self, x):
        return factor * x * self.weight

    return type("Cell", (base,), {"forward": forward, "__module__": module, "__qualname__": "Cell"})


class Undecorated(Pair):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return {**super().forward(x), "part": self.part(x)}


@pytest.mark.once
def test_a_class_needs_no_decorator_and_a_rerun_cell_replaces_it(tmp_path):
    path = tmp_path / "system.keras"
    system = Undecorated(cell("__main__")()).setup(ones())
    system.part.weight.assign(3.0)
    system.save(path)
    assert number(keras.saving.load_model(path).part.weight) == 3.0
    again = cell("__main__", factor=2.0)
    loaded = keras.saving.load_model(path)
    assert type(loaded.part) is again and number(ops.mean(loaded.part(ones()))) == 6.0


@pytest.mark.once
def test_custom_objects_come_before_a_registered_class(tmp_path):
    path = tmp_path / "system.keras"
    Undecorated(cell("__main__")()).setup(ones()).save(path)
    other = type("Other", (Undecorated,), {})
    loaded = keras.saving.load_model(path, custom_objects={"Undecorated": other, "Cell": Scale})
    assert type(loaded) is other and type(loaded.part) is Scale
    assert type(keras.saving.load_model(path)) is Undecorated


@pytest.mark.once
def test_custom_objects_may_swap_classes_and_have_a_from_config_of_their_own():
    class Own(Scale):
        @classmethod
        def from_config(cls, config):
            return cls(**config)

    first, second = (type(n, (Scale,), {"__module__": "swapped"}) for n in ("First", "Second"))
    made = keras.saving.serialize_keras_object(first())
    for custom in ({"First": second, "Second": first}, {"First": Own}):
        loaded = keras.saving.deserialize_keras_object(made, custom_objects=custom)
        assert type(loaded) is custom["First"]
    # as in Keras, a class with a decorator comes before another one with the same name
    own = keras.saving.register_keras_serializable("own")(cell("swapped"))
    made = keras.saving.serialize_keras_object(own())
    loaded = keras.saving.deserialize_keras_object(made, custom_objects={"Cell": Scale})
    assert type(loaded) is own


@pytest.mark.once
def test_names_of_registered_classes():
    first, second = cell("one"), cell("two")
    names = [keras.saving.get_registered_name(cls) for cls in (first, second)]
    assert names == ["one>Cell", "two>Cell"]
    assert [keras.saving.get_registered_object(name) for name in names] == [first, second]
    own = keras.saving.register_keras_serializable("own")(cell("three"))
    assert keras.saving.get_registered_name(own) == "own>Cell"
    # what a script saved is found in the one module that defines it
    only = type("Only", (Scale,), {"__module__": "four", "__qualname__": "Only"})
    assert keras.saving.get_registered_object("__main__>Only") is only


@pytest.mark.once
def test_a_functional_model_does_not_replace_its_class():
    cls = type("Given", (ml.MLModel,), {"__module__": "five", "__qualname__": "Given"})
    inputs = keras.Input((3,))
    cls(inputs, layers.Dense(1)(inputs))
    assert keras.saving.get_registered_object("five>Given") is cls


@pytest.mark.once
def test_a_class_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "system.keras"
    gone = type("Gone", (Scale,), {"__module__": "gone", "__qualname__": "Gone"})
    Undecorated(gone()).setup(ones()).save(path)
    known = keras.saving.get_custom_objects()
    kept = {name: known.pop(name) for name in ("gone>Gone", "__main__>Gone")}
    try:
        with pytest.raises(ValueError, match=r"class 'Gone', which is not known.*Import") as error:
            keras.saving.load_model(path)
    finally:
        known.update(kept)
    assert len(str(error.value)) < 300


# Names ----------------------------------------------------------------------------------------

TAKEN = {
    "loss": "mse",
    "optimizer": "adam",
    "log": 1,
    "update": 7,
    "gradients": None,
    "configure_optimizer": keras.optimizers,
}


@pytest.mark.once
@pytest.mark.parametrize("name, value", TAKEN.items(), ids=TAKEN)
def test_a_value_in_the_place_of_a_method(name, value):
    for learner in (Scale(), Pair()):
        with pytest.raises(AttributeError, match=f"`{name}`.*Give it|`{name}`.*another name"):
            setattr(learner, name, value)


@pytest.mark.once
def test_a_loss_may_name_as_little_as_it_needs():
    class Free(Scale):
        def loss(self, outputs, *, y):
            return ops.mean((outputs - y) ** 2)

    class Own(Scale):
        def loss(self, a, b, c):
            return ops.mean((c - b) ** 2)

    class Sum(Pair):
        def compute_losses(self, outputs):
            return {"all": ops.mean(outputs["b"])}

    for learner, y, expected in (
        (Free(3.0), ones(), 4.0),
        (Own(3.0), ones(), 4.0),
        (Sum(), None, 2.0),
    ):
        learner.compile(run_eagerly=True)
        logs = learner.test_on_batch(ones(), y, return_dict=True)
        assert logs["loss"] == pytest.approx(expected)

    class OfKeras(Scale):
        def loss(self, y_true, y_pred, sample_weight=None):
            return ops.mean(y_true)

    with pytest.raises(TypeError, match=r"OfKeras.loss takes \(y_true, y_pred, .*`x, y, outputs"):
        OfKeras().fit(ones(), ones(), verbose=0)


@pytest.mark.once
def test_models_are_named_after_their_attribute():
    class Named(Pair):
        def __init__(self):
            super().__init__()
            self.heads = [Scale()]
            self.given = Scale(name="mine")
            self.heads.append(Scale())

        def forward(self, x):
            x = self.given(super().forward(x)["b"])
            return {"a": x, "b": self.heads[1](self.heads[0](x))}

    system = Named().setup(ones())
    names = [system.a.name, system.heads[0].name, system.heads[1].name, system.given.name]
    assert names == ["a", "heads_0", "heads_1", "mine"]


@pytest.mark.once
def test_the_package_lists_public_names_only():
    assert [name for name in dir(ml) if name[0] != "_"] == sorted(ml.__all__)


# Members, data and threads --------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("name, value", [("a", Target()), ("c", Target()), ("d", [Target()])])
def test_a_member_set_after_fit(name, value):
    pair = Pair().setup(ones())
    with pytest.raises(RuntimeError, match=rf"`{name}`. Make a new Pair.*keep their weights"):
        setattr(pair, name, value)


DATA = {
    "list": ([1.0, 2.0], "is a list of numbers.*np.array"),
    "rows": (X.tolist(), "is a list of numbers"),
    "text": ("digits.csv", "holds text"),
    "texts": (["a", "b"], "holds text"),
    "objects": (np.array([[1, 2], [3]], dtype=object), "holds text, or objects"),
}


@pytest.mark.once
@pytest.mark.parametrize("x, message", DATA.values(), ids=DATA)
def test_what_is_no_array(x, message):
    with pytest.raises(ValueError, match=message):
        model().fit(x, verbose=0)
    with pytest.raises(ValueError, match=message.replace("x ", "y ", 1).replace("(x", "(y")):
        model().fit(X, x, verbose=0)


@pytest.mark.once
def test_two_threads_with_one_system():
    found = []

    def second(batch, logs):
        def run():
            with pytest.raises(RuntimeError, match=r"'pair.*another thread") as error:
                pair.train_on_batch(ones())
            found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    pair = Pair()
    pair.compile(run_eagerly=True)
    pair.fit(
        ones(), verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=second)]
    )
    assert len(found) == 1
    pair.fit(ones(), verbose=0)


# Run eagerly ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
def test_numbers_can_be_read_in_an_eager_step(capsys):
    class Reading(Scale):
        def forward(self, x):
            print("x", float(np.mean(ops.convert_to_numpy(x))))
            return x * self.weight

        def loss(self, x, y, outputs):
            loss = ops.mean((outputs - 3.0) ** 2)
            print("loss", float(loss), loss)
            return loss

        def train_step(self, data):
            _, losses = self.update(data)
            print("step", *map(float, losses.values()))
            return self.get_metrics_result()

    reading = Reading(1.0)
    reading.compile(optimizer="sgd", run_eagerly=True)
    reading.fit(ones(), verbose=0)
    assert capsys.readouterr().out.count("step 4.0\n") == 2  # the rehearsal, and the step


def test_another_width_after_fit_gives_the_error_of_keras():
    trained = model()
    trained.fit(X, Y, verbose=0)
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(ValueError, match="incompatible with the layer"):
            trained.fit(X[:, :2], Y, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="whose tensors have no numbers")
def test_numpy_in_forward():
    class WithNumpy(Scale):
        def forward(self, x):
            return np.asarray(x) * self.weight

    with pytest.raises(TypeError, match=r"computes with NumPy.*keras.ops"):
        WithNumpy(loss="mse").fit(ones(), ones(), verbose=0)
