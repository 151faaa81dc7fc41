"""How much work operations are: arithmetic operations and bytes, as expressions in the symbolic dimensions.

An addition, a multiplication and any function of one element count one each, so that a product counts two for each pair
that it multiplies. Movement, casts and comparisons are no arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from passes.memory_plan import value_bytes
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ops.convolve import Windows

_NO_ARITHMETIC: Final = frozenset(
    {"cast", "bitcast", "select", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not"}
)
_ELEMENTWISE: Final = frozenset({OpKind.REDUCE, OpKind.CUMULATIVE})


def node_flops(node: Node, table: OpTable) -> Dim:
    """The arithmetic operations of one node, regions excepted.

    >>> from tgc.dtypes import f32
    >>> from tgc.ir.builder import Builder
    >>> from tgc.ir.dims import symbol
    >>> from tgc.ir.graph import parameter
    >>> from tgc.ir.types import TensorType
    >>> from tgc.ops import OPS
    >>> x, w = parameter(0, TensorType(f32, (symbol("n"), 4))), parameter(1, TensorType(f32, (4, 8)))
    >>> print(node_flops(Builder(OPS).contract(x, w, "nk,km->nm").node, OPS))
    64*n
    """
    if node.op not in table:
        return 0
    kind = table[node.op].kind
    if kind is OpKind.MAP:
        return 0 if node.op in _NO_ARITHMETIC else node.types[0].size
    if kind in _ELEMENTWISE:
        return node.operands[0].type.size
    if kind is OpKind.CONTRACT:
        return 2 * product(contracted(node).values())
    if kind is OpKind.CONVOLUTION:
        return _convolution(node)
    if kind is OpKind.WINDOW:
        taps = node.attributes.get("window", ())
        return node.types[0].size * product(d for d in taps if isinstance(d, int)) if isinstance(taps, tuple) else 0
    return 0


def contracted(node: Node) -> dict[str, Dim]:
    """The size of every index of a product."""
    operands, _, _ = str(node.attributes["spec"]).partition("->")
    sizes: dict[str, Dim] = {}
    for labels, value in zip(operands.split(","), node.operands, strict=True):
        sizes.update(zip(labels.strip(), value.shape, strict=True))
    return sizes


def _convolution(node: Node) -> Dim:
    """Two for each tap that meets an element of the input, not its padding; the gradients have as many."""
    first, second = node.operands
    inputs, filters, outputs = {
        "convolution": (first.shape, second.shape, node.types[0].shape),
        "convolution_input_gradient": (node.types[0].shape, second.shape, first.shape),
        "convolution_filter_gradient": (second.shape, node.types[0].shape, first.shape),
    }[node.op]
    windows = Windows.of(node.attributes)
    total = 2 * outputs[0] * filters[0] * filters[1]
    steps = zip(windows.stride, windows.dilation, windows.padding, strict=True)
    for d, (stride, dilation, (before, _)) in enumerate(steps, start=2):
        total = total * _taps(inputs[d], filters[d], outputs[d], stride, dilation, before)
    return total


def _taps(size: Dim, taps: Dim, positions: Dim, stride: int, dilation: int, before: int) -> Dim:
    """How many pairs of a position and a tap lie inside the input, along one dimension; all of them if sizes vary.

    >>> _taps(4, 3, 4, 1, 1, 1)
    10
    """
    if not (isinstance(size, int) and isinstance(taps, int) and isinstance(positions, int)):
        return positions * taps
    shifts = [k * dilation - before for k in range(taps)]
    # position t reads element t * stride + shift
    firsts = [max(0, -(shift // stride)) for shift in shifts]
    ends = [min(positions, (size - 1 - shift) // stride + 1) for shift in shifts]
    return sum(max(0, end - first) for first, end in zip(firsts, ends, strict=True))


def traffic(inputs: Iterable[Value], results: Iterable[Value]) -> Dim:
    """Bytes that a kernel reads and writes if it touches each of its arrays once."""
    total: Dim = 0
    for value in (*inputs, *results):
        total = total + value_bytes(value.type)
    return total
