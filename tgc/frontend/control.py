"""Control flow that is part of the graph: ``cond``, ``while_loop``, ``scan``, ``fori_loop``.

Branches and bodies are recorded once, on placeholders. What they use from outside becomes an operand of the op; state
that they assign is carried through the loop and assigned when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tgc.dtypes import bool_, i64
from tgc.errors import DTypeError, ShapeError, TraceError, UserError
from tgc.frontend.base import BaseTensor
from tgc.frontend.region import LIKE_TENSORS, Recorded, as_tensor, assign, close, constant, record, wrapped
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import Region, current, here
from tgc.frontend.tree import Structure, flatten, unflatten
from tgc.ir.dims import Dim
from tgc.ir.graph import Value
from tgc.ir.types import TensorType
from tgc.location import user_site
from tgc.ops.control import bounded_while
from tgc.ops.rules import provably_different

_INDEX = TensorType(i64, ())


def cond(predicate: Any, then: Callable[..., Any], otherwise: Callable[..., Any], *operands: Any) -> Any:
    """``then(*operands)`` where ``predicate`` (bool, rank 0) is true, else ``otherwise(*operands)``.

    Only one of them is computed. Both must give trees of the same structure with tensors of the same types; numbers
    take the other branch's dtype. A Python bool chooses at once. Raises :class:`DTypeError` and :class:`ShapeError`
    that name both types where they differ.

    >>> import tgc
    >>> f = lambda x: tgc.cond(x.sum() > 0, lambda x: x * 2, lambda x: -x, x)
    >>> f(tgc.tensor([1.0, 2.0])).numpy(), f(tgc.tensor([-1.0, -2.0])).numpy()
    (array([2., 4.], dtype=float32), array([1., 2.], dtype=float32))
    """
    if isinstance(predicate, bool):
        return (then if predicate else otherwise)(*operands)
    choice = _predicate(predicate, "the predicate of cond")
    leaves, below = flatten((operands, {}))
    tensors = {
        i: as_tensor(leaf, "an operand of cond") for i, leaf in enumerate(leaves) if isinstance(leaf, LIKE_TENSORS)
    }
    types = {i: t.type for i, t in tensors.items()}
    given = [tensors.get(i, leaf) for i, leaf in enumerate(leaves)]
    first, second = record(then, below, given, types), record(otherwise, below, given, types)
    if first.structure != second.structure:
        raise UserError(
            "the branches of cond give results of different structures",
            hint="both must return the same nesting of tuples, lists and dictionaries",
            location=here(),
        )
    pairs = [
        (_result(first.region, a, b), _result(second.region, b, a))
        for a, b in zip(first.leaves, second.leaves, strict=True)
    ]
    for i, (a, b) in enumerate(pairs):
        _require_same(f"result {i} of cond's branches", a.type, b.type, "the first gives", "the second")
    states = _assigned(first.region, second.region)
    results = [
        [
            *(pair[side].value_in(branch.region) for pair in pairs),
            *(branch.region.assigned.get(id(t), branch.region.on_entry(t)) for t in states),
        ]
        for side, branch in enumerate((first, second))
    ]
    closed = close([first.region, second.region], [first.placeholders, second.placeholders], results)
    trace = current()
    trace.builder.place = user_site()
    values = [choice.value_in(trace), *(t.value_in(trace) for t in tensors.values()), *closed.captures]
    found = trace.builder.results("cond", *values, regions=closed.graphs)
    assign(trace, states, found[len(pairs) :])
    flags = [a.requires_grad or b.requires_grad for a, b in pairs]
    return unflatten(first.structure, wrapped(trace, found[: len(pairs)], flags))


def while_loop(
    condition: Callable[[Any], Any], body: Callable[[Any], Any], init: Any, *, max_steps: Dim | None = None
) -> Any:
    """``init``, then ``body`` of it again and again while ``condition`` of it is true.

    The carry is a tree of tensors that keep their dtypes and shapes; numbers become tensors. ``max_steps`` bounds the
    number of iterations: such a loop can be differentiated in reverse mode too. Raises :class:`DTypeError` and
    :class:`ShapeError` for a body that changes the type of a carry.

    >>> import tgc
    >>> int(tgc.while_loop(lambda n: n < 100, lambda n: n * 2, 3))
    192
    """
    leaves, below = flatten(init)
    tensors = [as_tensor(leaf, "a carry of while_loop") for leaf in leaves]
    called: Structure = ("tuple", tuple, (("tuple", tuple, (below,)), ("dict", (), ())))
    types = {i: t.type for i, t in enumerate(tensors)}
    asked = record(lambda carry: _predicate(condition(carry), "the condition of while_loop"), called, tensors, types)
    step = record(body, called, tensors, types)
    if asked.region.assigned:
        raise TraceError("the condition of while_loop assigns state", hint="assign it in the body", location=here())
    carried = _carried("while_loop", step, step.structure, step.leaves, below, tensors)
    states = _assigned(step.region)
    own = [[*part.placeholders, *(part.region.on_entry(t) for t in states)] for part in (asked, step)]
    results = [*carried, *(step.region.assigned[id(t)] for t in states)]
    closed = close([asked.region, step.region], own, [asked.values(), results])
    trace = current()
    trace.builder.place = user_site()
    operands = [*(t.value_in(trace) for t in (*tensors, *states)), *closed.captures]
    count = len(results)
    if max_steps is None:
        found = trace.builder.results("while_loop", *operands, attributes={"carries": count}, regions=closed.graphs)
    else:
        found = bounded_while(trace.builder, operands, *closed.graphs, carries=count, max_steps=max_steps)
    assign(trace, states, found[len(tensors) :])
    flag = step.region.requires_grad or any(t.requires_grad for t in tensors)
    return unflatten(below, wrapped(trace, found[: len(tensors)], [flag] * len(tensors)))


def scan(
    function: Callable[[Any, Any], Any], init: Any, xs: Any, length: Dim | None = None, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Runs ``carry, y = function(carry, x)`` over the slices x of ``xs`` along their first axis.

    Gives the last carry and the ys, stacked along a new first axis. ``xs`` is a tree of tensors that are equally long,
    or None with a ``length``. The carry keeps its dtypes and shapes. With ``reverse`` it begins with the last slice;
    each y still has the place of its x. Raises :class:`DTypeError` and :class:`ShapeError` for a carry that changes its
    type and for sequences that are not equally long.

    >>> import tgc
    >>> total, sums = tgc.scan(lambda c, x: (c + x, c + x), 0.0, tgc.tensor([1.0, 2.0, 3.0]))
    >>> float(total), sums.numpy()
    (6.0, array([1., 3., 6.], dtype=float32))
    """

    def step(_: Tensor, carry: Any, x: Any) -> Any:
        found = function(carry, x)
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(
                f"the body of scan gave a {type(found).__name__}, not a pair (carry, y)",
                hint="return (carry, None) if there is nothing to stack",
                location=here(),
            )
        return found

    leaves, below = flatten(xs)
    sequences = [as_tensor(leaf, "a sequence of scan") for leaf in leaves]
    return _scan("scan", step, init, sequences, below, _length(sequences, length), reverse)


