"""What the ops' rules share: checks with messages that a user understands, typed access to attributes, batching.

Conventions of every op's rules. ``evaluate`` receives concrete attributes (symbols replaced by numbers) and the
concrete types of the *results*; floats of 32 bits and fewer arrive in f64, unless the op says ``extra=AS_TYPED``.
``error`` receives values as typed and their errors in f64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tgc.dtypes import DType, from_numpy
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.ir.dims import Dim, Expr, bounds, dim_max, evaluate
from tgc.ir.graph import Array, Attribute, Attributes, Graph, Value
from tgc.ir.opdef import Batch, GraphBuilder, TypeRule, float_info
from tgc.ir.types import TensorType

FLOAT = frozenset({"float"})
INTEGER = frozenset({"int", "uint"})
NUMERIC = FLOAT | INTEGER
BITS = INTEGER | {"bool"}
BOOL = frozenset({"bool"})
ANY = NUMERIC | BOOL
_KIND_NAMES: Mapping[frozenset[str], str] = MappingProxyType(
    {FLOAT: "floats", INTEGER: "integers", NUMERIC: "numbers", BITS: "integers or bools", BOOL: "bools"}
)
# ``OpDef.extra`` of an op whose ``evaluate`` depends on the very bits of its operands
AS_TYPED: Mapping[str, object] = MappingProxyType({"as_typed": True})


# -- attributes --------------------------------------------------------------------------------------------------


def _wrong(name: str, expected: str, value: object) -> UserError:
    return UserError(f"attribute {name} must be {expected}, not {value!r}")


def integer(attributes: Attributes, name: str) -> int:
    """The integer attribute ``name``; :class:`UserError` if it is something else."""
    value = attributes[name]
    if type(value) is not int:
        raise _wrong(name, "an integer", value)
    return value


def flag(attributes: Attributes, name: str) -> bool:
    """The bool attribute ``name``; :class:`UserError` if it is something else."""
    value = attributes[name]
    if type(value) is not bool:
        raise _wrong(name, "true or false", value)
    return value


def text(attributes: Attributes, name: str, choices: Sequence[str] = ()) -> str:
    """The string attribute ``name``, one of ``choices`` if any; :class:`UserError` if it is something else."""
    value = attributes[name]
    if type(value) is not str or (choices and value not in choices):
        raise _wrong(name, "one of " + ", ".join(map(repr, choices)) if choices else "a string", value)
    return value


def dtype(attributes: Attributes, name: str = "dtype") -> DType:
    """The dtype attribute ``name``; :class:`UserError` if it is something else."""
    value = attributes[name]
    if not isinstance(value, DType):
        raise _wrong(name, "a dtype", value)
    return value


def tensor_type(attributes: Attributes, name: str = "type") -> TensorType:
    """The tensor type attribute ``name``; :class:`UserError` if it is something else."""
    value = attributes[name]
    if not isinstance(value, TensorType):
        raise _wrong(name, "a tensor type", value)
    return value


def dim(attributes: Attributes, name: str) -> Dim:
    """The attribute ``name``, an integer or symbolic dimension; :class:`UserError` if it is something else."""
    value = attributes[name]
    if type(value) is int or isinstance(value, Expr):
        return value
    raise _wrong(name, "a dimension", value)


def sequence(attributes: Attributes, name: str) -> tuple[Attribute, ...]:
    """The attribute ``name``, a list; :class:`UserError` if it is something else."""
    value = attributes[name]
    if not isinstance(value, tuple):
        raise _wrong(name, "a list", value)
    return value


def integers(attributes: Attributes, name: str) -> tuple[int, ...]:
    """The attribute ``name``, a list of integers; :class:`UserError` if it is something else."""
    values = sequence(attributes, name)
    found = tuple(v for v in values if type(v) is int)
    if len(found) != len(values):
        raise _wrong(name, "a list of integers", values)
    return found


def dims(attributes: Attributes, name: str) -> tuple[Dim, ...]:
    """The attribute ``name``, a list of dimensions; :class:`UserError` if it is something else."""
    values = sequence(attributes, name)
    found = tuple(v for v in values if type(v) is int or isinstance(v, Expr))
    if len(found) != len(values):
        raise _wrong(name, "a list of dimensions", values)
    return found


def shape(attributes: Attributes, name: str = "shape") -> tuple[Dim, ...]:
    """The attribute ``name``, a list of sizes; :class:`ShapeError` if one is provably negative."""
    found = dims(attributes, name)
    for size in found:
        if provably_less(size, 0):
            raise ShapeError(f"{name} [{listed(found)}] has a negative size")
    return found


# -- dimensions --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def provably_less(a: Dim, b: Dim) -> bool:
    """Whether ``a < b`` for all values of their symbols, as far as can be told."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    high = bounds(a - b, {})[1]
    return high is not None and high < 0


