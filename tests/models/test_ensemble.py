"""An ensemble: the same numbers as its members alone, one program for all of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import mlsystem as ml

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")
ROUND = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}


def net():
    hidden = layers.Dense(4, "relu", kernel_regularizer="l2")
    return keras.Sequential([hidden, layers.BatchNormalization(), layers.Dense(2)])


def adam():
    return keras.optimizers.Adam(0.01)


def numbers(model):
    return [np.array(value) for value in model.get_weights()]


def close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


def test_each_member_trains_as_if_it_were_alone(tmp_path):
    ensemble = ml.Ensemble(net(), 3, loss="mse", optimizer=adam())
    ensemble.setup((X[:8], Y[:8]))
    alone = list(ensemble.members)
    assert len({numbers(model)[0].tobytes() for model in alone}) == 3  # of their own weights
    weights = RNG.uniform(0.5, 2, size=24).astype("float32")
    history = ensemble.fit(X, Y, sample_weight=weights, **ROUND).history
    losses = 0
    for i, model in enumerate(alone):
        one = ml.MLModel(model, loss="mse", optimizer=adam())
        losses += np.array(one.fit(X, Y, sample_weight=weights, **ROUND).history["loss"])
        close(numbers(ensemble.members[i]), numbers(model))
    np.testing.assert_allclose(history["loss"], losses, 1e-5)
    outputs = ops.convert_to_numpy(ensemble(X))
    close(outputs, [ops.convert_to_numpy(model(X)) for model in alone])
    ensemble.save(path := tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(X)), outputs)


def test_each_member_gets_its_own_inputs():
    ensemble = ml.Ensemble(net(), 3)
    own = np.stack([X, 2 * X, -X])
    outputs = ops.convert_to_numpy(ensemble.each(own))
    close(outputs, [ops.convert_to_numpy(m(x)) for m, x in zip(ensemble.members, own, strict=True)])
    with pytest.raises(ValueError, match="3 members, and `each` got inputs of shape"):
        ensemble.each(own[:2])
    with pytest.raises(ValueError, match=r"got inputs .* Its first axis must be 3"):
        ensemble.each([X, 2 * X, -X])


def test_members_draw_noise_of_their_own():
    dropout = keras.Sequential([layers.Dense(8), layers.Dropout(0.5)])
    ensemble = ml.Ensemble(dropout, 3)
    ensemble(X)
    for i in range(3):
        ensemble.members[i] = ensemble.members[0]
    first, second = (ops.convert_to_numpy(ensemble(X, training=True)) for _ in range(2))
    still = ops.convert_to_numpy(ensemble(X))
    np.testing.assert_array_equal(still[0], still[1])
    assert (first != second).any() and (first[0] != first[1]).any()


class Population(ml.MLSystem):
    """Agents that follow a teacher, and their average."""

    def __init__(self):
        super().__init__()
        self.agents = ml.Ensemble(net(), 3, loss="mse", optimizer="sgd")
        self.average = ml.EMA(self.agents, 0.5)

    def forward(self, x):
        return {"agents": self.agents(x), "average": self.average(x)}


def test_an_ensemble_is_a_member_like_any_model():
    system = Population().setup((X[:8], {"agents": Y[:8]}))
    before = numbers(system.average)[0]
    history = system.fit(X, {"agents": Y}, **ROUND).history
    assert history["agents_loss"][-1] < history["agents_loss"][0]
    assert (numbers(system.average)[0] != before).any()


class Subclassed(keras.Model):
    """A network that is built by its first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(4, "relu"), layers.Dense(2)

    def call(self, x):
        return self.out(self.hidden(x))


@pytest.mark.parametrize("kind", [Subclassed, lambda: layers.Dense(2)])
def test_networks_that_are_built_by_their_first_call(kind):
    ensemble = ml.Ensemble(kind(), 3, loss="mse", optimizer="sgd")
    ensemble.fit(X, Y, **ROUND)
    outputs = ops.convert_to_numpy(ensemble(X))
    close([ops.convert_to_numpy(model(X)) for model in ensemble.members], outputs)
    assert len({output.tobytes() for output in outputs}) == 3
    assert keras.Sequential([layers.Dense(1)])(X).shape == (24, 1)  # other models are unharmed


