import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tgc.data import batches, read_idx
from tgc.errors import ParseError, ShapeError


def idx(code: int, shape: tuple[int, ...], elements: bytes) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + elements


@pytest.mark.parametrize("compressed", [False, True])
def test_an_idx_file_gives_its_array(tmp_path: Path, compressed: bool) -> None:
    expected = np.arange(6, dtype=np.int16).reshape(2, 3)
    content = idx(0x0B, (2, 3), expected.astype(">i2").tobytes())
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(content) if compressed else content)
    read = read_idx(path)
    assert read.dtype == np.int16
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0\0\x08", id="no dimensions"),
        pytest.param(idx(0x07, (1,), b"x"), id="unknown type"),
        pytest.param(idx(0x08, (3,), b"xx"), id="too short"),
        pytest.param(idx(0x08, (1,), b"xx"), id="too long"),
        pytest.param(idx(0x08, (2**32 - 1,) * 200, b""), id="claims more than there is"),
        pytest.param(b"\0\0\x08\x04\0\0", id="header cut"),
        pytest.param(gzip.compress(idx(0x08, (1,), b"x"))[:-9], id="gzip cut"),
        pytest.param(b"\x1f\x8b\x08\x00aaaaaaaaaaaaaaaaa", id="gzip damaged"),
    ],
)
def test_a_malformed_idx_file_is_a_users_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "array"
    path.write_bytes(content)
    with pytest.raises(ParseError, match="array"):
        read_idx(path)


def test_batches_hold_every_element_once_and_keep_rows_together() -> None:
    x = np.arange(10)
    pairs = list(batches(x, -x, size=3, rng=np.random.default_rng(0)))
    assert [len(a) for a, _ in pairs] == [3, 3, 3, 1]
    seen = np.concatenate([a for a, _ in pairs])
    np.testing.assert_array_equal(np.sort(seen), x)
    assert not np.array_equal(seen, x)
    for a, b in pairs:
        np.testing.assert_array_equal(b, -a)


def test_drop_last_leaves_only_full_batches() -> None:
    assert [len(x) for (x,) in batches(np.arange(10), size=3, drop_last=True)] == [3, 3, 3]


@pytest.mark.parametrize(("lengths", "size"), [((2, 3), 1), ((), 1), ((2,), 0)])
def test_batches_refuses_what_it_cannot_cut(lengths: tuple[int, ...], size: int) -> None:
    with pytest.raises(ShapeError):
        batches(*(np.zeros(length) for length in lengths), size=size)
