"""Every private name of Keras that is used, and why. Checked on Keras 3.11, 3.15 and 3.16.

What is gone in a newer Keras is never silent. A module or method that nothing works without makes
the import of mlsystem fail. A part of Keras on torch that is only replaced in a captured step
(`torch_modules`) gives one warning at the import, and is then left alone. An attribute that
Keras sets on its objects is read by `_of`, which raises `Changed`.

- `compute_output_spec` builds a model from the shapes of a batch, without computing.
- `CompileLoss`, `CompileMetrics` read what users give as `loss=` and `metrics=`.
- `Functional`, `functional_init_arguments`: a model that is built from inputs and outputs.
- `get_stateless_scope`: the values in force where state is carried explicitly (jax).
- `DotNotTrackScope`: attaching to a model that is already built.
- `global_state`: the generator that draws without a seed come from, if there is one.
- `draw_seed`, `global_seed`, `torch_modules`, `clear_losses`: what a step captured on torch reads
  and replaces.
- `object_registration`: saving a functional model under the name of its class.
- `H5IOStore`, `KerasSaveable`, `_walk_saveable`, `to_snake_case` and the two `_state` functions:
  what a file of weights holds, and under which names.
- `saving_lib`: Keras' checks against files that link to others or inflate, where it has them.
- `EpochIterator`: the batches of an epoch, as Keras' torch trainer takes them.
- `data_epoch`, `draw_order`: what the order of shuffled data comes from in Keras 3.16.
- `super_batches`: the batches of an execution, which Keras 3.16 stacks on JAX.
- `train_validation_split`: what `fit(validation_split=)` does.
- `DataAdapter`, `data_adapters` and their utilities: anything that `fit` takes as batches of NumPy
  arrays, and such batches as something that `fit` takes.
- `Hooks`: the places where Keras' `fit` and `evaluate` let a subclass in.
"""

import contextlib
import importlib
import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator
from types import GeneratorType, SimpleNamespace
from typing import Any

import keras
import numpy as np

OLDEST, NEWEST = "3.11", "3.16"  # the versions of Keras that all this was checked on