def test_predict_keeps_the_members_first():
    ensemble = ml.Ensemble(net(), 3, loss="mse", optimizer="sgd")
    outputs = ops.convert_to_numpy(ensemble(X))
    close(ensemble.predict(X, batch_size=10, verbose=0), outputs)  # the last batch is smaller
    close(ensemble.predict_on_batch(X[:5]), outputs[:, :5])
    close(ops.convert_to_numpy(ensemble(X)), outputs)


def test_metrics_are_those_of_all_members():
    ensemble = ml.Ensemble(net(), 3, loss="mse", optimizer="sgd")
    weights = np.linspace(0, 1, 24, dtype="float32")
    ensemble.compile(metrics=["mae"], weighted_metrics=[keras.metrics.MeanSquaredError("mse")])
    ensemble.fit(X, Y, **ROUND)
    errors = ops.convert_to_numpy(ensemble(X)) - Y
    logs = ensemble.evaluate(X, Y, sample_weight=weights, batch_size=8, verbose=0, return_dict=True)
    assert logs["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    mean = np.average((errors**2).mean(-1).mean(0), weights=weights)
    assert logs["mse"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.once
def test_a_member_of_another_architecture_is_refused():
    ensemble = ml.Ensemble(net(), 3)
    ensemble(X)
    before = numbers(ensemble)
    narrow = keras.Sequential([layers.Dense(1), layers.BatchNormalization(), layers.Dense(2)])
    for other in (narrow, keras.Sequential([layers.Dense(4)])):
        other(X)
        with pytest.raises(ValueError, match="Give a model of the same architecture"):
            ensemble.members[0] = other
    close(numbers(ensemble), before, 0)


@pytest.mark.once
def test_a_member_can_be_set():
    ensemble = ml.Ensemble(net(), 3)
    with pytest.raises(ValueError, match="has no weights yet"):
        ensemble.members[0]
    ensemble(X)
    other = ensemble.members[2]
    ensemble.members[0] = other
    close(numbers(ensemble.members[0]), numbers(other), 0)
    assert len(ensemble.members) == 3
    with pytest.raises(IndexError):
        ensemble.members[3]


@pytest.mark.once
def test_a_member_of_another_architecture_changes_nothing():
    ensemble = ml.Ensemble(keras.Sequential([layers.Dense(2)]), 3)
    ensemble(X)
    before = numbers(ensemble)
    for layer in (layers.Dense(1), layers.Dense(2, use_bias=False)):  # the first would broadcast
        layer(X)
        with pytest.raises(ValueError, match="Give a model of the same architecture"):
            ensemble.members[0] = layer
    close(numbers(ensemble), before, 0)


@pytest.mark.once
def test_an_ensemble_that_was_only_called_is_saved(tmp_path):
    ensemble = ml.Ensemble(net(), 2)
    outputs = ops.convert_to_numpy(ensemble(X))
    ensemble.save(path := tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(X)), outputs)
    close(numbers(loaded.members[1]), numbers(ensemble.members[1]), 0)


@pytest.mark.once
def test_layers_are_frozen_before_the_first_call():
    net = keras.Sequential([layers.Dense(3), layers.Dense(3)])
    net.build((None, 3))
    net.layers[0].trainable = False
    ensemble = ml.Ensemble(net, 2, loss="mse", optimizer="sgd").setup((X, X))
    before = numbers(ensemble.members[1])
    ensemble.fit(X, X, verbose=0)
    after = numbers(ensemble.members[1])
    assert [(a == b).all() for a, b in zip(before, after, strict=True)] == [True] * 2 + [False] * 2
    net.layers[0].trainable = True  # the order of the weights of `net` is another one now
    for use in (lambda: ensemble(X), lambda: ensemble.members[0]):
        with pytest.raises(ValueError, match="were frozen or unfrozen after"):
            use()


@pytest.mark.once
@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (keras.optimizers.Lamb, "uses Lamb, which would mix the members"),
        (lambda: keras.optimizers.Adam(clipnorm=1.0), "uses clipnorm"),
        (lambda: keras.optimizers.Adam(global_clipnorm=1.0), "uses global_clipnorm"),
    ],
)
def test_optimizers_that_mix_members_are_refused(optimizer, says):
    with pytest.raises(ValueError, match=says):
        ml.Ensemble(net(), 2, loss="mse", optimizer=optimizer()).fit(X, Y, verbose=0)
    compiled = ml.Ensemble(net(), 2, loss="mse")
    compiled.compile(optimizer())
    with pytest.raises(ValueError, match=says):
        compiled.fit(X, Y, verbose=0)
    system = Population()
    system.compile({"agents": optimizer()})
    with pytest.raises(ValueError, match=says):
        system.fit(X, {"agents": Y}, verbose=0)


