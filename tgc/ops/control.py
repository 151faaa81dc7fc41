"""Control flow and fusion groups: ops with regions.

Regions are closed: they see their parameters alone, so what they take from outside are operands (captures). The
meaning of these ops is that of whole graphs and lives with the interpreter, :mod:`tgc.reference`; their derivatives
live with the walk over graphs, in ``passes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tgc.ops.rules as rules
from tgc.dtypes import bool_, i64
from tgc.errors import CompilerBug, DTypeError, ShapeError, UserError
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes, Graph, Value, parameter
from tgc.ir.kinds import FusionKind, OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef
from tgc.ir.types import TensorType

_SCALAR = TensorType(bool_, ())


# -- type rules --------------------------------------------------------------------------------------------------


def _types(values: Sequence[Value]) -> list[TensorType]:
    return [v.type for v in values]


def _require(what: str, given: Sequence[TensorType], expected: Sequence[TensorType]) -> None:
    """The types must be the expected ones, as far as symbolic sizes can tell."""
    message = f"{what} must be ({rules.listed(expected)}), not ({rules.listed(given)})"
    if len(given) != len(expected):
        raise ShapeError(message)
    for have, want in zip(given, expected, strict=True):
        if have.dtype is not want.dtype:
            raise DTypeError(message)
        if have.rank != want.rank or any(map(rules.provably_different, have.shape, want.shape)):
            raise ShapeError(message)


def _regions(op: str, regions: Sequence[Graph], count: int) -> Sequence[Graph]:
    if len(regions) != count:
        raise CompilerBug(f"{op} takes {count} regions, not {len(regions)}", stage="control")
    return regions


def _count(attributes: Attributes, name: str, most: int) -> int:
    count = rules.integer(attributes, name)
    if not 0 <= count <= most:
        raise UserError(f"attribute {name} is {count}, for {most} operands")
    return count


def _row_major(types: Sequence[TensorType]) -> tuple[TensorType, ...]:
    return tuple(TensorType(t.dtype, t.shape) for t in types)


def _cond_type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    then, otherwise = _regions("cond", regions, 2)
    _require("the predicate of cond", types[:1], [_SCALAR])
    _require("the parameters of cond's first branch", _types(then.parameters), types[1:])
    _require("the parameters of cond's second branch", _types(otherwise.parameters), types[1:])
    _require("the results of cond's second branch, as of the first,", _types(otherwise.results), _types(then.results))
    return _row_major(_types(then.results))


def _while_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    condition, body = _regions("while_loop", regions, 2)
    carries = types[: _count(attributes, "carries", len(types))]
    _require("the parameters of while_loop's condition", _types(condition.parameters), types)
    _require("the parameters of while_loop's body", _types(body.parameters), types)
    _require("the result of while_loop's condition", _types(condition.results), [_SCALAR])
    _require("the results of while_loop's body, as its carries,", _types(body.results), carries)
    return _row_major(carries)


def _scan_type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    (region,) = _regions("scan", regions, 1)
    length = rules.dim(attributes, "length")
    rules.flag(attributes, "reverse")
    first = _count(attributes, "carries", len(types))
    last = first + _count(attributes, "sequences", len(types) - first)
    carries, sequences, captures = types[:first], types[first:last], types[last:]
    for sequence in sequences:
        if not sequence.rank or rules.provably_different(sequence.shape[0], length):
            raise ShapeError(f"scan of length {length} over {sequence}", hint="sequences have the length in front")
    slices = [TensorType(s.dtype, s.shape[1:]) for s in sequences]
    _require(
        "the parameters of scan's body", _types(region.parameters), [TensorType(i64, ()), *carries, *slices, *captures]
    )
    results = _types(region.results)
    _require("the first results of scan's body, as its carries,", results[:first], carries)
    return _row_major([*carries, *(TensorType(t.dtype, (length, *t.shape)) for t in results[first:])])


def _fusion_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    (region,) = _regions("fusion", regions, 1)
    rules.text(attributes, "kind", [kind.value for kind in FusionKind])
    _require("the parameters of a fusion region", _types(region.parameters), types)
    return tuple(_types(region.results))


def _checkpoint_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    (region,) = _regions("checkpoint", regions, 1)
    _require("the parameters of a checkpoint", _types(region.parameters), types)
    return _row_major(_types(region.results))


def _scan_equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    first, count = rules.integer(attributes, "carries"), rules.integer(attributes, "sequences")
    return ((sequence.shape[0], rules.dim(attributes, "length")) for sequence in types[first : first + count])


# -- building ----------------------------------------------------------------------------------------------------


def inline(builder: GraphBuilder, graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
    """The results of ``graph`` with ``arguments`` in place of its parameters, as nodes outside of it."""
    values: dict[Value, Value] = dict(zip(graph.parameters, arguments, strict=True))
    for node in graph.nodes():
        if Value(node, 0) in values:
            continue
        operands = [values[v] for v in node.operands]
        copies = builder.results(node.op, *operands, attributes=node.attributes, regions=node.regions)
        values.update(zip(node.results, copies, strict=True))
    return tuple(values[v] for v in graph.results)


def bounded_while(
    builder: GraphBuilder,
    operands: Sequence[Value],
    condition: Graph,
    body: Graph,
    *,
    carries: int,
    max_steps: Dim,
) -> tuple[Value, ...]:
    """A while_loop of at most ``max_steps`` iterations as a scan, which has a reverse-mode derivative.

    ``operands``, ``condition``, ``body`` and ``carries`` as in ``while_loop``. Each step asks the condition and, where
    it no longer holds, hands the carries on unchanged.
    """
    types = [v.type for v in operands]
    inner = [parameter(i + 1, t) for i, t in enumerate(types)]
    (proceed,) = inline(builder, condition, inner)
    same = tuple(parameter(i, t) for i, t in enumerate(types))
    stay = Graph(same, same[:carries])
    results = builder.results("cond", proceed, *inner, regions=(body, stay))
    region = Graph((parameter(0, TensorType(i64, ())), *inner), results)
    attributes = {"carries": carries, "sequences": 0, "length": max_steps, "reverse": False}
    return builder.results("scan", *operands, attributes=attributes, regions=(region,))


# -- table -------------------------------------------------------------------------------------------------------

_CARRIES = AttributeSpec("how many operands are carried from iteration to iteration")

OPS_CONTROL: tuple[OpDef, ...] = (
    OpDef(
        name="cond",
        doc="""(predicate bool[], *captures) -> the results of the first region where it is true, else of the second.

        Both regions take the captures and give results of the same types. Only one is computed.""",
        kind=OpKind.CONTROL,
        operands=None,
        infer=_cond_type,
    ),
    OpDef(
        name="while_loop",
        doc="""(*carries, *captures) -> the carries after the last iteration.

        Regions: condition (carries, captures) -> bool[], and body (carries, captures) -> carries. Differentiable in
        forward mode; for reverse mode see :func:`bounded_while`.""",
        kind=OpKind.CONTROL,
        operands=None,
        infer=_while_type,
        attributes={"carries": _CARRIES},
    ),
    OpDef(
        name="scan",
        doc="""(*carries, *sequences, *captures) -> (final carries, outputs stacked along a new leading dimension).

        The region takes (iteration i64[], carries, slices of the sequences, captures) and gives (carries, outputs).
        With ``reverse`` the iterations run from the last to the first; slices and outputs keep their places, and the
        iteration number is the place.""",
        kind=OpKind.CONTROL,
        operands=None,
        infer=_scan_type,
        equalities=_scan_equalities,
        attributes={
            "carries": _CARRIES,
            "sequences": AttributeSpec("how many operands after them are cut into slices"),
            "length": AttributeSpec("number of iterations, the leading dimension of the sequences"),
            "reverse": AttributeSpec("whether it runs from the last slice to the first", required=False, default=False),
        },
    ),
    OpDef(
        name="checkpoint",
        doc="""The results of the region, whose parameters are the operands.

        Reverse-mode differentiation keeps the operands alone and computes the rest again when it needs it.""",
        kind=OpKind.CONTROL,
        operands=None,
        infer=_checkpoint_type,
    ),
    OpDef(
        name="fusion",
        doc="""What one kernel computes: the results of the region, whose parameters are the operands.""",
        kind=OpKind.CONTROL,
        operands=None,
        infer=_fusion_type,
        attributes={"kind": AttributeSpec("the schedule it is for: " + ", ".join(kind.value for kind in FusionKind))},
    ),
)