class Changed(RuntimeError):
    """This version of Keras lacks a private name that is used here."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Keras {keras.__version__} has no {what}, which mlsystem needs. mlsystem was tested "
            f"with Keras {OLDEST} to {NEWEST}. Install a newer mlsystem, or one of these Keras."
        )


try:
    from keras.src.backend import compute_output_spec
    from keras.src.backend.common import global_state
    from keras.src.backend.common.stateless_scope import get_stateless_scope
    from keras.src.models.functional import Functional
    from keras.src.models.model import functional_init_arguments
    from keras.src.random.seed_generator import draw_seed, global_seed_generator
    from keras.src.saving import object_registration, saving_lib
    from keras.src.saving.keras_saveable import KerasSaveable
    from keras.src.saving.saving_lib import H5IOStore, _load_state, _save_state, _walk_saveable
    from keras.src.trainers import data_adapters
    from keras.src.trainers.compile_utils import CompileLoss, CompileMetrics
    from keras.src.trainers.data_adapters import data_adapter_utils
    from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter
    from keras.src.trainers.epoch_iterator import EpochIterator
    from keras.src.utils.naming import to_snake_case
    from keras.src.utils.tracking import DotNotTrackScope
except ImportError as error:
    raise ImportError(str(Changed(f"such module or name ({error})"))) from error

__all__ = [
    "Changed",
    "CompileLoss",
    "CompileMetrics",
    "DataAdapter",
    "DotNotTrackScope",
    "Functional",
    "Hooks",
    "KerasSaveable",
    "archive_of",
    "assign_in_place",
    "basic_config",
    "batches",
    "call_in_turn",
    "check_jax_trainer",
    "clear_losses",
    "compile_loss",
    "compile_metrics",
    "compute_loss",
    "compute_output_spec",
    "data_adapter",
    "data_epoch",
    "direction",
    "draw_order",
    "draw_seed",
    "file_entries",
    "first_batches",
    "flat_layers",
    "forget_global_seed",
    "functional_init_arguments",
    "get_stateless_scope",
    "given_loss",
    "global_seed",
    "is_torch_loader",
    "is_torch_tensor",
    "kind_of_data",
    "known_global_seed",
    "load_entries",
    "loss_tracker",
    "made_dataset",
    "made_function",
    "optimized_weights",
    "own_losses",
    "own_metrics",
    "own_state",
    "parts",
    "portable",
    "read_group",
    "read_member",
    "read_signature",
    "reads_groups",
    "register",
    "register_as",
    "save_state",
    "schedule",
    "set_data_epoch",
    "set_evaluated",
    "set_values",
    "split",
    "state_entries",
    "stored_dtype",
    "super_batches",
    "torch_loader",
    "torch_modules",
    "unlock",
    "untrack",
    "values",
    "version",
    "wait_for",
    "warn_of",
    "was_called",
]

# The methods that are called or overridden here, but for those of `Hooks`.
_METHODS: dict[Any, tuple[str, ...]] = {
    keras.Layer: ("_clear_losses", "_flatten_layers", "_get_own_losses"),
    keras.Model: ("_compute_loss",),
    EpochIterator: ("__next__", "_enumerate_iterator", "_get_iterator", "catch_stop_iteration"),
    H5IOStore: ("close", "get", "make"),  # later ones also ask for `has_path`
}


def _check(owner: Any, *names: str) -> None:
    """Refuses a Keras whose class has not got these methods."""
    for name in names:
        if not hasattr(owner, name):
            raise ImportError(str(Changed(f"{owner.__name__}.{name}")))


for _owner, _names in _METHODS.items():
    _check(_owner, *_names)


def _of(owner: Any, name: str) -> Any:
    """An attribute that Keras sets on its objects."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise Changed(f"attribute '{name}' in {type(owner).__name__}") from error


def version() -> str:
    """The version of Keras, and which ones are known to work."""
    return f"This is Keras {keras.__version__}, and mlsystem was tested with {OLDEST} to {NEWEST}."


def warn_of(what: str) -> None:
    """Warns of what does not work with this version of Keras."""
    warnings.warn(f"{what} {version()}", RuntimeWarning, stacklevel=2)


def register(cls: type) -> None:
    """Lets files name a class by its module and name, as if a decorator had registered it.

    What was saved where the class stood in a script or notebook finds it in a module, too, if no
    other class has this name.
    """
    keras.saving.register_keras_serializable(cls.__module__, cls.__qualname__)(cls)
    known, name = object_registration.GLOBAL_CUSTOM_OBJECTS, f"__main__>{cls.__qualname__}"
    modules = _modules.setdefault(name, set())
    modules.add(cls.__module__)
    if "__main__" not in modules:
        known.pop(name, None)
        if len(modules) == 1:
            known[name] = cls


_modules: dict[str, set[str]] = {}  # by the name that a class would have in a script


def register_as(cls: type, registered: type) -> None:
    """Saves and pickles instances of a class as those of another class."""
    cls._unpickle_model = registered._unpickle_model  # type: ignore[attr-defined]
    names = object_registration.GLOBAL_CUSTOM_NAMES
    if registered in names:
        names[cls] = names[registered]


def compile_loss(model: Any) -> Any:
    """The loss given to a model's `compile`, as Keras calls it; None without one."""
    return _of(model, "_compile_loss") if isinstance(model, keras.Model) else None


def given_loss(model: Any) -> Any:
    """The loss given to a model's `compile`, as it was given; None without one."""
    return getattr(getattr(model, "_compile_loss", None), "_user_loss", None)


def compile_metrics(model: Any) -> Any:
    """The metrics given to a model's `compile`, as Keras calls them; None without any."""
    return _of(model, "_compile_metrics") if isinstance(model, keras.Model) else None


