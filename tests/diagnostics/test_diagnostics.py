"""What tells who learns from what: the summary, the gradient report and the logged norms."""

import csv

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Fooler, Pair, Scale, Target, TinyGAN, approx, number, ones

import mlsystem as ml

both = pytest.mark.parametrize("eagerly", [False, True])


class Rich(ml.MLSystem):
    """All that a look at gradients could change: batch norm, seeds, logs, an average, a frozen."""

    def __init__(self):
        super().__init__()
        self.encoder = ml.MLModel(keras.Sequential([layers.Dense(4), layers.BatchNormalization()]))
        self.head = ml.MLModel(keras.Sequential([layers.Dropout(0.5, seed=1), layers.Dense(1)]))
        self.target = ml.EMA(self.encoder, 0.9)
        self.fixed = ml.MLModel(keras.Sequential([layers.Dense(2, trainable=False)]))
        self.seed = keras.random.SeedGenerator(3)
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def forward(self, x, training=None):
        noise = keras.random.normal(ops.shape(x), seed=self.seed)
        if keras.backend.backend() != "jax":  # which refuses to draw without a seed
            noise = noise + keras.random.normal(ops.shape(x))
        encoded = self.encoder(x + 0.1 * noise, training=training)
        self.log("size", ops.mean(encoded**2))
        return {
            "encoder": encoded * self.temperature,
            "target": self.target(x),
            "head": self.head(encoded, training=training),
            "fixed": self.fixed(x),
        }

    def compute_losses(self, x, y, outputs):
        near = ops.mean((outputs["encoder"] - outputs["target"] - 1) ** 2)
        return {"near": near, "low": ops.mean((outputs["head"] - 2) ** 2)}


def data(n=8):
    return np.random.default_rng(0).normal(size=(n, 3)).astype("float32")


def everything(system):
    """All numbers of a system."""
    state = system._mlsystem.state_variables()
    return [ops.convert_to_numpy(v).copy() for v in state]


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


# The report ---------------------------------------------------------------------------------


def test_the_report_holds_the_gradients_worked_out_by_hand():
    gan = TinyGAN(2.0, 3.0)
    report = gan.gradient_report(ones())
    # -d g and d g - d
    assert report["generator"] == approx({"generator": 3.0, "discriminator": 2.0})
    assert report["discriminator"] == approx({"generator": 3.0, "discriminator": 1.0})
    assert report.followed == [("generator", "generator"), ("discriminator", "discriminator")]
    assert report.unfollowed == [("generator", "discriminator"), ("discriminator", "generator")]
    assert report.dead == [] and report.frozen == []


@pytest.mark.once
def test_the_report_takes_what_fit_takes():
    def report(data=None):
        system = TinyGAN(2.0, 3.0)
        system.data = lambda: ml.MLData(ones())
        return system.gradient_report(data)

    known = report(ones())
    doubled = ml.MLData(ones(), transform=lambda x: 2 * x)
    assert report(ml.MLData(ones())) == report() == known
    assert report(doubled)["generator"] != known["generator"]


def test_the_report_after_training_is_that_of_the_new_weights():
    gan = TinyGAN(2.0, 3.0)
    gan.fit(ones(8), batch_size=4, verbose=0)
    g, d = number(gan.generator.weight), number(gan.discriminator.weight)
    report = gan.gradient_report(ones())
    assert report["generator"] == approx({"generator": d, "discriminator": g})
    assert report["discriminator"] == approx({"generator": d, "discriminator": g - 1})


