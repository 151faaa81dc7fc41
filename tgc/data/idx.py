"""The IDX format, in which MNIST and its kin are kept: big-endian arrays behind a header of their own shape."""

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgc.errors import ParseError

# The third byte of the magic number names the type of the elements; all are big-endian.
_ELEMENTS: tuple[tuple[int, np.dtype[Any]], ...] = (
    (0x08, np.dtype("u1")),
    (0x09, np.dtype("i1")),
    (0x0B, np.dtype(">i2")),
    (0x0C, np.dtype(">i4")),
    (0x0D, np.dtype(">f4")),
    (0x0E, np.dtype(">f8")),
)


def read_idx(path: str | Path) -> NDArray[Any]:
    """The array in an IDX file, plain or compressed by gzip, in native byte order.

    The format is described on the page of the MNIST database (LeCun, Cortes and Burges): two zero bytes, the type, the
    number of dimensions, the dimensions as big-endian 32-bit integers, the elements in row-major order.

    Raises ParseError if the file is not exactly that.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    >>> read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ParseError(f"{path}: damaged gzip data: {error}") from error
    element = dict(_ELEMENTS).get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if element is None:
        raise ParseError(f"{path}: not an IDX file: it begins with {content[:4].hex(' ')}")
    header = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    expected = header + element.itemsize * prod(shape)
    if len(content) != expected:
        raise ParseError(f"{path}: {len(content)} bytes, where a header of shape {shape} takes {expected}")
    values = np.frombuffer(content, element, offset=header).reshape(shape)
    return values.astype(element.newbyteorder("="))
