"""`MLData`: the training, validation and test data of a system, in one object."""

from collections.abc import Mapping
from typing import Any

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem.data import precomputed
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.source import Source, is_function, read
from mlsystem.data.transforms import Transform, Transformed

PARTS = ("train", "validation", "test")


class MLData:
    """The training, validation and test data of a system.

    Pass the parts to the constructor, or override the methods that return them:

    ```python
    class Digits(ml.MLData):
        batch_size = 64

        def prepare(self):
            self.x, self.y = load()

        def train(self):
            return self.x[:1500], self.y[:1500]

        def validation(self):
            return {"clean": clean, "noisy": noisy}  # or one set

        def test(self):
            return self.x[1500:], self.y[1500:]

        def transform(self, x, training=None):  # each batch
            return augment(x) if training else x

    system.fit(Digits(), epochs=3)
    data = ml.MLData(train=(x, y), test=(x2, y2), batch_size=64, transform=layers.RandomFlip())
    system.evaluate(data)
    ```

    Each method reads its own part:

    - `fit` reads the training and validation data.
    - `evaluate` reads the test data, or the validation data if there are no test data.
    - `predict` reads the inputs of the test data.
    - `setup` reads the first batch.

    A system whose method `data` returns an `MLData` needs no data in `fit` and `evaluate`.

    A part is anything that `fit` takes as x, including `ml.Streams`. A tuple of arrays is
    (x, y[, sample_weight]). A function is called and returns the data. A function that returns a
    generator is called again for each epoch. Several validation sets are a dict of tuples or data
    sets by name. A dict of arrays is one set, of inputs by name. Each part is made once, on
    first use.

    Args:
        train: the training data.
        validation: the validation data: one set, or several in a dict by name.
        test: the test data.
        batch_size: batch size of arrays, also in an `ml.Streams` without a batch size for them.
            The argument of `fit` has priority.
        transform: a function, a Keras layer, or a list of these, applied in turn to each batch. A
            function takes any of the arguments x, y, sample_weight and training. It returns x,
            (x, y) or (x, y, sample_weight). Parts that it does not return stay unchanged. A layer
            takes x. `training` is False for validation and test data.
        transform_on_device: if True, the transform is part of the compiled step and must use
            `keras.ops`. If False, it runs before the step on NumPy arrays, with any library. Draw
            noise in a step with a `keras.random.SeedGenerator`. Before a step, a generator of NumPy
            or Python works too. Checkpoints save the generators in attributes of the MLData, and
            in the functions and objects of the transform.
        precompute: frozen models by name, such as `{"embeddings": encoder}`. Each runs once over
            the arrays of a part, in inference mode, when the part is first used. Its outputs are
            kept in memory. x becomes a dict with them: `x["embeddings"]`. An x that is no dict is
            `x["x"]` then. A model takes all of x, or one entry of a dict: `(encoder, "image")`.
            The transform comes afterwards, and gets the dict. Make a new MLData after you change
            the weights of the model.

    Attributes:
        batch_size: as above, like `transform_on_device` and `precompute`. A subclass may set them
            in its class.

    Raises:
        TypeError: `precompute` is not a dict of models, or the data are no arrays.
        ValueError: such a model has trainable weights, or gives other outputs each time.
    """

    batch_size: int | None = None
    transform_on_device: bool = False
    precompute: Mapping[str, Any] = {}
    _given: Mapping[str, Any] = {}

    def __init__(
        self,
        train: Any = None,
        validation: Any = None,
        test: Any = None,
        *,
        batch_size: int | None = None,
        transform: Any = None,
        transform_on_device: bool | None = None,
        precompute: Mapping[str, Any] | None = None,
    ) -> None:
        given = {"train": train, "validation": validation, "test": test, "transform": transform}
        self._given = {name: value for name, value in given.items() if value is not None}
        for name in self._given:
            if getattr(type(self), name) is not getattr(MLData, name):
                raise ValueError(
                    f"{type(self).__name__} has its own `{name}`, and its constructor got "
                    f"{name}=. Leave one of them out."
                )
        if batch_size is not None:
            self.batch_size = batch_size
        if self.batch_size is not None and not is_count(self.batch_size):
            raise ValueError(
                f"{type(self).__name__} has batch_size={self.batch_size!r}; give a number from 1."
            )
        if transform_on_device is not None:
            self.transform_on_device = transform_on_device
        if precompute is not None:
            self.precompute = precompute
        precomputed.check(self.precompute)

    # Methods to override ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Load the sources of the parts. Called once, before the first part is read."""

    def train(self) -> Any:
        """Return the training data."""
        return self._given.get("train")

    def validation(self) -> Any:
        """Return the validation data: one set, or several in a dict by name."""
        return self._given.get("validation")

    def test(self) -> Any:
        """Return the test data."""
        return self._given.get("test")

    def transform(self, x: Any) -> Any:
        """Transform each batch. An override may also take y, sample_weight and training."""
        return x

    # Used by `fit`, `evaluate`, `predict` and `setup` ----------------------------------------

    def part(self, name: str) -> Any:
        """Return one part. It is made on first use.

        Args:
            name: "train", "validation" or "test".

        Returns:
            The result of the method of that name. If the part is a function, its result. None
            if there is no such part.
        """
        if name not in PARTS:
            raise ValueError(f"MLData has no part {name!r}; its parts are {', '.join(PARTS)}.")
        made = self.__dict__.setdefault("_made", {})
        if name not in made:
            self._prepare()
            part = _called(getattr(self, name)())
            made[name] = self._with_outputs(name, part) if self.precompute else part
        return made[name]

    def _with_outputs(self, name: str, part: Any) -> Any:
        """Return a part with the outputs of the models of `precompute`."""
        what = f"The {name} data of {type(self).__name__}"
        given = self.precompute, what, self.batch_size
        if part is None or not _has_sets(part):
            return None if part is None else precomputed.with_outputs(part, *given)
        return {key: precomputed.with_outputs(_called(one), *given) for key, one in part.items()}

    def _prepare(self) -> None:
        if "_prepared" not in self.__dict__:
            self.prepare()
            self._prepared = True

    def _sets(self, name: str) -> dict[str | None, Any]:
        """Return the sets of a part by name. A single set has the name None."""
        part = self.part(name)
        if part is None:
            return {}
        if not _has_sets(part):
            return {None: part}
        return {name: _called(one) for name, one in part.items()}

    @property
    def _transform(self) -> Transform | None:
        """The transform, ready for use. None if there is none."""
        if "_ready" not in self.__dict__:
            own = type(self).transform is not MLData.transform
            given = self.transform if own else self._given.get("transform")
            self._ready = None if given is None else Transform(given)
        return self._ready

    def _source(self, data: Any, what: str, **given: Any) -> Source:
        """Return a set as a source of batches. A generator continues where it stopped."""
        if _keras.kind_of_data(data) != "generator":
            return Source(data, what, **({"batch_size": self.batch_size} | given))
        known = self.__dict__.setdefault("_generators", {})
        return known.setdefault(id(data), Source(data, what))

    def _sized(
        self, data: Any, what: str, asked: int | None = None, default: int | None = None
    ) -> Any:
        """Return streams with the requested, the default or the own batch size.

        Raises a ValueError if streams cannot use the requested size.
        """
        size = asked or default or self.batch_size
        if not isinstance(data, BatchAdapter) or size is None:
            return data
        sized = data.sized(size)
        if asked is not None and sized is data:
            raise ValueError(
                f"{what} are {type(data).__name__} with batch sizes of their own, which "
                f"batch_size={asked} would not change. Leave one of them out."
            )
        return sized

    def _read(
        self,
        name: str,
        data: Any,
        transformed: bool = True,
        asked: int | None = None,
        default: int | None = None,
        **given: Any,
    ) -> Any:
        """Return one of the sets of a part for `fit`: transformed, or unchanged if possible.

        `asked` is the requested batch size of this set. `default` is a batch size requested for
        other sets that may apply here.
        """
        what = f"The {name} data of {type(self).__name__}"
        _check_class_weight(data, what, given.get("class_weight"))
        data = self._sized(data, what, asked, default)
        given["batch_size"] = asked or default or self.batch_size
        transform = self._transform if transformed else None
        if isinstance(data, BatchAdapter) and (name != "train" or given.get("shuffle") is False):
            data = data.in_order()
        is_plain = isinstance(data, BatchAdapter) or not (is_function(data) or _is_generator(data))
        if transform is None and is_plain:
            read(data, what)
            return data
        return Transformed(self._source(data, what, **given), transform, name == "train")

    def _examples(self) -> list[Any]:
        """Return one transformed batch of each structure, from the first part that exists."""
        for name in PARTS:
            for data in self._sets(name).values():
                what = f"The {name} data of {type(self).__name__}"
                source = self._source(self._sized(data, what), what)
                return Transformed(source, self._transform, name == "train").examples()
        raise ValueError(f"{type(self).__name__} has no data: give it train, validation or test.")


def _check_class_weight(data: Any, what: str, class_weight: Any) -> None:
    """Raise an error for class weights with data to which Keras cannot apply them."""
    is_plain = not (isinstance(data, BatchAdapter) or is_function(data) or _is_generator(data))
    if class_weight is not None and not is_plain:
        kind = type(data).__name__ if isinstance(data, BatchAdapter) else "a generator"
        raise ValueError(
            f"{what} are {kind}, to which fit cannot apply class_weight={class_weight!r}. Give the "
            "weight of each sample with the data: (x, y, sample_weight)."
        )


def _has_sets(part: Any) -> bool:
    """Return whether a part is a dict of several sets."""
    return isinstance(part, Mapping) and any(map(_is_set, part.values()))


def _is_set(value: Any) -> bool:
    """Return whether a value in a dict is a data set of its own, not an array of inputs."""
    is_data = _keras.kind_of_data(value) in ("dataset", "generator")
    return isinstance(value, tuple) or is_data or is_function(value)


def _called(part: Any) -> Any:
    """Call a function and return its result. A function of a generator is returned unchanged."""
    if not is_function(part):
        return part
    made = part()
    return part if _is_generator(made) else made


def _is_generator(data: Any) -> bool:
    return _keras.kind_of_data(data) == "generator"