@pytest.mark.once
def test_what_cannot_be_an_ensemble():
    with pytest.raises(TypeError, match="Give the network of one member"):
        ml.Ensemble("net", 2)
    for net_of_mlsystem in (ml.MLModel(net()), ml.Ensemble(net(), 2), Population()):
        with pytest.raises(TypeError, match="Give the Keras network of one"):
            ml.Ensemble(net_of_mlsystem, 2)
    assert ml.Ensemble(net(), np.int64(2)).count == 2
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="number of members, from 1"):
            ml.Ensemble(net(), count)
    with pytest.raises(NotImplementedError, match="no loss"):
        ml.Ensemble(net(), 2).fit(X, Y, verbose=0)


class Sized(keras.Model):
    """A network whose argument has no config."""

    def __init__(self, size):
        super().__init__()
        self.dense = layers.Dense(len(size.items))

    def call(self, x):
        return self.dense(x)


@pytest.mark.once
def test_a_network_that_cannot_be_copied_is_refused():
    class Size:
        items = (1, 2)

    with pytest.raises(TypeError, match="its class Sized needs a"):
        ml.Ensemble(Sized(Size()), 2)
    alone = net()  # Keras would raise the error again, for any model
    alone.compile("sgd", "mse")
    alone.fit(X, Y, verbose=0)


@pytest.mark.once
@pytest.mark.parametrize("index", ["0", 1.0, None, True, slice(2), (0, 1)])
def test_an_index_of_another_type_is_refused(index):
    ensemble = ml.Ensemble(net(), 3)
    ensemble.build((None, 3))
    with pytest.raises(TypeError, match="is not the index of one member"):
        ensemble.members[index]
    with pytest.raises(TypeError, match="is not the index of one member"):
        ensemble.members[index] = net()
    assert ensemble.members[np.int64(1)].built


@pytest.mark.once
@pytest.mark.parametrize("model", [None, "net", [np.ones(3)], Sized])
def test_a_member_is_set_to_a_model_only(model):
    ensemble = ml.Ensemble(net(), 3)
    ensemble.build((None, 3))
    with pytest.raises(TypeError, match=r"members\[0\] of '.*' was set to \w+. Give a model"):
        ensemble.members[0] = model


@pytest.mark.once
def test_a_system_does_not_join_batches_along_the_members():
    system = Population().setup((X[:8], {"agents": Y[:8]}))
    with pytest.raises(ValueError, match=r"24 samples, and 'agents' has the shape \(9, 8, 2\)"):
        system.predict(X, batch_size=8, verbose=0)


def test_build_makes_the_weights_of_all_members():
    ensemble = ml.Ensemble(net(), 3)
    ensemble.build((None, 3))
    assert [tuple(w.shape) for w in ensemble.trainable_weights][:2] == [(3, 3, 4), (3, 4)]
    before = numbers(ensemble)
    found = [ops.convert_to_numpy(member(X)) for member in ensemble.members]
    close(ops.convert_to_numpy(ensemble(X)), found)
    close(numbers(ensemble), before, 0)


