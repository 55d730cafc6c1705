"""The formats of exported files: which backends write each, and what runs it."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from mlsystem._checks import did_you_mean, nearest, version_of
from mlsystem.engine import engine


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: the name that `export` takes, as in Keras.
        suffix: the end of a file's name. Empty for a folder.
        writers: the backends that write it, each with the modules that it needs beside itself.
        runtime: the module that runs the file.
        fixed: whether all dimensions but the first must be known.
    """

    name: str
    suffix: str
    writers: Mapping[str, tuple[str, ...]]
    runtime: str
    fixed: bool = False


_ONNX = ("onnx", "onnxscript")
FORMATS = {
    found.name: found
    for found in (
        Format("tf_saved_model", "", {"tensorflow": (), "jax": ("tensorflow",)}, "tensorflow"),
        Format("onnx", ".onnx", {"torch": _ONNX}, "onnxruntime"),
        Format(
            "openvino",
            ".xml",
            {"torch": (*_ONNX, "openvino"), "tensorflow": ("openvino",)},
            "openvino",
        ),
        Format("litert", ".tflite", {"tensorflow": ()}, "ai_edge_litert", fixed=True),
        Format("torch", ".pt2", {"torch": ()}, "torch"),
    )
}
# Other names of the formats, for the error message only.
_ALIASES = {
    "tflite": "litert",
    "tensorflow": "tf_saved_model",
    "saved_model": "tf_saved_model",
    "savedmodel": "tf_saved_model",
    "pt2": "torch",
    "pytorch": "torch",
    "onnxruntime": "onnx",
    "ir": "openvino",
}


def find(name: object) -> Format:
    """Return the format of a name.

    Raises:
        ValueError: no format has this name.
    """
    if isinstance(name, str) and name in FORMATS:
        return FORMATS[name]
    known = ", ".join(map(repr, FORMATS))
    near = nearest(str(name).lower(), [*FORMATS, *_ALIASES])
    hint = did_you_mean(_ALIASES.get(near, near) if near else None)
    raise ValueError(f"export got format={name!r}.{hint} The formats are {known}.")


def writers(wanted: Format) -> list[str]:
    """Return the installed backends that can write a format, the present one first.

    Raises:
        ImportError: none is installed. The message has the command that installs one.
    """
    names = sorted(wanted.writers, key=lambda name: name != engine.name)
    found = [name for name in names if not _missing(wanted, name)]
    if found:
        return found
    ways = " or ".join(
        f"`python -m pip install {' '.join(map(pip_name, _missing(wanted, name)))}`"
        for name in names
    )
    raise ImportError(
        f"No installed backend writes the format '{wanted.name}'. It is written on "
        f"{' or '.join(names)}, which need not be the backend that you train on. "
        f"Run {ways}. Nothing was written."
    )


def _missing(wanted: Format, backend: str) -> list[str]:
    needed = dict.fromkeys([backend, *wanted.writers[backend]])
    return [name for name in needed if not is_installed(name)]


def is_installed(module: str) -> bool:
    """Return whether a module could be imported. It is not imported."""
    return importlib.util.find_spec(module) is not None


def pip_name(module: str) -> str:
    """Return the name under which pip knows a module."""
    return module.replace("_", "-")


def versioned(module: str) -> str:
    """Return the name under which pip knows a module, with its version if pip installed it."""
    name = pip_name(module)
    version = version_of(name)
    return f"{name} {version}" if version else name
