"""Freezing and thawing models in the middle of training, without compiling anew."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, TinyGAN, approx, number, ones

import mlsystem as ml


def at(batches, do):
    """A callback that does something before some batches of the fit, by their number."""
    return keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: do(batches[batch]) if batch in batches else None
    )


def fit(system, batches, *callbacks, **kwargs):
    x = np.ones((batches, 1), "float32")
    return system.fit(x, batch_size=1, verbose=0, callbacks=list(callbacks), **kwargs)


def weights(gan):
    return number(gan.generator.weight), number(gan.discriminator.weight)


def worked(batches, frozen):
    """`TinyGAN` with momentum 0.5 for the generator, by hand; frozen(seen) names what rests."""
    g, d, m, steps = 2.0, 3.0, 0.0, 0
    for seen in range(batches):
        new_d = d - 0.01 * (g - 1) * (frozen(seen) != "discriminator")
        if frozen(seen) != "generator":
            m, steps = 0.5 * m + 0.1 * d, steps + 1
            g += m
        d = new_d
    return g, d, steps


def momentum(**given):
    gan = TinyGAN()
    for name, value in given.items():
        setattr(gan, name, value)
    gan.compile(optimizer={"generator": keras.optimizers.SGD(0.1, momentum=0.5)})
    return gan


def set_generator(gan, trainable):
    gan.generator.trainable = trainable


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"routing": {"generator": {"generator": 1.0}, "discriminator": {"discriminator": 1.0}}},
        {"phases": [("generator", "discriminator")], "update_every": {"generator": 1}},
    ],
    ids=["own", "table", "phases"],
)
@pytest.mark.spread
def test_a_callback_freezes_and_thaws(given):
    gan = momentum(**given)
    history = fit(gan, 6, at({2: False, 4: True}, lambda on: set_generator(gan, on)))
    g, d, steps = worked(6, lambda seen: "generator" if seen in (2, 3) else None)
    assert weights(gan) == approx((g, d))
    assert number(gan.optimizers["generator"].iterations) == steps == 4
    assert history.history["generator_learning_rate"] == approx([0.1])


def test_what_is_frozen_first_gets_an_optimizer_when_it_is_thawed():
    gan = momentum()
    gan.generator.trainable = False
    gan.setup(ones())
    assert list(gan.optimizers) == ["discriminator"]
    fit(gan, 5, at({2: True}, lambda on: set_generator(gan, on)))
    assert weights(gan) == approx(worked(5, lambda seen: "generator" if seen < 2 else None)[:2])
    assert list(gan.optimizers) == ["generator", "discriminator"]
    assert number(gan.optimizers["generator"].iterations) == 3


def test_freezing_between_fits_and_in_train_on_batch():
    gan = momentum()
    fit(gan, 2)
    gan.generator.trainable = False
    fit(gan, 1)
    gan.train_on_batch(ones(1))
    gan.generator.trainable = True
    gan.train_on_batch(ones(1))
    assert weights(gan) == approx(
        worked(5, lambda seen: "generator" if seen in (2, 3) else None)[:2]
    )


def test_a_frozen_model_is_left_out_of_steps_of_ones_own():
    class Own(TinyGAN):
        def train_step(self, data):
            self.update(data, models=("generator",))
            self.update(data, models=("discriminator",))
            return self.get_metrics_result()

    gan = Own()
    gan.generator.trainable = False
    fit(gan, 2)
    assert weights(gan) == approx((2.0, 3.0 - 2 * 0.01))


def test_a_thawed_model_without_a_row_is_an_error():
    gan = TinyGAN()
    gan.routing = {"discriminator": {"discriminator": 1.0}}
    gan.generator.trainable = False
    with pytest.raises(ValueError, match="no row for 'generator'"):
        fit(gan, 3, at({1: True}, lambda on: set_generator(gan, on)))


class Tuned(ml.MLSystem):
    """A body with momentum and a head on it, both one weight of one: down 0.5 (body head x)^2."""

    def __init__(self):
        super().__init__()
        one = {"kernel_initializer": "ones", "use_bias": False}
        self.body = layers.Dense(1, **one, name="body")
        net = keras.Sequential([layers.Input((1,)), self.body, layers.Dense(1, **one)])
        self.model = ml.MLModel(net, optimizer=keras.optimizers.SGD(0.1, momentum=0.5))

    def __setattr__(self, name, value):
        if name == "body":  # a part of the model, and no member
            self.__dict__["body"] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x):
        return self.model(x)

    def compute_losses(self, x, y, outputs):
        return {"half": 0.5 * ops.mean(outputs**2)}


def worked_tuning(batches, thawed):
    body, head, m_body, m_head = 1.0, 1.0, 0.0, 0.0
    for seen in range(batches):
        into_body, into_head = body * head**2, head * body**2
        m_head = 0.5 * m_head - 0.1 * into_head
        if seen in thawed:
            m_body = 0.5 * m_body - 0.1 * into_body
            body += m_body
        head += m_head
    return body, head


def numbers(tuned):
    return tuple(float(value.item()) for value in tuned.model.net.get_weights())


@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_a_part_of_a_model_is_thawed_and_the_rest_keeps_its_momentum(eager):
    tuned = Tuned()
    tuned.compile(run_eagerly=eager)
    tuned.body.trainable = False
    turns = {2: True, 4: False, 5: True}
    fit(tuned, 7, at(turns, lambda on: setattr(tuned.body, "trainable", on)))
    assert numbers(tuned) == approx(worked_tuning(7, thawed=(2, 3, 5, 6)))
    assert number(tuned.optimizers["model"].iterations) == 7


@pytest.mark.parametrize("frozen_again", [False, True])
def test_a_thawed_system_resumes_exactly(tmp_path, frozen_again):
    def turn():  # frozen at first; thawed in the second epoch
        tuned = Tuned()
        tuned.body.trainable = False
        return tuned

    def callbacks(tuned):
        def thaw(epoch, logs):
            if epoch == 1:
                tuned.body.trainable = True
            if epoch == 2 and frozen_again:
                tuned.body.trainable = False

        return keras.callbacks.LambdaCallback(on_epoch_begin=thaw)

    whole = turn()
    fit(whole, 2, callbacks(whole), epochs=5)
    first = turn()
    fit(first, 2, callbacks(first), ml.callbacks.Checkpoint(tmp_path), epochs=3)
    second = turn()
    again = ml.callbacks.Checkpoint(tmp_path)
    fit(second, 2, callbacks(second), again, epochs=5, resume=tmp_path)
    assert numbers(second) == numbers(whole)
    thawed = (2, 3) if frozen_again else range(2, 10)
    assert numbers(whole) == approx(worked_tuning(10, thawed))


@pytest.mark.parametrize("thawed", [True, False])
def test_a_system_that_was_frozen_or_thawed_is_saved_whole(tmp_path, thawed):
    pair = keras.saving.register_keras_serializable("test_frozen")(SavedPair)()
    pair.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.5))
    pair.a.trainable = not thawed
    fit(pair, 2)
    pair.a.trainable = thawed
    fit(pair, 2)
    pair.save(tmp_path / "pair.keras")
    loaded = keras.saving.load_model(tmp_path / "pair.keras")
    assert loaded.a.trainable == thawed
    for system in (pair, loaded):
        fit(system, 2)
        system.a.trainable = True
        fit(system, 2)
    assert number(loaded.a.weight) == number(pair.a.weight)
    assert number(loaded.b.weight) == number(pair.b.weight)


class SavedPair(Pair):
    pass


def test_batch_norm_of_a_frozen_layer_rests():
    class Normed(ml.MLSystem):
        def __init__(self):
            super().__init__()
            norm = layers.BatchNormalization(momentum=0.5)
            self.net = ml.MLModel(keras.Sequential([norm, layers.Dense(1)]), loss="mse")

        def forward(self, x, training=None):
            return self.net(x, training=training)

    system = Normed().setup((ones(), ones()))
    norm = system.net.net.layers[0]
    x = 3 * np.ones((4, 1), "float32")

    def mean():
        return number(norm.moving_mean[0])

    turns = {1: False, 3: True}
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(mean())
    )
    freeze = at(turns, lambda on: setattr(norm, "trainable", on))
    system.fit(x, x, batch_size=1, verbose=0, callbacks=[freeze, note])
    assert seen == approx([1.5, 1.5, 1.5, 2.25])
