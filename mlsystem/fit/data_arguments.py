"""Turn `MLData`, `Streams` and `data()` into the arguments that Keras takes."""

from typing import Any

import keras

from mlsystem import _keras
from mlsystem._data_checks import check_data
from mlsystem._learner import Learner
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.batch import first_batch
from mlsystem.data.mldata import MLData
from mlsystem.data.transforms import Transform
from mlsystem.fit import argument_checks

Given = dict[str, Any]


def examples(learner: Learner, given: Any) -> list[Any]:
    """Return one batch of each structure in the data passed to `setup`."""
    data = own_data(learner) if given is None else given
    if data is None:
        raise ValueError(_no_data(learner, "setup"))
    check_data(data, "The data of setup")
    if isinstance(data, MLData):
        return data._examples()
    return data.examples() if isinstance(data, BatchAdapter) else [first_batch(data)]


def _no_data(learner: Learner, method: str) -> str:
    cls = type(learner.model).__name__
    what = f"define `data(self)` of {cls}, which returns an ml.MLData."
    return f"{method} needs data. Give it, or {what}"


def own_data(learner: Learner) -> Any:
    """Return the data from the method or attribute `data` of a learner, or None without one.

    The method is called only once.
    """
    found = getattr(learner.model, "data", None)
    if isinstance(found, keras.Layer):
        return None
    if learner.data is None and callable(found):
        learner.data = found()
    data = learner.data if callable(found) else found
    return data if data is None or isinstance(data, MLData) else MLData(train=data, test=data)


def for_fit(learner: Learner, given: Given) -> Transform | None:
    """Replace an MLData in the arguments of `fit` by its training and validation data.

    Return the transform for the steps to apply.
    """
    if isinstance(given["validation_data"], MLData):
        raise TypeError("fit got an MLData as validation_data. Give it as x, with `train`.")
    given["validation_data"] = _in_order(given["validation_data"])
    if (data := _taken(learner, given, "fit")) is None:
        if given["shuffle"] is False:
            given["x"] = _in_order(given["x"])
        return None
    on_host, asked = not data.transform_on_device, given["batch_size"]
    more = {name: given[name] for name in ("shuffle", "class_weight")}
    _put(given, data._read("train", _train_set(data), on_host, asked, **more))
    if isinstance(given["x"], BatchAdapter):
        given["class_weight"] = None  # the class weights are in x now
    given["shuffle"] = given["shuffle"] and _is_ordered(given["x"])
    sizes = given["validation_batch_size"], asked
    given["validation_data"] = _validation(data, given["validation_data"], *sizes)
    given["batch_size"] = asked or data.batch_size
    given["validation_batch_size"] = given["validation_batch_size"] or given["batch_size"]
    return data._transform if data.transform_on_device else None


def _in_order(data: Any) -> Any:
    """Return streams in the order for evaluation, also streams in a dict of several sets."""
    if isinstance(data, dict):
        return {name: _in_order(part) for name, part in data.items()}
    return data.in_order() if isinstance(data, BatchAdapter) else data


def _train_set(data: MLData) -> Any:
    """Return the one set to train on."""
    sets = data._sets("train")
    if not sets:
        raise ValueError(f"{type(data).__name__} has no training data: give it `train`.")
    if None not in sets:
        raise ValueError(
            f"The training data of {type(data).__name__} are a dict of data sets. Read them side "
            "by side: ml.Streams({name: data})."
        )
    return sets[None]


def _validation(data: MLData, given: Any, asked: Any, default: Any) -> Any:
    """Return the validation data as Keras takes them, or a dict of several sets by name."""
    sets = (data if given is None else MLData(validation=given, precompute=data.precompute))._sets(
        "validation"
    )
    on_host = not data.transform_on_device
    parts = {
        name: data._read("validation", part, on_host, asked, default) for name, part in sets.items()
    }
    if None not in parts:
        return parts or None
    [part] = parts.values()
    return (part,) if isinstance(part, (dict, list)) or hasattr(part, "shape") else part


