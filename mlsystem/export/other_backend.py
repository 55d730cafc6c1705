"""Write files on another backend: a child process loads the models and exports them."""

import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mlsystem import _keras, _learner
from mlsystem.engine import engine
from mlsystem.export import comparison, inputs
from mlsystem.export.formats import Format, versioned
from mlsystem.export.served_model import ServedModel
from mlsystem.export.writing import Written, short


@dataclass(frozen=True)
class Packed:
    """A model on its way to another process: its configuration and its weights."""

    served: ServedModel
    config: Any
    classes: Mapping[str, tuple[str, str]]
    weights: Sequence[Any]


@dataclass(frozen=True)
class Job:
    """What the child process does.

    Attributes:
        models: the models.
        wanted: the format.
        folder: the folder for the files.
        check: whether to check them.
        classes: the user's classes of layers, by name: the module, and the name in the module.
        modules: more modules to import.
        script: the program that runs, if it defines some classes.
        words: its name and arguments, as in `sys.argv`.
        settings: settings of Keras.
    """

    models: Sequence[Packed]
    wanted: Format
    folder: str
    check: bool
    classes: Mapping[str, tuple[str, str]]
    modules: Sequence[str]
    script: str
    words: Sequence[str]
    settings: dict[str, str]


def write_all(
    models: Sequence[ServedModel], wanted: Format, folder: Path, check: bool, backend: str
) -> Written:
    """Write the files of all models on another backend. See `writing.write_all`."""
    result = Written(by=versioned(backend))
    packed = list(_packed(models, backend, result))
    if packed:
        try:
            found = _run(_job(packed, wanted, folder, check), backend)
            result = replace(found, errors=found.errors | result.errors)
        except Exception as error:
            failed = f"{backend}: {short(error)}"
            result.errors |= {one.served.name: failed for one in packed}
    return result


def _packed(models: Sequence[ServedModel], backend: str, result: Written) -> Iterator[Packed]:
    for served in models:
        try:
            yield pack(served)
        except Exception as error:
            result.errors[served.name] = (
                f"{backend}: cannot be sent to a process on {backend}, {short(error)}"
            )


def pack(served: ServedModel) -> Packed:
    """Describe a model by its configuration and weights.

    A model that only wraps a network travels as that network, without the user's class.

    Raises:
        ValueError: a class is defined inside a function, where no other process finds it.
    """
    inner = inputs.network(served.model)
    for name, (module, place) in _classes(inner).items():
        if "<locals>" in place:
            raise ValueError(
                f"its class {name} is defined inside a function of {module}. Define it in the "
                "module itself."
            )
    weights = served.model.averages if _learner.is_copy(served.model) else inner.weights
    values = [np.asarray(keras.ops.convert_to_numpy(weight)) for weight in weights]
    config = keras.saving.serialize_keras_object(inner)
    return Packed(replace(served, model=None), config, _classes(inner), values)


def _classes(model: Any) -> dict[str, tuple[str, str]]:
    """Return the user's classes of layers in a model, by name: the module and the name in it."""
    found = {type(layer) for layer in _keras.flat_layers(model)}
    places = {cls.__name__: (cls.__module__, cls.__qualname__) for cls in found}
    return {n: place for n, place in places.items() if not _is_of_library(place[0])}


def _is_of_library(module: str) -> bool:
    return module.partition(".")[0] in ("keras", "mlsystem", "builtins")


def unpack(packed: Packed, classes: Mapping[str, Any]) -> ServedModel:
    """Create the model again, on the backend of this process, from the user's classes."""
    served = replace(packed.served, model=_created(packed.config, classes))
    served.numbers(served.arrays(1))  # creates the weights that do not exist yet
    weights = served.model.weights
    if [tuple(w.shape) for w in weights] != [value.shape for value in packed.weights]:
        raise ValueError("its weights have other shapes when its class is called again.")
    for weight, value in zip(weights, packed.weights, strict=True):
        weight.assign(value)
    with engine.full_precision():
        comparison.compared(served, served.numbers(served.arrays(1)), 1)
    return served


def _created(config: Any, classes: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a call builds what cannot be built here
            return keras.saving.deserialize_keras_object(config, custom_objects=classes)
    except Exception as error:
        raise ValueError(
            f"its class {config.get('class_name')} cannot be created from its configuration, as "
            "`keras.saving.load_model` does. Make it an MLModel, or give it `get_config` and "
            f"**kwargs as Keras asks. {short(error)}"
        ) from error


def _job(packed: Sequence[Packed], wanted: Format, folder: Path, check: bool) -> Job:
    classes = {name: place for one in packed for name, place in one.classes.items()}
    named = {name for one in packed for name in _modules(one.config)}
    modules = sorted({*named, *(module for module, _ in classes.values())})
    script = getattr(sys.modules["__main__"], "__file__", None) if "__main__" in modules else ""
    if script is None:
        raise ValueError(
            "a class is defined in a notebook or console, where another process cannot find it. "
            "Put it into a module, a .py file, and import it."
        )
    others = [name for name in modules if name != "__main__"]
    settings = {"floatx": keras.config.floatx(), "images": keras.config.image_data_format()}
    path = str(Path(script).resolve()) if script else ""
    words = list(sys.argv)
    return Job(packed, wanted, str(folder), check, classes, others, path, words, settings)


def _modules(config: Any) -> Iterator[str]:
    """Yield the modules that a configuration names, beside those of Keras."""
    if isinstance(config, dict):
        for key in ("module", "registered_name"):
            name = str(config.get(key) or "").partition(">")[0]
            if name and not _is_of_library(name):
                yield name
    if isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _modules(value)


def _run(job: Job, backend: str) -> Written:
    with tempfile.TemporaryDirectory() as folder:
        question, answer = (Path(folder) / name for name in ("job", "answer"))
        question.write_bytes(pickle.dumps(job))
        places = os.pathsep.join(path or os.getcwd() for path in sys.path)
        done = subprocess.run(  # -P: the present folder is no place for modules, unless it was one
            [sys.executable, "-P", "-m", "mlsystem.export.child", str(question), str(answer)],
            env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": places},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode or not answer.exists():
            raise RuntimeError(f"the process ended with {done.returncode}. {done.stderr[-300:]}")
        found: Written = pickle.loads(answer.read_bytes())
        return found