def compute_loss(model: Any, *args: Any, **kwargs: Any) -> Any:
    """A model's `compute_loss`, which may or may not name `training`."""
    return model._compute_loss(*args, **kwargs)


def loss_tracker(model: Any) -> Any:
    """The metric behind the log `loss`."""
    return _of(model, "_loss_tracker")


def made_function(model: Any, step: str) -> Any:
    """The function that Keras' own trainer makes of the `train` or `test` step of a model."""
    name = f"{step}_function"
    before = getattr(model, name)
    getattr(keras.Model, f"make_{name}")(model, force=True)  # leaves it as the model's own
    made = getattr(model, name)
    setattr(model, name, before)
    return made


def call_in_turn(callbacks: Any) -> None:
    """Has a list of callbacks call them when a batch ends, and not in a thread beside the next."""
    for name in ("_async_train", "_async_test"):
        _of(callbacks, name)  # to set another one would change nothing
        setattr(callbacks, name, False)


def wait_for(callbacks: Any) -> None:
    """Waits until a list of callbacks has told all of them of the batches so far."""
    for future in list(_of(callbacks, "_futures")):
        future.result()


def set_evaluated(model: Any, epoch: Any) -> None:
    """Sets the iterator that `fit` keeps for its evaluations, and makes where it is None."""
    model._eval_epoch_iterator = epoch


def split(x: Any, y: Any, sample_weight: Any, validation_split: float) -> tuple[Any, Any]:
    """What `fit` trains on and what it validates on, of arrays that it is to split."""
    return train_validation_split((x, y, sample_weight), validation_split=validation_split)


def first_batches(count: int, **data: Any) -> list[Any]:
    """The first batches of anything that `fit` takes, as arrays; fewer where there are no more."""
    epoch = EpochIterator(**data, steps_per_epoch=count)
    steps = epoch.data_adapter.num_batches
    epoch.steps_per_epoch = count if steps is None else min(count, steps)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        return [batch for _, _, batches in epoch for batch in batches]


def own_metrics(model: Any) -> list[Any]:
    """The metrics set as attributes of a model."""
    return list(_of(model, "_metrics"))


def optimized_weights(optimizer: Any) -> list[Any]:
    """The weights that an optimizer was built for."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
    return list(_of(inner, "_trainable_variables"))


def schedule(optimizer: Any) -> Any:
    """The schedule that the learning rate of an optimizer follows; None for one that is set."""
    rate = _of(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate")
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None


def direction(metric: Any) -> str | None:
    """Whether a metric is better when it goes "up" or "down"; None where it does not say."""
    return getattr(metric, "_direction", None)


def known_global_seed() -> Any:
    """The state of that generator; None where nothing has drawn without a seed yet."""
    known = global_state.get_global_attribute("global_seed_generator")
    return None if known is None else known.state


def global_seed() -> Any:
    """The state of the generator that draws without a seed come from; made if there is none."""
    return global_seed_generator().state


def forget_global_seed() -> None:
    """Has that generator made anew when something draws."""
    global_state.set_global_attribute("global_seed_generator", None)


def check_jax_trainer() -> None:
    """Refuses a Keras whose jax trainer does not take the values from the variables as known."""
    _check(keras.Model, "_purge_model_variables")


def clear_losses(layer: Any) -> None:
    """Forgets what was given to `add_loss` in the last call of a layer."""
    layer._clear_losses()


# The modules of Keras' torch backend, each with where it is (in Keras 3.16, or before), and what is
# replaced in it while a step is captured.
_ON_TORCH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "core": (("ops.core", "core"), ("cond", "scatter")),
    "ops": (("ops",), ()),  # in Keras 3.16, with the functions of `core` in it
    "nn": (
        ("ops.nn", "nn"),
        ("_transpose_spatial_inputs", "batch_normalization", "moments"),
    ),
    "random": (("random",), ("torch_seed_generator",)),
    "nadam": (("optimizers.torch_nadam",), ("core",)),
    "adam": (("optimizers.torch_adam",), ("Adam",)),
}


def torch_modules() -> SimpleNamespace:
    """Keras' own modules for torch, by name; None for one that is gone. Warns of what is gone."""
    found = {name: _on_torch(*places) for name, (places, _) in _ON_TORCH.items()}
    gone = [
        f"{name}.{part}"
        for name, (_, parts) in _ON_TORCH.items()
        for part in parts
        if not hasattr(found[name], part)
    ]
    if gone:
        warn_of(
            f"Keras' torch backend has no {', '.join(gone)}. Steps that would use them run slower, "
            "or eagerly."
        )
    return SimpleNamespace(**found)


