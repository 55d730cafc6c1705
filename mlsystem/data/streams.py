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
    """Several data sets side by side, by name: a batch holds one batch of each.

    `forward` gets `x[name]`, and losses `y[name]` and `sample_weight[name]` of the data sets that
    have them; `y` is None where none has:

    ```python
    streams = ml.Streams(
        {"labelled": (x, y), "unlabelled": u}, batch_size={"labelled": 16, "unlabelled": 64}
    )
    system.fit(streams, epochs=10)
    ```

    It is data as `fit`, `evaluate`, `setup` and a part of an `ml.MLData` take it. A loss may be one
    number per sample of any of the streams, and its log is then weighted by these samples; so is
    that of a loss given by name, by the samples of its own targets. Of a loss that is a scalar
    nobody knows which samples it is the mean of: like the logs of `self.log`, and the sum of terms
    over several streams, it is weighted by the samples of the first stream in the order of the
    names. `loss` is the sum of the losses: in an evaluation, of their means.

    Keras' `tf.distribute` strategies do not take it.

    Orders are drawn from NumPy's generator, so that they are the same after
    `keras.utils.set_random_seed`, and `fit(resume=)` goes on exactly with arrays, and with other
    data sets as far as it does with these alone.

    Args:
        streams: anything that `fit` takes as x, by name; a tuple of arrays is
            (x, y[, sample_weight]). A function is called for it; one that returns a generator is
            called again each time the stream starts over.
        batch_size: of arrays: one number, or a dict by name; by default that of the `ml.MLData`
            that the streams are a part of, else 32. Other data sets make their own batches.
        length: where an epoch ends. "cycle": with the longest stream. Shorter streams start over,
            in another order where they are shuffled. "min": with the shortest stream.
            "sequential": the streams are read one after another. A batch holds one stream alone,
            as `name in x` tells. Your own `train_step` can update the models of that stream only.
            A number: after so many batches. Streams that end start over, and generators go on.
            (`fit(steps_per_epoch=)` divides what is one epoch here, as in Keras.)
        shuffle: whether to read arrays, and the batches of a `PyDataset`, in another order each
            time; True, False or a dict by name. None is where they are evaluated, and with
            `fit(shuffle=False)`; nor is a batch left out there.
        drop_last: whether to leave out the last batch of arrays where it is smaller than the
            others, which would have a step compiled anew for each mixture of sizes. By default
            where they are shuffled: then others are left out each time.

    Raises:
        TypeError: a stream is of a kind that `fit` does not take.
        ValueError: a name does not exist, a stream is empty, or nobody knows a length that must be
            known.
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
        """The same streams as they are read to evaluate: none shuffled, no last batch left out."""
        return self._of({name: source.in_order() for name, source in self.sources.items()})

    def sized(self, batch_size: int) -> "Streams":
        """The same streams, arrays without a batch size of their own in batches of this one."""
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
        """Refuses what the end of an epoch cannot be told from."""
        if unknown := [name for name, s in self.sources.items() if s.length is None]:
            raise ValueError(
                f"Streams cannot tell which is the longest: nobody knows the length of "
                f"{', '.join(map(repr, unknown))}, and a generator cannot start over. Say "
                "length=N, the number of batches in an epoch, or 'min'."
            )

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch; None where nobody knows."""
        lengths = [source.length for source in self.sources.values()]
        if isinstance(self.length, int):
            return self.length
        if None in lengths:
            return None
        return {"cycle": max, "min": min, "sequential": sum}[self.length](lengths)  # type: ignore

    def __iter__(self) -> Iterator[Any]:
        """One epoch of batches, as tuples (x,), (x, y) or (x, y, sample_weight)."""
        self._stop()  # an epoch that was broken off
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
        """What a checkpoint keeps of the streams, by name."""
        return {name: source.get_state() for name, source in self.sources.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where the state was taken."""
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
    """One batch of the batches of some streams."""
    parts = {name: keras.utils.unpack_x_y_sample_weight(batch) for name, batch in batches.items()}
    x, y, weight = (
        {name: found[i] for name, found in parts.items() if found[i] is not None} for i in range(3)
    )
    return (x, y or None, weight) if weight else (x, y) if y else (x,)


def _by_name(given: Any, names: Iterable[str], what: str, default: Any) -> dict[str, Any]:
    """A value for each stream, of one for all or of a dict by name."""
    names = list(names)
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if wrong := [name for name in given if name not in names]:
        raise ValueError(f"{what} names {wrong[0]!r}, which is no stream. {listing(names)}")
    return dict.fromkeys(names, default) | dict(given)
