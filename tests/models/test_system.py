"""Hand-worked systems: gradients, updates and logs equal the closed forms."""

import keras
import numpy as np
import pytest
from keras import ops
from toys import Critics, Pair, Scale, TinyGAN, number, ones

import mlsystem as ml


def weights(system):
    return {name: number(model.weight) for name, model in system._mlsystem.models().items()}


def approx(expected):
    return pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_model_can_stand_in_for_another():
    class Other(TinyGAN):
        def __init__(self):
            super().__init__()
            self.generator = Scale(5.0)

    other = Other()
    other.setup(ones())
    assert weights(other) == {"generator": 5.0, "discriminator": 3.0}
    assert len(other.weights) == 2


def test_own_losses_update_simultaneously_from_the_old_weights():
    gan = TinyGAN(generator=2.0, discriminator=3.0)
    logs = gan.train_on_batch(ones() * 0.5, return_dict=True)
    # m = 0.5: dL_g/dg = -3 * 0.5, dL_d/dd = (2 - 1) * 0.5
    assert weights(gan) == approx({"generator": 2 + 0.1 * 1.5, "discriminator": 3 - 0.01 * 0.5})
    # L_g = -d g m = -3, L_d = d g m - d m = 3 - 1.5
    assert logs == approx(
        {
            "loss": -1.5,
            "generator_loss": -3.0,
            "discriminator_loss": 1.5,
            "discriminator_fake": 3.0,
            "discriminator_real": -1.5,
        }
    )


def test_phases_see_the_weights_of_the_phases_before():
    gan = TinyGAN(generator=2.0, discriminator=3.0)
    gan.phases = ["discriminator", "discriminator", "generator"]
    logs = gan.train_on_batch(ones(), return_dict=True)
    # (g - 1) m = 1 twice: d = 3 - 0.01 - 0.01; then dL_g/dg = -2.98
    assert weights(gan) == approx({"generator": 2 + 0.1 * 2.98, "discriminator": 2.98})
    # L_d = d (g - 1) m is 3, then 2.99; L_g = -2.98 * 2 in its own phase
    assert logs["discriminator_loss"] == approx((3 + 2.99) / 2)
    assert logs["generator_loss"] == approx(-2.98 * 2)
    assert logs["loss"] == approx((3 + 2.99) / 2 - 2.98 * 2)


def test_the_sum_is_followed_by_every_model():
    pair = Pair(a=1.0, b=2.0, goals=(3.0, 5.0))
    logs = pair.train_on_batch(ones(), return_dict=True)
    # L = (a - 3)^2 + (a b - 5)^2: dL/da = 2 (a-3) + 2 (ab-5) b = -16, dL/db = 2 (ab-5) a = -6
    assert weights(pair) == approx({"a": 1 + 1.6, "b": 2 + 0.6})
    assert logs == approx({"a_loss": 4.0, "b_loss": 9.0, "loss": 13.0})


class Domain(ml.MLSystem):
    """features = x f, label = f l, domain = f d, with losses (label - 4)^2 and (domain - 7)^2."""

    routing = {  # noqa: RUF012
        "features": {"label": 1, "domain": -0.5},
        "label": {"label": 1},
        "domain": {"domain": 2},
    }

    def __init__(self):
        super().__init__()
        self.features, self.label, self.domain = Scale(2.0), Scale(3.0), Scale(5.0)

    def forward(self, x):
        features = self.features(x)
        return {"label": self.label(features), "domain": self.domain(features)}

    def compute_losses(self, x, y, outputs):
        return {
            "label": ops.mean((outputs["label"] - 4.0) ** 2, axis=-1),
            "domain": ops.mean((outputs["domain"] - 7.0) ** 2, axis=-1),
        }


def test_a_table_with_a_negative_weight():
    system = Domain()
    logs = system.train_on_batch(ones(), return_dict=True)
    # label = 6, domain = 10: dLl/df = 2*2*3 = 12, dLd/df = 2*3*5 = 30, dLl/dl = 8, dLd/dd = 12
    expected = {"features": 2 - 0.1 * (12 - 15), "label": 3 - 0.1 * 8, "domain": 5 - 0.1 * 24}
    assert weights(system) == approx(expected)
    assert logs == approx({"label_loss": 4.0, "domain_loss": 9.0, "loss": 13.0})