def test_norms_are_those_of_all_weights_of_a_model():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")

    class One(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.net = ml.MLModel(layers.Dense(2), loss="mse")

        def forward(self, x):
            return self.net(x)

    system = One().setup((x, y))
    kernel, bias = (ops.convert_to_numpy(w) for w in system.net.trainable_weights)
    slope = 2 * (x @ kernel + bias - y) / y.size
    norm = np.sqrt(np.sum((x.T @ slope) ** 2) + np.sum(slope.sum(0) ** 2))
    assert system.gradient_report((x, y))["net"]["net"] == approx(norm)


class Cut(Pair):
    """b is called on a stopped a; `idle` gets nothing of any loss but is called."""

    def __init__(self):
        super().__init__()
        self.idle = Scale(2.0)

    def forward(self, x):
        a = self.a(x)
        return {"a": a, "b": self.b(ops.stop_gradient(a)), "idle": self.idle(x) * 0.0}

    def compute_losses(self, x, y, outputs):
        losses = super().compute_losses(x, y, outputs)
        return {"a": losses["a"], "b": losses["b"] + 0.0 * ops.mean(outputs["idle"])}


def test_dead_routes_are_those_followed_without_a_gradient():
    system = Cut()
    system.routing = {"a": {"a": 1.0, "b": 1.0}, "b": {"b": 1.0}, "idle": {"b": 1.0}}
    report = system.gradient_report(ones())
    assert report.dead == [("b", "a"), ("b", "idle")] and report.unfollowed == []
    assert report["b"]["a"] == report["b"]["idle"] == report["a"]["idle"] == 0.0
    lines = str(report).splitlines()
    assert lines[1].split() == ["loss", "a", "b", "idle"]
    assert lines[3].split() == ["a", "4", "(0)", "(0)"]
    assert lines[4].split() == ["b", "0!", "6", "0!"]
    assert "Dead: 'b' in 'a', 'b' in 'idle'" in lines


@pytest.mark.parametrize("routing", ["sum", "own"])
@pytest.mark.once
def test_routing_says_what_is_followed(routing):
    pair = Pair()
    pair.routing = routing
    report = pair.gradient_report(ones())
    # (a - 3)^2 and (a b - 5)^2 at 1 and 2
    assert report["a"] == approx({"a": 4.0, "b": 0.0})
    assert report["b"] == approx({"a": 12.0, "b": 6.0})
    assert report.dead == ([("a", "b")] if routing == "sum" else [])
    assert report.unfollowed == ([] if routing == "sum" else [("b", "a")])


class Around(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.inner, self.other = Pair(), Target(2.0)
        self.inner.routing = "own"
        self.routing = {"inner": {"inner": 1.0}, "other": {"inner": 1.0, "other": 1.0}}

    def forward(self, x):
        other = self.other(x)
        return {"inner": self.inner(other), "other": other}


def test_nested_systems_are_spelled_out():
    report = Around().gradient_report(ones())
    # a = 2 * 1, b = 2 * 1 * 2
    assert report["inner/a"] == approx({"inner/a": 4.0, "inner/b": 0.0, "other": 2.0})
    assert report["inner/b"] == approx({"inner/a": 8.0, "inner/b": 4.0, "other": 4.0})
    assert report["inner"] == approx({"inner/a": 12.0, "inner/b": 4.0, "other": 6.0})
    assert report["other"] == approx({"inner/a": 0.0, "inner/b": 0.0, "other": 4.0})
    assert report.unfollowed == [("inner/b", "inner/a")] and report.dead == []


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.once), "after"])
def test_the_report_changes_nothing(when):
    keras.utils.set_random_seed(1)
    system = Rich().setup(data())
    if when == "after":
        system.fit(data(), batch_size=4, verbose=0)
    before, logs = everything(system), set(system._mlsystem.logs.trackers)
    report = system.gradient_report(data())
    assert same(before, everything(system))
    assert set(system._mlsystem.logs.trackers) == logs
    assert report.frozen == ["target", "fixed"]
    assert set(report["low"]) == {"encoder", "head", "self"}
    assert "frozen" in str(report)
    system.fit(data(), batch_size=4, shuffle=False, verbose=0)
    with_report = everything(system)
    keras.utils.set_random_seed(1)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    other = Rich().setup(data())
    if when == "after":
        other.fit(data(), batch_size=4, verbose=0)
    other.fit(data(), batch_size=4, shuffle=False, verbose=0)
    assert same(with_report, everything(other))


@pytest.mark.once
def test_the_report_takes_what_setup_takes():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (ones(),)

    for given in (ones(), (ones(),), Batches(), iter([(ones(),)])):
        assert TinyGAN().gradient_report(given)["generator"]["generator"] == approx(3.0)