def fori_loop(lower: Any, upper: Any, body: Callable[[Tensor, Any], Any], init: Any) -> Any:
    """``carry = body(i, carry)`` for each i (i64) from ``lower`` to ``upper`` - 1, beginning with ``init``.

    With bounds that are known while recording it can be differentiated in reverse mode.

    >>> import tgc
    >>> int(tgc.fori_loop(0, 5, lambda i, total: total + i, 0))
    10
    """
    if isinstance(lower, int) and isinstance(upper, int):
        start = lower
        carry, _ = _scan(
            "fori_loop",
            lambda i, carry, _: (body(i + start, carry), None),
            init,
            [],
            None,
            max(upper - lower, 0),
            False,
        )
        return carry
    first, last = (as_tensor(bound, "a bound of fori_loop") for bound in (lower, upper))
    for bound in (first, last):
        if bound.shape != () or not bound.dtype.is_integer:
            raise DTypeError(f"a bound of fori_loop is {bound.type}, not an integer of rank 0", location=here())
    stop = last.astype(i64)
    _, carry = while_loop(
        lambda state: state[0] < stop, lambda state: (state[0] + 1, body(*state)), (first.astype(i64), init)
    )
    return carry


def _scan(
    name: str,
    step: Callable[..., Any],
    init: Any,
    sequences: Sequence[Tensor],
    below: Structure,
    length: Dim,
    reverse: bool,
) -> tuple[Any, Any]:
    """The scan of ``step(iteration, carry, x)`` over sequences whose tree is ``below``."""
    leaves, shape = flatten(init)
    tensors = [as_tensor(leaf, f"a carry of {name}") for leaf in leaves]
    count = len(tensors)
    slices = [TensorType(s.dtype, s.shape[1:]) for s in sequences]
    types = [_INDEX, *(t.type for t in tensors), *slices]
    called: Structure = ("tuple", tuple, (("tuple", tuple, ("*", shape, below)), ("dict", (), ())))
    recorded = record(step, called, [None, *tensors, *sequences], dict(enumerate(types)))
    structure_of_carry, structure_of_y = recorded.structure[2]
    carries = _leaf_count(structure_of_carry)
    carried = _carried(name, recorded, structure_of_carry, recorded.leaves[:carries], shape, tensors)
    region = recorded.region
    outputs = [_result(region, leaf, None).value_in(region) for leaf in recorded.leaves[carries:]]
    states = _assigned(recorded.region)
    entry = [recorded.region.on_entry(t) for t in states]
    own = [*recorded.placeholders[: count + 1], *entry, *recorded.placeholders[count + 1 :]]
    results = [*carried, *(recorded.region.assigned[id(t)] for t in states), *outputs]
    closed = close([recorded.region], [own], [results])
    trace = current()
    trace.builder.place = user_site()
    operands = [*(t.value_in(trace) for t in (*tensors, *states, *sequences)), *closed.captures]
    total = count + len(states)
    attributes = {"carries": total, "sequences": len(sequences), "length": length, "reverse": reverse}
    found = trace.builder.results("scan", *operands, attributes=attributes, regions=closed.graphs)
    assign(trace, states, found[count:total])
    flag = recorded.region.requires_grad or any(t.requires_grad for t in (*tensors, *sequences))
    final = wrapped(trace, found[:count], [flag] * count)
    stacked = wrapped(trace, found[total:], [flag] * len(outputs))
    return unflatten(shape, final), unflatten(structure_of_y, stacked)