def _on_torch(*places: str) -> Any:
    """The first module that is there."""
    for place in places:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"keras.src.backend.torch.{place}")
    return None


def was_called(layer: Any) -> bool:
    """Whether a layer was ever called."""
    return bool(_of(layer, "_called"))


def read_signature(layer: Any) -> None:
    """Has Keras see the arguments of a layer's `call`, which may be another one by now."""
    signature = inspect.signature(layer.call)
    layer._call_signature, layer.call_signature_parameters = signature, [*signature.parameters]
    layer._call_has_training_arg = "training" in signature.parameters
    known = getattr(layer, "_call_has_context_arg", {})
    known.update({name: name in signature.parameters for name in known})


def flat_layers(layer: Any) -> list[Any]:
    """A layer and all the layers in it."""
    return list(layer._flatten_layers())


def own_state(layer: Any) -> list[Any]:
    """The variables of a layer itself that no gradient is for, as the statistics of batch norm."""
    return list(_of(layer, "_non_trainable_variables"))


def untrack(layer: Any, part: Any) -> None:
    """Has a layer forget a part of it."""
    _of(layer, "_tracker").untrack(part)


def unlock(layer: Any) -> None:
    """Lets weights be added to a layer that was built."""
    _of(layer, "_tracker").unlock()


def basic_config(layer: Any) -> dict[str, Any]:
    """What Keras itself says of any layer: its name, whether it is trainable, its dtype."""
    policy = keras.saving.serialize_keras_object(layer.dtype_policy)
    return {"name": layer.name, "trainable": layer.trainable, "dtype": policy}


def portable(config: Any) -> Any:
    """Changes what Keras serialized so that every backend reads it.

    On torch, Keras' optimizers are of classes of its own, which no other backend has.
    """
    if isinstance(config, dict):
        inside = str(config.get("module")).startswith("keras.src.backend.")
        if inside and hasattr(keras.optimizers, str(config.get("class_name"))):
            config |= {"module": "keras.optimizers", "registered_name": None}
    if isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            portable(value)
    return config


class _Entries(H5IOStore):
    """What Keras saves to a file or loads from it, in memory: arrays by object and number."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.entries = entries

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: Any = None) -> dict[str, Any]:
        return self.entries.setdefault(path, {})

    def get(self, path: str) -> dict[str, Any]:
        return self.entries.get(path, {})

    def has_path(self, path: str) -> bool:
        return any(f"{known}/".startswith(f"{path}/") for known in self.entries)


def state_entries(model: Any) -> dict[str, dict[str, Any]]:
    """What Keras would save of a model: `{object: {number: variable}}`."""
    entries: dict[str, dict[str, Any]] = {}
    _save_state(model, _Entries(entries), None, "", set())
    return {path: entry for path, entry in entries.items() if entry}


def save_state(model: Any, file: Any) -> None:
    """Saves what `save_weights` does, to a file in memory."""
    store = H5IOStore(file, mode="w")
    try:
        _save_state(model, store, None, "", set())
    finally:
        store.close()


def parts(model: Any, entries: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The parts of a model that may stand behind some entries of files; a shared part has several.

    Keras' files have each part under the first name only.
    """
    names = [entry.split("/") for entry in entries]
    ways = {"/".join(parts[: i + 1]) for parts in names for i in range(len(parts))}
    yield "", model
    yield from _parts_in(model, "", ways)


