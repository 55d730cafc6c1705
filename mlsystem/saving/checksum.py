"""The checksum of a `.weights.h5` file: a SHA-256 digest of all its bytes, at its end.

HDF5 ignores bytes after its data, so Keras still reads the file. An attribute of the file says that
a digest follows. So a missing digest of a cut-off file is detected.
"""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import h5py

_MARK = b"mlsystem sha256:"
_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_ATTRIBUTE = "mlsystem_checksum"
_CHUNK = 1 << 20


def add(path: Path) -> None:
    """Append the digest of a file's content to the file."""
    with h5py.File(path, "r+") as hdf5:
        announce(hdf5)
    with path.open("r+b") as file:
        digest = _digest(file, file.seek(0, 2))
        file.write(_MARK + digest)


def announce(hdf5: h5py.File) -> None:
    """Record in a file that a digest follows its data."""
    hdf5.attrs[_ATTRIBUTE] = "sha256"


def of(content: memoryview) -> bytes:
    """Return the bytes to append to this content, which already announces a digest."""
    return _MARK + hashlib.sha256(content).digest()


def verify(path: Any) -> bool:
    """Return whether a file has a checksum. Raise an error if the checksum is wrong.

    Raises:
        ValueError: if the file has changed since it was written.
        OSError: if it is not an HDF5 file.
    """
    with Path(path).open("rb") as file:
        end = max(0, file.seek(0, 2) - _LENGTH)
        file.seek(end)
        mark, found = (trailer := file.read())[: len(_MARK)], trailer[len(_MARK) :]
        if mark == _MARK:
            _compare(_digest(file, end), found)
            return True
    with h5py.File(path, "r") as file:
        if _ATTRIBUTE in file.attrs:
            raise ValueError("The checksum at its end is missing: it is cut off or has changed.")
    return False


def _digest(file: BinaryIO, end: int) -> bytes:
    """Return the digest of the bytes up to `end`. The file position is then `end`."""
    digest = hashlib.sha256()
    file.seek(0)
    while left := end - file.tell():
        digest.update(file.read(min(left, _CHUNK)))
    return digest.digest()


def _compare(content: bytes, found: bytes) -> None:
    if content != found:
        raise ValueError(
            f"Its content has changed since it was written: the checksum of the content is "
            f"{content.hex()[:16]}..., and that in the file is {found.hex()[:16]}..."
        )
