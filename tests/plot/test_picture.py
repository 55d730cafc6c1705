"""The picture of a system in each format, and that looking changes nothing."""

import ast
import sys
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers, ops
from toys import Critics, Fooler, Judge, Pair, Scale, Target, TinyGAN, ones

import mlsystem as ml
from mlsystem.diagnostics.describe import describe


class Halves(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to a negative weight: its sign shows later."""

    def __call__(self, batches):
        return -0.5 * ops.cast(batches, "float32")


def adversarial():
    gan = TinyGAN()
    gan.averaged = ml.EMA(gan.generator, 0.99)
    gan.update_every = {"generator": 2}
    gan.update_when = {"discriminator": lambda losses: losses["discriminator"] > 0.5}
    return gan


def phased():
    gan = TinyGAN()
    gan.phases = ["discriminator", "discriminator", "generator"]
    return gan


def reversed_():
    pair = Pair()
    pair.routing = {"a": {"a": 1.0, "b": Halves()}, "b": {"b": 2.0}}
    return pair


class Around(ml.MLSystem):
    """A nested system, a frozen model, and a weight of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.other = Pair(), Target(2.0)
        self.fixed = Scale(1.0)
        self.fixed.trainable = False
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def forward(self, x):
        return {"inner": self.inner(self.other(x)), "other": self.fixed(x) * self.scale}


def alone():
    return Judge(1.0, name="judge")


class Classifier(ml.MLModel):
    def loss(self, x, y, outputs):
        return ops.mean((outputs - y) ** 2)


def classifier():
    return Classifier(layers.Dense(1), optimizer=keras.optimizers.SGD(0.1), name="classifier")


def text_of(system, data=None):
    return str(system.setup(ones() if data is None else data).picture())


# As text, to the letter ---------------------------------------------------------------------

TEXTS = {
    adversarial: """\
TinyGAN · routing "own" · 1 forward pass · 2 backward passes

models
  x, generator  ──►  discriminator  1 weight, 2 calls, SGD 0.01 [when discriminator > 0.5]
  x             ──►  generator      1 weight, SGD 0.1 [every 2 batches]
  generator     ┈┈►  averaged       2 weights, EMA of generator, momentum 0.99

losses
  discriminator  ──►  (generator)                  ══►  generator      × 1
  discriminator  ──►  (discriminator) fake + real  ══►  discriminator  × 1""",
    phased: """\
TinyGAN · routing "own" · 3 forward passes · 3 backward passes

models
  x, generator  ──►  discriminator  1 weight, 2 calls, SGD 0.01
  x             ──►  generator      1 weight, SGD 0.1

losses
  discriminator  ──►  (generator)                  ══►  generator      × 1 (phase 3)
  discriminator  ──►  (discriminator) fake + real  ══►  discriminator  × 1 (phase 1–2)""",
    reversed_: """\
Pair · routing table · 1 forward pass · 2 backward passes

models
  x  ──►  a  1 weight, SGD 0.1
  a  ──►  b  1 weight, SGD 0.1

losses
  a  ──►  (a)  ══►  a  × 1
  b  ──►  (b)  ╌╌►  a  × 0 (now, moved by Halves)
               ══►  b  × 2""",
    Around: """\
Around · routing "sum" · 1 forward pass · 2 backward passes

models
  x        ──►  other    1 weight, SGD 0.1
  other    ──►  inner/a  1 weight, SGD 0.1
  inner/a  ──►  inner/b  1 weight, SGD 0.1
  x        ──►  fixed    1 weight, frozen
                self     1 weight, Adam 0.001

losses
  fixed, self       ──►  (other)    ══►  inner/a  × 1
                                    ══►  inner/b  × 1
                                    ══►  other    × 1
                                    ══►  self     × 1
  inner/a           ──►  (inner/a)  ══►  inner/a  × 1
                                    ══►  inner/b  × 1
  inner/b           ──►  (inner/b)  ══►  inner/a  × 1
                                    ══►  inner/b  × 1
  inner/a, inner/b  ──►  (inner)    ══►  other    × 1
                                    ══►  self     × 1""",
    classifier: """\
Classifier

models
  inputs  ──►  classifier  2 weights, SGD 0.1

losses
  classifier, y  ──►  (classifier)  ══►  classifier  × 1""",
}


@pytest.mark.parametrize("make", list(TEXTS))
def test_the_text_to_the_letter(make):
    data = (ones(), ones()) if make is classifier else None
    found = text_of(make(), data)
    assert found.splitlines() == TEXTS[make].splitlines()


# In other formats ---------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("make", [adversarial, phased, reversed_, Around, Critics])
def test_the_svg_is_xml_that_says_all_and_has_both_modes(make):
    picture = make().setup(ones()).picture()
    root = ElementTree.fromstring(picture._repr_svg_())
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    for model in picture.facts.models:
        assert model.name in texts or model.name.rpartition("/")[2] in texts
    assert {loss.name for loss in picture.facts.losses} <= texts
    assert float(root.get("width")) <= 800
    assert "prefers-color-scheme:dark" in picture.svg
    assert " id=" not in picture.svg  # two pictures on one page would share it


class Odd(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.heads = {'<left> & "right"': Target(2.0)}

    def forward(self, x):
        return {f"heads/{name}": head(x) for name, head in self.heads.items()}


@pytest.mark.once
def test_names_are_escaped():
    picture = Odd().setup(ones()).picture()
    ElementTree.fromstring(picture.svg)
    assert "<left>" not in picture.mermaid and '"right"' not in picture.mermaid
    assert "heads/&lt;left&gt; & #quot;right#quot;" in picture.mermaid


@pytest.mark.once
def test_the_flowchart_has_a_box_and_an_arrow_for_each():
    lines = [line.strip() for line in adversarial().setup(ones()).picture().mermaid.splitlines()]
    assert lines[0] == "flowchart LR"
    assert 'm1["<b>generator</b><br/>1 weight<br/>SGD 0.1<br/>every 2 batches"]' in lines
    assert 'l3(["<b>generator</b>"])' in lines and 'i5(["x"])' in lines
    assert {"i5 --> m0", "m1 --> m0", "m0 --> l3", "m1 -. EMA .-> m2"} <= set(lines)
    assert 'l3 ==>|"× 1"| m1' in lines
    styled = [line.split()[1] for line in lines if line.startswith("linkStyle")]
    arrows = [line for line in lines if "-->" in line or "==>" in line or ".->" in line]
    assert [arrows[int(i)].split()[1][:3] for i in styled] == ["==>", "==>"]


@pytest.mark.once
def test_negative_moving_and_nested_show_in_the_flowchart():
    text = reversed_().setup(ones()).picture().mermaid
    assert '-.->|"× 0 now"|' in text and "stroke:#c8372d" in text
    nested = Around().setup(ones()).picture().mermaid
    assert 'subgraph s0 ["inner"]' in nested and nested.count("    end\n") == 1


@pytest.mark.once
@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_missing_folder_is_named(ending, tmp_path):
    picture, path = Pair().setup(ones()).picture(), tmp_path / "none" / f"a.{ending}"
    with pytest.raises(FileNotFoundError, match=r"A picture cannot be saved .*: there is no fold"):
        picture.save(path)


@pytest.mark.once
def test_saved_by_the_ending(tmp_path):
    pytest.importorskip("matplotlib")
    picture = Around().setup(ones()).picture()
    assert picture.save(tmp_path / "a.svg").read_text(encoding="utf-8") == picture.svg
    assert picture.save(tmp_path / "a.md").read_text(encoding="utf-8").startswith("```mermaid\n")
    assert picture.save(str(tmp_path / "a.txt")).read_text(encoding="utf-8") == f"{picture}\n"
    light, dark = (picture.save(tmp_path / f"{d}.png", dark=d).read_bytes() for d in (False, True))
    assert light[:8] == dark[:8] == b"\x89PNG\r\n\x1a\n" and light != dark
    with pytest.raises(ValueError, match=r"'.*a\.pdf'\. End the path in \.svg, \.md"):
        picture.save(tmp_path / "a.pdf")
    assert not (tmp_path / "a.pdf").exists()
    assert picture.save(tmp_path / "B.SVG").read_text(encoding="utf-8") == picture.svg
    assert picture.save(tmp_path / "B.PNG").read_bytes() == light


@pytest.mark.once
def test_without_matplotlib_the_other_formats_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    picture = Pair().setup(ones()).picture()
    with pytest.raises(ImportError, match=r"not installed.*save it as \.svg"):
        picture.save(tmp_path / "a.png")
    assert picture.save(tmp_path / "a.svg").exists()


@pytest.mark.once
def test_no_file_imports_matplotlib_before_it_draws():
    for file in Path(ml.plot.__file__).parent.glob("*.py"):
        top = [
            n
            for n in ast.parse(file.read_text()).body
            if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
        assert "matplotlib" not in " ".join(map(ast.unparse, top)), file


# Measured -----------------------------------------------------------------------------------


@pytest.mark.once
def test_a_report_gives_norms_and_dead_routes():
    pair = Pair()
    report = pair.gradient_report(ones())  # "sum": the loss a does not depend on b
    picture = ml.plot.system(pair, report)
    routes = {(r.loss, r.model): r for r in picture.facts.routes}
    assert routes["b", "b"].norm == report["b"]["b"] and routes["a", "b"].is_dead
    assert "══✗  b  × 1 (norm 0)" in str(picture) and "no gradient arrives" in picture.svg
    assert "--x|" in picture.mermaid
    widths = sorted(float(w) for w in strokes(picture.svg))
    assert widths[-1] == 7.0  # the strongest


def strokes(svg):
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        yield element.get("stroke-width")


@pytest.mark.once
def test_a_report_of_the_wrong_kind_says_what_to_give():
    with pytest.raises(TypeError, match=r"is a ndarray. Give the result of `gradient_report"):
        Pair().setup(ones()).picture(ones())
    with pytest.raises(TypeError, match=r"in its entry 'a', is a int. Give the result of"):
        Pair().setup(ones()).picture({"a": 3})
    with pytest.raises(ValueError, match=r"is empty.*`system.gradient_report\(data\)`"):
        Pair().setup(ones()).picture(report={})


@pytest.mark.once
def test_what_is_no_system_says_what_to_give():
    with pytest.raises(TypeError, match=r"Found a NoneType to draw. Give an `MLSystem` or"):
        ml.plot.system(None)
    with pytest.raises(TypeError, match=r"Found a Sequential to draw.*`MLModel\(model\)` makes"):
        ml.plot.system(keras.Sequential())


class Named(ml.MLSystem):
    def __init__(self):
        super().__init__()
        self.heads = {name: Fooler(1.0) for name in ("判別器", "a")}

    def forward(self, x):
        return {"fake": sum(head(x) for head in self.heads.values())}


@pytest.mark.once
def test_columns_stay_aligned_with_wide_characters():
    system = Named().setup(ones())
    for found, column in ((system.picture(), "1 weight"), (system.explain(), "SGD 0.1")):
        lines = [line for line in str(found).splitlines() if column in line]
        starts = [line[: line.index(column)] for line in lines]
        wide = [len(start) + sum(c in "判別器" for c in start) for start in starts]
        assert len(wide) == 2 and wide[0] == wide[1]


# What is not known, and what does not change ------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("look", ["picture", "explain"])
@pytest.mark.parametrize("make", [Pair, alone])
def test_before_setup_there_is_one_clear_error(make, look):
    with pytest.raises(ValueError, match=r"is not set up\. Call `fit` or `setup\(data\)` first"):
        getattr(make(), look)()
    model = make()
    model.compile()
    with pytest.raises(ValueError, match=r"is not set up\. Call `fit`"):
        getattr(model, look)()
    model.setup(ones()).compile()
    with pytest.raises(ValueError, match=r"has changed since it was set up\. Call `fit`"):
        getattr(model, look)()


class Unfollowed(Pair):
    """A forward that fails on made-up data, and a step of its own."""

    routing = {"a": {"x": 1.0}, "b": {"x": -1.0}}  # noqa: RUF012

    def forward(self, x):
        a = self.a(x)
        if keras.backend.is_keras_tensor(x) or float(ops.max(ops.convert_to_tensor(x))) < 1:
            raise RuntimeError("other data")
        return {"a": a, "b": self.b(a)}

    def train_step(self, data):
        self.minimize(lambda: ops.mean(self.a(data)), ["a"])
        return self.get_metrics_result()


@pytest.mark.once
def test_without_a_forward_to_follow_the_declaration_is_drawn():
    facts = describe(Unfollowed().setup(ones()))
    assert [model.name for model in facts.models] == ["a", "b"] and facts.edges == []
    assert {(r.loss, r.model, r.weight) for r in facts.routes} == {
        ("x", "a", "× 1"),
        ("x", "b", "× −1"),
    }
    assert facts.notes == ["order of the models as declared", "own train_step: routing as declared"]


class Rich(ml.MLSystem):
    """All that a look could change: batch norm, dropout, seeds, logs, an average."""

    def __init__(self):
        super().__init__()
        self.encoder = ml.MLModel(keras.Sequential([layers.Dense(4), layers.BatchNormalization()]))
        self.head = ml.MLModel(keras.Sequential([layers.Dropout(0.5, seed=1), layers.Dense(1)]))
        self.target = ml.EMA(self.encoder, 0.9)
        self.seed = keras.random.SeedGenerator(3)
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def forward(self, x, training=None):
        noise = keras.random.normal(ops.shape(x), seed=self.seed)
        encoded = self.encoder(x + 0.1 * noise, training=training)
        self.log("size", ops.mean(encoded**2))
        return {
            "encoder": encoded * self.temperature,
            "target": self.target(x),
            "head": self.head(encoded, training=training),
        }

    def compute_losses(self, x, y, outputs):
        near = ops.mean((outputs["encoder"] - outputs["target"] - 1) ** 2)
        return {"near": near, "low": ops.mean((outputs["head"] - 2) ** 2)}


def everything(system):
    state = [ops.convert_to_numpy(v).copy() for v in system._mlsystem.state_variables()]
    return [*state, np.random.get_state()[1].copy()]


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.once
def test_looking_changes_nothing():
    data = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")

    def trained(looks):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        system = Rich().setup(data)
        for _ in range(2):
            before, calls = everything(system), {id(layer): layer.call for layer in system.layers}
            if looks:
                system.picture(), system.explain()
            assert same(before, everything(system))
            assert all(calls[id(layer)] == layer.call for layer in system.layers)
            assert not any("call" in vars(layer) for layer in system.layers)
            system.fit(data, batch_size=4, shuffle=False, verbose=0)
        return everything(system)

    assert same(trained(looks=True), trained(looks=False))


def test_which_model_feeds_which():
    facts = describe(Rich().setup(np.ones((8, 3), "float32")))
    assert facts.edges == [("x", "encoder"), ("x", "target"), ("encoder", "head")]
    losses = {loss.name: loss.models for loss in facts.losses}
    assert losses == {"near": ["encoder", "target", "self"], "low": ["head"]}


class Mixed(ml.MLSystem):
    """Noise alone, several inputs, whole numbers, and models in a list."""

    def __init__(self):
        super().__init__()
        self.parts = [ml.MLModel(layers.Dense(2)), ml.MLModel(layers.Dense(2))]
        self.join = Fooler(1.0)
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x):
        first = self.parts[0](keras.random.normal((4, 3), seed=self.seed))
        second = self.parts[1](ops.cast(ops.one_hot(x["words"], 3), "float32"))
        joined = self.join(ops.maximum(first, second) + x["shift"])
        return {"fake": joined}


def test_noise_whole_numbers_and_operations_in_between_are_followed():
    x = {"words": np.zeros(4, "int32"), "shift": np.ones((4, 1), "float32")}
    facts = describe(Mixed().setup(x))
    assert facts.feeds("parts/0") == ["noise"] and facts.feeds("parts/1") == ["words"]
    assert set(facts.feeds("join")) == {"parts/0", "parts/1", "shift"}


class Conditional(ml.MLSystem):
    """Noise and classes in a list and in one tensor. One head reads classes from 5 on."""

    def __init__(self):
        super().__init__()
        self.heads = {name: ml.MLModel(layers.Dense(1)) for name in ("low", "high")}
        self.listed = ml.MLModel(layers.Concatenate())
        self.seed = keras.random.SeedGenerator(0)

    def forward(self, x, y):
        noise = keras.random.normal((8, 2), seed=self.seed)
        classes = ops.one_hot(y, 10)
        self.listed([noise, classes])
        both = ops.concatenate([noise, classes], axis=-1)
        return {"low": self.heads["low"](both), "high": self.heads["high"](0.1 * noise + x)}

    def compute_losses(self, x, y, outputs):
        read = ops.where(y[:, None] < 5, outputs["low"], outputs["high"])
        sure = ops.convert_to_tensor(np.eye(10, dtype="float32")[[7] * 8])
        error = keras.losses.sparse_categorical_crossentropy(y, sure)  # equal for all but class 7
        return {"digit": ops.mean(read**2), "sure": ops.mean(error)}


def test_all_classes_of_the_batch_and_noise_beside_other_inputs_are_followed():
    data = np.ones((8, 2), "float32"), np.array([0, 9, 1, 2, 3, 4, 5, 7], "uint8")
    facts = describe(Conditional().setup(data))
    assert facts.feeds("listed") == ["y", "noise"] and facts.feeds("heads/low") == ["y", "noise"]
    assert facts.feeds("heads/high") == ["x"]  # no part of its input is noise alone
    losses = {loss.name: [*loss.models, *loss.inputs] for loss in facts.losses}
    assert losses == {"digit": ["heads/low", "heads/high", "y"], "sure": ["y"]}


@pytest.mark.once
def test_made_up_whole_numbers_stay_in_the_range_of_the_batch():
    seen = []

    class Looks(Pair):
        def compute_losses(self, x, y, outputs):
            if not keras.backend.is_keras_tensor(y):
                seen.append(ops.convert_to_numpy(y))
            return {"a": ops.mean(outputs["a"]), "b": ops.mean(outputs["b"])}

    labels = np.array([-1, 0, 3, 3], "int32")
    system = Looks().setup((np.ones((4, 1), "float32"), labels))
    seen.clear()
    system.picture()
    assert len(seen) > 3 and all(y.min() >= -1 and y.max() <= 3 for y in seen)
    assert any((y != seen[0]).all() for y in seen)  # each number was another one in some run


@pytest.mark.once
@pytest.mark.parametrize("balance", [ml.balance.GradNorm, ml.balance.Uncertainty])
def test_a_balance_moves_the_weights_of_its_losses(balance):
    pair = Pair()
    shared = {"shared": "a"} if balance is ml.balance.GradNorm else {}
    pair.balance = balance(["a", "b"], **shared)
    facts = describe(pair.setup(ones()))
    assert {route.moves for route in facts.routes} == {balance.__name__}
    assert facts.notes == [f"balanced by {balance.__name__}"]


@pytest.mark.once
def test_a_model_alone_whose_loss_needs_labels():
    class Judge(ml.MLModel):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def forward(self, x):
            return self.dense(x)

        def loss(self, x, y, outputs):
            return keras.ops.mean((y - outputs) ** 2)

    judge = Judge().setup(ones())  # without labels, so that the loss is unknown
    assert "judge" in str(judge.picture()) and "judge" in str(judge.explain())
