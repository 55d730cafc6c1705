"""Whole systems are saved and loaded, and go on as if they had never stopped."""

import copy
import json
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import number

import mlsystem as ml

# The host reads and writes files; what engines keep is in the tests of each backend.
pytestmark = pytest.mark.once

registered = keras.saving.register_keras_serializable("tests")
load = keras.saving.load_model
FAST = {"run_eagerly": True}
# Eager jax compiles what is inside a condition again at every step.
CONDITIONS = {} if keras.backend.backend() == "jax" else FAST
FEATURES, LATENT, BATCH = 3, 2, 8
X = np.random.default_rng(0).normal(size=(16, FEATURES)).astype("float32")
Y = X[:, :1] ** 2


def adam(rate=1e-2, **kwargs):
    return keras.optimizers.Adam(rate, **kwargs)


def mlp(*units, **kwargs):
    return keras.Sequential([layers.Dense(n, **kwargs) for n in units])


@registered
class Generator(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean((outputs["fake"] - 1) ** 2)


@registered
class Discriminator(ml.MLModel):
    def loss(self, x, y, outputs):
        real, fake = (outputs["real"] - 1) ** 2, outputs["fake"] ** 2
        return {"real": ops.mean(real), "fake": ops.mean(fake)}


@registered
class GAN(ml.MLSystem):
    """Noise, dropout, batch norm, an averaged copy, a weight of its own."""

    def __init__(self, generator, discriminator, optimizer="adam", momentum=0.9):
        super().__init__()
        self.generator = Generator(generator, optimizer=optimizer)
        self.discriminator = Discriminator(discriminator, optimizer=keras.optimizers.RMSprop(0.01))
        self.average = ml.EMA(self.generator, momentum, every=2)
        self.seed = keras.random.SeedGenerator(3)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.routing = {
            "generator": {"generator": 1.0},
            "discriminator": {"discriminator": 1.0},
            "self": {"generator": 0.5},
        }

    def forward(self, x, training=None):
        z = keras.random.normal((ops.shape(x)[0], LATENT), seed=self.seed)
        fake = self.scale * self.generator(z, training=training)
        return {
            "real": self.discriminator(x, training=training),
            "fake": self.discriminator(fake, training=training),
            "copy": self.average(z),
        }


def gan(optimizer=None, **compiled):
    generator = [layers.Dense(4), layers.BatchNormalization(), layers.Dense(FEATURES)]
    judge = [layers.Dense(4, "relu"), layers.Dropout(0.3, seed=1), layers.Dense(1)]
    schedule = keras.optimizers.schedules.ExponentialDecay(0.02, 3, 0.9)
    system = GAN(
        keras.Sequential(generator),
        keras.Sequential(judge),
        optimizer or adam(schedule, beta_1=0.5, use_ema=True, ema_overwrite_frequency=3),
        keras.optimizers.schedules.PolynomialDecay(0.9, 5, 0.5),
    )
    system.compile(**compiled)
    return system.setup(X[:BATCH])


@registered
class Rows(ml.MLSystem):
    """Nets of one layer side by side, `{name: units}`, and some seeds."""

    routing = "own"

    def __init__(self, units, seeds=1, optimizer="adam", name=None):
        super().__init__(name=name)
        self.nets = {
            n: ml.MLModel(mlp(u), loss="mse", optimizer=optimizer) for n, u in units.items()
        }
        self.head = ml.MLModel(mlp(1), loss="mse", optimizer="sgd")
        self.noise = [keras.random.SeedGenerator(i) for i in range(seeds)]

    def forward(self, x):
        return {"head": self.head(x)} | {f"nets/{n}": net(x) for n, net in self.nets.items()}


def rows(*args, optimizers=True, compiled=FAST, **kwargs):
    """A system of nets, all of whose state is random numbers."""
    system = Rows(*(args or ({"a": 2, "b": 2},)), **kwargs)
    if optimizers:
        system.compile(**compiled)
        system.setup((X[:4], Y[:4]))
    else:
        system(X[:4])
    return scrambled(system)


def scrambled(system, seed=0):
    rng = np.random.default_rng(seed)
    optimizer = getattr(system, "optimizer", None)
    for variable in [*system.weights, *(optimizer.variables if optimizer else [])]:
        whole = "float" not in variable.dtype
        values = rng.integers(1, 9, variable.shape) if whole else rng.uniform(0, 1, variable.shape)
        variable.assign(values.astype(variable.dtype))
    return system


def fit(system, *data, epochs=2, **kwargs):
    given = {"batch_size": BATCH, "shuffle": False, "verbose": 0} | kwargs
    return system.fit(*(data or (X, Y)), epochs=epochs, **given).history


def state(model):
    """All that training goes on from, in numbers: weights, seeds and optimizers."""
    running = {id(v) for v in model.metrics_variables}
    own = [v for v in model.variables if id(v) not in running]
    optimizer = getattr(model, "optimizer", None)
    optimizer = optimizer.variables if optimizer else []
    return [np.array(ops.convert_to_numpy(v)) for v in [*own, *optimizer]]


def assert_same(one, other):
    one, other = (m if isinstance(m, list) else state(m) for m in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def continues(system, path, *data, **kwargs):
    """Saves a system, loads it, and has both go on: to the digit the same."""
    before = state(system)
    system.save(path)
    keras.utils.set_random_seed(9)
    loaded = load(path)
    assert type(loaded) is type(system)
    assert_same(loaded, before)
    assert_same(system, before)
    assert fit(loaded, *data, **kwargs) == fit(system, *data, **kwargs)
    assert_same(loaded, system)
    assert any(not np.array_equal(a, b) for a, b in zip(before, state(loaded), strict=True))
    return loaded


# Whole systems --------------------------------------------------------------------------------


@pytest.mark.each_backend
def test_a_loaded_system_goes_on_as_if_it_had_never_stopped(tmp_path):
    system = gan()
    fit(system, X)
    system.optimizers["discriminator"].learning_rate = 0.005
    loaded = continues(system, tmp_path / "gan.keras", X, epochs=3)
    assert type(loaded) is GAN and type(loaded.generator) is Generator
    assert loaded.routing == system.routing and loaded.update_every is None
    assert list(loaded.optimizers) == ["generator", "discriminator", "self"]
    assert int(loaded.optimizer.iterations) == 10
    assert int(loaded.optimizers["generator"].iterations) == 10
    assert int(loaded.average.updates) == 10
    assert number(loaded.optimizers["discriminator"].learning_rate) == pytest.approx(0.005)
    for name, optimizer in system.optimizers.items():
        assert loaded.optimizers[name].get_config() == optimizer.get_config()


@registered
class Inner(ml.MLSystem):
    """Takes y and a dict with integers; its members are a plain model and a functional one."""

    def __init__(self, embedding, mixer):
        super().__init__()
        self.embedding, self.mixer = embedding, mixer

    def forward(self, x, y=None, training=None):
        words = ops.mean(self.embedding(x["words"]), axis=1)
        mixed = self.mixer(ops.concatenate([words, x["numbers"]], axis=-1))
        return mixed if y is None else {"mixed": mixed, "error": ops.mean((mixed - y) ** 2)}

    def compute_losses(self, x, y, outputs):
        return {"mixer": outputs["error"], "small": ops.mean(outputs["mixed"] ** 2)}


@registered
class Outer(ml.MLSystem):
    """A system in a system, lists in a dict, phases."""

    phases = (("heads",), ("inner",))

    def __init__(self, inner, heads):
        super().__init__()
        self.inner, self.heads = inner, heads

    def forward(self, x, y=None, training=None):
        inner = self.inner(x, y=y, training=training)
        mixed = inner["mixed"] if isinstance(inner, dict) else inner
        return {"inner": inner, "heads": [head(mixed) for head in self.heads["all"]]}

    def compute_losses(self, x, y, outputs):
        heads = sum(ops.mean((head - y) ** 2) for head in outputs["heads"])
        return super().compute_losses(x, y, outputs) | {"heads": heads}


@pytest.mark.each_backend
def test_systems_in_systems_lists_in_dicts_and_models_of_all_kinds(tmp_path):
    words = {"words": np.arange(32).reshape(16, 2) % 5, "numbers": X}
    inputs = keras.Input((2 + FEATURES,))
    mixer = ml.MLModel(inputs, layers.Dense(1, use_bias=False)(inputs), optimizer=adam(0.1))
    inner = Inner(keras.Sequential([layers.Embedding(5, 2)]), mixer)
    inner.routing = {"embedding": {"mixer": 1, "small": 2}, "mixer": {"mixer": 1}}
    heads = [ml.MLModel(mlp(1), optimizer="sgd", name="head") for _ in range(2)]
    system = Outer(inner, {"all": heads})
    system.update_every = {"inner": 2}
    system.compile(**FAST)
    fit(system, words, Y, epochs=1)
    loaded = continues(system, tmp_path / "outer.keras", words, Y, epochs=1)
    assert loaded.inner.routing == inner.routing
    assert loaded.update_every == {"inner": 2}
    assert list(loaded.optimizers) == [
        *("inner/embedding", "inner/mixer", "heads/all/0", "heads/all/1")
    ]
    alone = Inner(keras.Sequential([layers.Embedding(5, 2)]), layers.Dense(1))
    alone({k: v[:4] for k, v in words.items()})
    loaded.inner.save(tmp_path / "inner.keras")
    again = load(tmp_path / "inner.keras")
    assert_same([np.array(w) for w in again.get_weights()], loaded.inner.get_weights())
    assert again.routing == inner.routing


@pytest.mark.each_backend
def test_in_half_precision_the_scale_of_the_loss_goes_on(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        system = rows({"a": 1}, compiled=CONDITIONS)
        loaded = continues(system, tmp_path / "half.keras")
    finally:
        keras.config.set_dtype_policy(before)
    assert all(type(o).__name__ == "LossScaleOptimizer" for o in loaded.optimizers.values())


def test_what_compile_was_given_is_saved(tmp_path):
    optimizers = {
        "nets/a": adam(1e-3, gradient_accumulation_steps=2, global_clipnorm=0.5),
        "nets/b": keras.optimizers.SGD(0.1, momentum=0.9, clipvalue=0.1),
        "head": "adagrad",
    }
    system = Rows({"a": 1, "b": 1})
    system.compile(
        optimizers,
        loss={"head": keras.losses.BinaryCrossentropy(from_logits=True), "nets": "mae"},
        loss_weights={"nets/a": 2.0, "head": keras.optimizers.schedules.CosineDecay(1.0, 4)},
        metrics={"head": ["mae", keras.metrics.RootMeanSquaredError(name="root")]},
        **CONDITIONS,
    )
    fit(system)
    loaded = continues(system, tmp_path / "system.keras")
    for name, optimizer in system.optimizers.items():
        assert loaded.optimizers[name].get_config() == optimizer.get_config()
    assert {"head_mae", "head_root"} <= set(loaded.evaluate(X, Y, return_dict=True, verbose=0))


@pytest.mark.parametrize(
    "given", [{"jit_compile": False, "steps_per_execution": 2}, {"jit_compile": True}, {}]
)
@pytest.mark.each_backend
def test_how_steps_run_is_saved(tmp_path, given):
    system = Rows({"a": 1})
    system.compile(**given)
    system.setup((X, Y))
    system.save(tmp_path / "system.keras")
    loaded = load(tmp_path / "system.keras")
    for name in ("steps_per_execution", "run_eagerly"):
        assert getattr(loaded, name) == getattr(system, name)
    assert loaded.get_compile_config()["jit_compile"] == given.get("jit_compile", "auto")


def test_attributes_set_on_the_instance_are_saved_and_those_of_the_class_stay_its_own(tmp_path):
    system = rows({"a": 1})
    system.routing = {
        "nets": {"nets/a": np.float32(0.5)},
        "head": {"head": keras.optimizers.schedules.CosineDecay(1.0, 9)},
    }
    system.phases = [("nets",), ("head", "nets/a")]
    system.save(tmp_path / "set.keras")
    loaded = load(tmp_path / "set.keras")
    assert loaded.routing["nets"] == {"nets/a": 0.5}
    assert (
        loaded.routing["head"]["head"].get_config() == system.routing["head"]["head"].get_config()
    )
    assert [list(phase) for phase in loaded.phases] == [["nets"], ["head", "nets/a"]]
    assert "update_every" not in loaded.__dict__


def test_a_frozen_member_is_loaded_frozen(tmp_path):
    system = Rows({"a": 1, "b": 1})
    system.nets["a"].trainable = False
    system.compile(**FAST)
    loaded = continues(scrambled(system.setup((X, Y))), tmp_path / "frozen.keras", epochs=1)
    assert list(loaded.optimizers) == ["nets/b", "head"] and not loaded.nets["a"].trainable


@registered
class Weighted(Rows):
    def __init__(self, units):
        super().__init__(units)
        self.strength = keras.Variable(0.5, trainable=False)
        self.routing = {"nets": {"nets/a": self.strength}, "head": {"head": 1}}


@pytest.mark.each_backend
def test_a_variable_in_the_routing_is_that_of_the_constructor_with_its_value(tmp_path):
    system = Weighted({"a": 1}).setup((X, Y))
    system.strength.assign(0.25)
    system.save(tmp_path / "weighted.keras")
    loaded = load(tmp_path / "weighted.keras")
    assert loaded.routing["nets"]["nets/a"] is loaded.strength
    assert number(loaded.strength) == 0.25


@pytest.mark.each_backend
def test_other_batches_than_the_first_fit_a_loaded_system(tmp_path):
    rows().save(tmp_path / "rows.keras")
    loaded = load(tmp_path / "rows.keras")
    fit(loaded, X, Y, batch_size=6, epochs=1)
    assert len(loaded.predict(X[:3], verbose=0)["head"]) == 3


def test_proportions_of_learning_rates_are_saved(tmp_path):
    system = rows({"a": 1}, optimizer=keras.optimizers.SGD(0.1))
    system.optimizers["head"].learning_rate = 0.02
    system.optimizers["nets/a"].learning_rate = 0.1
    system.optimizer.learning_rate = 0.0
    system.save(tmp_path / "system.keras")
    loaded = load(tmp_path / "system.keras")
    first = float(loaded.optimizer.learning_rate)
    loaded.optimizer.learning_rate = system.optimizer.learning_rate = 0.5
    rates = [float(o.learning_rate) for o in loaded.optimizers.values()]
    assert first == 0 and rates == [float(o.learning_rate) for o in system.optimizers.values()]
    assert rates[0] != rates[1]


# Weights alone ----------------------------------------------------------------------------------


@pytest.mark.each_backend
def test_weights_load_into_a_new_system_with_optimizers_and_seeds(tmp_path):
    system = rows()
    fit(system, epochs=1)
    system.optimizer.learning_rate = 0.007
    before = state(system)
    for name in ("system.weights.h5", "system.keras"):
        (system.save if name.endswith("keras") else system.save_weights)(tmp_path / name)
        keras.utils.set_random_seed(9)
        other = scrambled(rows(), seed=1)
        other.load_weights(tmp_path / name)
        assert_same(other, before)
    assert fit(other, epochs=1) == fit(system, epochs=1)
    assert_same(other, system)


def test_a_system_without_weights_says_that_it_needs_setup(tmp_path):
    rows().save_weights(tmp_path / "rows.weights.h5")
    with pytest.raises(ValueError, match=r"'rows.*' has no weights .*setup\(batch\)"):
        Rows({"a": 2, "b": 2}).load_weights(tmp_path / "rows.weights.h5")


def test_the_order_of_a_dict_does_not_matter(tmp_path):
    system, other = rows({"a": 2, "b": 2}), scrambled(rows({"b": 2, "a": 2}), seed=1)
    system.save_weights(tmp_path / "rows.weights.h5")
    other.load_weights(tmp_path / "rows.weights.h5")
    for name in ("a", "b"):
        assert_same(other.nets[name].get_weights(), system.nets[name].get_weights())


DENSE = "nets/{}/layers/sequential/layers/dense"
UNFIT = {
    "a model is missing": (
        lambda: rows({"a": 2}),
        [f"{DENSE.format('b')}: is not in the file", "optimizer/nets/b.Adam: is not in the file"],
    ),
    "a model more": (
        lambda: rows({"a": 2, "b": 2, "c": 2}),
        [
            "nets/c/layers/sequential/layers/dense: is in the file alone",
            "optimizer/nets/c.Adam: is in the file",
        ],
    ),
    "other shapes": (
        lambda: rows({"a": 2, "b": 3}),
        [
            DENSE.format("b") + r"/0: has shape \(3, 3\) in the file, not \(3, 2\)",
            r"optimizer/nets/b.Adam.2: has shape \(3, 3\) in the file, not \(3, 2\)",
        ],
    ),
    "no optimizers": (
        lambda: rows(optimizers=False),
        ["optimizer/nets/a.Adam: is not in the file", "optimizer/head.SGD: is not in the file"],
    ),
    "another optimizer": (
        lambda: rows(optimizer=keras.optimizers.AdamW()),
        ["optimizer/nets/a.Adam: is not in the file", "nets/a.AdamW: is in the file alone"],
    ),
    "fewer seeds": (lambda: rows(seeds=1), ["random seeds/1: is not in the file"]),
    "more seeds": (lambda: rows(seeds=3), ["random seeds/2: is in the file alone"]),
}


def parts(system):
    """The state of a system in the parts that a file has as one: layers and optimizers."""
    nets = {"head": system.head, **system.nets}
    found = {name: net.weights for name, net in nets.items()}
    optimizers = system.optimizers if hasattr(system, "optimizer") else {}
    found |= {f"{n} {type(o).__name__}": o.variables for n, o in optimizers.items()}
    return {n: [ops.convert_to_numpy(v).copy() for v in part] for n, part in found.items()}


@pytest.mark.parametrize("case", UNFIT)
def test_a_file_that_does_not_fit_changes_nothing_and_the_error_lists_what_differs(tmp_path, case):
    make, expected = UNFIT[case]
    other, path = make(), tmp_path / "other.weights.h5"
    other.save_weights(path)
    system = scrambled(rows(seeds=2), seed=1)
    before, kept, theirs = state(system), parts(system), parts(other)
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        system.load_weights(path)
    for text in expected:
        error.match(text)
    assert_same(system, before)

    with pytest.warns(UserWarning, match="were not loaded"):
        system.load_weights(path, skip_mismatch=True)
    for name, part in parts(system).items():
        known = theirs.get(name, [])
        fits = [v.shape for v in known] == [v.shape for v in part]
        assert_same(part, known if fits else kept[name])


# Damaged files ----------------------------------------------------------------------------------


def damaged(content, folder):
    """A file cut off at several lengths, with bytes changed, and other files altogether."""
    size = len(content)
    yield from (content[:length] for length in (0, 1, 100, size // 4, size // 2, size - 30))
    for place in (0, 3, 8, 40, size // 3, size - 20):
        changed = bytes(255 - b for b in content[place : place + 8])
        yield content[:place] + changed + content[place + 8 :]
    yield b"once upon a time"
    with h5py.File(folder / "other.h5", "w") as file:
        file["series/one"] = np.arange(5)
    with zipfile.ZipFile(folder / "other.zip", "w") as file:
        file.writestr("letter.txt", "dear reader")
    yield from ((folder / name).read_bytes() for name in ("other.h5", "other.zip"))


@pytest.mark.parametrize("name", ["rows.weights.h5", "rows.keras"])
def test_a_damaged_file_is_an_error_that_changes_nothing(tmp_path, name):
    system, path = rows({"a": 2}), tmp_path / name
    (system.save if name.endswith("keras") else system.save_weights)(path)
    saved = state(system)
    refused = 0
    for content in damaged(path.read_bytes(), tmp_path):
        path.write_bytes(content)
        before = state(scrambled(system, seed=1))
        try:
            system.load_weights(path)
        except ValueError as error:
            assert name in str(error) and "othing was loaded" in str(error)
            assert_same(system, before)
            refused += 1
        else:  # the changed bytes are among those that nobody reads
            assert_same(system, saved)
    assert refused >= 11
    with pytest.raises(FileNotFoundError):
        system.load_weights(tmp_path / f"no_{name}")


def test_load_model_refuses_damaged_files(tmp_path):
    path = tmp_path / "rows.keras"
    (system := rows({"a": 2})).save(path)
    refused = 0
    for content in damaged(path.read_bytes(), tmp_path):
        path.write_bytes(content)
        try:
            assert_same(load(path), system)
        except (ValueError, KeyError, zipfile.BadZipFile):
            refused += 1
    assert refused >= 11


# Members alone, and arguments -------------------------------------------------------------------


def test_members_are_saved_and_loaded_alone(tmp_path):
    system = scrambled(gan())
    z = np.ones((3, LATENT), "float32")
    for name in ("generator", "average"):
        member = getattr(system, name)
        member.save(tmp_path / f"{name}.keras")
        loaded = load(tmp_path / f"{name}.keras")
        assert type(loaded) is type(member)
        assert_same(loaded.get_weights(), member.get_weights())
        np.testing.assert_array_equal(loaded.predict(z, verbose=0), member.predict(z, verbose=0))
        member.save_weights(tmp_path / f"{name}.weights.h5")
    other = gan()
    for name in ("generator", "average"):
        member = getattr(other, name)
        member.load_weights(tmp_path / f"{name}.weights.h5")
        assert_same(member.get_weights(), getattr(system, name).get_weights())
        assert not member.compiled


def test_a_member_takes_the_weights_of_a_model_that_was_trained_alone(tmp_path):
    alone = ml.MLModel(mlp(2), loss="mse")
    fit(alone, X, X[:, :2], epochs=1)
    alone.save_weights(tmp_path / "alone.weights.h5")
    system = rows({"a": 2})
    before = state(system.head)
    system.nets["a"].load_weights(tmp_path / "alone.weights.h5")
    assert_same(system.nets["a"].get_weights(), alone.get_weights())
    assert_same(system.head, before)


@registered
class Block(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


@registered
class Composed(ml.MLModel):
    """Has arguments of all kinds, and no `get_config`."""

    def __init__(self, trunk, layers, *, heads, shift=0.0, optimizer=None, **kwargs):
        super().__init__(optimizer=optimizer, **kwargs)
        self.trunk, self.blocks, self.heads, self.shift = trunk, layers, heads, shift

    def forward(self, x):
        x = self.trunk(x) + self.shift
        for block in self.blocks:
            x = block(x)
        return {name: head(x) for name, head in self.heads.items()}

    def loss(self, x, y, outputs):
        return {name: ops.mean((output - y) ** 2) for name, output in outputs.items()}


def test_a_model_whose_arguments_are_models_layers_and_optimizers(tmp_path):
    heads = {"a": layers.Dense(1), "b": mlp(2, 1)}
    blocks = [block := Block(2), layers.BatchNormalization(), block]
    model = Composed(mlp(2), blocks, heads=heads, shift=1.5, optimizer=adam(0.02), name="composed")
    model.compile(model.configure_optimizer(), **FAST)
    fit(model, epochs=1)
    loaded = continues(model, tmp_path / "composed.keras", epochs=1)
    assert loaded.name == "composed" and loaded.shift == 1.5
    assert loaded.blocks[0] is loaded.blocks[2]
    assert number(loaded.optimizer.learning_rate) == pytest.approx(0.02)


class Unknown:
    """Something that Keras cannot serialize."""

    def __repr__(self):
        return "<an unknown>"


@registered
class Picky(ml.MLModel):
    def __init__(self, what, **kwargs):
        super().__init__(mlp(1), loss="mse", **kwargs)
        self.what = what


def test_an_argument_that_cannot_be_saved_is_named_before_anything_is_written(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"an older file")
    text = "cannot serialize the argument what of Picky, <an unknown>.*save_weights"
    for model in (Picky(Unknown()), ml.MLModel(Picky(Unknown()))):
        model.setup((X, Y))
        with pytest.raises(NotImplementedError, match=text):
            model.save(path)
    system = rows({"a": 1})
    system.compile(loss_weights={"nets/a": keras.Variable(1.0)})
    system.setup((X, Y))
    with pytest.raises(NotImplementedError, match="loss_weights of Rows"):
        system.save(path)
    assert path.read_bytes() == b"an older file"


def test_nothing_in_a_file_is_evaluated(tmp_path):
    path = tmp_path / "model.keras"
    model = Picky(lambda x: 2 * x).setup((X, Y))
    with pytest.warns(UserWarning, match="lambda"):
        model.save(path)
    with pytest.raises(ValueError, match="lambda"):
        load(path)
    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    assert config["config"]["what"]["class_name"] == "__lambda__"
    with pytest.raises(ValueError, match="lambda"):
        Picky.from_config(config["config"])
    assert load(path, safe_mode=False).what(2) == 4


# Beside Keras' own models -----------------------------------------------------------------------


def functional(base, units=2):
    inputs = keras.Input((FEATURES,))
    hidden = layers.Dropout(0.5, seed=1)(layers.Dense(units)(inputs))
    return base(inputs, layers.Dense(1)(hidden))


class KerasNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(2), layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


class MLNet(ml.MLModel):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(2), layers.Dense(1)

    def forward(self, x):
        return self.out(self.hidden(x))


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_files_of_keras_models_and_ours_fit_each_other(tmp_path, kind, suffix):
    bases = (keras.Model, ml.MLModel) if kind == "functional" else (KerasNet, MLNet)
    for i, order in enumerate((bases, bases[::-1])):
        models = [functional(base) if kind == "functional" else base() for base in order]
        for model in models:
            model.compile(adam(), "mse", run_eagerly=True)
            model.fit(X, Y, verbose=0)
        path = tmp_path / f"{i}.{suffix}"
        (models[0].save if suffix == "keras" else models[0].save_weights)(path)
        models[1].load_weights(path)
        assert_same(models[1].get_weights(), models[0].get_weights())
        pairs = zip(models[1].optimizer.variables, models[0].optimizer.variables, strict=True)
        assert all(np.array_equal(*map(ops.convert_to_numpy, pair)) for pair in pairs)


class Choosy(layers.Layer):
    """Refuses what it does not like, after the layer before it was loaded."""

    def build(self, shape):
        self.w = self.add_weight(shape=(1,), initializer="ones")

    def call(self, x):
        return x * self.w

    def load_own_variables(self, store):
        if store["0"][0] == 1:
            raise ValueError("not ones")
        super().load_own_variables(store)


def test_what_a_layer_refuses_changes_nothing(tmp_path):
    def made(rate):
        model = ml.MLModel(keras.Sequential([layers.Dense(1), Choosy()]), loss="mse")
        model.compile(keras.optimizers.SGD(rate), run_eagerly=True)
        return model.setup((X, Y))

    first, second = made(0.1), made(0.2)
    first.save_weights(tmp_path / "a.weights.h5")
    before = [ops.convert_to_numpy(v) for v in second._mlsystem.state_variables()]
    with pytest.raises(ValueError, match=r"Choosy.* cannot load its part of the file: not ones"):
        second.load_weights(tmp_path / "a.weights.h5")
    after = [ops.convert_to_numpy(v) for v in second._mlsystem.state_variables()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# Copies -----------------------------------------------------------------------------------------


@pytest.mark.each_backend
def test_copies_of_a_system_are_whole(tmp_path):
    system = rows({"a": 1})
    copies = [copy.deepcopy(system), pickle.loads(pickle.dumps(system))]
    for other in copies:
        assert_same(other, system)
        assert not set(map(id, other.weights)) & set(map(id, system.weights))
    clone = keras.models.clone_model(system)
    assert type(clone) is Rows and clone.nets["a"] is not system.nets["a"]
    assert fit(copies[0]) == fit(system) == fit(copies[1])
    assert_same(copies[0], system)


def test_arguments_without_names_cannot_be_saved(tmp_path):
    class Star(ml.MLModel):
        def __init__(self, *units):
            super().__init__()
            self.net = keras.Sequential([layers.Dense(n) for n in units])

        def forward(self, x):
            return self.net(x)

    star = Star(2, 1)
    star(np.ones((1, 2), "float32"))
    with pytest.raises(NotImplementedError, match=r"Star was given arguments by \*args"):
        star.save(tmp_path / "star.keras")
    assert not list(tmp_path.iterdir())
