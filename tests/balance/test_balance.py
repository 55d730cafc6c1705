"""Balanced losses against what the papers' equations give by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Pair, Scale, approx, number, ones

import mlsystem as ml

SGD = keras.optimizers.SGD
both = pytest.mark.parametrize("eagerly", [False, True])


class Slopes(ml.MLSystem):
    """Losses that are linear in the two weights w of a model: steep = s . w + c, flat = f . w + c.

    The gradients are s and f whatever w is.
    """

    def __init__(self, steep=(100.0, 0.0), flat=(0.0, 1.0), offset=1.0, **kwargs):
        super().__init__(**kwargs)
        self.model = ml.MLModel(Plane(), optimizer=SGD(0.1))
        self.slopes, self.offset = {"steep": [*steep], "flat": [*flat]}, offset

    def forward(self, x):
        return self.model(x)

    def compute_losses(self, x, y, outputs):
        w = ops.mean(outputs, axis=0)
        return {n: w[0] * s[0] + w[1] * s[1] + self.offset for n, s in self.slopes.items()}

    def place(self):
        return ops.convert_to_numpy(self.model.net.w)


class Plane(layers.Layer):
    """x times two weights that start at 0."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2,), initializer="zeros", name="w")

    def call(self, x):
        return x * self.w


def fit(system, batches=1, eagerly=False, **kwargs):
    if not system.compiled:
        system.compile(run_eagerly=eagerly)
    return system.fit(ones(4 * batches), batch_size=4, verbose=0, **kwargs).history


# Uncertainty --------------------------------------------------------------------------------


def uncertain(rate=0.1):
    return ml.balance.Uncertainty(["a", "b"], optimizer=SGD(rate))


@both
def test_uncertainty_moves_models_and_variances_as_by_hand(eagerly):
    pair = Pair()
    pair.balance = uncertain()
    logs = fit(pair, 3, eagerly)
    a, b, s, weights = 1.0, 2.0, np.zeros(2), []
    for _ in range(3):
        losses = np.array([(a - 3) ** 2, (a * b - 5) ** 2])
        w = np.exp(-s) / 2
        weights.append(w)
        s = s - 0.1 * (1 - np.exp(-s) * losses) / 2
        slope_a = w[0] * 2 * (a - 3) + w[1] * 2 * (a * b - 5) * b
        a, b = a - 0.1 * slope_a, b - 0.1 * w[1] * 2 * (a * b - 5) * a
    assert [number(pair.a.weight), number(pair.b.weight)] == approx([a, b])
    assert [pair.balance.log_variance(n) for n in ("a", "b")] == approx(list(s))
    assert [logs["a_weight"][0], logs["b_weight"][0]] == approx(list(np.mean(weights, axis=0)))


def test_uncertainty_of_fixed_losses_is_their_size():
    class Fixed(Pair):
        def compute_losses(self, x, y, outputs):
            still = 0.0 * ops.mean(outputs["b"])
            return {"a": 4.0 + still, "b": 0.25 + still}

    pair = Fixed()
    pair.balance = ml.balance.Uncertainty(["a", "b"], optimizer=keras.optimizers.Adam(0.1))
    fit(pair, 300)
    variances = [np.exp(pair.balance.log_variance(name)) for name in ("a", "b")]
    assert variances == approx([4.0, 0.25], rel=1e-2)


class Again(keras.utils.PyDataset):
    """One batch 300 times."""

    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return self.batch


def test_uncertainty_of_a_regression_is_its_noise():
    class Twice(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.quiet, self.loud = (ml.MLModel(layers.Dense(1), loss="mse") for _ in range(2))
            self.balance = ml.balance.Uncertainty(["quiet", "loud"], keras.optimizers.Adam(0.05))

        def forward(self, x):
            return {"quiet": self.quiet(x), "loud": self.loud(x)}

    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 512, 1)).astype("float32")
    y = {"quiet": 2 * x + 0.1 * noise, "loud": -x + 3 * noise}
    system = Twice()
    system.compile(optimizer=keras.optimizers.Adam(0.05))
    system.fit(Again(x, y), verbose=0)
    for name, sigma in (("quiet", 0.1), ("loud", 3.0)):
        fitted = np.polyfit(x[:, 0], y[name][:, 0], 1)
        left = np.mean((np.polyval(fitted, x[:, 0]) - y[name][:, 0]) ** 2)
        assert left == approx((sigma * np.std(noise)) ** 2, rel=0.05)
        assert np.exp(system.balance.log_variance(name)) == approx(left, rel=0.05)


