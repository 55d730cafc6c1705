"""Exports: what the manifest says, what is refused, and that nothing is half-written."""

import hashlib
import json
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops
from optional import needs
from systems import GAN, PAIRS, ROWS, Nested, trained

import mlsystem as ml
from mlsystem.engine import engine
from mlsystem.export import child, comparison, folder, formats, inputs, other_backend
from mlsystem.export.formats import FORMATS, Format

BACKEND = keras.backend.backend()
# What a backend writes without a further package, and what it does not write at all.
OWN = {"torch": "torch", "tensorflow": "tf_saved_model"}.get(BACKEND)
FOREIGN = {"torch": "litert", "tensorflow": "torch", "jax": "onnx"}[BACKEND]


@pytest.fixture
def plain(monkeypatch):
    """A format that every backend writes: the numbers for two batches, in a file."""

    def write(served, path):
        found = {}
        for batch in (1, 7):
            numbers = served.numbers(served.arrays(batch))
            found |= {f"{batch}/{name}": array for name, array in numbers.items()}
        with path.open("wb") as file:
            np.savez(file, **found)

    def run(path, names, arrays):
        found = dict(np.load(path))
        batch = str(len(arrays[0]))
        return {key.split("/")[1]: v for key, v in found.items() if key.startswith(f"{batch}/")}

    fake = SimpleNamespace(WRITERS={"plain": write}, RUNTIMES={"plain": run})
    monkeypatch.setattr(type(engine), "exporting", lambda self: fake)
    monkeypatch.setitem(FORMATS, "plain", Format("plain", ".npz", {BACKEND: ()}, "numpy"))
    return fake


@pytest.mark.once
def test_the_manifest_says_what_is_in_the_folder(plain, tmp_path):
    system = Nested().setup(PAIRS)
    found = system.export(tmp_path / "new" / "export", format="plain")
    folder = tmp_path / "new" / "export"
    assert json.loads((folder / "manifest.json").read_text()) == found
    assert found["format"] == "plain" and found["keras"] == keras.__version__
    assert list(found["models"]) == ["vae/encoder", "vae/decoder", "heads/0", "heads/1"]
    encoder = found["models"]["vae/encoder"]
    assert encoder["file"] == "vae/encoder.npz"
    assert encoder["inputs"] == [
        {"name": "image", "shape": [None, 8], "dtype": "float32"},
        {"name": "label", "shape": [None], "dtype": "int32"},
    ]
    assert encoder["outputs"] == [
        {"name": "mean", "shape": [None, 4], "dtype": "float32"},
        {"name": "scale", "shape": [None, 4], "dtype": "float32"},
    ]
    checksum = hashlib.sha256((folder / "vae" / "encoder.npz").read_bytes()).hexdigest()
    assert encoder["sha256"] == {"vae/encoder.npz": checksum}
    assert encoder["check"]["largest_difference"] == 0 and encoder["written_by"].startswith(BACKEND)
    decoder = found["models"]["vae/decoder"]
    assert [one["name"] for one in decoder["inputs"]] == ["code", "shift"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        ["manifest.json", "encoder.npz", "decoder.npz", "0.npz", "1.npz"]
    )


@pytest.mark.skipif(OWN is None, reason="JAX writes no format by itself")
def test_a_trained_system_is_exported_and_trains_on(tmp_path):
    system, other = trained(), trained()
    found = system.export(tmp_path / "export", format=OWN)
    assert list(found["models"]) == ["generator", "judge", "average"]
    assert all(one["check"]["largest_difference"] < 1e-5 for one in found["models"].values())
    system.export(tmp_path / "export", format=OWN, models="average")
    assert len(list((tmp_path / "export").iterdir())) == 2  # the earlier export is replaced
    for each in (system, other):
        each.fit(ROWS, batch_size=8, shuffle=False, verbose=0)
    for one, two in zip(system.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(two))


