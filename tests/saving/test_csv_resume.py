"""The file of a CSVLogger after a resume is that of a run that was never broken off."""

import keras
import pytest
from interrupted import Interrupt, Interrupted, small
from toys import TinyGAN, ones

import mlsystem as ml

log = keras.callbacks.CSVLogger


def run(folder, stop=None, every=4, epochs=3, other=None, **given):
    """Epochs of 5 batches, with a checkpoint every 4 or so; gives the file."""
    folder.mkdir(exist_ok=True)
    path = folder / "rows.csv"
    loggers = [log(path, **given), *([log(folder / other)] if other else [])]
    try:
        small(folder / "run", loggers, stop=stop, every=every, epochs=epochs)
    finally:
        close(*loggers)
    return path.read_bytes()


def close(*loggers):
    """What the end of a process does."""
    for logger in loggers:
        logger.csv_file.close()


def broken(folder, stop, **given):
    with pytest.raises(Interrupted):
        run(folder, stop, **given)


@pytest.mark.parametrize("given", [{}, {"separator": "\t", "append": True}])
@pytest.mark.parametrize("stop", [3, 7, 13])  # no row, one too many, one that stays
@pytest.mark.spread
def test_the_file_is_that_of_an_unbroken_run(given, stop, tmp_path):
    every = 2 if stop == 3 else 4
    whole = run(tmp_path / "whole", every=every, **given)
    assert whole.startswith(b"epoch" + given.get("separator", ",").encode() + b"loss")
    assert whole.count(b"\n") == 4
    broken(tmp_path / "broken", stop, every=every, **given)
    assert run(tmp_path / "broken", every=every, **given) == whole
    assert run(tmp_path / "broken", every=every, **given) == whole  # nothing is left to train


@pytest.mark.parametrize("every", ["epoch", 1])
def test_a_run_may_be_broken_off_twice(every, tmp_path):
    whole = run(tmp_path / "whole", every=every)
    for stop in (7, 2):
        broken(tmp_path / "broken", stop, every=every)
    assert run(tmp_path / "broken", every=every) == whole


def test_a_file_that_is_missing_is_written_again(tmp_path):
    whole = run(tmp_path / "whole")
    broken(tmp_path / "broken", 14)
    (tmp_path / "broken" / "rows.csv").unlink()
    assert run(tmp_path / "broken") == whole


def test_what_was_in_the_file_before_the_run_stays(tmp_path):
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        folder.mkdir()
        (folder / "rows.csv").write_bytes(b"epoch,loss\r\n0,1.0\r\n")
    whole = run(tmp_path / "whole", append=True)
    assert whole.count(b"epoch") == 1 and whole.count(b"\n") == 5
    broken(tmp_path / "broken", 7, append=True)
    assert run(tmp_path / "broken", append=True) == whole


def test_longer_training_and_a_second_logger(tmp_path):
    whole = run(tmp_path / "whole", epochs=4, other="others.csv")
    run(tmp_path / "broken", epochs=2, other="others.csv")
    assert run(tmp_path / "broken", epochs=4, other="others.csv") == whole
    assert (tmp_path / "broken" / "others.csv").read_bytes() == whole


def test_a_logger_for_one_model(tmp_path):
    def train(folder, stop=None):
        folder.mkdir(exist_ok=True)
        gan = TinyGAN()
        gan.compile(run_eagerly=True)
        rows = log(folder / "rows.csv")
        logger = ml.callbacks.For("generator", rows)
        last = [ml.callbacks.Checkpoint(folder, every=1), *([Interrupt(stop)] if stop else [])]
        given = {"batch_size": 4, "epochs": 3, "verbose": 0, "validation_data": (ones(),)}
        try:
            gan.fit(ones(8), **given, callbacks=[logger, *last], resume=folder)
        finally:
            close(rows)
        return (folder / "rows.csv").read_bytes()

    whole = train(tmp_path / "whole")
    assert b",val_loss" in whole and whole.count(b"\n") == 4
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", 3)
    assert train(tmp_path / "broken") == whole