# GradNorm -----------------------------------------------------------------------------------


def by_hand(steps, norms, losses, alpha, rate):
    """The weights of GradNorm over some steps, from the norms and losses of each."""
    w, first, found = np.ones(2), np.array(losses[0]), []
    for _, norm, loss in zip(range(steps), norms, losses, strict=False):
        found.append(w)
        g = w * np.array(norm)
        progress = np.array(loss) / first
        target = g.mean() * (progress / progress.mean()) ** alpha
        w = w - rate * np.sign(g - target) * np.array(norm)
        w = np.maximum(w, 1e-4)
        w = 2 * w / w.sum()
    return w, found


@both
def test_gradnorm_moves_the_weights_as_by_hand(eagerly):
    pair = Pair()
    pair.balance = ml.balance.GradNorm(["a", "b"], "a", alpha=1.5, optimizer=SGD(0.01))
    logs = fit(pair, 3, eagerly)
    a, b, norms, losses = 1.0, 2.0, [], []
    for n in range(3):
        norms.append([abs(2 * (a - 3)), abs(2 * (a * b - 5) * b)])
        losses.append([(a - 3) ** 2, (a * b - 5) ** 2])
        _, used = by_hand(n + 1, norms, losses, 1.5, 0.01)
        w = used[-1]
        slope = w[0] * 2 * (a - 3) + w[1] * 2 * (a * b - 5) * b
        a, b = a - 0.1 * slope, b - 0.1 * w[1] * 2 * (a * b - 5) * a
    final, used = by_hand(3, norms, losses, 1.5, 0.01)
    assert len({tuple(w) for w in used}) == 3  # they do move
    assert [number(pair.a.weight), number(pair.b.weight)] == approx([a, b])
    assert [number(v) for v in pair.balance.parameters.values()] == approx(list(final), rel=1e-4)
    assert [logs["a_weight"][0], logs["b_weight"][0]] == approx(list(np.mean(used, axis=0)), 1e-4)


def test_gradnorm_makes_norms_of_1_and_100_equal():
    class Still(Slopes):
        def compute_losses(self, x, y, outputs):  # whose progress is the same
            losses = super().compute_losses(x, y, outputs)
            return {n: v - ops.stop_gradient(v) + 1.0 for n, v in losses.items()}

    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 50, 0.5)
    system = Still()
    system.balance = ml.balance.GradNorm(
        ["steep", "flat"], "model", optimizer=keras.optimizers.Adam(rate)
    )
    fit(system, 400)
    steep, flat = (number(v) for v in system.balance.parameters.values())
    assert steep + flat == approx(2.0)
    assert 100 * steep == approx(flat, rel=0.05)


def test_gradnorm_uses_the_gradients_that_are_routed_there():
    system = Slopes(steep=(3.0, 0.0), flat=(0.0, 1.0))
    system.routing = {"model": {"steep": 1.0, "flat": -3.0}}  # norms of 3 and 3
    system.balance = ml.balance.GradNorm(["steep", "flat"], "model", alpha=0.0, optimizer=SGD(0.1))
    fit(system)
    assert [number(v) for v in system.balance.parameters.values()] == approx([1.0, 1.0])
    assert system.place() == approx([-0.3, 0.3])


# PCGrad -------------------------------------------------------------------------------------


@both
def test_pcgrad_projects_two_gradients_as_by_hand(eagerly):
    steep, flat = np.array([2.0, 0.0]), np.array([-1.0, 1.0])
    system = Slopes(steep.tolist(), flat.tolist())
    system.balance = ml.balance.PCGrad()
    logs = fit(system, 1, eagerly)
    # steep - (steep . flat / |flat|^2) flat and flat - (flat . steep / |steep|^2) steep
    left = steep - (-2 / 2) * flat + flat - (-2 / 4) * steep
    assert left == approx([1.0, 2.0]) and system.place() == approx(-0.1 * left)
    assert [logs["steep_weight"][0], logs["flat_weight"][0]] == approx([1.5, 2.0])


