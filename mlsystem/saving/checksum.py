"""The checksum of a `.weights.h5` file: a SHA-256 digest of all its bytes, at its end.

HDF5 ignores what follows its data, so that Keras reads the file as before. An attribute of the file
says that a digest follows: one that is cut off is noticed.
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
    """Ends a file with the digest of its content."""
    with h5py.File(path, "r+") as hdf5:
        announce(hdf5)
    with path.open("r+b") as file:
        digest = _digest(file, file.seek(0, 2))
        file.write(_MARK + digest)


def announce(hdf5: h5py.File) -> None:
    """Says in a file that a digest follows its data."""
    hdf5.attrs[_ATTRIBUTE] = "sha256"


def of(content: memoryview) -> bytes:
    """What a file of this content, which announces a digest, ends with."""
    return _MARK + hashlib.sha256(content).digest()


def verify(path: Any) -> bool:
    """Whether a file has a checksum, which is then right.

    Raises:
        ValueError: the file has changed since it was written.
        OSError: it is no HDF5 file.
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
    """The digest of the bytes up to an end, where the file is then read or written."""
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
