"""The examples: each runs on the backend at hand, in small, and reads like a user's own file."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
FILES = sorted(FOLDER.glob("*.py"))

# What `main` of each example is given, so that it takes seconds.
TINY = {
    "annealed_vae": {"epochs": 2, "samples": 64, "seeds": (0,)},
    "balanced_gan": {"count": 256, "epochs": 2, "seeds": (0,)},
    "byol": {"epochs": 1, "samples": 100},
    "classifier": {"epochs": 1, "samples": 64},
    "domain_adaptation": {"epochs": 1, "samples": 100, "seeds": (0,)},
    "gan": {"epochs": 1, "samples": 100},
    "semi_supervised": {"epochs": 1, "steps": 2, "samples": 100, "seeds": (0,)},
    "td3": {"rounds": 1, "updates": 4, "count": 2, "steps": 8},
    "vae": {"epochs": 1, "samples": 64},
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
    assert [file.stem for file in FILES] == sorted(TINY)


# The systems of these are compared between all backends by test_parity.py.
COMPARED = {"byol", "domain_adaptation", "gan", "vae", "wgan_gp"}


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.once] * (file.stem in COMPARED))
        for file in FILES
    ],
)
def test_runs(file, tmp_path):
    more = {"picture": tmp_path / "demo.png"} if file.stem == "gan" else {}
    figures = numbers(load(file).main(**TINY[file.stem], **more))
    assert figures
    assert np.isfinite(figures).all()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.once
def test_is_short_and_of_no_backend(file):
    source = file.read_text()
    assert 40 <= len(source.splitlines()) <= 150
    tree = ast.parse(source)
    assert "KERAS_BACKEND" in ast.get_docstring(tree)
    assert not {"jax", "torch", "tensorflow"} & {name.split(".")[0] for name in imported(tree)}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
