"""Searches by Optuna and KerasTuner, and what KerasTuner copies. `tox -e ship` has both."""

import copy
import re
from pathlib import Path

import documented
import keras
import numpy as np
import pytest
from optional import needs
from test_examples import FOLDER, load
from toys import Pair, ones

import mlsystem as ml

GUIDE = Path(__file__).parents[2] / "docs/guides/tuning.md"


class Quiet:
    """A logger that drops everything."""

    def log(self, values, step):
        pass


@pytest.mark.once
def test_callbacks_survive_a_copy_before_fit(tmp_path):
    kept = [
        ml.callbacks.Advice(every=1, warn=False),
        ml.callbacks.Checkpoint(tmp_path / "kept"),
        ml.callbacks.For("a", keras.callbacks.EarlyStopping("loss")),
        ml.callbacks.GradientNorms(every=1),
        ml.callbacks.Live(),
        ml.callbacks.Log(Quiet()),
        ml.callbacks.Profile(tmp_path / "profile", start=0, steps=1),
    ]
    names = {type(callback).__name__ for callback in kept}
    assert names == set(ml.callbacks.__all__) - {"RayReport"}  # which Ray alone can start
    copied = copy.deepcopy(kept)
    before = [dict(vars(callback)) for callback in kept]
    logs = Pair().fit(ones(), epochs=2, callbacks=copied, verbose=0).history
    assert "a_gradient_norm_a" in logs and list((tmp_path / "kept").iterdir())
    assert [vars(callback) for callback in kept] == before  # the copies are apart


# KerasTuner 1.4.8 asks for the name of a thread in an old way.
old_call = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")


def test_the_example_of_optuna_prunes_and_finds():
    needs("optuna")
    needs("optuna_integration")
    found = load(FOLDER / "search_optuna.py").main(trials=8, epochs=4, samples=400, labels=100)
    assert 1 >= found["best"] >= found["by_hand"] > 0 and found["pruned"] > 0


@old_call
def test_the_example_of_kerastuner_finds():
    needs("keras_tuner")
    found = load(FOLDER / "search_kerastuner.py").main(trials=3, epochs=2, samples=100)
    assert found["best"] <= found["default"]


@old_call
@pytest.mark.parametrize("package", ["optuna", "keras_tuner"])
def test_the_search_of_the_guide_runs(package, tmp_path, monkeypatch):
    needs(package)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    [code] = [block for block in blocks if f"import {package}" in block]
    names = {"GAN": documented.GAN, "images": documented.images, "keras": keras, "ml": ml}
    exec(code, names)
    if package == "optuna":
        assert 0.1 <= names["study"].best_params["weight"] <= 10
    else:
        weights = names["best"].generator.weights
        assert np.isfinite(keras.ops.convert_to_numpy(weights[0])).all()