def test_pcgrad_leaves_gradients_that_agree_and_losses_that_are_not_named():
    system = Slopes((1.0, 1.0), (0.0, 2.0))
    system.balance = ml.balance.PCGrad()
    fit(system)
    assert system.place() == approx([-0.1, -0.3])
    system = Slopes((2.0, 0.0), (-1.0, 1.0))
    system.slopes["more"] = [-5.0, 0.0]
    system.balance = ml.balance.PCGrad(["steep", "flat"])
    fit(system)
    assert system.place() == approx(-0.1 * np.array([1.0 - 5.0, 2.0]))


def in_order(gradients, orders):
    """Algorithm 1, with the order in which each gradient meets the others."""
    left = []
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            if j != i and (product := g @ gradients[j]) < 0:
                g -= product / (gradients[j] @ gradients[j]) * gradients[j]
        left.append(g)
    return np.sum(left, axis=0)


def test_pcgrad_of_three_gradients_takes_them_in_random_orders():
    gradients = np.array([[2.0, 0.0], [-1.0, 1.0], [-1.0, -0.5]])
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    possible = {
        tuple(np.round(in_order(gradients, (p, q, r)), 4))
        for p in orders
        for q in orders
        for r in orders
    }
    assert len(possible) == 8
    system = Slopes(*gradients[:2].tolist())
    system.slopes["third"] = gradients[2].tolist()
    system.balance = ml.balance.PCGrad(seed=1)
    seen, place = set(), np.zeros(2)
    for _ in range(40):
        fit(system)
        seen.add(tuple(np.round((place - system.place()) / 0.1, 2)))
        place = system.place()
    near = {min(possible, key=lambda p: np.abs(np.subtract(p, s)).sum()) for s in seen}
    assert all(min(np.abs(np.subtract(p, s)).max() for p in possible) < 0.05 for s in seen)
    assert len(near) > 3


def test_pcgrad_compares_over_the_weights_that_both_reach_alone():
    pair = Pair(1.0, 2.0, goals=(0.0, 5.0))  # a pulls its weight down, b up; b has one of its own
    pair.balance = ml.balance.PCGrad()
    fit(pair)
    of_a, of_b = 2 * 1.0, 2 * (2 - 5) * 2  # opposite: of each nothing is left
    assert of_a * of_b < 0
    assert number(pair.a.weight) == approx(1.0)
    assert number(pair.b.weight) == approx(2 - 0.1 * 2 * (2 - 5) * 1)


# All of them --------------------------------------------------------------------------------


def kinds():
    return {
        "uncertainty": lambda: ml.balance.Uncertainty(["a", "b"], keras.optimizers.Adam(0.1)),
        "gradnorm": lambda: ml.balance.GradNorm(["a", "b"], "a", optimizer="adam"),
        "pcgrad": lambda: ml.balance.PCGrad(["a", "b"], seed=3),
    }


each = pytest.mark.parametrize("kind", list(kinds()))


def state(pair):
    held = [*pair.weights, *pair.balance.variables]
    return [ops.convert_to_numpy(v).copy() for v in held]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@keras.saving.register_keras_serializable("test")
class Balanced(Pair):
    def __init__(self, balance=None):
        super().__init__()
        self.balance = balance


@each
def test_a_balance_is_no_model_and_a_rehearsal_leaves_it(kind):
    pair = Balanced(kinds()[kind]())
    pair.setup(ones())
    before = state(pair)
    pair.evaluate(ones(), verbose=0)
    assert same(before, state(pair))
    assert set(pair.optimizers) == {"a", "b"} and len(pair.weights) == 2
    assert not set(map(id, pair.balance.variables)) & set(map(id, pair.trainable_weights))


@each
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.spread
def test_training_that_goes_on_from_a_file_equals_one_that_was_not_stopped(kind, whole, tmp_path):
    pair = Balanced(kinds()[kind]())
    fit(pair, 2)
    if whole:
        pair.save(tmp_path / "pair.keras")
        again = keras.saving.load_model(tmp_path / "pair.keras")
    else:
        pair.save_weights(tmp_path / "pair.weights.h5")
        again = Balanced(kinds()[kind]()).setup(ones())
        again.load_weights(tmp_path / "pair.weights.h5")
    assert same(state(pair), state(again))
    fit(pair, 2)
    fit(again, 2)
    assert same(state(pair), state(again))