@pytest.mark.once
def test_a_file_with_other_numbers_is_refused_and_the_earlier_export_stays(plain, tmp_path):
    system = GAN().setup(ROWS)
    before = system.export(tmp_path / "export", format="plain", models=["judge"])
    right = plain.RUNTIMES["plain"]

    def wrong(path, names, arrays):
        found = right(path, names, arrays)
        return {key: value + 1e-3 * (len(value) == 7) for key, value in found.items()}

    plain.RUNTIMES["plain"] = wrong
    with pytest.raises(ValueError, match=r"nothing was written(.|\n)*'judge'.*differs .*of 7;"):
        system.export(tmp_path / "export", format="plain")
    assert json.loads((tmp_path / "export" / "manifest.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    found = system.export(tmp_path / "export", format="plain", check=False)
    assert found["models"]["generator"]["check"] is None


# Errors before anything is written ------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onxx"}, "Did you mean 'onnx'. The formats are 'tf_saved_model', 'onnx'"),
        ({"format": "tflite"}, "Did you mean 'litert'"),
        ({"format": None}, "format=None. The formats are"),
        ({"models": ["generater"]}, "'generater', which does not exist.*'generator', 'judge'"),
        ({"models": []}, "names no model"),
        ({"folder": "file"}, "which is a file; give a folder"),
        ({"folder": "file/in"}, "file. is a file; give another folder"),
        ({"folder": "full"}, "a folder that holds other files. Give a new folder"),
        ({"folder": None}, "got the folder None; give its path"),
        ({"folder": ""}, "got '' as its folder; give its path"),
        ({"check": "no"}, "check='no'; give True or False"),
    ],
)
def test_wrong_arguments(plain, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "full" / "more").mkdir(parents=True)
    system = GAN().setup(ROWS)
    with pytest.raises((ValueError, TypeError), match=message):
        system.export(**({"folder": "new", "format": "plain"} | arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.once
def test_a_system_that_is_not_set_up(plain, tmp_path):
    with pytest.raises(ValueError, match=r"'gan' is not set up\. Call `fit` or"):
        GAN().export(tmp_path / "new", format="plain")


def test_no_backend_for_a_format(tmp_path):
    """The other backends are hidden from tests."""
    system = GAN().setup(ROWS)
    with pytest.raises(ImportError, match=rf"'{FOREIGN}'.*`python -m pip install \w+"):
        system.export(tmp_path / "new", format=FOREIGN)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_all_members_that_nobody_calls_are_named(plain, tmp_path):
    class Uncalled(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.used, self.sized = layers.Dense(2), keras.Sequential([layers.Dense(2)])
            self.first, self.second = layers.Dense(2), layers.Dense(2)
            for layer in (self.sized, self.first, self.second):
                layer.build((None, 8))

        def forward(self, x):
            return self.used(x)

        def compute_losses(self, x, y, outputs):
            return {"loss": ops.mean(outputs)}

    system = Uncalled().setup(ROWS)
    with pytest.raises(ValueError, match="inputs of 'first', 'second' are not known"):
        system.export(tmp_path / "new", format="plain")
    system.export(tmp_path / "new", format="plain", models=["used", "sized"])


@pytest.mark.once
def test_weights_of_the_system_itself_are_no_model(plain, tmp_path):
    system = Nested().vae.setup(PAIRS)
    assert list(system.export(tmp_path / "new", format="plain")["models"]) == ["encoder", "decoder"]
    with pytest.raises(ValueError, match="'self' names the weights of"):
        system.export(tmp_path / "new", format="plain", models=["self"])


@pytest.mark.once
def test_a_free_size_that_a_format_refuses(plain, tmp_path):
    class Convolved(ml.MLSystem):
        def __init__(self):
            super().__init__()
            image = keras.Input((None, None, 3), name="image")
            self.net = keras.Model(image, layers.Conv2D(2, 3)(image))

        def forward(self, x):
            return self.net(x)

        def compute_losses(self, x, y, outputs):
            return {"loss": ops.mean(outputs)}

    system = Convolved().setup(np.zeros((4, 8, 6, 3), "float32"))
    found = system.export(tmp_path / "new", format="plain")["models"]["net"]
    assert found["inputs"] == [
        {"name": "image", "shape": [None, None, None, 3], "dtype": "float32"}
    ]
    (free,) = inputs.served(system._mlsystem, {"net": system.net}, FORMATS["onnx"])
    assert free.arrays(7)[0].shape == (7, 8, 6, 3)
    with pytest.raises(ValueError, match=r"'litert' needs the size.*'image' of"):
        inputs.served(system._mlsystem, {"net": system.net}, FORMATS["litert"])


@pytest.mark.once
def test_outputs_that_are_not_finite_are_compared_where_they_are():
    numbers = np.array([1.0, -np.inf, np.nan, 8.0], "float32")
    assert comparison._difference("out", numbers, numbers * np.float32(1 + 1e-6), 1) < 2e-6
    for place, value in ((0, np.nan), (1, np.inf), (2, 0.0), (3, 8.001)):
        other = numbers.copy()
        other[place] = value
        with pytest.raises(ValueError, match="differs from the model's"):
            comparison._difference("out", numbers, other, 1)


def state_of(system):
    return [np.array(ops.convert_to_numpy(v)) for v in system._mlsystem.state_variables()]


@pytest.mark.once
def test_random_outputs_are_compared_by_shape(plain, tmp_path):
    class Noisy(ml.MLModel):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def forward(self, x):
            self.calls.assign(self.calls + 1)
            return x + keras.random.normal(ops.shape(x), seed=self.seed)

    class Whole(ml.MLSystem):
        def __init__(self):
            super().__init__()
            self.noisy, self.head = Noisy(), layers.Dense(1)

        def forward(self, x):
            return self.head(self.noisy(x))

        def compute_losses(self, x, y, outputs):
            return {"loss": ops.mean(outputs)}

    system = Whole().setup(ROWS)
    found = system.export(tmp_path / "new", format="plain")
    assert found["models"]["noisy"]["check"]["largest_difference"] is None
    assert found["models"]["head"]["check"]["largest_difference"] == 0
    plain.WRITERS["plain"] = lambda served, path: path.touch()  # the other one calls the model
    before = state_of(system)
    system.export(tmp_path / "new", format="plain", check=False)
    for old, new in zip(before, state_of(system), strict=True):
        np.testing.assert_array_equal(old, new)


# To another process ---------------------------------------------------------------------------


@pytest.mark.once
def test_a_model_arrives_with_its_weights():
    """As a child process does it, on the present backend."""
    for system in (GAN().setup(ROWS), Nested().setup(PAIRS)):
        known = {n: m for n, m in system._mlsystem.members().items() if n != "vae/self"}
        for served in inputs.served(system._mlsystem, known, FORMATS["onnx"]):
            sent = comparison.observed(served)
            back = other_backend.unpack(other_backend.pack(sent), {})
            assert back.model is not served.model
            assert comparison.compared(sent, back.numbers(back.arrays(7)), 7) == 0


@pytest.mark.once
def test_a_class_that_no_other_process_finds(tmp_path):
    class Local(ml.MLModel):
        def forward(self, x):
            return x * 2.0

    system = ml.MLSystem()
    system.net = Local()
    served = SimpleNamespace(model=system.net)
    with pytest.raises(ValueError, match="its class Local is defined inside a function of"):
        other_backend.pack(served)


@pytest.mark.once
def test_a_script_is_run_with_its_arguments_up_to_its_fit(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setitem(sys.modules, "__mp_main__", None)
    found = child._defined_in(str(tmp_path / "script.py"), ["script.py", "--width", "3"])
    assert found.width == 3 and found.Net.__name__ == "Net" and not hasattr(found, "history")


SCRIPT = """
import argparse
import mlsystem as ml

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int)
width = parser.parse_args().width

class Net(ml.MLModel):
    pass

history = Net().fit()
"""


@pytest.mark.once
def test_the_present_folder_hides_no_module_of_the_other_process(tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    settings = {"floatx": "float32", "images": "channels_last"}
    job = other_backend.Job([], FORMATS["onnx"], str(tmp_path), False, {}, [], "", [], settings)
    assert other_backend._run(job, BACKEND).errors == {}


@pytest.mark.once
def test_an_earlier_export_comes_back_if_it_cannot_be_replaced(tmp_path, monkeypatch):
    def full(*places):
        raise OSError("No space left on device")

    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "file").touch()
    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(OSError, match="No space left"), folder.replacing(tmp_path / "export"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "file"]


@pytest.mark.once
def test_pip_names():
    assert formats.pip_name("ai_edge_litert") == "ai-edge-litert"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Converting a")  # of Keras' way
@pytest.mark.skipif(BACKEND != "torch", reason="only tracers of torch refuse gradients")
def test_a_trained_member_exports_as_keras_does(tmp_path):
    """Keras' own `export`, of one model."""
    needs("onnx")
    system = trained()
    for name in ("generator", "average"):
        member = getattr(system, name)
        member(ROWS[:2, :4])
        member.export(str(tmp_path / f"{name}.onnx"), format="onnx", verbose=False)
        assert (tmp_path / f"{name}.onnx").stat().st_size > 500
    system.fit(ROWS, batch_size=8, verbose=0)
