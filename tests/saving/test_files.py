"""Files that are damaged, forged or of other data: refused or told, and nothing is run or moved."""

import json
import logging
import random
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest
from interrupted import ROWS
from keras import layers

import mlsystem as ml
from mlsystem.data.transforms import Transform
from mlsystem.saving import checkpoint_file, checksum, packing
from mlsystem.saving.callback_state import CallbackStates

pytestmark = pytest.mark.once

MEMBER = "model.weights.h5"


def model(**compiled):
    keras.utils.set_random_seed(0)
    made = ml.MLModel(keras.Sequential([layers.Dense(1)]), loss="mse")
    made.compile(keras.optimizers.SGD(0.05), run_eagerly=True, **compiled)
    return made.setup((ROWS[:4], ROWS[:4, :1]))


def trained(folder, rows=ROWS, epochs=1, resume=None, **given):
    """A model and its checkpoint, by batches of 4 rows."""
    made = model(**given)
    made.fit(
        rows,
        None if not hasattr(rows, "shape") else rows[:, :1],
        batch_size=4 if hasattr(rows, "shape") else None,
        epochs=epochs,
        verbose=0,
        shuffle=hasattr(rows, "shape"),
        callbacks=[ml.callbacks.Checkpoint(folder)],
        resume=resume,
    )
    return made, max(folder.glob("step-*"))


def numbers(made):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in made._mlsystem.state_variables()]


def same(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def flipped(content, path, count):
    """Writes a file again and again, each time with another bit changed."""
    draw = random.Random(0)
    for _ in range(count):
        bit = draw.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield path


def edited(path, change):
    """Writes a checkpoint again, with other values and a right checksum."""
    state = checkpoint_file.read(path)
    change(state)
    arrays = []
    text = json.dumps(packing.pack(state, arrays)).encode()
    with h5py.File(path, "r+") as file:
        del file["_checkpoint"]
        file["_checkpoint/json"] = np.frombuffer(text, "uint8")
        for i, array in enumerate(arrays):
            file[f"_checkpoint/{i}"] = array
    checksum.add(path)


# Checksums --------------------------------------------------------------------------------------


def test_a_flipped_bit_is_an_error_that_changes_nothing(tmp_path):
    source, checkpoint = trained(tmp_path / "run")
    source.save_weights(weights := tmp_path / "a.weights.h5")
    target = model()
    before = numbers(target)
    for path in flipped(weights.read_bytes(), weights, 30):
        with pytest.raises(ValueError, match=r"a\.weights\.h5' cannot be read.*Nothing was loaded"):
            target.load_weights(path)
    for path in flipped(checkpoint.read_bytes(), checkpoint, 30):
        with pytest.raises(ValueError, match=f"{path.name}' is no checkpoint, or a damaged one"):
            target.fit(ROWS, ROWS[:, :1], verbose=0, resume=path)
    assert same(numbers(target), before)


def test_a_flipped_bit_in_an_archive_is_an_error_or_changes_no_number(tmp_path):
    source = model()
    source.save(path := tmp_path / "a.keras")
    target, expected = model(), numbers(source)
    for i, damaged in enumerate(flipped(path.read_bytes(), path, 30)):
        for load in (target.load_weights, keras.saving.load_model)[: 1 + (i < 10)]:
            try:
                loaded = load(damaged) or target
            except (ValueError, KeyError, zipfile.BadZipFile):
                continue
            assert same(numbers(loaded), expected)


def test_keras_ignores_the_checksum(tmp_path):
    source = ml.MLModel(inputs=(x := keras.Input((3,))), outputs=layers.Dense(2)(x))
    source.save_weights(path := tmp_path / "a.weights.h5")
    assert checksum.verify(path)
    target = keras.Model(x := keras.Input((3,)), layers.Dense(2)(x))
    target.load_weights(path)
    assert same(target.get_weights(), source.get_weights())


def test_a_checksum_that_is_cut_off_is_missed(tmp_path):
    source = model()
    source.save_weights(path := tmp_path / "a.weights.h5")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="checksum at its end is missing"):
        source.load_weights(path)


def test_files_without_a_checksum_are_read_with_a_note(tmp_path, caplog):
    source, checkpoint = trained(tmp_path / "run")
    keras.Model.save_weights(source, path := tmp_path / "a.weights.h5")
    with caplog.at_level(logging.INFO, "mlsystem"):
        source.load_weights(path)
    assert "has no checksum" in caplog.text
    with h5py.File(checkpoint, "r+") as file:  # which takes off the end, too
        del file.attrs["mlsystem_checksum"]
    with pytest.warns(UserWarning, match=f"{checkpoint.name}' has no checksum, because an earlier"):
        checkpoint_file.read(checkpoint)


def test_an_archive_that_keras_reads_in_pieces_is_verified(tmp_path):
    (source := model()).save(path := tmp_path / "a.keras")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        store = types.SimpleNamespace(archive=archive)
        with pytest.raises(ValueError, match=f"a.keras' is damaged: '{MEMBER}' in it has changed"):
            source.load_own_variables(store)


# Values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", -5),
        ("epoch", 1.5),
        ("epoch", True),
        ("stopped", "no"),
        ("position", None),
        ("callbacks", [3]),
        ("total", float("nan")),
        ("batch", -4),
        ("batch", 10**6),
    ],
)
def test_values_in_a_checkpoint_are_checked(name, value, tmp_path):
    source, path = trained(tmp_path)

    def change(state):
        in_position = name in ("total", "batch")
        (state["position"] if in_position else state)[name] = value

    edited(path, change)
    before = numbers(source)
    with pytest.raises(ValueError, match=rf"{path.name}' holds {name}=.*was expected") as found:
        source.fit(ROWS, ROWS[:, :1], epochs=2, verbose=0, resume=path)
    assert repr(value) in str(found.value) or name == "callbacks"
    assert same(numbers(source), before)


