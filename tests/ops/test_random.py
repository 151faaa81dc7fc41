"""Random bits against the published vectors of Threefry, and the counter's arithmetic."""

import numpy as np
import pytest

from tgc import reference
from tgc.dtypes import u32, u64
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Array, Graph, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.ops.random import threefry

KEY, COUNTER = parameter(0, TensorType(u32, (2,))), parameter(1, TensorType(u64, ()))


def bits(key: tuple[int, int], counter: int, *shape: Dim, as_body: bool = False) -> Array:
    builder = Builder(OPS)
    attributes = {"shape": shape}
    if as_body:
        body = OPS["random_bits"].body
        assert body is not None
        results = body(builder, (KEY, COUNTER), attributes)
    else:
        results = builder.results("random_bits", KEY, COUNTER, attributes=attributes)
    inputs = [np.array(key, np.uint32), np.asarray(counter, np.uint64)]
    return reference.run_graph(Graph((KEY, COUNTER), results), inputs)[0]


# kat_vectors of the authors' Random123: "threefry2x32 20"
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
@pytest.mark.parametrize("as_body", [False, True])
def test_known_answers(
    counter: tuple[int, int], key: tuple[int, int], expected: tuple[int, int], as_body: bool
) -> None:
    words = [np.asarray(w, np.uint32) for w in (*key, *counter)]
    assert threefry((words[0], words[1]), (words[2], words[3])) == expected
    assert bits(key, counter[0] | counter[1] << 32, as_body=as_body) == expected[0]


@pytest.mark.parametrize("start", [0, 2**32 - 3, 2**64 - 2])
def test_each_element_has_its_own_counter(start: int) -> None:
    """Also across a carry into the high word, and around the end."""
    whole = bits((1, 2), start, 2, 4)
    singles = [bits((1, 2), (start + i) % 2**64) for i in range(8)]
    np.testing.assert_array_equal(whole, np.reshape(singles, (2, 4)))
    np.testing.assert_array_equal(bits((1, 2), start, 2, 4, as_body=True), whole)


def test_bits_look_fair() -> None:
    drawn = bits((3, 4), 0, 20_000)
    ones = np.unpackbits(drawn.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(20_000 * 32)
    assert len(np.unique(drawn)) > 19_990