def provably_different(a: Dim, b: Dim) -> bool:
    """Whether no values of their symbols make ``a`` and ``b`` equal, as far as can be told."""
    return a != b and (provably_less(a, b) or provably_less(b, a))


def concrete(type_: TensorType) -> tuple[int, ...]:
    """The shape of a type without symbols; :class:`ShapeError` if it has some."""
    return tuple(evaluate(size, {}) for size in type_.shape)


def listed(values: Sequence[object]) -> str:
    """The values, separated by commas."""
    return ", ".join(map(str, values))


# -- type rules --------------------------------------------------------------------------------------------------


def require_kinds(name: str, types: Sequence[TensorType], kinds: frozenset[str]) -> None:
    """:class:`DTypeError` if an operand's dtype is not of ``kinds``."""
    for type_ in types:
        if type_.dtype.kind not in kinds:
            expected = _KIND_NAMES.get(kinds, " or ".join(sorted(kinds)))
            raise DTypeError(f"{name} takes {expected}, not {type_}", hint="convert it with .astype")


def require_same_dtype(name: str, types: Sequence[TensorType]) -> DType:
    """The operands' dtype; :class:`DTypeError` if they differ."""
    first = types[0].dtype
    if any(t.dtype is not first for t in types):
        raise DTypeError(f"{name} takes operands of one dtype, not {listed(types)}", hint="convert one with .astype")
    return first


def require_rank(name: str, type_: TensorType, rank: int) -> None:
    """:class:`ShapeError` unless ``type_`` has that rank."""
    if type_.rank != rank:
        raise ShapeError(
            f"{name} takes an operand of {rank} dimensions here, not {type_}",
            hint="reshape it, or give it axes of size 1: x[None]",
        )


def not_negative(sizes: Sequence[Dim]) -> Iterator[tuple[Dim, Dim]]:
    """Pairs that are equal where none of the sizes is negative."""
    return ((dim_max(size, 0), size) for size in sizes)


def common_shape(name: str, types: Sequence[TensorType]) -> tuple[Dim, ...]:
    """The shape of operands that must agree; of sizes that may be equal the known one, else the first, is kept.

    Raises :class:`ShapeError` for ranks that differ and sizes that cannot be equal.
    """
    first = types[0].shape
    if all(t.shape == first for t in types[1:]):
        return first
    if any(t.rank != len(first) for t in types):
        raise ShapeError(f"{name} takes operands of one shape, not {listed(types)}")
    result = list(first)
    for type_ in types[1:]:
        for i, size in enumerate(type_.shape):
            if provably_different(result[i], size):
                raise ShapeError(f"{name} takes operands of one shape, not {listed(types)}")
            if isinstance(size, int):
                result[i] = size
    return tuple(result)


def checked_axis(name: str, type_: TensorType, attributes: Attributes, attribute: str = "axis") -> int:
    """The attribute ``axis``, in 0..rank; :class:`ShapeError` if it is not."""
    axis = integer(attributes, attribute)
    if not 0 <= axis < type_.rank:
        raise ShapeError(f"{name} along axis {axis} of {type_}, which has {type_.rank} dimensions")
    return axis