def test_a_file_does_not_say_where_a_callback_writes(tmp_path):
    logger, aim = keras.callbacks.CSVLogger(str(tmp_path / "rows.csv")), tmp_path / "aim"
    states = CallbackStates([logger], [])
    name = states.callbacks[0][0]
    states.write([{"name": name, "attributes": {"filename": str(aim), "sep": ";"}, "file": None}])
    assert logger.filename == str(tmp_path / "rows.csv") and logger.sep == ","


# Forged files -----------------------------------------------------------------------------------


def external_link(file, name, folder):
    file[name] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def soft_link(file, name, folder):
    file[name] = h5py.SoftLink("/elsewhere")


def external_storage(file, name, folder):
    storage = [(str(folder / "secret"), 0, 12)]
    file.create_dataset(name, (3, 1), "float32", external=storage)


def virtual(file, name, folder):
    layout = h5py.VirtualLayout((3, 1), "float32")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3, 1))
    file.create_virtual_dataset(name, layout)


def inflated(file, name, folder):
    file.create_dataset(name, (2**33,), "uint8", chunks=(2**20,), compression="gzip")


@pytest.mark.parametrize(
    "forge",
    [external_link, soft_link, external_storage, virtual, inflated],
    ids=lambda f: f.__name__,
)
def test_files_that_point_elsewhere_or_inflate_are_refused(forge, tmp_path):
    source, checkpoint = trained(tmp_path / "run")
    source.save_weights(weights := tmp_path / "a.weights.h5")
    (tmp_path / "secret").write_bytes(bytes(12))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.zeros((3, 1), "float32")
    before = numbers(source)
    with h5py.File(weights, "r+") as file:
        names = []
        file.visit(names.append)
        name = next(n for n in names if getattr(file[n], "shape", None) == (3, 1))
        del file[name]
        forge(file, name, tmp_path)
    with h5py.File(checkpoint, "r+") as file:
        del file["_checkpoint/0"]
        forge(file, "_checkpoint/0", tmp_path)
    for path in (weights, checkpoint):
        checksum.add(path)
    with pytest.raises(ValueError, match=r"a\.weights\.h5' cannot be read.*Not allowed"):
        source.load_weights(weights)
    with pytest.raises(ValueError, match=f"{checkpoint.name}' is no checkpoint.*Not allowed"):
        source.fit(ROWS, ROWS[:, :1], epochs=2, verbose=0, resume=checkpoint)
    assert same(numbers(source), before)


def test_an_archive_that_inflates_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("keras.src.saving.saving_lib._ZIP_MEMBER_BOMB_FLOOR_BYTES", 1000)
    with zipfile.ZipFile(path := tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, bytes(10**6))
    with pytest.raises(ValueError, match=r"a\.keras' cannot be read.*decompression bomb"):
        model().load_weights(path)


# Data -------------------------------------------------------------------------------------------


def test_other_data_on_resume_are_told(tmp_path):
    trained(tmp_path)
    with pytest.warns(UserWarning) as found:
        trained(tmp_path, ROWS[4:] + 1, 2, tmp_path)
    [text] = [str(w.message) for w in found if "The data" in str(w.message)]
    assert "data differ" in text and "an epoch had 5 batches, and now has 4" in text
    assert "[20, 3]" in text and "[16, 3]" in text and "begin with other values" in text


def test_the_same_arrays_in_another_order_of_batches_are_the_same_data(tmp_path):
    trained(tmp_path)
    trained(tmp_path, ROWS.copy(), 2, tmp_path)  # a warning would be an error


def passes(differ):
    """A data set of the backend, or of Grain, whose passes differ or do not."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS[:, :1]))
        return data.shuffle(20, seed=1, reshuffle_each_iteration=differ).batch(4)
    import grain

    rng = np.random.default_rng(0)
    data = grain.MapDataset.source([(row, row[:1]) for row in ROWS])
    data = data.map(lambda pair: (pair[0] + differ * rng.normal(size=3), pair[1]))
    return data.to_iter_dataset().batch(4)


@pytest.mark.each_backend
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_data_set_whose_passes_differ_cannot_be_resumed_exactly(tmp_path):
    trained(tmp_path / "same", passes(False))
    trained(tmp_path / "same", passes(False), 2, tmp_path / "same")
    trained(tmp_path / "other", passes(True))
    with pytest.warns(UserWarning, match="is not exact: the data set begins with another batch"):
        trained(tmp_path / "other", passes(True), 2, tmp_path / "other")


# State that is put back -------------------------------------------------------------------------


def test_a_metric_with_other_variables_is_refused(tmp_path):
    source, path = trained(tmp_path, metrics=["mae"])

    def change(state):
        state["metrics"] = {"loss": [np.zeros(())]}

    edited(path, change)
    before = numbers(source)
    with pytest.raises(ValueError, match=rf"{path.name}' does not fit: the metric 'loss' has"):
        source.fit(ROWS, ROWS[:, :1], epochs=2, verbose=0, resume=path)
    assert same(numbers(source), before)


def test_a_transform_with_other_variables_is_refused():
    state = Transform([layers.RandomFlip(seed=1)]).get_state()
    with pytest.raises(ValueError, match="transform of the data has variables of the shapes"):
        Transform([layers.RandomFlip(seed=1), layers.RandomFlip(seed=2)]).set_state(state)