def two_outputs():
    x = keras.Input((3,))
    return keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])


def test_a_loss_without_targets_or_of_two_outputs_is_an_error():
    with pytest.raises(ValueError, match="and the data has no y"):
        ml.Ensemble(net(), 3, loss="mse").fit(X, verbose=0)
    with pytest.raises(ValueError, match="Give a network of one output, or override `loss`"):
        ml.Ensemble(two_outputs(), 3, loss="mse").fit(X, Y, verbose=0)


@pytest.mark.parametrize("index", [3, 99, -4])
def test_a_member_that_does_not_exist_is_named(index):
    ensemble = ml.Ensemble(net(), 3)
    ensemble.build((None, 3))
    with pytest.raises(IndexError, match=f"has 3 members, and members.{index}. does not exist"):
        ensemble.members[index]


@pytest.mark.once
def test_the_number_of_members_is_fixed():
    ensemble = ml.Ensemble(layers.Dense(1), 3)
    with pytest.raises(AttributeError, match="`count` of 'ensemble' is 3, and fixed"):
        ensemble.count = 5
    assert ensemble.count == 3 == len(ensemble.members)


# Learning rates and constraints of members -------------------------------------------------------

RATES = [0.0, 0.5, 2.0]
OPTIMIZERS = {
    "adam": lambda rate: keras.optimizers.Adam(0.01 * rate),
    "momentum": lambda rate: keras.optimizers.SGD(0.05 * rate, 0.9, nesterov=True),
    "decay": lambda rate: keras.optimizers.AdamW(0.01 * rate, weight_decay=0.1),
    "accumulation": lambda rate: keras.optimizers.Adam(0.01 * rate, gradient_accumulation_steps=2),
    "scaling": lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1 * rate)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.spread
