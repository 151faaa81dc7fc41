"""layout: chooses how values lie in memory. Convolutions write channels innermost, and what follows keeps to it.

The result of a convolution gets channels last, because its register tile has output channels in the lanes.
Maps, pooling and movement of one index for one index take over the layout of their operands. Everything else, and what
leaves the function, is row-major: a ``relayout`` stands where the two meet. Logical shapes never change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from passes.base import Pass, PassContext, each_graph, with_functions
from tgc.ir.builder import Builder
from tgc.ir.graph import Module, Node, Value, topological
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import Layout

_CHANNELS_INNERMOST = frozenset({"convolution", "convolution_input_gradient"})
# kinds and ops that read operands of any layout
_ANY_LAYOUT = frozenset({OpKind.MAP, OpKind.WINDOW, OpKind.CONVOLUTION, OpKind.REDUCE, OpKind.CONTRACT})
_ANY_LAYOUT_OPS = frozenset({"broadcast", "transpose", "slice", "pad", "reverse", "relayout"})


@dataclass(frozen=True)
class LayoutChoice(Pass):
    """Chooses layouts and puts ``relayout`` where two ops disagree."""

    name = "layout"
    requires = frozenset({"primitive"})

    def run(self, module: Module, context: PassContext) -> Module:
        builder = context.builder(module)
        functions = tuple(
            f.with_outputs(each_graph(builder, f.outputs, lambda results: _laid_out(builder, results, context.table)))
            for f in module.functions
        )
        return with_functions(module, functions, builder)


def channels_last(rank: int) -> Layout:
    """Batch, spatial dimensions, channels.

    >>> channels_last(4).order
    (0, 2, 3, 1)
    """
    return Layout((0, *range(2, rank), 1))


def relaid(builder: Builder, value: Value, layout: Layout | None) -> Value:
    """The value in another layout; itself if it has it."""
    type_ = value.type.with_layout(layout)
    return value if type_ == value.type else builder.op("relayout", value, attributes={"type": type_})


def _laid_out(builder: Builder, results: tuple[Value, ...], table: OpTable) -> tuple[Value, ...]:
    new: dict[Value, Value] = {}
    for node in topological(results):
        builder.place = builder.locations.get(node)
        operands = tuple(new[v] for v in node.operands)
        if table[node.op].kind not in _ANY_LAYOUT and node.op not in _ANY_LAYOUT_OPS:
            operands = tuple(relaid(builder, v, None) for v in operands)
        made = node if operands == node.operands else builder.node(node.op, operands, node.attributes, node.regions)
        layout = _wanted(made, table)
        for old, value in zip(node.results, made.results, strict=True):
            new[old] = value if layout is None else relaid(builder, value, layout)
    builder.place = None
    return tuple(relaid(builder, new[v], None) for v in results)


def _wanted(node: Node, table: OpTable) -> Layout | None:
    """The layout that the results of ``node`` get; None for row-major, and for those that say it themselves."""
    shape = node.types[0].shape if node.types else ()
    if node.op == "relayout" or len(shape) < 3 or shape[1] == 1:
        return None
    if node.op in _CHANNELS_INNERMOST:
        return channels_last(len(shape))
    if table[node.op].kind in (OpKind.MAP, OpKind.WINDOW):
        return _shared(node.operands, len(shape))
    return None


def _shared(operands: Sequence[Value], rank: int) -> Layout | None:
    return next((v.type.layout for v in operands if v.type.rank == rank and v.type.layout is not None), None)
