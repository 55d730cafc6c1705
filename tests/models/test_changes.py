"""What changes around a step: callbacks, freezing, new routings, mixins, files."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, Target, TinyGAN, approx, number, ones

import mlsystem as ml


def weights(system):
    return {name: number(model.weight) for name, model in system._mlsystem.models().items()}


def test_callbacks_set_all_learning_rates_in_proportion():
    gan = TinyGAN()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    plateau = keras.callbacks.ReduceLROnPlateau("generator_loss", patience=100, mode="min")
    gan.fit(ones(), epochs=2, verbose=0, callbacks=[halve, plateau])
    rates = {name: number(o.learning_rate) for name, o in gan.optimizers.items()}
    assert rates == approx({"generator": 0.1 / 4, "discriminator": 0.01 / 4})


def test_learning_rates_keep_their_proportions_through_zero():
    gan = TinyGAN().setup(ones())
    gan.optimizer.learning_rate = 0.0
    gan.optimizer.learning_rate = 1.0
    assert number(gan.optimizers["discriminator"].learning_rate) == approx(0.1)


def test_a_new_routing_holds_from_the_next_fit_and_keeps_the_optimizers():
    pair = Pair()
    pair.compile(optimizer="adam")
    pair.fit(ones(), verbose=0)
    optimizer = pair.optimizer
    pair.routing = {"a": {"a": 1.0}, "b": {"b": -1.0}}
    before = number(pair.b.weight)
    pair.fit(ones(), verbose=0)
    assert number(pair.b.weight) < before  # up its loss, which it went down before
    assert pair.optimizer is optimizer and number(optimizer.iterations) == 2
    pair.routing = {"a": {"a": 1.0}, "b": {"c": 1.0}}
    with pytest.raises(ValueError, match="'c'"):
        pair.fit(ones(), verbose=0)


def test_the_epoch_logs_hold_a_loss_that_the_last_batch_did_not_update():
    gan = TinyGAN()
    gan.phases, gan.update_every = ["discriminator", "generator"], {"generator": 2}
    history = gan.fit(ones(12), batch_size=4, verbose=0).history
    assert set(history) >= {"loss", "generator_loss", "discriminator_loss"}


def test_evaluate_gives_the_loss_first():
    pair = Pair()
    assert pair.evaluate(ones(), verbose=0)[0] == approx(13.0)


class Doubling:
    """A mixin with a forward and a step of its own."""

    def forward(self, x):
        return {"a": 2 * self.a(x), "b": self.b(x)}

    def train_step(self, data):
        self.update(data)
        self.update(data)
        return self.get_metrics_result()


def test_a_mixin_brings_forward_and_step():
    class Mixed(Doubling, Pair):
        pass

    pair = Mixed(a=1.0, goals=(3.0, 2.0))
    pair.fit(ones(), verbose=0)
    w = 1.0
    for _ in range(2):
        w -= 0.1 * 2 * (2 * w - 3) * 2
    assert number(pair.a.weight) == approx(w)
    assert number(pair.optimizer.iterations) == 1


class Activity(layers.Layer):
    def call(self, x):
        self.add_loss(ops.mean(x**2))
        return x


def test_layers_without_weights_and_nested_systems_lose_no_regularization():
    class Inner(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.a = Scale(1.0)

        def forward(self, x):
            return self.a(x)

    class Outer(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.inner = Inner()
            self.activity = Activity()

        def forward(self, x):
            return self.activity(self.inner(x))

        def compute_losses(self, x, y, outputs):
            return {"all": ops.mean(outputs)}

    system = Outer()
    logs = system.train_on_batch(ones(), return_dict=True)
    assert logs == approx({"loss": 2.0, "all_loss": 1.0, "self_loss": 1.0})
    assert number(system.inner.a.weight) == approx(1 - 0.1 * (1 + 2))


def test_regularizers_of_an_overridden_compute_loss_count_once():
    class Own(ml.MLModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, y, y_pred, sample_weight, training)

    class System(ml.MLSystem):
        def __init__(self):
            super().__init__()
            dense = layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2")
            self.a = Own(dense, loss="mse")

        def forward(self, x):
            return self.a(x)

    assert System().evaluate(ones(), ones(), verbose=0)[0] == approx(0.01)


def test_a_routing_variable_of_a_nested_system_is_no_constant():
    weight = keras.Variable(1.0, trainable=False)

    class Outer(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.pair = Pair()
            self.pair.routing = {"a": {"a": weight}, "b": {"b": weight}}

        def forward(self, x):
            return {"pair": self.pair(x)}

    system = Outer()
    system.train_on_batch(ones())
    before = number(system.pair.a.weight)
    weight.assign(0.0)
    system.train_on_batch(ones())
    assert number(system.pair.a.weight) == before


def test_a_model_with_a_net_is_saved_and_loaded(tmp_path):
    model = ml.MLModel(keras.Sequential([layers.Dense(2)]), loss="mse", metrics=["mae"])
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, y, verbose=0) == approx(model.evaluate(x, y, verbose=0))
    loaded.fit(x, y, verbose=0)
    assert number(loaded.optimizer.iterations) == 2


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    try:
        pair = Pair()
        pair.compile(optimizer=keras.optimizers.SGD(0.01))
        pair.fit(ones(160), batch_size=4, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = policy == "mixed_float16"
    kinds = {isinstance(o, keras.optimizers.LossScaleOptimizer) for o in pair.optimizers.values()}
    assert kinds == {scaled}
    # the first updates of a model overflow, until its own scale has come down
    skipped = {n: 40 - number(o.iterations) for n, o in pair.optimizers.items()}
    assert scaled == (0 < skipped["b"] < skipped["a"] < 10)
    a, b = 1.0, 2.0
    for step in range(40):
        da, db = 2 * (a - 3) + 2 * (a * b - 5) * b, 2 * (a * b - 5) * a
        a -= 0.01 * da * (step >= skipped["a"])
        b -= 0.01 * db * (step >= skipped["b"])
    assert weights(pair) == pytest.approx({"a": a, "b": b}, rel=0.02)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: setattr(Pair(), "update", Scale()), "cannot be called 'update'"),
        (lambda: setattr(Scale(), "key", "mine"), "`key`"),
    ],
)
@pytest.mark.once
def test_names_that_are_taken(make, message):
    with pytest.raises((ValueError, AttributeError), match=message):
        make()


def test_a_step_that_returns_nothing_and_a_system_without_models():
    class Silent(Pair):
        def train_step(self, data):
            self.update(data)

    class Empty(ml.MLSystem):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r"Silent\.train_step returned None"):
        Silent().fit(ones(), verbose=0)
    with pytest.raises(ValueError, match="Empty has no models"):
        Empty().fit(ones(), verbose=0)


def test_an_optimizer_of_another_model_is_refused():
    optimizer = keras.optimizers.SGD(0.1)
    first, second = Pair(), Pair()
    first.a = Target(optimizer=optimizer)
    second.a = Target(optimizer=optimizer)
    first.fit(ones(), verbose=0)
    with pytest.raises(ValueError, match="optimizer of 'a'"):
        second.fit(ones(), verbose=0)
