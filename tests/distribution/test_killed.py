"""One of two processes is killed. The other ends, and the run resumes as if nothing happened."""

import numpy as np
import pytest
import resumable
from optional import ship_only
from processes import run, started

DROPOUT = 0.3  # processes draw other numbers


def killed(index, folder, dropout=0.0):
    """Kills a process in mid-training. Returns what the other says."""
    with started("resumable.py", folder, "", dropout, HANGS=str(index)) as running:
        assert any(line == "hangs\n" for line in running[index].stdout)
        running[index].kill()
        other = running[1 - index]
        text, _ = other.communicate(timeout=60)
    assert other.returncode > 0
    assert "Error" in text
    assert [path.name for path in folder.glob("step-*")] == ["step-0000000006.weights.h5"]


@pytest.mark.once
def test_one_process_goes_on_without_the_other(tmp_path):
    killed(0, tmp_path / "run")
    weights, losses = resumable.train(tmp_path / "whole")
    found, again = resumable.train(tmp_path / "run")
    np.testing.assert_allclose(again, losses[:, -again.shape[1] :], rtol=1e-5)
    assert np.abs(found - weights).max() <= 1e-5 * np.abs(weights).max()


@ship_only
@pytest.mark.parametrize("index", [0, 1])
def test_two_processes_go_on_to_the_last_bit(tmp_path, index):
    run("resumable.py", tmp_path / "whole", tmp_path / "a", DROPOUT)
    killed(index, tmp_path / "run", DROPOUT)
    run("resumable.py", tmp_path / "run", tmp_path / "b", DROPOUT)
    for process in ("0.npz", "1.npz"):
        whole, again = (np.load(tmp_path / name / process) for name in "ab")
        np.testing.assert_array_equal(again["weights"], whole["weights"])
        np.testing.assert_array_equal(again["losses"], whole["losses"])