def test_weights_may_be_variables_and_schedules():
    system = Domain()
    system.alpha = keras.Variable(0.0, trainable=False)
    ramp = keras.optimizers.schedules.PiecewiseConstantDecay([0], [-1.0, -2.0])
    system.routing = {
        "features": {"domain": ramp},
        "label": {"label": system.alpha},
        "domain": {"domain": 0.0, "label": 1.0},
    }
    with pytest.warns(UserWarning, match="'domain'"):
        system.setup(ones()).train_on_batch(ones())
    assert weights(system) == approx({"features": 2 + 0.1 * 30, "label": 3.0, "domain": 5.0})
    system.alpha.assign(1.0)
    before = weights(system)
    system.train_on_batch(ones())
    f, label, d = before["features"], before["label"], before["domain"]
    expected = {
        "features": f + 0.1 * 2 * 2 * (f * d - 7) * d,
        "label": label - 0.1 * 2 * (f * label - 4) * f,
        "domain": d,
    }
    assert weights(system) == approx(expected)


def test_loss_weights_scale_gradients_and_not_logs():
    pair = Pair()
    pair.compile(loss_weights={"b": 0.5})
    logs = pair.train_on_batch(ones(), return_dict=True)
    assert weights(pair) == approx({"a": 1 + 0.1 * (4 + 6), "b": 2 + 0.1 * 3})
    assert logs["loss"] == approx(13.0)


def test_update_every_counts_batches_and_skips_whole_phases():
    gan = TinyGAN()
    gan.phases = ["discriminator", "generator"]
    gan.update_every = {"generator": 2}
    gan.fit(ones(16), batch_size=4, shuffle=False, verbose=0)
    assert number(gan.optimizer.iterations) == 4
    assert number(gan.optimizers["generator"].iterations) == 2
    assert number(gan.optimizers["discriminator"].iterations) == 4
    logs = gan.train_on_batch(ones(), return_dict=True)  # the fifth batch
    assert "generator_loss" not in logs
    assert "generator_loss" in gan.train_on_batch(ones(), return_dict=True)


def test_a_batch_without_any_due_model_does_nothing():
    pair = Pair()
    pair.update_every = {"a": 2, "b": 2}
    assert pair.train_on_batch(ones(), return_dict=True) == {}
    assert weights(pair) == {"a": 1.0, "b": 2.0}
    assert pair.train_on_batch(ones(), return_dict=True)["loss"] == approx(13.0)


def test_losses_are_averaged_over_batches_by_their_size():
    pair = Pair()
    pair.a.trainable = pair.b.trainable = False
    x = np.concatenate([ones(4), 3 * ones(2)])
    logs = pair.evaluate(x, batch_size=4, return_dict=True, verbose=0)
    first, second = 4 + 9, 0 + 1  # (a - 3)^2 + (ab - 5)^2 at x = 1 and x = 3
    assert logs["loss"] == approx((4 * first + 2 * second) / 6)


def test_members_in_lists_and_dicts_and_own_weights():
    system = Critics()
    system.phases = [("critics",), ("heads", "self")]
    logs = system.train_on_batch(ones(), return_dict=True)
    assert list(system.optimizers) == ["critics/0", "critics/1", "heads/left", "self"]
    assert number(system.critics[1].weight) == approx(2 - 0.1 * 4)
    # heads/left follows its own loss and the whole system's; so does the weight of the system,
    # which follows only the latter under "own", and its optimizer is Adam
    assert number(system.heads["left"].weight) == approx(2 - 0.1 * (4 + 1))
    assert number(system.temperature) == pytest.approx(1 - 0.001, rel=1e-5)
    assert logs["critics/0_loss"] == approx(4.0)
    assert logs["whole_loss"] == approx(2.0)


class Outer(ml.MLSystem):
    """A pair inside a system, next to a model that follows the pair's sum."""

    def __init__(self, inner_routing="sum"):
        super().__init__()
        self.pair = Pair()
        self.pair.routing = inner_routing
        self.head = Scale(1.0)

    def forward(self, x):
        return {"pair": self.pair(self.head(x))}


def test_a_nested_system_counts_as_one_member():
    system = Outer()
    system.routing = {"pair": {"pair": 2.0}, "head": {"pair": 1.0}}
    logs = system.train_on_batch(ones(), return_dict=True)
    # head = h multiplies the input: L = (ha - 3)^2 + (hab - 5)^2, dL/dh = -4 - 12 = -16
    assert number(system.head.weight) == approx(1 + 0.1 * 16)
    assert number(system.pair.a.weight) == approx(1 + 0.1 * 2 * 16)
    assert number(system.pair.b.weight) == approx(2 + 0.1 * 2 * 6)
    assert logs["pair_loss"] == approx(13.0)
    assert logs["pair/a_loss"] == approx(4.0)
    assert logs["loss"] == approx(13.0)


def test_the_row_of_an_inner_model_is_the_outer_row_with_the_inner_one_in_it():
    system = Outer(inner_routing={"a": {"a": 3.0}, "b": {"b": -1.0}})
    system.train_on_batch(ones())
    assert number(system.pair.a.weight) == approx(1 + 0.1 * 3 * 4)
    assert number(system.pair.b.weight) == approx(2 - 0.1 * 6)
    assert number(system.head.weight) == approx(1 + 0.1 * 16)
    system.pair(ones())  # callable and usable on its own
    assert list(system.optimizers) == ["pair/a", "pair/b", "head"]


