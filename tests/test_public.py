"""The front door, the import boundaries, and the choice of a backend."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import mlsystem
from mlsystem import _backend_choice

# Files are read alike everywhere; what is imported is asked of each backend.
pytestmark = pytest.mark.once

PACKAGE = Path(mlsystem.__file__).parent
FILES = {p.relative_to(PACKAGE).as_posix(): ast.parse(p.read_text()) for p in PACKAGE.rglob("*.py")}
FRAMEWORKS = {"jax", "jaxlib", "flax", "torch", "tensorflow"}
ENGINES = [f"engine/{backend}/engine.py" for backend in ("jax", "tensorflow", "torch")]


def test_the_public_names():
    assert mlsystem.__all__ == [
        *("EMA", "Ensemble", "MLData", "MLModel", "MLSystem", "Streams"),
        *("balance", "callbacks", "distribute", "gather", "grad", "plot"),
        *("process_count", "process_index", "setup", "tune", "without_adapters"),
    ]
    assert all(getattr(mlsystem, name).__doc__ for name in mlsystem.__all__)
    assert mlsystem.balance.__all__ == ["Balance", "GradNorm", "PCGrad", "Uncertainty"]
    assert mlsystem.callbacks.__all__ == [
        *("Advice", "Checkpoint", "For", "GradientNorms", "Live", "Log", "Profile", "RayReport"),
    ]
    assert mlsystem.plot.__all__ == ["Picture", "gradients", "history", "samples", "system"]
    assert mlsystem.tune.__all__ == [
        *("BatchSizes", "LearningRates", "RateCurve", "batch_size", "learning_rate"),
    ]
    assert mlsystem.MLSystem.memory is mlsystem.MLModel.memory and mlsystem.MLModel.memory.__doc__
    for module in (mlsystem.balance, mlsystem.callbacks, mlsystem.plot, mlsystem.tune):
        assert all(getattr(module, name).__doc__ for name in module.__all__)


# Who imports what ---------------------------------------------------------------------------


def imports(tree):
    """The dotted names that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(wanted):
    return {name for name, tree in FILES.items() if any(map(wanted, imports(tree)))}


def test_only_the_engines_import_a_backend():
    found = importers(lambda name: name.split(".")[0] in FRAMEWORKS)
    assert found >= set(ENGINES)
    assert all(name.startswith("engine/") for name in found)


def test_only_one_folder_imports_private_names_of_keras():
    found = importers(lambda name: name.startswith("keras.src"))
    assert found and all(name.startswith("_keras/") for name in found)


