"""Each format from each backend, run by its own runtime. `tox -e ship` has all of them."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from optional import needs

onnxruntime = needs("onnxruntime")
openvino = needs("openvino")
litert = needs("ai_edge_litert.interpreter")
needs("onnxscript")

# Each case runs in a process of its own, which sees all backends.
pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[2]
FORMATS = ("torch", "onnx", "openvino", "tf_saved_model", "litert")
BACKENDS = ("jax", "torch", "tensorflow")
WRITERS = {
    "torch": {"torch"},
    "onnx": {"torch"},
    "openvino": {"torch", "tensorflow"},
    "tf_saved_model": {"jax", "tensorflow"},
    "litert": {"tensorflow"},
}


def started(backend, *arguments, **kwargs):
    paths = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    env = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, **kwargs
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@functools.cache
def exported(backend):
    """The folder with all formats of the trained systems, written from one backend."""
    folder = tempfile.mkdtemp()
    started(backend, str(Path(__file__).with_name("systems.py")), folder, *FORMATS)
    return Path(folder)


def run_onnx(path, given):
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def run_openvino(path, given):
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(path, "CPU", exact)(given)
    return {output.any_name: value for output, value in found.items()}


def run_litert(path, given):
    return litert.Interpreter(path).get_signature_runner()(**given)


def run_torch(path, given):
    (answer,) = asked("torch", RUN_TORCH, path, given)
    return answer


def run_saved_model(path, given):
    (answer,) = asked("tensorflow", RUN_TENSORFLOW, path, given)
    return answer


RUN_TORCH = """
found = torch.export.load(path).module()(*map(torch.from_numpy, given.values()))
found = found if isinstance(found, dict) else {"output": found}
"""
RUN_TENSORFLOW = "found = tf.saved_model.load(path).signatures['serving_default'](**given)"


def asked(module, code, path, given):
    """Runs a file without Keras, in a process that has imported nothing but its runtime."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/given.npz", **given)
        program = (
            f"import {module}{' as tf' if module == 'tensorflow' else ''}, numpy as np\n"
            f"path, given = {path!r}, dict(np.load({folder + '/given.npz'!r}))\n{code}\n"
            f"np.savez({folder + '/found.npz'!r}, **{{k: v.numpy() for k, v in found.items()}})"
        )
        started("numpy", "-c", program)
        yield dict(np.load(f"{folder}/found.npz"))


RUN = {
    "onnx": run_onnx,
    "openvino": run_openvino,
    "litert": run_litert,
    "torch": run_torch,
    "tf_saved_model": run_saved_model,
}


@pytest.mark.parametrize("system", ["GAN", "Nested"])
@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_runtime_returns_what_the_member_returns(backend, wanted, system):
    folder = exported(backend) / wanted / system
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = json.loads((exported(backend) / f"{system}.json").read_text())
    assert list(manifest["models"]) == list(expected)
    assert (manifest["format"], manifest["trained_on"]) == (wanted, backend)
    for name, entry in manifest["models"].items():
        assert entry["written_by"].split()[0] in WRITERS[wanted]
        assert entry["check"]["batch_sizes"] == [1, 7]
        assert entry["check"]["largest_difference"] < 1e-5
        for file, checksum in entry["sha256"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == checksum
        found = run_one(wanted, folder / entry["file"], name, entry)
        assert set(found) == {output["name"] for output in entry["outputs"]} == set(expected[name])
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[name][key], rtol=1e-5, atol=1e-5)


def run_one(wanted, path, name, entry):
    given = arrays(name)
    assert [one["name"] for one in entry["inputs"]] == list(given)
    for one in entry["inputs"]:
        assert one["dtype"] == str(given[one["name"]].dtype)
        assert one["shape"] == [None, *given[one["name"]].shape[1:]]
    return RUN[wanted](str(path), given)


def arrays(name):
    from systems import INPUTS

    return INPUTS[name]


@pytest.mark.parametrize(
    ("page", "backend"),
    [
        ("export", "torch"),
        ("export", "jax"),
        ("onnx_runtime", "torch"),
        ("litert", "tensorflow"),
        ("tf_serving", "jax"),
    ],
)
def test_the_guide_runs(page, backend, tmp_path):
    text = (ROOT / "docs" / "guides" / f"{page}.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    hidden = [part.partition("-->")[0] for part in text.split("code-block: python\n")[1:]]
    program = tmp_path / "guide.py"
    program.write_text("\n".join([*hidden, *blocks]))
    started(backend, str(program), cwd=tmp_path)