@each
@pytest.mark.once
def test_a_checkpoint_holds_the_balance(kind, tmp_path):
    def run(epochs, resume=None):
        keras.utils.set_random_seed(0)
        pair = Balanced(kinds()[kind]())
        checkpoint = ml.callbacks.Checkpoint(tmp_path / "run")
        pair.fit(
            ones(8), batch_size=4, epochs=epochs, verbose=0, callbacks=[checkpoint], resume=resume
        )
        return state(pair)

    whole = run(3)
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    run(2)
    assert same(whole, run(3, tmp_path / "run"))


@each
def test_a_balance_set_on_the_system_is_saved_with_it(kind, tmp_path):
    pair = Balanced()
    pair.balance = kinds()[kind]()
    fit(pair, 2)
    pair.save(tmp_path / "pair.keras")
    again = keras.saving.load_model(tmp_path / "pair.keras")
    assert type(again.balance) is type(pair.balance) and same(state(pair), state(again))
    assert again.balance.get_config() == pair.balance.get_config()


@each
@pytest.mark.spread
def test_a_condition_shuts_the_balance_out_too(kind):
    class Shut(Pair):
        def train_step(self, data):
            self.update(data, when=ops.mean(data[0] if isinstance(data, tuple) else data) > 2)
            return self.get_metrics_result()

    pair = Shut()
    pair.balance = kinds()[kind]()
    pair.setup(ones())
    before = state(pair)
    fit(pair, 2)
    assert same(before, state(pair))


@each
@pytest.mark.once
def test_systems_of_one_class_share_no_state(kind):
    class Always(Pair):
        balance = kinds()[kind]()

    first, second = Always(), Always()
    fit(first, 2)
    second.setup(ones())
    assert first.balance is not second.balance is not Always.balance
    assert not set(map(id, first.balance.variables)) & set(map(id, second.balance.variables))


@each
def test_minimize_is_not_balanced(kind):
    class Down(Pair):
        def train_step(self, data):
            self.minimize(lambda: self.a.weight**2, "a", name="decay")
            return self.get_metrics_result()

    pair = Down()
    pair.balance = kinds()[kind]()
    logs = fit(pair)
    assert number(pair.a.weight) == approx(1 - 0.1 * 2)
    assert set(logs) - {"a_learning_rate", "b_learning_rate"} == {"loss", "decay_loss"}


def test_what_was_not_updated_teaches_nothing():
    pair = Pair()
    pair.phases = ["a", "b"]
    pair.update_every = {"a": 5}
    pair.routing = "own"
    pair.balance = uncertain()
    fit(pair, 2)
    assert pair.balance.log_variance("a") == 0.0 != pair.balance.log_variance("b")


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm"])
def test_a_loss_that_is_not_finite_teaches_nothing(kind):
    pair = Pair()
    pair.balance = kinds()[kind]()
    pair.nonfinite = "keep"
    pair.compile(optimizer=SGD(0.0))
    pair.fit(np.full((4, 1), np.inf, "float32"), verbose=0)
    assert [number(v) for v in pair.balance.parameters.values()] == [pair.balance.start] * 2
    before = number(pair.balance.optimizer.iterations)
    assert before == 0


@each
@pytest.mark.spread
def test_losses_of_float16_are_balanced_unscaled(kind):
    class Half(ml.MLSystem):
        def __init__(self, dtype):
            super().__init__()
            self.a, self.b = (ml.MLModel(Plane(dtype=dtype), optimizer=SGD(0.1)) for _ in range(2))
            self.balance = kinds()[kind]()

        def forward(self, x):
            a = self.a(x)
            return {"a": a, "b": self.b(a + 1)}

        def compute_losses(self, x, y, outputs):
            a, b = (ops.cast(v, "float32") for v in (outputs["a"], outputs["b"]))
            return {"a": ops.mean((a - 1) ** 2), "b": ops.mean((b + a + 1) ** 2)}

    found = {}
    for dtype in ("float32", "mixed_float16"):
        system = found[dtype] = Half(dtype)
        fit(system, 3)
    scales = isinstance(found["mixed_float16"].optimizers["a"], keras.optimizers.LossScaleOptimizer)
    assert scales
    for one, other in zip(state(found["float32"]), state(found["mixed_float16"]), strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3)