def _parts_in(saveable: Any, path: str, ways: set[str]) -> Iterator[tuple[str, Any]]:
    for name, child in _walk_saveable(saveable):
        yield from _parts_of(child, f"{path}/{name}".strip("/"), ways)


def _parts_of(child: Any, path: str, ways: set[str]) -> Iterator[tuple[str, Any]]:
    if path not in ways:
        return
    if isinstance(child, KerasSaveable):
        yield path, child
        yield from _parts_in(child, path, ways)
    elif isinstance(child, (list, dict, tuple)):
        items = list(child.values()) if isinstance(child, dict) else child
        for name, item in _numbered(items):
            yield from _parts_of(item, f"{path}/{name}", ways)


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The items of a list, named by their class as Keras does."""
    counts: dict[str, int] = {}
    for item in items:
        holds = isinstance(item, (list, dict, tuple))
        name = "container" if holds else to_snake_case(type(item).__name__)
        counts[name] = counts.get(name, -1) + 1
        yield (f"{name}_{counts[name]}" if counts[name] else name), item


def read_member(archive: Any, name: str) -> bytes:
    """A file in a zip archive, unless it would inflate to many times its size."""
    content: bytes = getattr(saving_lib, "_safe_zip_read", type(archive).read)(archive, name)
    return content


def read_group(file: Any, name: str) -> dict[str, Any]:
    """The arrays in a group of an HDF5 file: none of links to other files, none that inflate."""
    group = getattr(saving_lib, "safe_get_h5_group", _item)(file, name)
    dataset = getattr(saving_lib, "safe_get_h5_dataset", _item)
    return {key: dataset(group, key)[...] for key in group}


def _item(group: Any, name: str) -> Any:
    return group[name]


def archive_of(store: Any) -> Any:
    """The zip archive that Keras reads weights from piece by piece; None for all else."""
    return getattr(store, "archive", None)


def file_entries(file: Any) -> dict[str, dict[str, Any]]:
    """What a file of weights holds: `{object: {number: array}}`."""
    store = H5IOStore(file, mode="r")
    try:
        groups: list[str] = []
        store.h5_file.visit(groups.append)
        objects = [group[:-5] for group in groups if f"/{group}".endswith("/vars")]
        entries = {path: _arrays(store.get(path)) for path in objects}
    finally:
        store.close()
    return {path: entry for path, entry in entries.items() if entry}


def _arrays(entry: Any) -> dict[str, Any]:
    return {key: entry[key] for key in entry.keys()}  # noqa: SIM118 -- no dict, but a store


class _First(dict[int, Any]):
    """Keeps the first error of each object: Keras asks those that failed again, without data."""

    def __setitem__(self, key: int, value: Any) -> None:
        self.setdefault(key, value)


def load_entries(model: Any, entries: Any) -> None:
    """Loads into a model what `file_entries` read, which must fit."""
    failed = _First()
    _load_state(
        model,
        _Entries(entries),
        None,
        "",
        visited_saveables=set(),
        failed_saveables=set(),
        error_msgs=failed,
    )
    for saveable, error in failed.values():
        raise ValueError(f"{saveable} cannot load its part of the file: {error}") from error


def data_epoch(adapter: Any) -> int | None:
    """The number that Keras 3.16 draws the order of an epoch from; None in earlier versions."""
    return getattr(adapter, "_epoch", None)


def set_data_epoch(adapter: Any, number: int | None) -> None:
    """Sets that number, where there is one."""
    if number is not None and data_epoch(adapter) is not None:
        adapter._epoch = number


def draw_order(adapter: Any) -> None:
    """Has NumPy's generator say in which order the next epoch comes, as before Keras 3.16."""
    if data_epoch(adapter) is not None:
        set_data_epoch(adapter, int(np.random.randint(2**31)))


