"""On torch a step is captured as one graph: what the graph holds, and what makes it eager."""

import warnings
from collections import namedtuple

import keras
import numpy as np
import pytest
from compared import X, Y, agree, compiled, equal, fitted, net, same_start, sgd, state
from keras import layers, ops
from toys import Scale, TinyGAN, number, ones

import mlsystem as ml

if keras.backend.backend() != "torch":
    pytest.skip("only torch has a step that is captured", allow_module_level=True)

import torch

random = keras.random
A = X[:, :1]


class Drawing(ml.MLSystem):
    """Logs the mean and the first number of what it draws; its weight follows them."""

    def __init__(self, draw, layer=None):
        super().__init__()
        self.model, self.draw = Scale(1.0), draw
        self.seed = random.SeedGenerator(3)
        if layer is not None:
            self.layer = layer()

    def forward(self, x, training=None):
        noise = ops.cast(self.draw(self, x, training), "float32")
        self.log("noise", noise)
        self.log("first", ops.ravel(noise)[0])
        return self.model(x) + noise

    def compute_losses(self, x, y, outputs):
        return {"model": ops.mean(outputs**2)}


def drawing(*args):
    return lambda: Drawing(*args)


def through_layer(self, x, training):
    return self.layer(ops.ones_like(x), training=training)


# Noise --------------------------------------------------------------------------------------

NOISE = {
    "seeded": (lambda self, x, training: random.normal(x.shape, seed=self.seed),),
    "unseeded": (lambda self, x, training: random.normal(x.shape),),
    "torch's own": (lambda self, x, training: torch.randn(x.shape),),
    "dropout layer": (through_layer, lambda: layers.Dropout(0.5)),
    "torch's dropout layer": (through_layer, lambda: ml.MLModel(torch.nn.Dropout(0.5))),
}


@pytest.mark.parametrize("draw", NOISE.values(), ids=NOISE)
def test_noise_is_fresh_and_the_same_from_the_same_seed(draw):
    data = np.ones((96, 1), "float32")
    first, kept, _ = fitted(drawing(*draw), data, batch_size=16)
    again, kept_again, _ = fitted(drawing(*draw), data, batch_size=16)
    means = [logs["noise"] for logs in kept]
    assert len(set(means)) == len(means)
    assert kept == kept_again and np.array_equal(first.get_weights()[0], again.get_weights()[0])
    agree(drawing(*draw), data, batch_size=16)


def test_a_seed_set_between_fits_holds_for_noise_without_a_seed():
    system = Drawing(*NOISE["unseeded"])
    system.compile(optimizer=sgd(0.0))
    system.fit(ones(), verbose=0)
    runs = []
    for seed, size in ((0, 4), (1, 4), (0, 4), (0, 3), (0, 3)):
        keras.utils.set_random_seed(seed)
        runs.append(system.fit(ones(size), verbose=0).history)
    assert runs[0] == runs[2] != runs[1]
    assert runs[3] == runs[4] and np.isfinite(number(random.normal(())))