def test_gradients_of_float16_are_not_lost():
    class Tiny(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.net = ml.MLModel(layers.Dense(1, use_bias=False, dtype="mixed_float16"))

        def forward(self, x):
            return self.net(x)

        def compute_losses(self, x, y, outputs):
            return {"net": 1e-9 * ops.sum(ops.cast(outputs, "float32"))}

    report = Tiny().gradient_report(ones())
    assert report["net"]["net"] == approx(4e-9, rel=1e-2) and report.dead == []


# The summary --------------------------------------------------------------------------------


def summary(system, **kwargs):
    """The lines of the table that belong to the models."""
    printed = []
    system.summary(print_fn=printed.append, **kwargs)
    assert f'Model: "{system.name}"' in printed[0]
    lines = printed[-1].splitlines()
    return {line.split()[0]: " ".join(line.split()) for line in lines[3:]}


class Fades(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, batches):
        return 0.5 - 0.125 * ops.cast(batches, "float32")


@pytest.mark.once
def test_the_summary_shows_how_each_model_learns():
    gan, strength = TinyGAN(), keras.Variable(0.25, trainable=False)
    gan.routing = {
        "generator": {"generator": strength, "discriminator": -1.0},
        "discriminator": {"discriminator": Fades()},
    }
    gan.phases = ["discriminator", "discriminator", "generator"]
    gan.update_every = {"generator": 2}
    gan.fit(ones(8), batch_size=4, verbose=0)
    lines = summary(gan)
    assert lines["generator"] == (
        "generator 1 1 SGD 0.1 phase 3 of 3, every 2 batches generator * 0.25, discriminator * -1"
    )
    assert lines["discriminator"] == (
        "discriminator 1 1 SGD 0.01 phase 1, 2 of 3 discriminator * Fades(0.25)"
    )


@pytest.mark.once
def test_the_summary_shows_frozen_members_and_those_of_systems():
    lines = summary(Rich().setup(data()))
    # 3 * 4 + 4, and 4 of each of the four of batch norm
    assert lines["encoder"] == "encoder 32 24 Adam 0.001 each batch near, low"
    assert lines["fixed"] == "fixed 8 0 frozen"
    assert lines["target"] == "target 33 0 follows 'encoder'"
    assert lines["self"] == "self 1 1 Adam 0.001 each batch near, low"
    lines = summary(Around().setup(ones()))
    assert lines["inner/b"] == "inner/b 1 1 SGD 0.1 each batch inner/b"
    assert lines["other"] == "other 1 1 SGD 0.1 each batch inner, other"


@pytest.mark.once
def test_the_summary_before_setup_says_what_is_not_known():
    assert summary(Rich())["encoder"] == "encoder not built"
    assert "known after the first batch" in summary(TinyGAN())["generator"]


@pytest.mark.once
def test_the_summary_goes_to_print_by_default(capsys):
    gan = TinyGAN().setup(ones())
    gan.balance = ml.balance.PCGrad()
    gan.summary(line_length=60)
    out = capsys.readouterr().out
    assert f"Models of '{gan.name}'" in out and "balanced by PCGrad" in out


@pytest.mark.once
def test_the_summary_shows_other_conditions_of_updates():
    gan = TinyGAN().setup(ones())
    object.__setattr__(gan, "update_start", {"generator": 100})
    object.__setattr__(gan, "update_end", {"generator": 900})
    object.__setattr__(gan, "update_when", {"discriminator": is_losing})
    lines = summary(gan)
    assert "from 100, to 900" in lines["generator"]
    assert "when is_losing" in lines["discriminator"]


def is_losing(losses):
    return losses["discriminator"] > 0.3


# The logged norms ---------------------------------------------------------------------------


def by_hand(batches, every):
    """The mean of the logs of a `TinyGAN` over the batches that are looked at."""
    g, d, found = 2.0, 3.0, []
    for n in range(batches):
        if n % every == 0:
            found.append(
                {
                    "generator_gradient_norm_generator": d,
                    "generator_gradient_norm_discriminator": d,
                    "discriminator_gradient_norm_generator": g,
                    "discriminator_gradient_norm_discriminator": g - 1,
                    "generator_update_ratio": 0.1 * d / g,
                    "discriminator_update_ratio": 0.01 * (g - 1) / d,
                }
            )
        g, d = g + 0.1 * d, d - 0.01 * (g - 1)
    return {name: np.mean([one[name] for one in found]) for name in found[0]}


@both
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.spread
def test_norms_and_ratios_are_logged_as_worked_out_by_hand(eagerly, every, tmp_path):
    gan = TinyGAN()
    gan.compile(run_eagerly=eagerly)
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),  # before, and sees them all the same
        ml.callbacks.GradientNorms(every=every),
    ]
    history = gan.fit(ones(20), batch_size=4, epochs=2, verbose=0, callbacks=callbacks).history
    expected = by_hand(5, every)
    assert {name: history[name][0] for name in expected} == approx(expected)
    assert all(len(history[name]) == 2 for name in expected)
    with open(tmp_path / "log.csv") as file:
        [row, _] = csv.DictReader(file)
    assert {name: float(row[name]) for name in expected} == approx(expected)


