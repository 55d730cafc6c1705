"""Weights that no loss reaches are left alone: no weight decay, no momentum."""

import keras
import pytest
from keras import ops
from toys import Scale, number, ones

import mlsystem as ml


class Partly(ml.MLModel):
    """w x, beside a weight that nothing depends on."""

    def __init__(self, optimizer=None, **kwargs):
        super().__init__(optimizer=optimizer, **kwargs)
        self.used, self.unused = (
            self.add_weight(shape=(), initializer="ones", name=n) for n in ("used", "unused")
        )

    def forward(self, x):
        return x * self.used

    def loss(self, x, y, outputs):
        return ops.mean(outputs)

    def values(self):
        return [number(self.used), number(self.unused)]


class Alone(ml.MLSystem):
    def __init__(self, optimizer):
        super().__init__()
        self.model = Partly(optimizer)

    def forward(self, x):
        return self.model(x)


def adamw(**given):
    return keras.optimizers.AdamW(0.1, weight_decay=0.5, epsilon=1e-12, **given)


def averaged():
    return adamw(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=10)


OPTIMIZERS = {
    "plain": adamw,
    "clipped": lambda: adamw(global_clipnorm=0.5),
    "averaged": averaged,
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(adamw()),
    "factor": lambda: adamw(loss_scale_factor=8.0),
    "accumulated": lambda: adamw(gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.spread
def test_what_is_not_reached_does_not_decay(optimizer):
    # Decayed by 0.1 * 0.5, and then moved by the learning rate, as by the first step of Adam.
    system = Alone(OPTIMIZERS[optimizer]())
    batches = 2 if optimizer == "accumulated" else 1
    system.fit(ones(4 * batches), batch_size=4, verbose=0)
    assert system.model.values() == pytest.approx([0.85, 1.0], rel=1e-5)
    if optimizer == "averaged":
        [_, average] = system.optimizers["model"]._model_variables_moving_average
        assert number(average) == pytest.approx(1.0)


def test_a_model_alone_leaves_it_alone_as_keras_does():
    model = Partly(adamw())
    model.compile(adamw(), run_eagerly=True)
    model.fit(ones(), verbose=0)
    assert model.values() == pytest.approx([0.85, 1.0], rel=1e-5)


class Steps(Alone):
    """A step that is given as a function."""

    def __init__(self, optimizer, step):
        super().__init__(optimizer)
        self.step = step

    def train_step(self, data):
        self.step(self, data)
        return self.get_metrics_result()


def zeros_applied(self, data):
    self.apply_gradients(self.gradients(data))


def nones_applied(self, data):
    self.apply_gradients({"model": [self.gradients(data)["model"][0], None]})


def numbers_applied(self, data):
    self.apply_gradients({"model": [2 * g for g in self.gradients(data)["model"]]})


@pytest.mark.parametrize(
    ("step", "unused"), [(zeros_applied, 1.0), (nones_applied, 1.0), (numbers_applied, 0.95)]
)
def test_gradients_that_are_handed_over(step, unused):
    system = Steps(adamw(), step)
    system.fit(ones(), verbose=0)
    assert system.model.values() == pytest.approx([0.85, unused], rel=1e-5)


def nothing_applied(self, data):
    self.update(data)
    self.apply_gradients({"model": [None, None]})


def test_a_model_without_any_gradient_is_left_alone():
    system = Steps(keras.optimizers.SGD(0.1, momentum=0.9), nothing_applied)
    system.fit(ones(), verbose=0)
    assert system.model.values() == pytest.approx([0.9, 1.0])
    assert int(system.optimizers["model"].iterations) == 1


def test_the_public_gradients_are_zeros():
    system = Alone(adamw()).setup(ones())
    assert [number(g) for g in system.gradients(ones())["model"]] == [1.0, 0.0]


class Half(ml.MLSystem):
    """A model that a loss reaches, and one that none reaches, with a copy that follows it."""

    def __init__(self):
        super().__init__()
        self.reached = Scale(1.0, adamw())
        self.lost = Scale(1.0, adamw())
        self.copy = ml.EMA(self.lost, 0.5)

    def forward(self, x):
        self.copy(x)
        self.lost(x)
        return self.reached(x)

    def compute_losses(self, x, y, outputs):
        return {"reached": ops.mean(outputs)}


@pytest.mark.parametrize("scaled", [False, True])
def test_a_model_that_no_loss_reaches_is_left_alone(scaled):
    system = Half()
    if scaled:
        system.compile(
            {n: keras.optimizers.LossScaleOptimizer(adamw()) for n in ("reached", "lost")}
        )
    with pytest.warns(UserWarning, match="'lost' follows depends on it, so it will not learn"):
        history = system.fit(ones(), verbose=0).history
    assert number(system.reached.weight) == pytest.approx(0.85, rel=1e-5)
    assert number(system.lost.weight) == 1.0
    assert [int(system.optimizers[n].iterations) for n in ("reached", "lost")] == [1, 0]
    assert int(system.copy.updates) == 0
    assert history["reached_loss"] == [pytest.approx(1.0)]


def in_turn(self, data):
    self.minimize(lambda: 2.0 * self.model.used, "model", name="first")
    self.minimize(lambda: 4.0 * self.model.unused, "model", name="second")


def test_losses_that_reach_weights_in_turn_are_all_accumulated():
    # Each weight has its gradient in one of two batches: half of it is the mean.
    system = Steps(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), in_turn)
    system.fit(ones(8), batch_size=4, verbose=0)
    assert system.model.values() == pytest.approx([1 - 2 * 0.1, 1 - 2 * 0.2], rel=1e-5)


def dict_applied(self, data):
    self.apply_gradients({"model": list(self.gradients(data)["model"])})


def test_zeros_that_stand_for_none_are_known_in_another_dict():
    system = Steps(keras.optimizers.SGD(0.1, weight_decay=0.5), dict_applied)
    system.fit(ones(8), batch_size=4, verbose=0)
    used, unused = system.model.values()
    assert unused == 1.0
    assert used < 1.0


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has it since 3.15"
)
def test_an_optimizer_made_of_several_gets_gradients_for_all_weights():
    kinds = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.1), {".*unused": keras.optimizers.SGD(0.2)}
    )
    system = Alone(keras.optimizers.MultiOptimizer(kinds))
    system.fit(ones(4), batch_size=4, verbose=0)
    assert system.model.values() == pytest.approx([0.9, 1.0])


def test_a_gradient_of_another_shape_is_refused():
    def swapped(self, data):
        self.apply_gradients({"model": [ops.ones((1,)), None]})

    with pytest.raises(ValueError, match=r"shape \(1,\) for the weight '.*used' of 'model'"):
        Steps(adamw(), swapped).fit(ones(), verbose=0)