DRAWS = {
    "normal": lambda shape, seed: random.normal(shape, mean=1.0, stddev=0.5, seed=seed),
    "uniform": lambda shape, seed: random.uniform(shape, -1.0, 2.0, seed=seed),
    "truncated_normal": lambda shape, seed: random.truncated_normal(shape, 0.5, 2.0, seed=seed),
    "randint": lambda shape, seed: random.randint(shape, 0, 100, seed=seed),
    "categorical": lambda shape, seed: random.categorical(ops.ones((shape[0], 9)), 1, seed=seed),
    "dropout": lambda shape, seed: random.dropout(ops.ones(shape), 0.5, seed=seed),
    "shuffle": lambda shape, seed: random.shuffle(ops.arange(shape[0]), seed=seed)[:, None],
    "fixed": lambda shape, seed: random.normal(shape, seed=7),
    "two": lambda shape, seed: random.normal(shape, seed=seed) * random.normal(shape, seed=seed),
    "unused": lambda shape, seed: (
        random.normal(shape, seed=seed),
        random.uniform(shape),
        random.uniform(shape, seed=seed),
    )[-1],
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("seeded", [True, False])
def test_random_numbers_are_those_of_the_eager_step(draw, seeded):
    def drawn(self, x, training):
        return draw(x.shape, self.seed if seeded else None)

    agree(drawing(drawn), A)


EAGER_DRAWS = {
    "gamma": lambda shape, seed: random.gamma(shape, 2.0, seed=seed),
    "beta": lambda shape, seed: random.beta(shape, 2.0, 3.0, seed=seed),
    "binomial": lambda shape, seed: random.binomial(shape, 10.0, 0.5, seed=seed),
}


@pytest.mark.parametrize("draw", EAGER_DRAWS.values(), ids=EAGER_DRAWS)
def test_random_numbers_that_torch_draws_without_a_generator(draw):
    with pytest.warns(UserWarning, match="runs eagerly"):
        agree(drawing(lambda self, x, training: draw(x.shape, self.seed)), A)


def test_a_generator_that_belongs_to_no_model():
    def build():
        seed = random.SeedGenerator(5)
        return Drawing(lambda self, x, training: random.normal(x.shape, seed=seed))

    agree(build, A)


def test_branches_may_draw_and_assign():
    def draw(self, x, training):
        def yes():
            self.count.assign_add(1.0)
            return random.normal(x.shape, seed=self.seed)

        return ops.cond(ops.mean(x) > 0, yes, lambda: ops.zeros_like(x))

    def build():
        system = Drawing(draw)
        system.count = system.add_weight(shape=(), initializer="zeros", trainable=False)
        return system

    system = agree(build, A)
    assert number(system.count) == sum(A[i : i + 4].mean() > 0 for i in range(0, 18, 4))


# What a step is made of ---------------------------------------------------------------------


def torch_net(momentum=0.1):
    return ml.MLModel(
        torch.nn.Sequential(
            torch.nn.Linear(3, 4, bias=False),  # whose gradient would be a rounding error
            torch.nn.BatchNorm1d(4, momentum=momentum),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(4, 2),
        ),
        loss="mse",
        optimizer=keras.optimizers.Adam(0.1),
    )


def buffers(model):
    return {name: value.numpy() for name, value in model.net.module.named_buffers()}


def test_a_torch_module_trains_with_its_buffers():
    model, *_ = fitted(torch_net, X, Y, epochs=2, validation_data=(X, Y))
    eager, *_ = fitted(torch_net, X, Y, epochs=2, validation_data=(X, Y), run_eagerly=True)
    equal(state(model), state(eager), rtol=1e-4)
    equal(buffers(model), buffers(eager), rtol=1e-4)
    equal(model.history.history, eager.history.history)
    assert buffers(model)["1.num_batches_tracked"] == 10


def test_a_number_of_a_torch_module_is_not_baked_in():
    with pytest.warns(UserWarning, match="runs eagerly"):
        model = agree(lambda: torch_net(momentum=None), X, Y)
    assert buffers(model)["1.num_batches_tracked"] == 5


NETS = {
    "convolution": lambda: [
        layers.Reshape((4, 4, 1)),
        layers.Conv2D(2, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2DTranspose(2, 3, strides=2, padding="same"),
        layers.GroupNormalization(1),
        layers.Flatten(),
    ],
    "recurrence": lambda: [
        layers.Reshape((4, 4)),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
        layers.GRU(2),
    ],
    "normalization": lambda: [
        layers.SpectralNormalization(layers.Dense(4)),
        layers.LayerNormalization(),
        layers.PReLU(),
        layers.AlphaDropout(0.2, seed=1),
        layers.GaussianDropout(0.2, seed=2),
    ],
}


@pytest.mark.parametrize("hidden", NETS.values(), ids=NETS)
def test_layers(hidden):
    agree(lambda: net(layers.Dense(16), *hidden()), X, Y)


def test_attention_to_embedded_words():
    def build():
        words = inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(7, 4, mask_zero=True)(words)
        x = layers.MultiHeadAttention(2, 2, dropout=0.1)(x, x)
        x = layers.GlobalAveragePooling1D()(x)
        outputs = layers.Dense(2)(x)
        return ml.MLModel(inputs=inputs, outputs=outputs, loss="mse", optimizer=sgd())

    words = np.random.default_rng(0).integers(0, 7, size=(18, 5)).astype("int32")
    agree(build, words, Y)


def test_metrics():
    def build():
        metrics = [
            "accuracy",
            keras.metrics.AUC(num_thresholds=5),
            keras.metrics.Precision(),
            keras.metrics.F1Score("macro", threshold=0.5),
            keras.metrics.R2Score(),
            keras.metrics.CosineSimilarity(),
            keras.metrics.MeanIoU(2),
        ]
        return ml.MLModel(
            keras.Sequential([layers.Dense(1, activation="sigmoid")]),
            loss="binary_crossentropy",
            metrics=metrics,
            optimizer=sgd(),
        )

    agree(build, X, (Y[:, :1] > 0).astype("float32"), validation_data=(X, (Y[:, :1] > 0) * 1.0))


def test_the_losses_of_a_layer_hold_numbers_after_training():
    model = fitted(lambda: net(layers.Dense(4, activity_regularizer="l2")), X, Y)[0]
    assert [number(loss) for loss in model.losses] == []


def test_a_named_tuple_is_a_batch():
    Pairing = namedtuple("Pairing", ["a", "b"])

    class Adding(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.model = Scale(1.0)

        def forward(self, x):
            return self.model(x.a + 2 * x.b)

        def compute_losses(self, x, y, outputs):
            return {"model": ops.mean(outputs**2)}

    def run(**given):
        system = compiled(Adding(), **given)
        return [system.train_on_batch(Pairing(A, A**2), return_dict=True) for _ in range(2)]

    equal(run(), run(run_eagerly=True))


# How often Python runs ----------------------------------------------------------------------


def test_forward_runs_once_for_each_kind_of_batch():
    gan = TinyGAN().setup(ones())
    gan.forwards.clear()
    gan.fit(ones(18), batch_size=4, epochs=3, verbose=0, validation_data=ones(8))
    assert gan.forwards.count(True) == 1 + 2  # the rehearsal, then batches of 4 and of 2
    assert gan.forwards.count(False) == 1 + 1


@pytest.mark.parametrize("given", [{"jit_compile": False}, {"run_eagerly": True}])
def test_the_eager_step_runs_forward_on_every_batch(given):
    gan = compiled(TinyGAN(), **given)
    gan.fit(ones(16), batch_size=4, verbose=0)
    assert gan.forwards.count(True) == 1 + 4


# What cannot be captured --------------------------------------------------------------------


class Looking(ml.MLSystem):
    """Looks at a number, in a way that is given, after it drew some."""

    def __init__(self, look):
        super().__init__()
        self.model, self.look = Scale(1.0), look
        self.seed = random.SeedGenerator(3)

    def forward(self, x):
        noise = random.normal(x.shape, seed=self.seed) + np.random.uniform()
        factor = self.look(ops.mean(x))  # here
        return self.model(x) * factor + noise

    def compute_losses(self, x, y, outputs):
        return {"model": ops.mean(outputs**2)}


LOOKS = {
    "if": lambda mean: 2.0 if mean > 0 else 1.0,
    "float": lambda mean: float(mean),
    "numpy": lambda mean: float(ops.convert_to_numpy(mean)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_looks_at_numbers_runs_eagerly_and_says_where(look):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        system, *logs = fitted(lambda: Looking(look), A[:16], epochs=2)
        after = np.random.uniform()
    [warning] = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert "'looking' runs eagerly" in warning and "test_captured.py, line" in warning
    assert "lambda mean" in warning
    eager, *expected = fitted(lambda: Looking(look), A[:16], epochs=2, run_eagerly=True)
    assert after == np.random.uniform()
    equal(logs, expected)
    equal(state(system), state(eager))


def test_item_is_a_number_that_a_graph_can_hold():
    system = agree(drawing(lambda self, x, training: x * ops.mean(x).item()), A[:16], epochs=2)
    assert len(next(iter(system.train_function.steps.values())).programs) == 1


def test_a_system_beside_one_that_cannot_be_captured_is():
    with pytest.warns(UserWarning, match="'looking' runs eagerly"):
        Looking(LOOKS["float"]).fit(A, verbose=0)
    gan = TinyGAN()
    gan.fit(ones(16), batch_size=4, verbose=0)
    assert gan.forwards.count(True) == 2


# Compiled by inductor, and several at once --------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_inductor_compiles_what_was_captured():
    model, *logs = fitted(net, X, Y, compile={"jit_compile": True})
    eager, *expected = fitted(net, X, Y, run_eagerly=True)
    equal(logs, expected)
    equal(state(model), state(eager), rtol=1e-4)


def test_several_steps_per_execution():
    def run(steps):
        same_start()
        model = compiled(net(), loss="mse", metrics=["mae"], steps_per_execution=steps)
        history = model.fit(X, Y, batch_size=2, epochs=2, shuffle=False, verbose=0).history
        tested = model.evaluate(X, Y, batch_size=2, verbose=0, return_dict=True)
        return history, tested, {"all": model.predict(X, batch_size=2, verbose=0)}, state(model)

    equal(run(3), run(1))