def trained(callbacks, epochs=2, **compiled):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    system = Rich()
    system.compile(optimizer="adam", **compiled)
    x = np.random.default_rng(0).normal(size=(22, 3)).astype("float32")
    history = system.fit(x, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks).history
    return everything(system), history


@pytest.mark.once
@pytest.mark.parametrize(
    "compiled",
    [
        {},
        {"run_eagerly": True},
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.each_backend),
    ],
)
def test_looking_changes_no_bit_of_the_training(compiled):
    plain, logs = trained([], **compiled)
    looked, more = trained([ml.callbacks.GradientNorms(every=2)], **compiled)
    assert same(plain, looked)
    assert all(more[name] == values for name, values in logs.items())
    assert len(more["encoder_gradient_norm_near"]) == 2
    assert all(np.all(np.isfinite(values)) for values in more.values())


def test_looking_compiles_no_step_anew():
    traces = []

    class Counting(TinyGAN):
        def compute_losses(self, x, y, outputs):
            traces.append(True)
            return super().compute_losses(x, y, outputs)

    def count(*callbacks):
        gan = Counting()
        gan.fit(ones(24), batch_size=4, epochs=2, verbose=0, callbacks=list(callbacks))
        found = len(traces)
        traces.clear()
        return found

    looks = {"jax": 1, "torch": 6, "tensorflow": 6}[keras.backend.backend()]
    assert count(ml.callbacks.GradientNorms(every=2)) == count() + looks


def test_the_steps_of_a_fit_are_looked_at_in_that_fit_alone():
    gan, looks = TinyGAN(), ml.callbacks.GradientNorms(every=1)
    fails = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gan.fit(ones(8), batch_size=4, verbose=0, callbacks=[looks, fails])
    assert len(looks.found["generator_update_ratio"]) == 2
    gan.fit(ones(8), batch_size=4, verbose=0)
    assert len(looks.found["generator_update_ratio"]) == 2


def test_models_that_take_turns_are_looked_at():
    gan = TinyGAN()
    gan.update_every = {"generator": 2}
    logs = gan.fit(ones(16), batch_size=4, verbose=0, callbacks=[ml.callbacks.GradientNorms(2)])
    assert logs.history["generator_update_ratio"] == [0.0]  # the first and third are not its turn
    assert logs.history["generator_gradient_norm_generator"][0] > 0


def test_a_model_alone_is_looked_at_too():
    model = ml.MLModel(layers.Dense(1, use_bias=False), loss="mse", name="line")
    callbacks = [ml.callbacks.GradientNorms()]
    history = model.fit(ones(), 3 * ones(), verbose=0, callbacks=callbacks).history
    assert set(history) == {"loss", "line_gradient_norm_line", "line_update_ratio"}


@pytest.mark.once
def test_a_resumed_epoch_has_the_same_means(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise KeyboardInterrupt

    def run(*more, resume=None):
        keras.utils.set_random_seed(0)
        gan = TinyGAN()
        looks = ml.callbacks.GradientNorms(every=2)
        checkpoint = ml.callbacks.Checkpoint(tmp_path / "run", every=3)
        callbacks = [looks, checkpoint, *more]
        return gan.fit(
            ones(24), batch_size=4, shuffle=False, verbose=0, callbacks=callbacks, resume=resume
        ).history

    with pytest.raises(KeyboardInterrupt):
        run(Stop())
    history = run(resume=tmp_path / "run")
    expected = by_hand(6, 2)
    assert {name: history[name][0] for name in expected} == approx(expected)


@pytest.mark.once
def test_what_gradient_norms_refuses():
    for every in (0, 1.5, True, "epoch"):
        with pytest.raises(ValueError, match="every="):
            ml.callbacks.GradientNorms(every)
    with pytest.raises(ValueError, match="without For"):
        looks = ml.callbacks.For("generator", ml.callbacks.GradientNorms())
        TinyGAN().fit(ones(), verbose=0, callbacks=[looks])

    class LossValues(Fooler):
        def loss(self, x, y, outputs):
            return {"update_ratio": super().loss(x, y, outputs)}

    gan = TinyGAN()
    gan.generator = LossValues()
    with pytest.raises(ValueError, match="'generator_update_ratio'"):
        gan.fit(ones(), verbose=0, callbacks=[ml.callbacks.GradientNorms()])
    assert number(gan.generator.weight) == 1.0
