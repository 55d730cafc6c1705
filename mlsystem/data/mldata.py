"""MLData: what a system is trained, validated and tested on, in one object."""

from collections.abc import Mapping
from typing import Any

from mlsystem import _keras
from mlsystem._checks import is_count
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.source import Source, is_function, read
from mlsystem.data.transforms import Transform, Transformed

PARTS = ("train", "validation", "test")


class MLData:
    """The data of a system: to train on, to validate on and to test on.

    Give the parts, or override the methods that return them:

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
            return noisy(x) if training else x

    system.fit(Digits(), epochs=3)
    data = ml.MLData(train=(x, y), test=(x2, y2), batch_size=64, transform=layers.RandomFlip())
    system.evaluate(data)
    ```

    `fit` takes the training and validation data, `evaluate` the test data (the validation data
    where there are none), `predict` the inputs of the test data, `setup` the first batch. A system
    whose method `data` returns it needs no data in `fit` and `evaluate`.

    A part is anything that `fit` takes as x, `ml.Streams` included; a tuple of arrays is
    (x, y[, sample_weight]). A function is called for its data, and one that returns a generator is
    called again for each epoch. Several validation sets are a dict by name of tuples or data sets;
    a dict of arrays is one set of inputs by name. Each part is made once, when it is first needed.

    Args:
        train: what to train on.
        validation: what to validate on; one set, or several in a dict by name.
        test: what to test on.
        batch_size: of arrays, also of those in an `ml.Streams` that has no batch size for them;
            what `fit` is given comes first.
        transform: a function, a Keras layer, or a list of these, applied to each batch in turn. A
            function takes what it names of x, y, sample_weight and training, and returns x, (x, y)
            or (x, y, sample_weight); what it does not return stays. A layer is given x. `training`
            is False for validation and test data.
        transform_on_device: whether the transform is part of the compiled step, and so in
            `keras.ops`, or runs before it, batch by batch, on NumPy arrays and in whatever it
            likes. Noise in a step is drawn with a `keras.random.SeedGenerator`; before it, by a
            generator of NumPy or Python too. Checkpoints keep those that the transform can draw
            from: in attributes of the MLData, and in what the functions and objects hold.

    Attributes:
        batch_size: as above; so is `transform_on_device`. Subclasses may set them in the class.
    """

    batch_size: int | None = None
    transform_on_device: bool = False
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

    # What users override ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Loads what the parts are made of. Called once, before the first of them is asked for."""

    def train(self) -> Any:
        """What to train on."""
        return self._given.get("train")

    def validation(self) -> Any:
        """What to validate on: one set, or several in a dict by name."""
        return self._given.get("validation")

    def test(self) -> Any:
        """What to test on."""
        return self._given.get("test")

    def transform(self, x: Any) -> Any:
        """What is done to each batch; override it with what it needs of y and the others too."""
        return x

    # What `fit` and its kin ask for ----------------------------------------------------------

    def part(self, name: str) -> Any:
        """One part, made when it is first asked for.

        Args:
            name: "train", "validation" or "test".

        Returns:
            What the method of that name returned, or what a function that was given returned. None
            without such a part.
        """
        if name not in PARTS:
            raise ValueError(f"MLData has no part {name!r}; its parts are {', '.join(PARTS)}.")
        made = self.__dict__.setdefault("_made", {})
        if name not in made:
            self._prepare()
            part = getattr(self, name)()
            made[name] = _called(part)
        return made[name]

    def _prepare(self) -> None:
        if "_prepared" not in self.__dict__:
            self.prepare()
            self._prepared = True

    def _sets(self, name: str) -> dict[str | None, Any]:
        """The sets of a part by name; one that stands alone under None."""
        part = self.part(name)
        if part is None:
            return {}
        if not isinstance(part, Mapping) or not any(map(_is_set, part.values())):
            return {None: part}
        return {name: _called(one) for name, one in part.items()}

    @property
    def _transform(self) -> Transform | None:
        """The transform, made ready; None where nothing is done."""
        if "_ready" not in self.__dict__:
            own = type(self).transform is not MLData.transform
            given = self.transform if own else self._given.get("transform")
            self._ready = None if given is None else Transform(given)
        return self._ready

    def _source(self, data: Any, what: str, **given: Any) -> Source:
        """One of the sets to be read in batches. A generator goes on where it was left."""
        if _keras.kind_of_data(data) != "generator":
            return Source(data, what, **({"batch_size": self.batch_size} | given))
        known = self.__dict__.setdefault("_generators", {})
        return known.setdefault(id(data), Source(data, what))

    def _sized(
        self, data: Any, what: str, asked: int | None = None, default: int | None = None
    ) -> Any:
        """Streams with the batch size that was asked for, which they must take, or another."""
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
        """One of the sets of a part, as `fit` takes it: transformed, or itself where it may.

        `asked` is a batch size for this set, and `default` one for others that may serve here.
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
        """One transformed batch of each structure of the first part that there is."""
        for name in PARTS:
            for data in self._sets(name).values():
                what = f"The {name} data of {type(self).__name__}"
                source = self._source(self._sized(data, what), what)
                return Transformed(source, self._transform, name == "train").examples()
        raise ValueError(f"{type(self).__name__} has no data: give it train, validation or test.")


def _check_class_weight(data: Any, what: str, class_weight: Any) -> None:
    """Refuses class weights for data that nobody applies them to."""
    is_plain = not (isinstance(data, BatchAdapter) or is_function(data) or _is_generator(data))
    if class_weight is not None and not is_plain:
        kind = type(data).__name__ if isinstance(data, BatchAdapter) else "a generator"
        raise ValueError(
            f"{what} are {kind}, to which fit cannot apply class_weight={class_weight!r}. Give the "
            "weight of each sample with the data: (x, y, sample_weight)."
        )


def _is_set(value: Any) -> bool:
    """Whether what a dict holds is a data set of its own, and no array of inputs."""
    is_data = _keras.kind_of_data(value) in ("dataset", "generator")
    return isinstance(value, tuple) or is_data or is_function(value)


def _called(part: Any) -> Any:
    """What a function returns; itself where that is a generator, to be called again."""
    if not is_function(part):
        return part
    made = part()
    return part if _is_generator(made) else made


def _is_generator(data: Any) -> bool:
    return _keras.kind_of_data(data) == "generator"