def made_dataset(epoch: Any, permuted: Any) -> Any:
    """Makes TensorFlow's data set of shuffled arrays again; None for other data, or if spread."""
    shuffles = getattr(epoch.data_adapter, "_shuffle", False)
    if hasattr(epoch.data_adapter, "_tf_shuffle"):  # what Keras 3.16 orders them by
        epoch.data_adapter._tf_shuffle = permuted
    if shuffles in (False, "batch") or epoch._distribute_strategy.num_replicas_in_sync > 1:
        return None
    epoch._distributed_dataset = None  # its copy of the data goes before the next is made
    return epoch.data_adapter.get_tf_dataset()


def own_losses(layer: Any) -> list[Any]:
    """What a layer itself gave to `add_loss`, without its sublayers and regularizers."""
    return layer._get_own_losses()


def values(variables: list[Any]) -> list[Any]:
    """The values of variables themselves, uncast and outside any scope."""
    try:
        return [variable._value for variable in variables]
    except AttributeError as error:
        raise Changed("attribute '_value' in Variable") from error


def set_values(variables: list[Any], values: Iterable[Any]) -> None:
    """Replaces the values of variables where they are known to fit: `assign` without its checks."""
    for variable, value in zip(variables, values, strict=True):
        variable._value = value


def stored_dtype(variable: Any) -> str:
    """The dtype of a variable itself: in a layer of mixed precision `dtype` is another."""
    dtype: str = variable._dtype
    return dtype


def assign_in_place(variable: Any, value: Any) -> None:
    """Assigns to a variable itself, whatever scope there is; on torch and TensorFlow."""
    variable._direct_assign(value)


def kind_of_data(x: Any) -> str | None:
    """What `fit` takes it for: "arrays", a "dataset", a "generator", or None for nothing."""
    if isinstance(x, GeneratorType):
        return "generator"
    names = ("is_tf_dataset", "is_torch_dataloader", "is_grain_dataset")
    known = any(getattr(data_adapters, name)(x) for name in names)
    if known or isinstance(x, (DataAdapter, keras.utils.PyDataset)):
        return "dataset"
    return "arrays" if keras.tree.flatten(x) and can_convert_arrays((x,)) else None


def is_torch_loader(data: Any) -> bool:
    """Whether data are torch's `DataLoader`."""
    return bool(data_adapters.is_torch_dataloader(data))


def data_adapter(*parts: Any, **given: Any) -> Any:
    """What Keras' `fit` makes of its arguments x, y and sample_weight, to read them by."""
    return data_adapters.get_data_adapter(*parts, **given)


def batches(adapter: Any) -> Iterable[Any]:
    """The batches of a data adapter as its data set yields them; of arrays as NumPy arrays."""
    # Keras would make a tuple of each batch of a torch loader, whatever it is, and reads Grain
    # by private names that come and go.
    found = (getattr(adapter, name, None) for name in ("_dataloader", "_dataset"))
    if (given := next((data for data in found if data is not None), None)) is not None:
        return given
    if isinstance(adapter, data_adapters.PyDatasetAdapter) and hasattr(adapter, "_get_iterator"):
        return adapter._get_iterator()
    return adapter.get_numpy_iterator()


def is_torch_tensor(leaf: Any) -> bool:
    """Whether that is a tensor of torch, on any backend."""
    return bool(data_adapter_utils.is_torch_tensor(leaf))


def torch_loader(batches: Iterable[Any]) -> Any:
    """NumPy batches as what Keras' torch trainer reads, in tensors."""
    return data_adapter_utils.get_torch_dataloader(batches)


def super_batches(batches: Iterator[Any], count: int | None) -> Iterator[Any]:
    """Batches as Keras 3.16 reads them on JAX: some of them stacked, where it gives a count."""
    return data_adapter_utils.super_batch_iterator(batches, count) if count else batches


_check(keras.Model, "_symbolic_build", "_get_metrics_result_or_logs")


