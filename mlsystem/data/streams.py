"""Streams: several data sets read side by side, each with its own batch size."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from mlsystem._checks import is_count
from mlsystem.data.adapter import BatchAdapter
from mlsystem.data.source import Source
from mlsystem.routing.model_names import listing

_LENGTHS = ("min", "cycle", "sequential")


class Streams(BatchAdapter):
    """Several data sets side by side, by name. Each batch holds one batch of each data set.

    Use it to train on several data sets at once, such as labelled and unlabelled data. `forward`
    gets `x[name]`. Losses get `y[name]` and `sample_weight[name]` of the data sets that have them.
    `y` is None if no data set has it:

    ```python
    streams = ml.Streams(
        {"labelled": (x, y), "unlabelled": u}, batch_size={"labelled": 16, "unlabelled": 64}
    )
    system.fit(streams, epochs=10)
    ```

    Pass it to `fit`, `evaluate` and `setup`, or make it a part of an `ml.MLData`. Keras'
    `tf.distribute` strategies do not accept it.

    The log of a loss is a mean over samples. Its weight depends on the loss:

    - One number per sample of a stream: weighted by the samples of that stream.
    - A loss given by name: weighted by the samples of its own targets.
    - A scalar, a `self.log` value, or a sum of terms over several streams: weighted by the samples
      of the first stream, in the order of the names.

    `loss` is the sum of the losses. In an evaluation, it is the sum of their means.

    Orders are drawn from NumPy's generator. They are the same after `keras.utils.set_random_seed`.
    `fit(resume=)` resumes exactly with arrays. With other data sets, it resumes as exactly as with
    these data sets alone.

    Args:
        streams: anything that `fit` takes as x, by name. A tuple of arrays is
            (x, y[, sample_weight]). A function is called and returns the data. A function that
            returns a generator is called again each time the stream starts over.
        batch_size: batch size of arrays: one number, or a dict by name. By default the batch size
            of the `ml.MLData` around the streams, else 32. Other data sets make their own batches.
        length: when an epoch ends. "cycle": with the longest stream. Shorter streams start over,
            reshuffled if they are shuffled. "min": with the shortest stream. "sequential": the
            streams are read one after another. A batch then holds one stream: test `name in x`.
            Your own `train_step` can update the models of that stream only. A number: after so many
            batches. Finished streams start over, and generators continue.
            (`fit(steps_per_epoch=)` splits such an epoch into several, as in Keras.)
        shuffle: whether to read arrays, and the batches of a `PyDataset`, in a new order each
            time. True, False or a dict by name. Evaluations and `fit(shuffle=False)` do not
            shuffle and leave out no batch.
        drop_last: whether to leave out the last batch of arrays if it is smaller. Each mixture of
            sizes would compile another step. By default true for shuffled arrays, because then
            each epoch leaves out other samples.

    Raises:
        TypeError: `fit` does not take a stream of this kind.
        ValueError: a name does not exist, a stream is empty, or a required length is unknown.
    """

    def __init__(
        self,
        streams: Mapping[str, Any],
        batch_size: Any = None,
        length: str | int = "cycle",
        shuffle: bool | Mapping[str, bool] = True,
        drop_last: bool | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(streams, Mapping) or not streams:
            raise ValueError(f"Streams takes data sets by name, {{name: data}}; found {streams!r}.")
        if length not in _LENGTHS and not is_count(length):
            raise ValueError(
                f"Streams got length={length!r}. Give 'min', 'cycle', 'sequential', or the number "
                "of batches in an epoch."
            )
        self.length = length
        sizes = _by_name(batch_size, streams, "batch_size", None)
        orders = _by_name(shuffle, streams, "shuffle", True)
        _check_orders(orders, drop_last)
        for name, size in sizes.items():
            if size is not None and not is_count(size):
                raise ValueError(f"Streams got batch_size={size!r} for '{name}'; give a number.")
        self.sources = {
            name: Source(
                data,
                f"The stream '{name}'",
                batch_size=sizes[name],
                shuffle=orders[name],
                drop_last=orders[name] if drop_last is None else drop_last,
            )
            for name, data in streams.items()
        }
        if isinstance(batch_size, Mapping):
            self._check_sizes(batch_size)
        if length == "cycle":
            self._check_lengths()

    def in_order(self) -> "Streams":
        """Return the same streams for an evaluation: not shuffled, with all last batches."""
        return self._of({name: source.in_order() for name, source in self.sources.items()})

    def sized(self, batch_size: int) -> "Streams":
        """Return the streams with this batch size for arrays without a batch size of their own."""
        sources = {name: source.sized(batch_size) for name, source in self.sources.items()}
        is_same = all(sources[name] is source for name, source in self.sources.items())
        return self if is_same else self._of(sources)

    def _of(self, sources: dict[str, Source]) -> "Streams":
        other = copy.copy(self)
        other.sources = sources
        return other

    def _check_sizes(self, sizes: Mapping[str, Any]) -> None:
        for name, size in sizes.items():
            if size is not None and not self.sources[name].has_arrays:
                raise ValueError(
                    f"batch_size names '{name}', which makes its own batches. Leave it out."
                )

    def _check_lengths(self) -> None:
        """Raise an error if the end of an epoch cannot be known."""
        if unknown := [name for name, s in self.sources.items() if s.length is None]:
            raise ValueError(
                f"Streams cannot tell which is the longest: {', '.join(map(repr, unknown))} has no "
                "known length, and a generator cannot start over. Give length=N, the number of "
                "batches in an epoch, or 'min'."
            )

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch. None if it is unknown."""
        lengths = [source.length for source in self.sources.values()]
        if isinstance(self.length, int):
            return self.length
        if None in lengths:
            return None
        return {"cycle": max, "min": min, "sequential": sum}[self.length](lengths)  # type: ignore

    def __iter__(self) -> Iterator[Any]:
        """Yield one epoch of batches, as tuples (x,), (x, y) or (x, y, sample_weight)."""
        self._stop()  # ends an epoch that was interrupted
        if self.length == "sequential":
            for name, source in self.sources.items():
                yield from (_joined({name: batch}) for batch in source)
        else:
            yield from self._side_by_side()

    def _side_by_side(self) -> Iterator[Any]:
        read = iter if self.length == "min" else _endless
        streams = {name: read(source) for name, source in self.sources.items()}
        known = [source.length for source in self.sources.values() if source.length is not None]
        end = self.num_batches or min(known, default=None)
        drawn = 0
        while drawn != end:
            batch = {}
            for name, stream in streams.items():
                if (part := next(stream, None)) is None:
                    return
                batch[name] = part
            drawn += 1
            if drawn == end:
                self._stop()
            yield _joined(batch)

    def _stop(self) -> None:
        for source in self.sources.values():
            source.stop()

    def examples(self) -> list[Any]:
        """See `BatchAdapter`."""
        first = {name: source.examples()[0] for name, source in self.sources.items()}
        if self.length == "sequential":
            return [_joined({name: batch}) for name, batch in first.items()]
        return [_joined(first)]

    def get_state(self) -> dict[str, Any]:
        """Return the state of the streams for a checkpoint, by name."""
        return {name: source.get_state() for name, source in self.sources.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for name, part in state.items():
            self.sources[name].set_state(part)


def _check_orders(orders: Mapping[Any, Any], drop_last: Any) -> None:
    if wrong := [name for name in orders if not isinstance(name, str)]:
        raise ValueError(f"Streams got the name {wrong[0]!r}; give names of type str.")
    for what, given in (("drop_last", drop_last), *(("shuffle", one) for one in orders.values())):
        if not isinstance(given, bool | None):
            raise ValueError(f"Streams got {what}={given!r}; give True or False.")


def _endless(source: Source) -> Iterator[Any]:
    while True:
        yield from source


def _joined(batches: Mapping[str, Any]) -> tuple[Any, ...]:
    """Join the batches of some streams to one batch."""
    parts = {name: keras.utils.unpack_x_y_sample_weight(batch) for name, batch in batches.items()}
    x, y, weight = (
        {name: found[i] for name, found in parts.items() if found[i] is not None} for i in range(3)
    )
    return (x, y or None, weight) if weight else (x, y) if y else (x,)


def _by_name(given: Any, names: Iterable[str], what: str, default: Any) -> dict[str, Any]:
    """Return a value for each stream, from one value for all or a dict by name."""
    names = list(names)
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if wrong := [name for name in given if name not in names]:
        raise ValueError(f"{what} names {wrong[0]!r}, which is no stream. {listing(names)}")
    return dict.fromkeys(names, default) | dict(given)
