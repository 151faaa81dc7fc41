"""The interpreter: what a graph means, by each op's ``evaluate``, body or regions. Oracle of every test.

Floats of 32 bits and fewer are computed in f64 and rounded once to the result's dtype at each op (16-bit floats through
f32, as kernels do). :func:`run_with_bounds` also gives, for every result, how far a compiled function may be from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgc.dtypes import from_numpy
from tgc.errors import CompilerBug, DTypeError, ShapeError
from tgc.ir import dims
from tgc.ir.binding import bind_dimensions
from tgc.ir.builder import Builder
from tgc.ir.dims import Expr
from tgc.ir.graph import (
    Array,
    Attribute,
    Attributes,
    Constant,
    Constraint,
    Function,
    Graph,
    Node,
    Value,
    parameter,
    topological,
)
from tgc.ir.opdef import OpDef, OpTable
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.ops.bounds import error_bounds, widened
from tgc.ops.rules import concrete

Floats: TypeAlias = NDArray[np.float64]


class Bounded(NamedTuple):
    """A value, and a bound on the absolute error of each element of what compiled code gives for it."""

    value: Array
    error: Floats


class _Known(NamedTuple):
    """A value, and the bound on its error; None where compiled code gives the same bits."""

    value: Array
    error: Floats | None


# (node, its operands, what computes its results) -> its results, or others in their place
Around: TypeAlias = Callable[[Node, Sequence[Array], Callable[[], Sequence[Array]]], Sequence[Array]]


@dataclass(frozen=True)
class _Context:
    """What is fixed while a function runs. ``bounded``: whether errors are wanted."""

    table: OpTable
    dimensions: Mapping[str, int]
    state: Mapping[str, Array]
    constants: Mapping[str, Array]
    bounded: bool
    around: Around | None = None


# -- the public functions ----------------------------------------------------------------------------------------


def run(
    function: Function,
    inputs: Sequence[ArrayLike],
    *,
    state: Mapping[str, ArrayLike] | None = None,
    constants: Mapping[str, Constant | Array] | None = None,
    table: OpTable = OPS,
    around: Around | None = None,
) -> tuple[tuple[Array, ...], dict[str, Array]]:
    """The results of ``function``, and the state after it.

    ``around`` is called in place of every operation, those of regions included, in the order in which they run.
    Symbolic dimensions are bound by the inputs' and the state's shapes. Raises :class:`ShapeError` and
    :class:`DTypeError` for inputs that do not fit, or that break one of the function's constraints.
    """
    known, after = _run(function, inputs, state or {}, constants or {}, table, bounded=False, around=around)
    return tuple(k.value for k in known), {name: k.value for name, k in after.items()}


def run_with_bounds(
    function: Function,
    inputs: Sequence[ArrayLike],
    *,
    state: Mapping[str, ArrayLike] | None = None,
    constants: Mapping[str, Constant | Array] | None = None,
    table: OpTable = OPS,
    sizes: Mapping[str, int] | None = None,
) -> tuple[tuple[Bounded, ...], dict[str, Bounded]]:
    """As :func:`run`, each value with a bound on the error of compiled code: ``|compiled - value| <= error``.

    ``sizes``: of all symbolic dimensions, if the inputs do not tell. Inputs and state are taken as exact. Errors of
    sums and contractions are bounded by the ops' ``error``. Through a map they are followed by evaluating it on the
    corners of the intervals: that is sound where the map is monotonic in each operand, and to second order elsewhere.
    The rounding of each op adds ``ulp`` units in the last place, and the reference's own rounding half a unit. Bounds
    are infinite where a result depends on an uncertain decision.
    """
    known, after = _run(function, inputs, state or {}, constants or {}, table, bounded=True, sizes=sizes)
    return tuple(map(_bounded, known)), {name: _bounded(k) for name, k in after.items()}


def run_graph(graph: Graph, inputs: Sequence[ArrayLike], *, table: OpTable = OPS) -> tuple[Array, ...]:
    """The results of a graph without state and constants.

    >>> from tgc import dtypes
    >>> x = parameter(0, TensorType(dtypes.f32, (dims.symbol("n"),)))
    >>> graph = Graph((x,), (Builder(OPS).op("square", x),))
    >>> run_graph(graph, [np.array([1, 2, 3], np.float32)])
    (array([1., 4., 9.], dtype=float32),)
    """
    return run(Function("graph", graph), inputs, table=table)[0]


def _run(
    function: Function,
    inputs: Sequence[ArrayLike],
    state: Mapping[str, ArrayLike],
    constants: Mapping[str, Constant | Array],
    table: OpTable,
    *,
    bounded: bool,
    around: Around | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[list[_Known], dict[str, _Known]]:
    parameters = function.parameters
    if len(inputs) != len(parameters):
        raise ShapeError(f"{function.name} takes {len(parameters)} inputs, got {len(inputs)}")
    arrays = [_input(f"input {i}", p.type, x) for i, (p, x) in enumerate(zip(parameters, inputs, strict=True))]
    read = {str(n.attributes["name"]): n.types[0] for n in function.nodes() if n.op == "state"}
    missing = sorted(read.keys() - state.keys())
    if missing:
        raise ShapeError(f"{function.name} reads the state {missing[0]}, which is not given")
    before = {
        name: _input(f"state {name}", read[name], x) if name in read else np.asarray(x) for name, x in state.items()
    }
    types = [p.type for p in parameters] + list(read.values())
    shapes = [a.shape for a in arrays] + [before[name].shape for name in read]
    dimensions = bind_dimensions(types, shapes) if sizes is None else sizes
    _check(function.constraints, dimensions)
    context = _Context(table, dimensions, before, {k: _data(k, c) for k, c in constants.items()}, bounded, around)
    with np.errstate(all="ignore"):
        outputs = _outputs(context, function.outputs, [_Known(a, None) for a in arrays])
    count = len(function.results)
    after = {name: _Known(array, None) for name, array in before.items()}
    after |= {name: value for (name, _), value in zip(function.assigns, outputs[count:], strict=True)}
    return outputs[:count], after


def _input(name: str, type_: TensorType, x: ArrayLike) -> Array:
    array: Array = np.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else np.asarray(x, type_.dtype.numpy)
    if array.dtype != type_.dtype.numpy:
        raise DTypeError(f"{name}: expected {type_}, got an array of {array.dtype}")
    return array


def _data(name: str, constant: Constant | Array) -> Array:
    if not isinstance(constant, Constant):
        return constant
    if constant.data is None:
        raise CompilerBug(f"only the digest of the constant {name} is known", stage="reference")
    return constant.data


def _check(constraints: Iterable[Constraint], dimensions: Mapping[str, int]) -> None:
    for constraint in constraints:
        left, right = (dims.evaluate(d, dimensions) for d in (constraint.left, constraint.right))
        if left != right:
            raise ShapeError(
                f"{constraint.left} = {left} must equal {constraint.right} = {right}: {constraint.because}"
            )


def _bounded(known: _Known) -> Bounded:
    return Bounded(known.value, _errors(known))


def _errors(known: _Known) -> Floats:
    return np.zeros(known.value.shape) if known.error is None else known.error


# -- graphs ------------------------------------------------------------------------------------------------------


def _outputs(context: _Context, outputs: Sequence[Value], parameters: Sequence[_Known]) -> list[_Known]:
    """The values of ``outputs``, given those of the parameters."""
    found: dict[Node, Sequence[_Known]] = {}
    for node in topological(outputs):
        if node.op == "parameter":
            found[node] = (parameters[int(node.attributes["index"])],)  # type: ignore[arg-type]
        else:
            found[node] = _node(context, node, [found[v.node][v.index] for v in node.operands])
    return [found[v.node][v.index] for v in outputs]


def _node(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    if node.op == "state":
        return (_Known(context.state[str(node.attributes["name"])], None),)
    if node.op == "literal":
        name = str(node.attributes["name"])
        if name not in context.constants:
            raise CompilerBug(f"the constant {name} is not given", stage="reference")
        return (_Known(context.constants[name], None),)
    around = context.around
    if around is None:
        return _operation(context, node, operands)
    arrays = [k.value for k in operands]
    results = around(node, arrays, lambda: [k.value for k in _operation(context, node, operands)])
    return [_Known(y, None) for y in results]


def _operation(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    if node.op in _CONTROL:
        return _CONTROL[node.op](context, node, operands)
    definition = context.table[node.op]
    attributes = _concrete_attributes(node.attributes, context.dimensions)
    if definition.body is not None and (context.bounded or definition.evaluate is None):
        return _composite(context, definition, operands, attributes)
    types = [_concrete_type(t, context.dimensions) for t in node.types]
    return _primitive(context, definition, operands, attributes, types)


def _composite(
    context: _Context, definition: OpDef, operands: Sequence[_Known], attributes: Attributes
) -> Sequence[_Known]:
    if definition.body is None:
        raise CompilerBug(f"{definition.name} has neither a meaning nor a body", stage="reference")
    values = [parameter(i, _type_of(k.value)) for i, k in enumerate(operands)]
    results = definition.body(Builder(context.table), values, attributes)
    return _outputs(replace(context, dimensions={}, around=None), results, operands)


def _primitive(
    context: _Context,
    definition: OpDef,
    operands: Sequence[_Known],
    attributes: Attributes,
    types: Sequence[TensorType],
) -> Sequence[_Known]:
    if definition.evaluate is None:
        raise CompilerBug(f"{definition.name} has no meaning outside a function", stage="reference")
    arrays = [widened(definition, k.value) for k in operands]
    try:
        exact = definition.evaluate(arrays, attributes, types)
    except ValueError as error:
        given = ", ".join(str(_type_of(k.value)) for k in operands)
        raise ShapeError(f"{definition.name} does not take {given}: {error}") from error
    results = [_rounded(y, t) for y, t in zip(exact, types, strict=True)]
    for y, type_ in zip(results, types, strict=True):
        if y.shape != type_.shape:
            raise ShapeError(f"{definition.name} gives the shape {list(y.shape)} where its type is {type_}")
    if not context.bounded:
        return [_Known(y, None) for y in results]
    errors = error_bounds(
        definition, [k.value for k in operands], [k.error for k in operands], attributes, types, results
    )
    return [_Known(y, e) for y, e in zip(results, errors, strict=True)]


def _rounded(y: Array, type_: TensorType) -> Array:
    if y.dtype == type_.dtype.numpy:
        return y
    return np.asarray(y).astype(type_.dtype.compute.numpy).astype(type_.dtype.numpy)


def _type_of(x: Array) -> TensorType:
    return TensorType(from_numpy(x.dtype), x.shape)


def _concrete_type(type_: TensorType, dimensions: Mapping[str, int]) -> TensorType:
    return TensorType(type_.dtype, [dims.evaluate(d, dimensions) for d in type_.shape])


def _concrete(value: Attribute, dimensions: Mapping[str, int]) -> Attribute:
    if isinstance(value, Expr):
        return dims.evaluate(value, dimensions)
    if isinstance(value, tuple):
        return tuple(_concrete(v, dimensions) for v in value)
    return _concrete_type(value, dimensions) if isinstance(value, TensorType) else value


def _concrete_attributes(attributes: Attributes, dimensions: Mapping[str, int]) -> Attributes:
    return {name: _concrete(value, dimensions) for name, value in attributes.items()} if dimensions else attributes


# -- control -----------------------------------------------------------------------------------------------------


def _uncertain(known: Sequence[_Known]) -> list[_Known]:
    return [_Known(k.value, np.full(k.value.shape, np.inf)) for k in known]


def _is_uncertain(known: _Known) -> bool:
    return known.error is not None and bool(np.any(known.error))


def _cond(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    condition, *captures = operands
    then, otherwise = node.regions
    chosen = then if condition.value else otherwise
    results = _outputs(context, chosen.results, captures)
    return _uncertain(results) if _is_uncertain(condition) else results


def _while_loop(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    count = int(node.attributes["carries"])  # type: ignore[arg-type]
    carries, captures = list(operands[:count]), operands[count:]
    condition, body = node.regions
    uncertain = False
    while True:
        (goes_on,) = _outputs(context, condition.results, [*carries, *captures])
        uncertain = uncertain or _is_uncertain(goes_on)
        if not goes_on.value:
            return _uncertain(carries) if uncertain else carries
        carries = _outputs(context, body.results, [*carries, *captures])


def _scan(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    count, sequences = int(node.attributes["carries"]), int(node.attributes["sequences"])  # type: ignore[arg-type]
    carries, given = list(operands[:count]), operands[count : count + sequences]
    captures = operands[count + sequences :]
    attributes = _concrete_attributes(node.attributes, context.dimensions)
    length = int(attributes["length"])  # type: ignore[arg-type]
    types = [_concrete_type(t, context.dimensions) for t in node.types[count:]]
    values = [np.zeros(concrete(t), t.dtype.numpy) for t in types]
    errors: list[Floats | None] = [None] * len(types)
    (region,) = node.regions
    for i in reversed(range(length)) if attributes["reverse"] else range(length):
        slices = [_Known(k.value[i], None if k.error is None else k.error[i]) for k in given]
        iteration = _Known(np.asarray(i, np.int64), None)
        results = _outputs(context, region.results, [iteration, *carries, *slices, *captures])
        carries = results[:count]
        for j, result in enumerate(results[count:]):
            values[j][i] = result.value
            if result.error is not None:
                whole = errors[j]
                if whole is None:
                    whole = errors[j] = np.zeros(values[j].shape)
                whole[i] = result.error
    return [*carries, *(_Known(y, e) for y, e in zip(values, errors, strict=True))]


def _fusion(context: _Context, node: Node, operands: Sequence[_Known]) -> Sequence[_Known]:
    (region,) = node.regions
    return _outputs(context, region.results, operands)


_INLINED = MappingProxyType(dict.fromkeys(("fusion", "checkpoint"), _fusion))
_CONTROL = MappingProxyType({"cond": _cond, "while_loop": _while_loop, "scan": _scan, **_INLINED})