class Hooks(keras.Model):
    """Keras' private doors, opened under names of our own."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras' jax trainer leaves its state here at each batch, of which ours has none: to look
        # into it for variables to track takes as long as a small step.
        if name == "_jax_state":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _ready(self, batches: Iterable[Any]) -> None:
        """Called by `fit`, `evaluate` and the `_on_batch` methods, before anything else happens.

        With one batch of each structure that the data has.
        """

    def _prepare(self, epoch: Any) -> None:
        """Called by `fit` and `evaluate` with Keras' iterator over an epoch, before it is read."""

    def _start(self, epoch: Any) -> None:
        """Called by `fit` and `evaluate` after that, with Keras' iterator over an epoch."""

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None and not isinstance(iterator, _Followed):
            in_groups = type(iterator).__next__ is EpochIterator.__next__
            bases: list[type] = [_Followed, *([_Groups] if in_groups else []), type(iterator)]
            iterator.__class__ = type("Followed", tuple(bases), {})
            self._prepare(iterator)
        self._ready(_examples(iterator) if data_batch is None else [data_batch])
        if iterator is not None:
            self._start(iterator)

    # TensorFlow's trainer asks under this name.
    _maybe_symbolic_build = _symbolic_build

    def _keras_draws(self) -> bool:
        """Whether Keras itself would draw a batch before training, to build what is unbuilt."""
        parts = [self, *self.layers, self._compile_loss, self._compile_metrics]
        return not all(part.built for part in parts if part is not None)

    def _purge_model_variables(self, *args: Any, **kwargs: Any) -> None:
        """Keras' jax trainer takes the values from the variables for an epoch; we leave them."""

    def _epoch_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """The logs of an epoch, given those of its last step."""
        return super()._get_metrics_result_or_logs(logs)

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        return self._epoch_logs(logs)

    def _register_weights(self) -> None:
        """Lets torch see the weights of a model that was built symbolically."""
        if hasattr(self, "_post_build"):
            self._post_build()


class _Followed(EpochIterator):
    """Lets a `position` know of each iterator over the data, and of each step it is read for."""

    position: Any = None
    steps_per_execution: int

    def _get_iterator(self) -> Any:
        if self.position is not None:
            self.position.make()
        # Keras 3.16 would stack the batches of an execution on JAX; our step does so itself.
        steps, self.steps_per_execution = self.steps_per_execution, 1
        try:
            return super()._get_iterator()
        finally:
            self.steps_per_execution = steps

    def _enumerate_iterator(self) -> Any:
        steps = super()._enumerate_iterator()
        return steps if self.position is None else self.position.follow(steps)


class _Groups(EpochIterator):
    """What Keras' torch trainer iterates over: groups of batches, of which the last may be short.

    Keras' own says that the data ran out in the middle of an epoch when it comes to that one.
    """

    def __next__(self) -> Any:
        first, last, batches = next(self._epoch_iterator)
        if group := list(itertools.islice(batches, self.steps_per_execution)):
            return first, last, group
        with self.catch_stop_iteration():
            raise StopIteration
        raise StopIteration


def _examples(iterator: Any) -> Iterable[Any]:
    """One batch of each structure; drawn when they are read."""
    if hasattr(iterator.data_adapter, "examples"):
        return _drawn_late(iterator.data_adapter.examples)
    return itertools.islice(_batches(iterator), 1)


def _drawn_late(draw: Any) -> Iterator[Any]:
    yield from draw()


def reads_groups(epoch: Any) -> bool:
    """Whether the batches of a step are read before callbacks hear that it begins."""
    return isinstance(epoch, _Groups)


def _batches(iterator: Any) -> Iterable[Any]:
    """The batches of one of Keras' epoch iterators, which yields lists of them or an iterator."""
    iterator.steps_per_execution, steps = 1, iterator.steps_per_execution  # draws no more than one
    for _, _, batches in iterator:
        iterator.steps_per_execution = steps
        listed = isinstance(batches, (list, tuple))
        if (batch := batches[0] if listed else next(batches, None)) is None:
            return
        yield batch
