"""The rule of attention: which product, folds of its rows and product with these rows may be one kernel.

The kernel has some rows of scores at a time, so nothing else may read them, and nothing may read them at other indices.
"""

from __future__ import annotations

from collections.abc import Collection

from passes.fusion_groups import MOVING, Group, Shape, keeps_rows
from tgc.ir.graph import Node
from tgc.ops import rules
from tgc.ops.contract import Spec

# below that many rows or columns a register tile of scores is mostly empty
_FEWEST = 16
# elements of a row, of which a tile is to stay in a second-level cache
_LONGEST = 1 << 14


def attention_refusal(scores: Group, rows: Group, output: Group) -> str | None:
    """Why the three groups may not become one kernel, or None.

    Nothing but ``rows`` reads ``scores``, and nothing but ``output`` reads ``rows``.
    """
    first, second = scores.anchor, output.anchor
    if first is None or second is None:
        return "there is no product"
    weights = [v for v in second.operands if v.node in rows.nodes]
    if len(weights) != 1 or any(v.node in rows.nodes for n in output.nodes if n is not second for v in n.operands):
        return "the product does not read the rows as they are"
    (made,), shape = weights, first.types[0].shape
    if rows.full != shape or rows.axes != (len(shape) - 1,) or made.shape != shape:
        return "the reduction is not one of the rows of a product"
    read = [v for n in rows.nodes for v in n.operands if v.node in scores.nodes]
    if not made.dtype.is_float or made.dtype.compute is not made.dtype:
        return f"rows of {made.dtype} are not kept in cache"
    if any(v.dtype is not made.dtype or v.type.layout is not None for v in (first.result, made, *read)):
        return "scores and rows differ in dtype or layout"
    hot = _computed_from(first, {**scores.nodes, **rows.nodes})
    if any(n.op in MOVING and (n in scores.nodes or not _spreads(n, rows, hot)) for n in hot):
        return "the scores are read at other indices"
    if second.types[0].shape[-1] == 1:
        return "values of one element do not fill register tiles"
    return _sizes_refused(shape) or _letters_refused(first, second, second.operands.index(made))


def _computed_from(first: Node, members: Collection[Node]) -> set[Node]:
    found = {first}
    pending = [first]
    readers: dict[Node, list[Node]] = {}
    for node in members:
        for value in node.operands:
            readers.setdefault(value.node, []).append(node)
    while pending:
        for reader in readers.get(pending.pop(), ()):
            if reader not in found:
                found.add(reader)
                pending.append(reader)
    return found - {first}


def _spreads(node: Node, rows: Group, hot: Collection[Node]) -> bool:
    """Whether a movement only gives each element of a row what the row was folded to."""
    return all(v.node not in hot or v.shape != rows.full for v in node.operands) and keeps_rows(node, rows)


def _sizes_refused(shape: Shape) -> str | None:
    if any(isinstance(d, int) and d < _FEWEST for d in shape[-2:]):
        return "too few scores to fill register tiles"
    if isinstance(shape[-1], int) and shape[-1] > _LONGEST:
        return "a row of scores is too long to stay in cache"
    return None


def _letters_refused(first: Node, second: Node, number: int) -> str | None:
    """The scores must be [*B, L, S], made of [*B, L, D] and [*B, S, D]; the values [*B, S, E], in any order each."""
    spec = Spec.parse(rules.text(first.attributes, "spec"))
    outer, row, column = set(spec.out[:-2]), spec.out[-2], spec.out[-1]
    queries, keys = (spec.a, spec.b) if row in spec.a else (spec.b, spec.a)
    if len(spec.summed) != 1 or {*outer, row, spec.summed} != {*queries} or {*outer, column, spec.summed} != {*keys}:
        return "the scores are not sums of one index over two sets of vectors"
    spec = Spec.parse(rules.text(second.attributes, "spec"))
    weights, values = (spec.a, spec.b) if number == 0 else (spec.b, spec.a)
    outer, row, column = set(weights[:-2]), weights[-2], weights[-1]
    if {*values} != {*outer, column, spec.out[-1]} or {*spec.out} != {*outer, row, spec.out[-1]}:
        return "the product does not sum over the rows alone, or its results lie in another order"
    return None