def for_evaluate(
    learner: Learner, given: Given
) -> dict[str | None, tuple[Given, Transform | None]]:
    """Return the arguments of `evaluate` for each set of test data, or else of validation data."""
    if (data := _taken(learner, given, "evaluate")) is None:
        given["x"] = _in_order(given["x"])
        return {None: (given, None)}
    name, sets = _first_of(data, "test", "validation")
    found: dict[str | None, tuple[Given, Transform | None]] = {}
    for key, part in sets.items():
        of_set = given | {"batch_size": given["batch_size"] or data.batch_size}
        on_host = not data.transform_on_device
        _put(of_set, data._read(name, part, on_host, given["batch_size"]))
        found[key] = of_set, data._transform if data.transform_on_device else None
    return found


def _first_of(data: MLData, *names: str) -> tuple[str, dict[str | None, Any]]:
    for name in names:
        if sets := data._sets(name):
            return name, sets
    raise ValueError(f"{type(data).__name__} has no {' or '.join(names)} data. Give it one.")


def for_predict(learner: Learner, given: Given) -> None:
    """Replace an MLData in the arguments of `predict` by the inputs of its test data.

    The inputs are always transformed before the step.
    """
    if (data := _taken(learner, given, "predict")) is None:
        given["x"] = _in_order(given["x"])
        return
    name, sets = _first_of(data, "test")
    if None not in sets:
        raise ValueError(
            f"The test data of {type(data).__name__} are several sets: "
            f"{', '.join(map(str, sets))}. Predict them one by one."
        )
    part = data._read(name, sets[None], asked=given["batch_size"])
    given["batch_size"] = given["batch_size"] or data.batch_size
    given["x"] = part[0] if isinstance(part, tuple) else part


def _taken(learner: Learner, given: Given, method: str) -> MLData | None:
    """Return the MLData in the arguments. If `fit` got no data, return the one of the learner."""
    argument_checks.check(given, method)
    data = given["x"]
    if data is None and given.get("y") is None:
        data = own_data(learner)
        if data is None:
            raise ValueError(_no_data(learner, method))
    if not isinstance(data, (MLData, BatchAdapter)):
        return None
    names = _ALONE["MLData" if isinstance(data, MLData) else method]
    if extra := [name for name in names if _is_given(given.get(name))]:
        raise ValueError(
            f"{method} got {extra[0]}= beside {type(data).__name__}, which brings its own. "
            "Leave it out."
        )
    return data if isinstance(data, MLData) else None


# Arguments that have no effect beside an MLData, or that Keras ignores beside a BatchAdapter.
_ALONE = {
    "MLData": ("y", "sample_weight", "validation_split"),
    "fit": ("y", "sample_weight", "class_weight", "batch_size", "validation_split"),
    "evaluate": ("y", "sample_weight"),
    "predict": (),
}


def _is_given(value: Any) -> bool:
    return not (value is None or (isinstance(value, float) and value == 0))


def _put(given: Given, part: Any) -> None:
    """Set x, y and sample_weight."""
    parts = part if isinstance(part, tuple) else (part,)
    given |= dict(zip(("x", "y", "sample_weight"), (*parts, None, None), strict=False))


def _is_ordered(x: Any) -> bool:
    """Return whether Keras shuffles the data."""
    return isinstance(x, keras.utils.PyDataset) or _keras.kind_of_data(x) == "arrays"


def together(results: dict[str | None, Any]) -> Any:
    """Return the results of `evaluate` on several sets as one.

    Dicts of logs become one dict with keys NAME_LOG. Other results become one list of all numbers.
    """
    if None in results:
        return results[None]
    if all(isinstance(logs, dict) for logs in results.values()):
        return {f"{name}_{log}": v for name, logs in results.items() for log, v in logs.items()}
    return [value for values in results.values() for value in keras.tree.flatten(values)]
