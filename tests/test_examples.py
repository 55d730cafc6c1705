"""The examples: each runs on one backend, in small, and reads like a user's own file.

`tox -e gallery` runs all of them in full, on each backend.
"""

import ast
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
FILES = sorted(FOLDER.glob("*.py"))
FRAMEWORKS = {"jax", "flax", "torch", "tensorflow"}
# These have a network of the backend at hand, and import the backend in the function that makes it.
NATIVE = {"native_modules"}

# These search with packages of the extra `tune`: tests/tune/test_search.py runs them.
SEARCHES = {"search_kerastuner", "search_optuna"}

# These have networks of KerasHub, of the extra `hub`: tests/test_hub_examples.py runs them.
HUB = {"hub_distillation", "hub_dpo", "hub_grpo"}

# What `main` of each example is given, so that it takes seconds.
TINY = {
    "annealed_vae": {"epochs": 2, "samples": 64, "seeds": (0,)},
    "anomaly_detection": {"epochs": 1, "samples": 100},
    "balanced_gan": {"count": 256, "epochs": 2, "seeds": (0,)},
    "byol": {"epochs": 1, "samples": 100},
    "classifier": {"epochs": 1, "samples": 64},
    "conditional_gan": {"epochs": 1, "samples": 100, "judge_epochs": 1},
    "cycle_gan": {"epochs": 1, "samples": 60, "judge_epochs": 1},
    "deep_ensemble": {"epochs": 1, "samples": 100, "count": 2},
    "diffusion": {"epochs": (1, 1), "samples": 100, "judge_epochs": 1},
    "distillation": {"epochs": 1, "teacher_epochs": 1, "samples": 100, "few": 8, "seeds": (0,)},
    "domain_adaptation": {"epochs": 1, "samples": 100, "seeds": (0,)},
    "fine_tuning": {
        "epochs": 1,
        "first": 1,
        "samples": 100,
        "few": 20,
        "seeds": (0,),
        "rates": {"two": [(1e-3, 0.1)]},
    },
    "gan": {"epochs": 1, "samples": 100, "judge_epochs": 1},
    "latent_diffusion": {"epochs": (1, 1), "samples": 100, "count": 20, "judge_epochs": 1},
    "multi_task": {"epochs": 1, "samples": 64, "copies": 1},
    "native_modules": {"epochs": 1, "samples": 100},
    "ppo": {"rounds": 1, "count": 4, "steps": 8, "updates": 2, "episodes": 2},
    "semi_supervised": {"epochs": 1, "steps": 2, "samples": 100, "seeds": (0,)},
    "simclr": {"epochs": 1, "samples": 200, "few": 50},
    "td3": {"rounds": 1, "updates": 4, "count": 2, "steps": 8},
    "vae": {"epochs": 1, "samples": 64},
    "vq_vae": {"epochs": 1, "samples": 100},
    "wgan_gp": {"epochs": 1, "samples": 64},
}


def load(file):
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(found):
    """All numbers in what an example returns: figures and arrays of them, in dicts and lists."""
    if isinstance(found, dict):
        found = found.values()
    elif not isinstance(found, (list, tuple)):
        return np.ravel(found).tolist()
    return [n for value in found for n in numbers(value)]


@pytest.mark.once
def test_every_example_is_run():
    assert [file.stem for file in FILES] == sorted({*TINY, *SEARCHES, *HUB})


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.each_backend] * (file.stem in NATIVE))
        for file in FILES
        if file.stem not in SEARCHES | HUB
    ],
)
@pytest.mark.once
def test_runs(file, tmp_path):
    main = load(file).main
    takes_folder = "folder" in inspect.signature(main).parameters
    more = {"folder": tmp_path} if takes_folder else {}
    figures = numbers(main(**TINY[file.stem], **more))
    assert figures
    assert np.isfinite(figures).all()
    if takes_folder:
        written = {path.name for path in tmp_path.iterdir()}
        assert written >= {f"{file.stem}.svg", f"{file.stem}.png"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.once
def test_is_short_and_of_no_backend(file):
    source = file.read_text()
    assert 40 <= len(source.splitlines()) <= 150
    tree = ast.parse(source)
    assert "KERAS_BACKEND" in ast.get_docstring(tree)
    looked_at = tree.body if file.stem in NATIVE else ast.walk(tree)
    assert not FRAMEWORKS & {name.split(".")[0] for name in imported(looked_at)}


def imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