def test_each_private_name_of_keras_is_documented():
    table = (
        (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text().partition("## Private names")[2]
    )
    for file in [name for name in FILES if name.startswith("_keras/")]:
        names = set(private_names(FILES[file])) - {"_mlsystem"}  # which is our own
        said = ast.get_docstring(FILES[file])
        assert [name for name in names if f"{name}`" not in said or f"{name}`" not in table] == []


def private_names(tree):
    """What a file of `_keras/` imports from `keras.src`, and the attributes that it reads."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own.add("_function")  # the end of `train_function`
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras.src"):
            modules = ("saving_lib", "data_adapters", "data_adapter_utils")
            yield from (alias.name for alias in node.names if alias.name not in modules)
        name = getattr(node, "attr", getattr(node, "value", None))
        if isinstance(name, str) and re.fullmatch("_[a-z]\\w*", name) and name not in own:
            yield name


def test_only_the_engines_ask_which_backend_runs():
    asks = {
        name
        for name, tree in FILES.items()
        if any(
            isinstance(n, ast.Attribute) and n.attr == "backend" and is_call(n, tree)
            for n in ast.walk(tree)
        )
    }
    assert asks <= {"engine/__init__.py"}


def is_call(attribute, tree):
    return any(isinstance(n, ast.Call) and n.func is attribute for n in ast.walk(tree))


def methods(name):
    """The methods of the class of an engine."""
    [engine] = (n for n in FILES[name].body if isinstance(n, ast.ClassDef))
    return {n.name: n for n in engine.body if isinstance(n, ast.FunctionDef)}


def is_abstract(method):
    return any(ast.unparse(decorator) == "abstractmethod" for decorator in method.decorator_list)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_overrides_what_the_base_has(name):
    base, own = methods("engine/base.py"), methods(name)
    assert own.keys() <= base.keys()
    assert own.keys() >= {name for name, method in base.items() if is_abstract(method)}
    for method in own:
        assert ast.unparse(own[method].args) == ast.unparse(base[method].args), method


def test_the_base_of_the_engines_documents_its_methods():
    assert all(ast.get_docstring(method) for method in methods("engine/base.py").values())


def python(code, **environment):
    """What a fresh interpreter prints."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.each_backend
def test_importing_brings_in_no_other_backend():
    code = f"""
import importlib, sys
import keras
importlib.import_module(keras.backend.backend())
before = set(sys.modules)
import mlsystem
print(keras.backend.backend())
print(*sorted({{m.split('.')[0] for m in set(sys.modules) - before}} & {FRAMEWORKS}))
"""
    chosen, *new = python(code)
    assert chosen == keras.backend.backend() and set(new) <= {chosen}


# The choice of a backend --------------------------------------------------------------------


@pytest.fixture
def nobody_has_chosen(monkeypatch, tmp_path):
    """No variable, no configuration file, no Keras imported; `install` says what is installed."""
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras")

    def install(*names):
        found = {name: object() for name in names}
        monkeypatch.setattr(
            _backend_choice.importlib.util, "find_spec", lambda name, _=None: found.get(name)
        )

    install("jax", "torch", "tensorflow")
    return install


@pytest.mark.parametrize(
    "installed, chosen",
    [
        (("tensorflow", "torch", "jax"), "jax"),
        (("tensorflow", "torch"), "torch"),
        (("tensorflow",), "tensorflow"),
    ],
)
def test_the_first_installed_backend_is_chosen(nobody_has_chosen, installed, chosen):
    nobody_has_chosen(*installed)
    _backend_choice.choose()
    assert os.environ["KERAS_BACKEND"] == chosen


def test_none_installed_says_how_to_install_each(nobody_has_chosen):
    nobody_has_chosen()
    with pytest.raises(ImportError) as error:
        _backend_choice.choose()
    commands = [line for line in str(error.value).splitlines() if "pip install" in line]
    for name in ("jax", "torch", "tensorflow"):
        assert [f"[{name}]" in line for line in commands].count(True) == 1
    assert len(commands) == 3 and "KERAS_BACKEND" not in os.environ


def test_a_variable_stays(nobody_has_chosen, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    _backend_choice.choose()
    assert os.environ["KERAS_BACKEND"] == "numpy"


def test_a_configuration_file_stays(nobody_has_chosen, tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    _backend_choice.choose()
    assert "KERAS_BACKEND" not in os.environ


def test_a_configuration_file_in_the_home_directory_stays(nobody_has_chosen, monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"backend": "torch"}')
    _backend_choice.choose()
    assert "KERAS_BACKEND" not in os.environ


def test_an_imported_keras_stays(nobody_has_chosen, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", keras)
    _backend_choice.choose()
    assert "KERAS_BACKEND" not in os.environ


def test_the_choice_is_made_before_keras_is_imported(tmp_path):
    installed = keras.backend.backend()
    code = f"""
import importlib.util, os
find = importlib.util.find_spec
others = {{"jax", "torch", "tensorflow"}} - {{{installed!r}}}
importlib.util.find_spec = lambda name, *more: None if name in others else find(name, *more)
del os.environ["KERAS_BACKEND"]
import mlsystem
importlib.util.find_spec = find
import keras
print(os.environ["KERAS_BACKEND"], keras.backend.backend())
"""
    assert python(code, KERAS_HOME=str(tmp_path)) == [installed, installed]


@pytest.mark.parametrize(
    "name",
    [
        "balance.pcgrad",
        "callbacks.for_model",
        "data.transform_generators",
        "diagnostics.gradient_report",
        "diagnostics.wording",
        "callbacks.validation_names",
        "optimizers.system_optimizer",
        "plot.colors",
        "routing.members",
        "routing.routing_table",
        "routing.update_schedule",
        "saving.callback_state",
        "saving.packing",
        "tune.suggestion",
    ],
)
def test_the_examples_in_docstrings_hold(name):
    module = importlib.import_module(f"mlsystem.{name}")
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


# Where the parts of a model's `_mlsystem` are made, each whole.
OWNERS = {
    "call": {"fit/call.py"},
    "wiring": {"preparation/configuration.py"},
    "setup": {"preparation/configuration.py", "models/model_learner.py"},
    "is_ready": {"preparation/setup.py"},
    "known": {"step/forward.py"},
    "condition": {"step/context.py"},
    "logs": {"diagnostics/gradient_measurement.py"},
}
HOLDERS = {"learner", "self.learner", "model._mlsystem", "self._mlsystem"}


def assigned(file):
    """The parts that a file assigns to."""
    holders = HOLDERS | ({"self"} if file.endswith("_learner.py") else set())
    for node in ast.walk(FILES[file]):
        is_stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_stored and node.attr in OWNERS and ast.unparse(node.value) in holders:
            yield node.attr


def test_only_its_owner_assigns_to_a_part_of_a_learner():
    found = {file: set(assigned(file)) for file in FILES if file != "_learner.py"}
    by_part = {part: {file for file, parts in found.items() if part in parts} for part in OWNERS}
    assert by_part == OWNERS
