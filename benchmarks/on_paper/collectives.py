"""The collectives in the text of a compiled program: kinds, bytes and groups of devices."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

NODE = 8  # devices that share a fast link
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")
_MESH = re.compile(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[(.*?)\](?:T\((.*?)\))?\))? \{(.*?)\}"
)
_IOTA = re.compile(r"replica_groups=\[(\d+,\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")


def collectives(text: str) -> Iterator[tuple[str, int, list[int]]]:
    """Yield kind, bytes of the result and one group of devices of each collective in a program."""
    for line in text.splitlines():
        if match := _CALL.search(line):
            yield match[2], sum(map(_bytes, _ARRAY.findall(match[1]))), group(line)


def ring(kind: str, size: int, devices: int) -> float:
    """Bytes that a device sends in a ring (Patarasuk and Yuan, 2009)."""
    share = (devices - 1) / devices
    if kind == "all-reduce":
        return 2 * share * size
    return share * size * (devices if kind == "reduce-scatter" else 1)


def group(line: str) -> list[int]:
    """Return the devices of the first group of a collective. XLA writes groups in three ways."""
    if found := _MESH.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        ids = _order(found[2] or ",".join(sizes.values()), found[3])
        ids = ids.reshape([int(size) for size in sizes.values()])
        inside = re.findall(r"'(\w+)'", found[4])
        return ids[tuple(slice(None) if name in inside else 0 for name in sizes)].ravel().tolist()
    if found := _IOTA.search(line):
        return _order(found[2], found[3]).reshape(_numbers(found[1]))[0].tolist()
    if found := _LISTED.search(line):
        return _numbers(found[1])
    raise ValueError(f"No groups of devices in the collective: {line[:300]}")


def _order(shape: str, axes: str | None) -> Any:
    sizes = _numbers(shape)
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids if axes is None else ids.transpose(_numbers(axes))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _bytes(array: tuple[str, str, str]) -> int:
    _, bits, shape = array
    return max(int(bits) // 8, 1) * math.prod(int(n) for n in shape.split(",") if n)
