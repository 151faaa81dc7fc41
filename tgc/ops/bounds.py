"""How an error spreads through one op: bounds of whole graphs, and so every test's tolerance, are made of these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tgc.dtypes import from_numpy
from tgc.errors import CompilerBug
from tgc.ir.graph import Array, Attributes
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpDef, float_info
from tgc.ir.types import TensorType

Floats: TypeAlias = NDArray[np.float64]

# Kinds whose results are elements of their operands: nothing is rounded.
_MOVES = frozenset({OpKind.MOVEMENT, OpKind.INDEX, OpKind.SORT, OpKind.BARRIER})


def widened(definition: OpDef, x: Array) -> Array:
    """An operand as the op's ``evaluate`` takes it: f32 and smaller in f64, unless it looks at the very bits."""
    dtype = from_numpy(x.dtype)
    if dtype.is_float and dtype.bits < 64 and "as_typed" not in definition.extra:
        return x.astype(np.float64)
    return x


def error_bounds(
    definition: OpDef,
    operands: Sequence[Array],
    errors: Sequence[Floats | None],
    attributes: Attributes,
    types: Sequence[TensorType],
    results: Sequence[Array],
) -> Sequence[Floats | None]:
    """For each result, a bound on the distance between what compiled code and what the reference computes.

    ``errors`` bound the same of the operands; None where both have the same bits. ``types`` and ``results`` are the
    reference's.
    """
    moves = definition.kind in _MOVES
    if all(e is None for e in errors) and (definition.foldable or (moves and definition.error is None)):
        return [None] * len(results)
    propagated: Sequence[Array]
    if definition.error is not None:
        given = [np.zeros(x.shape) if e is None else e for x, e in zip(operands, errors, strict=True)]
        propagated = definition.error(operands, given, attributes, results)
        if any(y.dtype == np.float64 for y in results):
            # the reference sums in f64 itself, and no better
            own = definition.error(operands, [np.zeros(x.shape) for x in operands], attributes, results)
            propagated = [theirs + ours for theirs, ours in zip(propagated, own, strict=True)]
    elif definition.kind is OpKind.MAP or definition.kind is OpKind.BARRIER:
        propagated = (_through_map(definition, operands, errors, attributes, types[0], results[0]),)
    else:
        raise CompilerBug(f"{definition.name} has no bound on its error", stage="reference")
    bounds: list[Floats | None] = []
    for y, error in zip(results, propagated, strict=True):
        total = np.asarray(error, np.float64)
        if not moves and definition.ulp and from_numpy(y.dtype).is_float:
            total = total + _rounding(y, total, definition.ulp)
        # a bound is not a number where the value is none: both sides are nan there, or it is infinite
        bounds.append(np.where(np.isnan(total), np.where(_is_nan(y), 0.0, np.inf), total))
    return bounds


def _is_nan(y: Array) -> NDArray[np.bool_]:
    return np.isnan(y.astype(np.float64))


def _rounding(y: Array, error: Floats, ulp: float) -> Floats:
    """The error of rounding on both sides: ``ulp`` units of the compiled op, half a unit of the reference.

    In f64 the reference computes in no more than f64 itself, and is given the same allowance.
    """
    dtype = from_numpy(y.dtype)
    roundoff, smallest = float_info(dtype)
    size = np.abs(y.astype(np.float64)) + error
    exponent = np.frexp(np.where(np.isfinite(size), size, 0.0))[1]
    unit = np.maximum(np.ldexp(roundoff, exponent), smallest)
    return (2.0 * ulp + 0.5 if dtype.bits == 64 else ulp + 0.5) * unit


def _probes(x: Array, error: Floats | None) -> list[Array]:
    """The values that an operand may have: itself and the ends of its interval."""
    if error is None:
        return [x]
    dtype = from_numpy(x.dtype)
    if dtype.kind == "bool":
        return [x, np.logical_xor(x, error > 0)]
    if dtype.is_float:
        wide = x.astype(np.float64)
        return [x, (wide - error).astype(x.dtype), (wide + error).astype(x.dtype)]
    info = np.iinfo(x.dtype.name)
    low, high = (np.clip(x.astype(np.float64) + e, float(info.min), float(info.max)) for e in (-error, error))
    return [
        x,
        *(np.where(error > 0, np.where(v >= float(info.max), info.max, v).astype(x.dtype), x) for v in (low, high)),
    ]


def _through_map(
    definition: OpDef,
    operands: Sequence[Array],
    errors: Sequence[Floats | None],
    attributes: Attributes,
    type_: TensorType,
    result: Array,
) -> Floats:
    """The largest change of the result over the corners of the operands' intervals."""
    if definition.evaluate is None:
        raise CompilerBug(f"{definition.name} has no meaning", stage="reference")
    choices = [_probes(widened(definition, x), e) for x, e in zip(operands, errors, strict=True)]
    largest = np.zeros(result.shape)
    center: Floats | None = None
    for corner in product(*choices):
        y = np.asarray(definition.evaluate(corner, attributes, (type_,))[0]).astype(np.float64)
        if center is None:
            center = y
        same = (y == center) | (np.isnan(y) & np.isnan(center))
        change = np.where(same, 0.0, np.abs(y - center))
        largest = np.maximum(largest, np.where(np.isnan(change), np.inf, change))
    return largest