# -- checks ------------------------------------------------------------------------------------------------------


def _length(sequences: Sequence[Tensor], length: Dim | None) -> Dim:
    """How many iterations there are."""
    for s in sequences:
        if s.ndim == 0:
            raise ShapeError(f"scan over a tensor of rank 0 ({s.type})", location=here())
    sizes = [s.shape[0] for s in sequences] if length is None else [length, *(s.shape[0] for s in sequences)]
    if not sizes:
        raise UserError("scan without sequences needs length=", location=here())
    found = next((size for size in sizes if isinstance(size, int)), sizes[0])
    for s in sequences:
        if provably_different(s.shape[0], found):
            raise ShapeError(
                f"scan of length {found} over {s.type}", hint="sequences are equally long", location=here()
            )
    return found


def _leaf_count(structure: Structure) -> int:
    if structure is None or structure == "*":
        return int(structure == "*")
    return sum(map(_leaf_count, structure[2]))


def _result(region: Region, leaf: Any, like: Any) -> Tensor:
    """What a function gave as a tensor of its region; a number takes the dtype of ``like`` where that can hold it."""
    if isinstance(leaf, Tensor):
        return leaf
    dtype = as_tensor(leaf, "a result of control flow").dtype
    if isinstance(like, Tensor) and (like.dtype.is_float or dtype is bool_ or type(leaf) is int):
        dtype = dtype if like.dtype is bool_ else like.dtype
    return constant(region, leaf, dtype)


def _predicate(found: Any, what: str) -> Tensor:
    x = as_tensor(found, what)
    if x.shape != ():
        raise ShapeError(
            f"{what} is {x.type}, not of rank 0",
            hint="use .any() or .all(), or tgc.where for a choice of each element",
            location=here(),
        )
    return x if x.dtype is bool_ else x != 0


def _assigned(*regions: Region) -> list[BaseTensor]:
    """The states that any of the regions assigns."""
    found = {key: t for region in regions for key, (t, _) in region.states.items() if key in region.assigned}
    return list(found.values())


def _require_same(what: str, a: TensorType, b: TensorType, of_a: str, of_b: str) -> None:
    message = f"{what}: {of_a} {a}, {of_b} {b}"
    if a.dtype is not b.dtype:
        raise DTypeError(message, hint="cast one of them with .astype", location=here())
    if a.rank != b.rank or any(map(provably_different, a.shape, b.shape)):
        raise ShapeError(message, hint="shapes must stay the same", location=here())


def _carried(
    name: str,
    recorded: Recorded,
    structure: Structure,
    leaves: Sequence[Any],
    wanted: Structure,
    init: Sequence[Tensor],
) -> list[Value]:
    """The values that a body gives for its carries, whose types must be those of ``init``."""
    if structure != wanted:
        raise UserError(
            f"the body of {name} gives a carry of another structure than it takes",
            hint="return the same nesting of tuples, lists and dictionaries",
            location=here(),
        )
    values = []
    for i, (leaf, before) in enumerate(zip(leaves, init, strict=True)):
        after = _result(recorded.region, leaf, before)
        _require_same(f"carry {i} of {name}", before.type, after.type, "it begins as", "the body gives")
        values.append(after.value_in(recorded.region))
    return values