# Errors -------------------------------------------------------------------------------------


def refused(system, *words):
    with pytest.raises(ValueError) as error:
        fit(system)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda names: ml.balance.Uncertainty(names),
        lambda names: ml.balance.GradNorm(names, "a"),
        lambda names: ml.balance.PCGrad(names),
    ],
)
@pytest.mark.once
def test_names_of_losses_that_do_not_exist_are_refused(make):
    refused(Balanced(make(["a", "c"])), "'c'", "does not exist", "'a', 'b'")
    with pytest.raises(ValueError, match="two or more"):
        make("ab")
    with pytest.raises(ValueError, match="two or more"):
        make(["a"])


@pytest.mark.once
def test_gradnorm_refuses_models_that_do_not_fit():
    refused(Balanced(ml.balance.GradNorm(["a", "b"], "c")), "shared", "'c'", "'a', 'b'")
    refused(Balanced(ml.balance.GradNorm(["a", "b"], "b")), "'a'", "does not depend on", "['b']")
    pair = Balanced(ml.balance.GradNorm(["a", "b"], "a"))
    pair.routing = "own"
    refused(pair, "the loss 'b'", "'a' does not follow", "['a']")


@pytest.mark.once
def test_what_is_no_balance_and_one_inside_a_system_are_refused():
    refused(Balanced("gradnorm"), "'gradnorm'", "ml.balance")

    class Around(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.inner = Balanced(ml.balance.PCGrad())

        def forward(self, x):
            return {"inner": self.inner(x)}

    refused(Around(), "'inner' has a `balance`", "inner/...")


def test_the_losses_of_a_nested_system_are_balanced_by_the_outer_one():
    class Around(ml.MLSystem):
        def __init__(self, *names):
            super().__init__()
            self.inner, self.other = Pair(), Scale(2.0)
            self.balance = ml.balance.Uncertainty(names, optimizer=SGD(0.1))

        def forward(self, x):
            return {"inner": self.inner(x), "other": self.other(x)}

        def compute_losses(self, x, y, outputs):
            return super().compute_losses(x, y, outputs) | {"far": ops.mean(outputs["other"]) ** 2}

    for names in (("inner/a", "inner/b"), ("inner", "far")):
        system = Around(*names)
        fit(system, 2)
        a = 1.0
        s_a = s_b = s = 0.0
        b = 2.0
        for _ in range(2):
            of_a, of_b = (a - 3) ** 2, (a * b - 5) ** 2
            if names[0] == "inner":
                w_a = w_b = np.exp(-s) / 2
                s -= 0.1 * (0.5 - w_a * (of_a + of_b))
            else:
                w_a, w_b = np.exp(-s_a) / 2, np.exp(-s_b) / 2
                s_a, s_b = s_a - 0.1 * (0.5 - w_a * of_a), s_b - 0.1 * (0.5 - w_b * of_b)
            slope = w_a * 2 * (a - 3) + w_b * 2 * (a * b - 5) * b
            a, b = a - 0.1 * slope, b - 0.1 * w_b * 2 * (a * b - 5) * a
        assert [number(system.inner.a.weight), number(system.inner.b.weight)] == approx([a, b])


def test_a_phase_of_a_model_that_follows_no_balanced_loss():
    class Three(Pair):
        routing = "own"
        phases: tuple = (("a", "b"), ("c",))

        def __init__(self):
            super().__init__()
            self.c = Scale(1.0)
            self.balance = ml.balance.Uncertainty(["a", "b"])

        def forward(self, x):
            return super().forward(x) | {"c": self.c(x)}

        def compute_losses(self, x, y, outputs):
            return {name: ops.mean(outputs[name]) for name in "abc"}

    three = Three()
    three.fit(ones(), verbose=0)
    assert number(three.c.weight) == pytest.approx(0.9)  # down its own loss, whose slope is 1
    assert number(three.a.weight) == pytest.approx(1 - 0.1 / 2)