def checked_axes(name: str, type_: TensorType, attributes: Attributes, attribute: str = "axes") -> tuple[int, ...]:
    """The attribute ``axes``, increasing and in 0..rank; :class:`ShapeError` if it is not."""
    axes = integers(attributes, attribute)
    if any(not 0 <= a < type_.rank for a in axes):
        raise ShapeError(f"{name} over axes [{listed(axes)}] of {type_}, which has {type_.rank} dimensions")
    if any(a >= b for a, b in pairwise(axes)):
        raise ShapeError(f"{name}: axes [{listed(axes)}] must be increasing, each given once")
    return axes


def require_dtypes(name: str, types: Sequence[TensorType], accepted: Sequence[DType]) -> None:
    """:class:`DTypeError` if an operand's dtype is none of ``accepted``."""
    for type_ in types:
        if type_.dtype not in accepted:
            raise DTypeError(f"{name} takes {listed(accepted)}, not {type_}", hint="convert it with .astype")


def map_rule(name: str, kinds: frozenset[str], gives: DType | None = None, *, only: Sequence[DType] = ()) -> TypeRule:
    """The type rule of a map: operands of one shape and one dtype of ``kinds``; the result has it too, or ``gives``."""

    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        first = types[0]
        plain = gives is None and not only and first.layout is None and first.dtype.kind in kinds
        if plain and (len(types) == 1 or all(t == first for t in types)):
            return (first,)
        if only:
            require_dtypes(name, types, only)
        else:
            require_kinds(name, types, kinds)
        same = require_same_dtype(name, types)
        return (TensorType(gives or same, common_shape(name, types)),)

    return infer


# -- batching ----------------------------------------------------------------------------------------------------


def with_batch(b: GraphBuilder, x: Value, batched: bool, size: Dim) -> Value:
    """``x`` with a leading batch dimension: itself if ``batched``, else repeated ``size`` times."""
    return x if batched else b.broadcast(x, (size, *x.shape), tuple(range(1, len(x.shape) + 1)))


def map_batch(name: str) -> Batch:
    """Batching of an op that treats every element alike."""

    def batch(
        b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
    ) -> tuple[Value, ...]:
        values = [with_batch(b, x, has, size) for x, has in zip(operands, batched, strict=True)]
        return b.results(name, *values, attributes=attributes)

    return batch


def shifted_batch(name: str, shift: Callable[[Attributes, Dim], Attributes]) -> Batch:
    """Batching of an op that becomes the batched one when its attributes are changed by ``shift(attributes, size)``."""

    def batch(
        b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
    ) -> tuple[Value, ...]:
        values = [with_batch(b, x, has, size) for x, has in zip(operands, batched, strict=True)]
        return b.results(name, *values, attributes=shift(attributes, size))

    return batch


def shift_axis(attributes: Attributes, size: Dim) -> Attributes:
    """The attributes with ``axis`` one further to the right."""
    return {**attributes, "axis": integer(attributes, "axis") + 1}


def shift_axes(attributes: Attributes, size: Dim) -> Attributes:
    """The attributes with each of ``axes`` one further to the right."""
    return {**attributes, "axes": tuple(a + 1 for a in integers(attributes, "axes"))}


# -- errors ------------------------------------------------------------------------------------------------------

Floats = NDArray[np.float64]


def as_floats(x: Array) -> Floats:
    """``x`` in f64."""
    return np.asarray(x, dtype=np.float64)


def roundoff(x: Array) -> float:
    """Unit roundoff of the type in which arithmetic on the values of ``x`` is done; 0 for exact types."""
    found = from_numpy(x.dtype).compute
    return float_info(found)[0] if found.is_float else 0.0


def gamma(x: Array, n: int) -> float:
    """γ_n = n·u/(1 − n·u): bound on the relative error of ``n`` roundings in the type of ``x``.

    N. J. Higham, Accuracy and Stability of Numerical Algorithms, §3.1; infinite where ``n·u >= 1``.
    """
    product = n * roundoff(x)
    return product / (1 - product) if product < 1 else float("inf")
