"""What is set on a system in the middle of `fit` does not stop the training."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
from keras import ops
from toys import Pair, number, ones

import mlsystem as ml

EAGER = [{}, {"run_eagerly": True}]


class Sets(keras.callbacks.Callback):
    """Sets an attribute of the system that might hold models."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.seen = [epoch]


class Remembers(Pair):
    """Sets such an attribute in its forward pass."""

    def forward(self, x):
        outputs = super().forward(x)
        self.shapes = [tuple(outputs["a"].shape)]
        return outputs


def history(system, given, callbacks=()):
    system.compile(**given)
    system.update_every = {"b": 2}
    return system.fit(ones(), batch_size=2, epochs=3, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.parametrize("given", EAGER)
def test_a_list_that_is_set_changes_nothing(given):
    plain = history(Pair(), given)
    assert history(Pair(), given, [Sets()]) == plain
    assert history(Remembers(), given) == plain


class Outer(ml.MLSystem):
    """A system around another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"inner": self.inner(x)}


def test_a_nested_system_that_is_compiled_again_keeps_its_losses():
    inner = Pair()
    outer = Outer(inner).setup(ones())
    first = set(outer.fit(ones(), verbose=0).history)
    inner.compile()
    assert set(outer.fit(ones(), batch_size=2, verbose=0).history) == first


class Looks(Pair):
    """Lets another thread look at the logs in the middle of a step."""

    def train_step(self, data):
        self.update(data, "a")
        thread = threading.Thread(target=self.get_metrics_result)
        thread.start()
        thread.join()
        self.update(data, "b")
        return self.get_metrics_result()


@pytest.mark.once
def test_another_thread_may_look_at_the_logs_of_a_step():
    system = Looks()
    system.compile(run_eagerly=True)
    logs = system.fit(ones(), verbose=0).history
    assert logs["loss"] == [pytest.approx(logs["a_loss"][0] + logs["b_loss"][0])]


@pytest.mark.once
def test_compute_loss_of_a_system_is_the_sum_of_its_losses():
    pair = Pair().setup(ones())
    x = ops.convert_to_tensor(ones())
    outputs = pair(x)
    assert number(pair.compute_loss(x, None, outputs)) == pytest.approx(
        number(pair.loss(x, None, outputs))
    )


class Counts(keras.layers.Layer):
    """Makes its state in its first call."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign(self.calls + 1.0)
        return x


class Late(ml.MLModel):
    """Calls a layer in training alone, and is never updated."""

    def __init__(self):
        super().__init__()
        self.dense, self.counts = keras.layers.Dense(1), Counts()

    def forward(self, x, training=None):
        outputs = self.dense(x)
        return self.counts(outputs) if training else outputs

    def loss(self, x, y, outputs):
        return ops.mean(outputs**2)

    def train_step(self, data):
        self.update(data, when=ops.mean(data) > 100.0)
        return self.get_metrics_result()


@pytest.mark.filterwarnings("ignore:`build")
def test_state_that_is_made_late_is_put_back_too():
    model = Late()
    model.fit(np.ones((4, 1), "float32"), batch_size=1, verbose=0)
    assert number(model.counts.calls) <= 1.0  # of the step in which it was made


@pytest.mark.once
def test_declarations_of_a_nested_system_are_refused_in_fit_too():
    class Declares(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.inner.update_every = {"b": 2}

    outer = Outer(Pair())
    with pytest.raises(RuntimeError, match="`update_every` of 'inner' was set in the middle of"):
        outer.fit(ones(), verbose=0, callbacks=[Declares()])
    outer.inner.update_every = {"b": 2}  # between two calls it may be set


@pytest.mark.once
def test_an_attribute_that_is_missing_before_the_constructor_ends_is_named():
    class Noted(ml.MLModel):
        def __setattr__(self, name, value):
            if name == "built":
                self.seen.append(name)
            super().__setattr__(name, value)

    with pytest.raises(AttributeError, match="'seen'") as error:
        Noted()
    assert "super" not in str(error.value)

    class Forgets(ml.MLModel):
        def __init__(self):
            print(self.weight)

    with pytest.raises(AttributeError, match=r"Forgets has no `weight` yet: `super\(\).*Call it"):
        Forgets()


@pytest.mark.once
def test_a_class_is_freed():
    class Freed(ml.MLModel):
        def forward(self, x):
            return super().forward(x)

    freed = weakref.ref(Freed)
    del Freed
    gc.collect()
    assert freed() is None
