"""A Keras that has changed what mlsystem uses of it by private names: said, and never silent."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from toys import Pair, Target, number, ones

import mlsystem as ml
from mlsystem import _keras

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="of a captured step")


@pytest.mark.parametrize(
    ("topic", "owner", "name"),
    [
        ("layers", sys.modules["keras.src.models.model"], "functional_init_arguments"),
        ("layers", keras.Layer, "_flatten_layers"),
        ("trainer", keras.Model, "_symbolic_build"),
        ("saving", sys.modules["keras.src.saving.saving_lib"], "_walk_saveable"),
    ],
)
def test_a_name_that_nothing_works_without_fails_at_import(monkeypatch, topic, owner, name):
    for cls in [c for c in getattr(owner, "__mro__", [owner]) if name in vars(c)]:
        monkeypatch.delattr(cls, name)
    with pytest.raises(ImportError, match=f"Keras {keras.__version__} has no .*{name}"):
        runpy.run_path(str(Path(_keras.__file__).with_name(f"{topic}.py")))


def test_an_attribute_that_is_gone_is_named():
    with pytest.raises(_keras.Changed, match="no attribute '_metrics' in object"):
        _keras.own_metrics(object())
    with pytest.raises(_keras.Changed, match="no attribute '_value' in Variable"):
        _keras.values([object()])


@pytest.mark.parametrize("method", ["fit", "train_on_batch", "evaluate"])
def test_a_trainer_that_does_not_ready_the_system_is_refused(monkeypatch, method):
    for name in ("_symbolic_build", "_maybe_symbolic_build"):
        monkeypatch.setattr(_keras.Hooks, name, lambda self, *args, **kwargs: None)
    pair = Pair().setup(ones(4))
    with pytest.raises(_keras.Changed, match="no call of `_symbolic_build`"):
        getattr(pair, method)(ones(4))
    assert number(pair.a.weight) == 1.0


def test_streams_are_predicted_in_several_steps_per_execution():
    data = ml.Streams({"a": ones(6), "b": ones(6)}, batch_size=2, shuffle=False)

    class Both(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.a = Target(3.0)

        def forward(self, x):
            return self.a(x["a"] + x["b"])

    system = Both()
    system.compile(steps_per_execution=2)
    assert system.predict(data, verbose=0).tolist() == [[6.0]] * 6


# A captured step ----------------------------------------------------------------------------


def trained(model=None):
    """The weight of a model after three steps of Adam, and whether they were captured."""
    model = model or Target(1.0, goal=3.0, optimizer=keras.optimizers.Adam(0.1))
    system = Alone(model)
    system.fit(ones(6), batch_size=2, verbose=0, shuffle=False)
    steps = system.train_function.steps.values()
    programs = [program for step in steps for program in step.programs.values()]
    return number(model.weight), all(p is not None for p in programs) and bool(programs)


class Alone(ml.MLSystem):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"model": self.model(x)}


@on_torch
def test_a_step_is_captured_without_what_keras_has_lost(monkeypatch):
    from mlsystem.engine.torch import traceable_keras

    expected = trained()
    assert expected[1]
    nothing = dict.fromkeys(vars(traceable_keras._of_keras))
    monkeypatch.setattr(traceable_keras, "_of_keras", SimpleNamespace(**nothing))
    assert trained() == (pytest.approx(expected[0], rel=1e-6), True)


@on_torch
def test_what_keras_has_lost_is_warned_of_once(monkeypatch):
    lost = {"nn": (("nowhere",), ("moments",)), "core": (("ops.core", "core"), ("cond", "kond"))}
    monkeypatch.setattr(_keras.torch, "_ON_TORCH", lost)
    with pytest.warns(RuntimeWarning, match=r"no nn\.moments, core\.kond\..*tested with") as said:
        found = _keras.torch_modules()
    assert len(said) == 1 and found.nn is None and found.core.cond


@on_torch
def test_what_does_not_fit_this_keras_is_left_out(monkeypatch):
    from mlsystem.engine.torch import fused_ops

    expected = trained()
    monkeypatch.setattr(fused_ops, "_fused_adam", lambda update: lambda self, other: None)
    with pytest.warns(RuntimeWarning, match="run slower than they could: TypeError") as said:
        assert trained() == (pytest.approx(expected[0], rel=1e-6), True)
    [one] = [one for one in said if one.category is RuntimeWarning]
    assert keras.__version__ in str(one.message)


class Noisy(Target):
    def forward(self, x):
        return super().forward(x + 0 * keras.random.normal(x.shape))


@on_torch
def test_a_mistake_of_ours_is_not_said_to_be_the_users(monkeypatch):
    def noisy():
        return trained(Noisy(1.0, goal=3.0, optimizer=keras.optimizers.Adam(0.1)))

    from mlsystem.engine.torch import traceable_keras

    weight, captured = noisy()
    assert captured
    without_ops = SimpleNamespace(**{**vars(traceable_keras.torch), "ops": SimpleNamespace()})
    monkeypatch.setattr(traceable_keras, "torch", without_ops)
    with pytest.warns(UserWarning, match="runs eagerly") as said:
        assert noisy() == (pytest.approx(weight, rel=1e-6), False)
    [message] = {str(one.message) for one in said if one.category is UserWarning}
    assert f"This is Keras {keras.__version__}" in message and "keras.ops" not in message


@on_torch
@pytest.mark.parametrize(
    "part", ["graph_passes.seeded", "graph_passes.direct", "graph_branches.branched"]
)
def test_a_graph_that_cannot_be_run_is_no_crash(monkeypatch, part):
    def fails(module):
        raise RuntimeError("no such graph")

    expected, _ = trained()
    monkeypatch.setattr(f"mlsystem.engine.torch.{part}", fails)
    with pytest.warns(UserWarning, match="runs eagerly.*cannot be run: RuntimeError: no such"):
        assert trained() == (pytest.approx(expected, rel=1e-6), False)


def test_keras_own_gradient_agrees():
    if not hasattr(keras.ops, "grad"):
        pytest.skip("Keras 3.16 has it")
    x = keras.ops.convert_to_tensor(np.array([1.0, 2.0], "float32"))
    for grad in (ml.grad, keras.ops.grad):
        assert keras.ops.convert_to_numpy(grad(lambda x: x**3)(x)).tolist() == [3.0, 12.0]
