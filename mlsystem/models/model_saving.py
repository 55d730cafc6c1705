"""`ModelSaving`: the methods that save and load a model, or copy it from its configuration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from mlsystem import _keras
from mlsystem.engine import engine
from mlsystem.models.model_learner import ModelLearner
from mlsystem.preparation import setup
from mlsystem.saving import checksum, constructor_arguments, weights_file


class ModelSaving(_keras.Hooks):
    """The saving and loading of a model. `MLModel` subclasses it. Users do not."""

    _mlsystem: ModelLearner

    def get_config(self) -> dict[str, Any]:
        """Return the configuration: the constructor's arguments, if Keras can save them."""
        of_keras = not getattr(type(self).get_config, "_is_default", False)
        if of_keras or isinstance(self, _keras.Functional):
            return super().get_config()
        return constructor_arguments.config(self)

    # This does not count as an own `get_config` for Keras: subclasses still need theirs.
    get_config._is_default = True  # type: ignore[attr-defined]

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Create a model from its configuration."""
        kind = _custom_class(cls, custom_objects)
        if kind is not cls and not _has_default(kind):
            return kind.from_config(config)
        if getattr(kind.get_config, "_is_default", False) and "input_layers" not in config:
            config = constructor_arguments.restored(config, custom_objects)
        return super(ModelSaving, kind).from_config(config, custom_objects)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the model with its optimizer and random seeds. See `keras.Model.save`.

        Load the file with `keras.saving.load_model`, which returns the compiled model. You can
        also read its weights with `load_weights`.

        Args:
            filepath: path of the file, ending in `.keras`.
            args: as in Keras.
            kwargs: as in Keras.

        Raises:
            NotImplementedError: Keras cannot serialize an argument of the constructor. No file is
                written.
        """
        keras.saving.serialize_keras_object(self)  # fail early: Keras empties the file first
        super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save weights, optimizers and random seeds. See `keras.Model.save_weights`.

        The file ends with a checksum. `load_weights` verifies it, and Keras ignores it.

        Args:
            filepath: path of the file, ending in `.weights.h5`.
            args: as in Keras.
            kwargs: as in Keras.
        """
        super().save_weights(filepath, *args, **kwargs)
        if str(filepath).endswith(".weights.h5") and Path(filepath).is_file():
            checksum.add(Path(filepath))

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Export the model to one file for inference. See `keras.Model.export`.

        Args:
            filepath: path of the file.
            args: as in Keras.
            kwargs: as in Keras.
        """
        with engine.tracing(self):
            return super().export(filepath, *args, **kwargs)

    def load_own_variables(self, store: Any) -> None:
        """Load the variables from one group of a file. Called by Keras."""
        weights_file.check_archive(store)
        super().load_own_variables(store)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load a file of `save_weights` or `save`: weights, optimizers and random seeds.

        The model must have its weights. Call `setup` to create them. A file that is damaged or does
        not fit changes nothing. If the file lacks the state of the model's optimizer, the weights
        are loaded and the optimizer starts from scratch, with a warning. In a system, each model's
        optimizer must be in the file.

        Args:
            filepath: a `.weights.h5` or `.keras` file. Keras loads other files.
            skip_mismatch: whether to skip each layer, or each model's optimizer, that does not fit.
                A warning lists them.
            kwargs: as in Keras.

        Raises:
            ValueError: the file cannot be read, has changed since it was written, or does not fit.
                The message lists the differences.
        """
        if kwargs or not str(filepath).endswith((".weights.h5", ".keras")):
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
            return
        if not self.built:
            raise ValueError(
                f"'{self.name}' has no weights to load into yet. Call setup(batch) first."
            )
        weights_file.load_weights(self, filepath, skip_mismatch)

    def get_build_config(self) -> Any:
        """Return the shapes of the batch that built the model, else Keras' own config."""
        symbols = self._mlsystem.symbols
        if symbols is None or isinstance(self, _keras.Functional):
            return super().get_build_config()
        return {"batch": keras.saving.serialize_keras_object(symbols)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the weights of a loaded model. Called by Keras."""
        if "batch" in (config or {}):
            setup.rebuild(self._mlsystem, keras.saving.deserialize_keras_object(config["batch"]))
        else:
            super().build_from_config(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a copy or a loaded model like the original. Called by Keras.

        As in Keras, a model with its own `compile` is not compiled, and a warning says so.
        """
        if self._mlsystem.overrides("compile"):
            super().compile_from_config(config)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._mlsystem.role = replace(self._mlsystem.role, own=None)
        if self.built:
            self._mlsystem.finish_build()


def _has_default(cls: Any) -> bool:
    """Return whether a class inherits `from_config` from this library."""
    return getattr(cls.from_config, "__func__", None) is ModelSaving.from_config.__func__  # type: ignore[attr-defined]


def _custom_class(cls: Any, custom_objects: Any) -> Any:
    """Return the class that `custom_objects` names in place of a class, else the class itself.

    Keras uses a registered class even if `custom_objects` names another class. The library
    registers classes by itself, so that this holds only for classes with a decorator.
    """
    by_us = f"{cls.__module__}>{cls.__qualname__}"
    if not _has_default(cls) or keras.saving.get_registered_name(cls) != by_us:
        return cls
    other = keras.saving.get_registered_object(cls.__name__, custom_objects)
    return other if isinstance(other, type) else cls
