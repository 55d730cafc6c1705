"""The command line: each command of the guide, and mistakes: one line, and nothing is written."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import mlsystem
from mlsystem._cli import main, named

pytestmark = pytest.mark.once

GUIDE = (Path(__file__).parents[2] / "docs/guides/command_line.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, code in BLOCKS
    for line in code.splitlines()
    if language == "bash" and line.startswith("mlsystem")
]
FIT = ["fit", "gan.py:gan", "--data", "gan.py:images"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the file of the guide, and another one that fails."""
    code = next(code for language, code in BLOCKS if language == "python")
    (tmp_path / "gan.py").write_text(code)
    (tmp_path / "wrong.py").write_text("raise ValueError('mine')\n")
    (tmp_path / "untyped.py").write_text("def make(latent): return latent\n")
    (tmp_path / "nothing.py").write_text("def data(): return None\n")
    (tmp_path / "broken.yaml").write_text("system: [")
    (tmp_path / "list.yaml").write_text("- system")
    (tmp_path / "number.yaml").write_text("system: 3")
    (tmp_path / "unknown.yaml").write_text("system: gan.py:gan\nepoks: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(named, "modules", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("gan", "wrong", "untyped", "nothing"):
            del sys.modules[name]


def test_each_command_of_the_guide(folder, capsys):
    for command in COMMANDS:
        words, _, file = command.partition(" > ")
        exit_code = 0
        try:
            exit_code = main(shlex.split(words)[1:])
        except SystemExit as end:  # --print_config
            exit_code = end.code or 0
        assert exit_code == 0, command
        out = capsys.readouterr().out
        if file:
            Path(file).write_text(out)
    assert yaml.safe_load(Path("run.yaml").read_text())["model"] == {"latent": 16, "width": 32}
    assert {"gan.weights.h5", "gan.svg", "run.yaml", "runs"} <= {p.name for p in folder.iterdir()}
    assert len(COMMANDS) >= 13


def test_the_doctor_tells_what_it_found(capsys):
    assert main(["--json", "doctor"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["keras"] == keras.__version__
    assert found["backend"]["name"] == keras.backend.backend()
    assert found["devices"]
    assert found["step"]["compiled"] and found["step"]["milliseconds"] > 0


def test_settings_arguments_and_flags_before_the_command(capsys):
    words = ["--set", "generator.optimizer.learning_rate=0.25", "fit", "gan.py:gan"]
    assert main([*words, "--data", "gan.py:images", "--set", "latent=3"]) == 0
    gan = sys.modules["gan"].gan
    assert float(gan.optimizers["generator"].learning_rate) == 0.25
    assert gan.latent == 3


def test_evaluate_prints_what_evaluate_returns(capsys):
    assert main(["fit", "gan.py:gan", "--data", "gan.py:images", "--save", "a.weights.h5"]) == 0
    gan = sys.modules["gan"].gan
    gan.seed.state.assign([0, 0])
    capsys.readouterr()
    rest = ["--data", "gan.py:images", "--weights", "a.weights.h5"]
    assert main(["evaluate", "gan.py:gan", *rest]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    gan.load_weights("a.weights.h5")
    expected = gan.evaluate(sys.modules["gan"].images(), return_dict=True, verbose=0)
    assert {name: float(value) for name, value in shown.items()} == pytest.approx(expected, 1e-4)


MISTAKES = [
    (["fitt"], "'fitt' is no command. Did you mean 'fit'?"),
    (["fitt", *FIT[1:]], "'fitt' is no command. Did you mean 'fit'?"),
    (["fit"], "Name the system first"),
    (["fit", "gam.py:gan"], "no file 'gam.py'. Did you mean 'gan.py'?"),
    (["fit", "gan.py"], "Write file.py:NAME"),
    (["fit", "gan.py:gam"], "has no 'gam'. Did you mean 'gan'?"),
    (["fit", "gam:gan"], "No module named 'gam'"),
    (["fit", "gan.py:np"], "is a module. Name an MLSystem"),
    (["fit", "gan.py:gan"], "has no data of its own"),
    ([*FIT, "--epoks", "2"], "unrecognized arguments: --epoks 2. Did you mean '--epochs'?"),
    ([*FIT, "--epochs", "two"], "--epochs: Expected a int. Got value: two"),
    ([*FIT, "--epochs", "-1"], "fit got epochs=-1"),
    (["fit", "gan.py:GAN", "--model.latnt", "2"], "Did you mean '--model.latent'?"),
    (["fit", "gan.py:GAN", "--latent", "2"], "unrecognized arguments: --latent 2.\n"),
    ([*FIT, "--max_time", "1h"], "--max_time: Expected float or null. Got value: 1h"),
    ([*FIT, "--fast_run", "maybe"], "--fast_run: Expected bool or int. Got value: maybe"),
    ([*FIT[:3], "nothing.py:data"], "--data: nothing.py:data is None, or returns None"),
    ([*FIT, "--validation_data", "nothing.py:data"], "--validation_data: nothing.py:data is None"),
    ([*FIT[:3], "gan.py:gan"], "of fit is the model 'gan"),
    ([*FIT, "--checkpoint", ""], "got '' as its folder"),
    ([*FIT, "--resume", ""], "got '' as its folder"),
    (["fit", "gan.py:GAN", "--model.latent", "x"], "--model.latent: Expected a int"),
    ([*FIT, "--set", "latent"], "Write PATH=VALUE"),
    ([*FIT, "--set", "latnt=3"], "GAN has no 'latnt'. Did you mean 'latent'?"),
    ([*FIT, "--set", "latent=abc"], "it is 8 now. Give int or float"),
    ([*FIT, "--set", "fit=3"], "--set fit: it is of type method, not a value"),
    ([*FIT, "--set", "generator.optimizr.learning_rate=1"], "Did you mean 'optimizer'?"),
    ([*FIT, "--set", "generator.optimizer.learning_rat=1"], "Did you mean 'learning_rate'?"),
    ([*FIT, "--resume", "."], "not a file, or a folder with checkpoints"),
    (["evaluate", *FIT[1:], "--weights", "none"], "not a file, or a folder with checkpoints"),
    (["report", *FIT[1:], "--weights", "gan.py"], "gan.py"),
    ([*FIT, "--set", "..=3"], "Write PATH=VALUE"),
    ([*FIT, "--set", "latent=True"], "it is 8 now. Give int or float"),
    ([*FIT, "--set", "generator.trainable=3"], "it is True now. Give True or False"),
    ([*FIT, "--set", "generator=None"], "it is of type Generator, not a value"),
    ([*FIT, "--set", "metrics_names=[]"], "metrics_names cannot be set"),
    ([*FIT, "--set", "generator.optimizer=sgd"], "it is of type Adam, not a value"),
    ([*FIT, "--save", "none/a.weights.h5"], "there is no folder 'none'"),
    ([*FIT, "--save", "a.txt"], "End it in .keras or .weights.h5"),
    (["fit", "--config", "broken.yaml"], "Problems parsing config: while parsing"),
    (
        ["fit", "--config", "list.yaml"],
        "Unexpected config: - system. Write lines such as epochs: 2.",
    ),
    (["fit", "--config", "number.yaml"], "mlsystem: "),
    (["fit", "--config", "unknown.yaml"], "'epoks' is not accepted. Did you mean '--epochs'?"),
    (["fit", "untyped.py:make", *FIT[2:]], "missing 1 required positional argument: 'latent'"),
    (["export", *FIT[1:]], "arguments are required: --folder"),
    (["export", *FIT[1:], "out"], "unrecognized arguments: out. Every argument but the system"),
    (
        ["export", *FIT[1:], "--folder", "out", "--models", "generatr"],
        "names 'generatr', which does not exist",
    ),
    (["-v"], "'-v' is no command"),
    (["doctor", "--jsn"], "It takes --json only"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=lambda value: str(value)[-40:])
def test_a_mistake_is_one_line_and_writes_nothing(words, says, folder, capfd):
    before = {path.name for path in folder.iterdir()} | {"__pycache__"}
    assert main(words) == 2
    error = capfd.readouterr().err
    assert error.startswith("mlsystem: ") and says in error, error
    assert "Traceback" not in error
    assert {path.name for path in folder.iterdir()} <= before


TYPED = """

gan.sizes, gan.rates, gan.kind, gan.pair = {"a": 1, "b": {"c": 0.5}}, [1, 0.5], "relu", (1, 2)
gan.heat = keras.Variable(1.0, trainable=False, name="heat")
gan.shifts = keras.Variable([1.0, 2.0], trainable=False, name="shifts")
"""

WRONG_TYPES = [
    ("sizes.b.c=x", "--set sizes.b.c=x: it is 0.5 now. Give int or float."),
    ("sizes={'a': x}", "now. Give dict[str, "),
    ("rates.0=x", "--set rates.0=x: it is 1 now. Give int or float."),
    ("rates=[1, x]", "--set rates=[1, x]: it is [1, 0.5] now. Give list[int or float]."),
    ("rates=3", "Give list[int or float]."),
    ("rates.7=3", "rates has no '7'"),
    ("pair=[1, x]", "it is (1, 2) now. Give tuple[int or float, ...]."),
    ("pair.0=3", "--set pair.0 cannot be set"),
    ("heat=warm", "--set heat=warm: it is 1.0 now. Give int or float."),
    ("shifts=[1, 2, 3]", "--set shifts cannot be set"),
    ("shifts=x", "--set shifts cannot be set"),
    ("generator.optimizer.learning_rate=fast", "now. Give int or float."),
    ("generator.optimizer.learning_rate=[1]", "now. Give int or float."),
]


@pytest.mark.parametrize(("setting", "says"), WRONG_TYPES)
def test_a_setting_of_a_wrong_type_is_one_line(setting, says, folder, capfd):
    (folder / "gan.py").write_text((folder / "gan.py").read_text() + TYPED)
    assert main([*FIT, "--set", setting]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith("mlsystem: --set ") and says in error and len(error.splitlines()) == 1


def test_a_setting_has_the_type_of_the_attribute(folder):
    (folder / "gan.py").write_text((folder / "gan.py").read_text() + TYPED)
    words = ["kind=3", "sizes.b.c=1e-3", "rates=[3, 4]", "pair=[3, 4]", "heat=0.5", "shifts=[3, 4]"]
    assert main(["summary", *FIT[1:], *(f"--set={word}" for word in words)]) == 0
    gan = sys.modules["gan"].gan
    assert (gan.kind, gan.sizes["b"]["c"]) == ("3", 1e-3)
    assert (list(gan.rates), gan.pair) == ([3, 4], (3, 4))
    assert isinstance(gan.heat, keras.Variable) and float(gan.heat) == 0.5
    assert np.array(gan.shifts).tolist() == [3, 4]


@pytest.mark.parametrize("word", ["wrong.py:gan", "wrong:gan"])
def test_an_error_in_the_users_code_has_its_traceback(word):
    with pytest.raises(ValueError, match="mine"):
        main(["fit", word])


def test_an_error_in_forward_has_its_traceback():
    with pytest.raises(Exception, match="forward fails"):
        main(["summary", *FIT[1:], "--set", "latent=-3"])


def test_a_setting_of_an_item_changes_the_item(folder):
    code = (folder / "gan.py").read_text() + "\n\ngan.sizes, gan.rates = {'a': 1}, [1, 2]\n"
    (folder / "gan.py").write_text(code)
    assert main(["summary", *FIT[1:], "--set", "sizes.a=3", "--set", "rates.1=4"]) == 0
    gan = sys.modules["gan"].gan
    assert gan.sizes["a"] == 3 and list(gan.rates) == [1, 4]


def test_options_may_stand_after_print_config(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--print_config", "gan.py:GAN"])
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["system"] == "gan.py:GAN" and found["model"]["width"] == 32


def test_a_file_does_not_replace_a_module_of_its_name(folder):
    import random

    (folder / "random.py").write_text((folder / "gan.py").read_text())
    assert main(["summary", "random.py:gan", "--data", "random.py:images"]) == 0
    assert sys.modules["random"] is random


def test_without_jsonargparse_the_command_to_install_it_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(FIT) == 2
    assert "python -m pip install 'mlsystem[cli]'" in capsys.readouterr().err


def test_the_module_runs_as_a_program(folder):
    done = subprocess.run(
        [sys.executable, "-m", "mlsystem", "fit", "gan.py:gam"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("Did you mean 'gan'?")


def test_data_of_a_function_and_of_an_object_are_the_same(folder, capsys):
    code = (folder / "gan.py").read_text() + "\n\nrows = images()\n"
    (folder / "gan.py").write_text(code)
    assert main(["evaluate", "gan.py:gan", "--data", "gan.py:rows"]) == 0
    assert np.isfinite(float(capsys.readouterr().out.split()[-1]))


def test_the_files_for_a_release_agree():
    root = Path(__file__).parents[2]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == mlsystem.__version__
    assert f'version = "{mlsystem.__version__}"' in (root / "pyproject.toml").read_text()
    bug = yaml.safe_load((root / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    assert any("mlsystem doctor" in str(part) for part in bug["body"])