def test_regularizers_and_add_loss_belong_to_the_model_of_the_layer():
    class Regularized(Scale):
        def __init__(self, weight):
            super().__init__(weight)
            self.extra = self.add_weight(
                shape=(), initializer="ones", regularizer=keras.regularizers.L2(0.5)
            )

        def forward(self, x):
            self.add_loss(3.0 * self.weight)
            return x * self.weight

    class System(ml.MLSystem):
        routing = "own"

        def __init__(self):
            super().__init__()
            self.a, self.b = Regularized(2.0), Scale(1.0)

        def forward(self, x):
            return self.b(self.a(x))

        def compute_losses(self, x, y, outputs):
            return {"b": ops.mean(outputs)}

    system = System()
    logs = system.train_on_batch(ones(), return_dict=True)
    assert logs == approx({"a_loss": 0.5 + 6.0, "b_loss": 2.0, "loss": 8.5})
    assert number(system.a.weight) == approx(2 - 0.1 * 3)
    assert number(system.a.extra) == approx(1 - 0.1 * 1.0)
    assert number(system.b.weight) == approx(1 - 0.1 * 2)


def test_one_optimizer_for_all_is_copied_for_each():
    pair = Pair()
    pair.compile(optimizer=keras.optimizers.SGD(0.5))
    pair.train_on_batch(ones())
    assert weights(pair) == approx({"a": 1 + 0.5 * 16, "b": 2 + 0.5 * 6})
    assert pair.optimizers["a"] is not pair.optimizers["b"]


def test_configure_optimizers_by_class_and_by_model():
    class Configured(Pair):
        def configure_optimizers(self):
            given = super().configure_optimizers("sgd", 0.2)
            return given | {"b": keras.optimizers.SGD(0.4)}

    pair = Configured().setup(ones())
    assert number(pair.optimizers["a"].learning_rate) == approx(0.2)
    assert number(pair.optimizers["b"].learning_rate) == approx(0.4)
    pair.optimizer.learning_rate = 0.1
    assert number(pair.optimizers["b"].learning_rate) == approx(0.2)


class Teacher(ml.MLSystem):
    """An inner system with its own optimizers, and a model with a given loss and metric."""

    def __init__(self):
        super().__init__()
        self.model = ml.MLModel(Scale(2.0), loss="mse", metrics=["mae"])

    def forward(self, x):
        return {"model": self.model(x)}

    def configure_optimizers(self):
        return {"model": keras.optimizers.SGD(0.25)}


def test_a_nested_system_brings_its_optimizers_and_metrics():
    class Whole(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.teacher = Teacher()

        def forward(self, x):
            return {"teacher": self.teacher(x)}

    system = Whole()
    logs = system.train_on_batch(ones(), 5 * ones(), return_dict=True)
    assert number(system.optimizers["teacher/model"].learning_rate) == approx(0.25)
    assert number(system.teacher.model.net.weight) == approx(2 + 0.25 * 2 * 3)
    expected = {
        "loss": 9.0,
        "teacher_loss": 9.0,
        "teacher/model_loss": 9.0,
        "teacher/model_mae": 3.0,
    }
    assert logs == approx(expected)


def test_metrics_and_losses_given_to_compile_by_model():
    class Plain(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.student = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
            self.teacher = Scale(3.0)
            self.teacher.trainable = False

        def forward(self, x):
            return {"student": self.student(x), "teacher": self.teacher(x)}

    system = Plain()
    system.compile("sgd", loss={"student": "mse"}, metrics={"student": ["mae"], "teacher": ["mae"]})
    logs = system.train_on_batch(ones(), 2 * ones(), return_dict=True)
    expected = {"loss": 1.0, "student_loss": 1.0, "student_mae": 1.0, "teacher_mae": 1.0}
    assert logs == approx(expected)
    assert list(system.optimizers) == ["student"]


def test_sample_weights_reach_per_sample_losses():
    class Weighted(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.a = Scale(1.0)

        def forward(self, x):
            return self.a(x)

        def compute_losses(self, x, y, outputs):
            return {"a": ops.sum(outputs * y, axis=-1)}

    system = Weighted()
    weight = np.array([1.0, 2.0, 3.0, 0.0], "float32")
    logs = system.train_on_batch(ones(), ones(), sample_weight=weight, return_dict=True)
    assert logs["loss"] == approx(6 / 4)
    assert number(system.a.weight) == approx(1 - 0.1 * 6 / 4)