def test_each_member_has_a_learning_rate_of_its_own(optimizer, tmp_path):
    make = OPTIMIZERS[optimizer]
    given = {"loss": "mse", "optimizer": make(1.0), "learning_rate_multipliers": RATES}
    ensemble = ml.Ensemble(net(), 3, **given)
    ensemble.setup((X[:8], Y[:8]))
    alone = list(ensemble.members)
    frozen = numbers(alone[0])[0]
    ensemble.fit(X, Y, **ROUND)
    for model, rate, member in zip(alone, RATES, ensemble.members, strict=True):
        ml.MLModel(model, loss="mse", optimizer=make(rate)).fit(X, Y, **ROUND)
        close(numbers(member), numbers(model))
    np.testing.assert_array_equal(numbers(ensemble.members[0])[0], frozen)
    ensemble.save(path := tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(path)
    for one in (ensemble, loaded):
        one.fit(X, Y, **ROUND)
    close(numbers(loaded), numbers(ensemble), 1e-6)


def test_a_member_of_a_system_has_its_own_rates_beside_other_models():
    class Beside(ml.MLSystem):
        def __init__(self, rates):
            super().__init__()
            given = {"loss": "mse", "optimizer": adam(), "learning_rate_multipliers": rates}
            self.ensemble = ml.Ensemble(net(), 2, **given)
            self.model = ml.MLModel(net(), loss="mse", optimizer=adam())

        def forward(self, x, training=None):
            model = self.model(x, training=training)
            return {"ensemble": self.ensemble(x, training=training), "model": model}

    def weights(rates):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        system = Beside(rates)
        system.routing = "own"
        system.fit(X, Y, **ROUND)
        return [*numbers(system.ensemble.members[0]), *numbers(system.model)]

    close(weights([1.0, 3.0]), weights(None), 1e-6)


@pytest.mark.once
@pytest.mark.parametrize(
    "given",
    [0.5, [1, 2], [1, 2, -1], [1, 2, "x"], [1, 2, np.nan], "123", {0: 1, 1: 2, 2: 3}, [True] * 3],
)
def test_multipliers_that_are_not_one_number_a_member_are_refused(given):
    with pytest.raises(ValueError, match=r"learning_rate_multipliers=.*Give a list of 3 numbers"):
        ml.Ensemble(net(), 3, learning_rate_multipliers=given)


@pytest.mark.once
@pytest.mark.parametrize(
    "optimizer, constraint, says",
    [
        (keras.optimizers.Ftrl(0.1), None, "its optimizer uses Ftrl"),
        (keras.optimizers.SGD(0.1, use_ema=True), None, "its optimizer uses use_ema"),
        ("sgd", "non_neg", "its weight .* has a constraint"),
    ],
)
def test_updates_that_are_no_multiples_of_the_rate_are_refused(optimizer, constraint, says):
    one = keras.Sequential([layers.Dense(2, kernel_constraint=constraint)])
    ensemble = ml.Ensemble(one, 2, "mse", optimizer, learning_rate_multipliers=[1, 2])
    with pytest.raises(ValueError, match=f"has learning_rate_multipliers, and {says}"):
        ensemble.fit(X, Y, verbose=0)


@pytest.mark.parametrize("kind", ["non_neg", "max_norm"])
def test_constraints_hold_for_each_member(kind):
    limit = keras.constraints.MaxNorm(0.3) if kind == "max_norm" else kind
    one = keras.Sequential([layers.Dense(4, kernel_constraint=limit), layers.Dense(2)])
    ensemble = ml.Ensemble(one, 3, "mse", "sgd")
    ensemble.setup((X[:8], Y[:8]))
    alone = list(ensemble.members)
    ensemble.fit(X, Y, **ROUND)
    for model, member in zip(alone, ensemble.members, strict=True):
        ml.MLModel(model, loss="mse", optimizer="sgd").fit(X, Y, **ROUND)
        close(numbers(member), numbers(model))


@pytest.mark.once
def test_rates_of_weights_in_sixteen_bits_are_refused():
    half = keras.Sequential([layers.Dense(2, dtype="bfloat16")])
    ensemble = ml.Ensemble(half, 2, "mse", "sgd", learning_rate_multipliers=[1, 2])
    with pytest.raises(ValueError, match=r"its weight .* is stored as bfloat16"):
        ensemble.fit(X, Y, verbose=0)


@pytest.mark.once
def test_the_multipliers_can_be_read_and_not_set():
    assert ml.Ensemble(net(), 2).learning_rate_multipliers is None
    ensemble = ml.Ensemble(net(), 2, learning_rate_multipliers=np.array([1, 0.5]))
    assert ensemble.learning_rate_multipliers == (1.0, 0.5)
    with pytest.raises(AttributeError, match="Make a new Ensemble"):
        ensemble.learning_rate_multipliers = [1, 1]


def half_frozen():
    """The second of two layers of equal shapes is trained; of the first, the bias alone."""
    one = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3), layers.Dense(2)])
    one.layers[0].kernel.trainable = one.layers[1].bias.trainable = False
    return one


def test_single_weights_that_are_frozen_are_frozen_in_all_members():
    ensemble = ml.Ensemble(half_frozen(), 2, "mse", adam())
    ensemble.setup((X[:8], Y[:8]))
    alone = list(ensemble.members)
    before = [numbers(model) for model in alone]
    assert [w.trainable for w in alone[0].weights] == [w.trainable for w in half_frozen().weights]
    ensemble.fit(X, Y, **ROUND)
    for model, start, member in zip(alone, before, ensemble.members, strict=True):
        close(numbers(model), start, 0)
        ml.MLModel(model, loss="mse", optimizer=adam()).fit(X, Y, **ROUND)
        close(numbers(member), numbers(model))
        np.testing.assert_array_equal(numbers(member)[0], start[0])
        assert np.abs(numbers(member)[1] - start[1]).max() > 0
    given = keras.models.clone_model(half_frozen())  # nothing of it is frozen
    ensemble.members[1] = given
    close(ops.convert_to_numpy(ensemble(X))[1], ops.convert_to_numpy(given(X)))
