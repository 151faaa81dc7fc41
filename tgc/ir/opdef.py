"""What an operation is: one :class:`OpDef` holds everything that tgc knows of it.

The protocols here are what an op's rules receive, so that ops depend on nothing above them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from tgc.dtypes import DType
from tgc.ir.dims import Dim
from tgc.ir.graph import Array, Attribute, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.types import TensorType

Scalar: TypeAlias = Any  # what a ScalarBuilder passes around: an SSA value in a kernel, an array in a test


class ScalarBuilder(Protocol):
    """Arithmetic on the elements of a map, one method per machine operation.

    Works on whole vectors as well: every method is elementwise. bf16 and f16 are computed in f32 by the caller, so
    bodies see f32, f64, integers and bool only. Nothing here traps or is undefined: shifts beyond the width give 0 (or
    the sign), an integer divided by zero gives 0, conversion to an integer saturates and takes NaN to 0.
    """

    def dtype(self, x: Scalar) -> DType: ...
    def constant(self, value: bool | int | float, dtype: DType) -> Scalar: ...
    def add(self, a: Scalar, b: Scalar) -> Scalar: ...
    def sub(self, a: Scalar, b: Scalar) -> Scalar: ...
    def mul(self, a: Scalar, b: Scalar) -> Scalar: ...
    def div(self, a: Scalar, b: Scalar) -> Scalar: ...  # integers truncate
    def rem(self, a: Scalar, b: Scalar) -> Scalar: ...  # integers only; sign of the dividend
    def fma(self, a: Scalar, b: Scalar, c: Scalar) -> Scalar: ...
    def multiply_add(
        self, a: Scalar, b: Scalar, c: Scalar
    ) -> Scalar: ...  # fma where hardware has it, else rounds twice
    def neg(self, x: Scalar) -> Scalar: ...
    def abs(self, x: Scalar) -> Scalar: ...
    def sqrt(self, x: Scalar) -> Scalar: ...
    def floor(self, x: Scalar) -> Scalar: ...
    def ceil(self, x: Scalar) -> Scalar: ...
    def trunc(self, x: Scalar) -> Scalar: ...
    def round_even(self, x: Scalar) -> Scalar: ...
    def minimum(self, a: Scalar, b: Scalar) -> Scalar: ...  # IEEE 754-2019: NaN propagates, -0 < +0
    def maximum(self, a: Scalar, b: Scalar) -> Scalar: ...
    def compare(self, predicate: str, a: Scalar, b: Scalar) -> Scalar: ...  # eq ne lt le gt ge
    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar: ...
    # compute() where the condition holds, else otherwise; compute need not run where it holds in no lane
    def rarely(
        self, condition: Scalar, compute: Callable[[], tuple[Scalar, ...]], otherwise: tuple[Scalar, ...]
    ) -> tuple[Scalar, ...]: ...
    def bit_and(self, a: Scalar, b: Scalar) -> Scalar: ...  # integers and bool
    def bit_or(self, a: Scalar, b: Scalar) -> Scalar: ...
    def bit_xor(self, a: Scalar, b: Scalar) -> Scalar: ...
    def bit_not(self, x: Scalar) -> Scalar: ...
    def shift_left(self, a: Scalar, b: Scalar) -> Scalar: ...
    def shift_right(self, a: Scalar, b: Scalar) -> Scalar: ...  # arithmetic for signed, logical for unsigned
    def multiply_high(self, a: Scalar, b: Scalar) -> Scalar: ...  # upper half of the product, unsigned
    def convert(self, x: Scalar, dtype: DType) -> Scalar: ...
    def bitcast(self, x: Scalar, dtype: DType) -> Scalar: ...
    def math(self, name: str, *arguments: Scalar) -> Scalar: ...  # a function of tgc.kernels.vector_math


class GraphBuilder(Protocol):
    """Makes nodes: what gradients, batching rules and composite bodies call (implemented by tgc.ir.builder.Builder)."""

    def op(
        self, name: str, *operands: Value, attributes: Attributes = ..., regions: tuple[Graph, ...] = ...
    ) -> Value: ...
    def results(
        self, name: str, *operands: Value, attributes: Attributes = ..., regions: tuple[Graph, ...] = ...
    ) -> tuple[Value, ...]: ...
    def constant(self, value: bool | int | float, dtype: DType) -> Value: ...  # rank 0
    def full(self, value: bool | int | float, shape: Sequence[Dim], dtype: DType) -> Value: ...
    def full_like(self, x: Value, value: bool | int | float) -> Value: ...
    def cast(self, x: Value, dtype: DType) -> Value: ...
    def broadcast_to(self, x: Value, shape: Sequence[Dim]) -> Value: ...  # NumPy rules: trailing dimensions align
    def broadcast(self, x: Value, shape: Sequence[Dim], axes: Sequence[int]) -> Value: ...  # operand dim i -> axes[i]
    def reshape(self, x: Value, shape: Sequence[Dim]) -> Value: ...
    def transpose(self, x: Value, permutation: Sequence[int]) -> Value: ...
    def sum(self, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value: ...
    def contract(self, a: Value, b: Value, spec: str) -> Value: ...
    def add(self, a: Value, b: Value) -> Value: ...  # the maps broadcast their operands to a common shape
    def sub(self, a: Value, b: Value) -> Value: ...
    def mul(self, a: Value, b: Value) -> Value: ...
    def div(self, a: Value, b: Value) -> Value: ...
    def neg(self, x: Value) -> Value: ...
    def select(self, condition: Value, a: Value, b: Value) -> Value: ...


TypeRule: TypeAlias = Callable[[Sequence[TensorType], Attributes, Sequence[Graph]], tuple[TensorType, ...]]
Meaning: TypeAlias = Callable[[Sequence[Array], Attributes, Sequence[TensorType]], tuple[Array, ...]]
ScalarBody: TypeAlias = Callable[[ScalarBuilder, Sequence[Scalar], Attributes, DType], Scalar]
Body: TypeAlias = Callable[[GraphBuilder, Sequence[Value], Attributes], tuple[Value, ...]]
# (builder, node, cotangent of each result or None) -> cotangent of each operand or None
Vjp: TypeAlias = Callable[[GraphBuilder, Node, Sequence[Value | None]], Sequence[Value | None]]
# (builder, node, tangent of each operand or None) -> tangent of each result or None
Jvp: TypeAlias = Callable[[GraphBuilder, Node, Sequence[Value | None]], Sequence[Value | None]]
# (builder, operands, whether each has a leading batch dimension, attributes, batch size) -> results, all with one
Batch: TypeAlias = Callable[[GraphBuilder, Sequence[Value], Sequence[bool], Attributes, Dim], Sequence[Value]]
# (arrays of operands, absolute error of each, attributes, results) -> absolute error of each result, besides rounding
ErrorBound: TypeAlias = Callable[[Sequence[Array], Sequence[Array], Attributes, Sequence[Array]], Sequence[Array]]
# (operand types, attributes) -> pairs of dimensions that must be equal where the type rule cannot prove it
Equalities: TypeAlias = "Callable[[Sequence[TensorType], Attributes], Iterable[tuple[Dim, Dim]]]"
# one case of the contract test: operand types, attributes
Case: TypeAlias = "tuple[tuple[TensorType, ...], Attributes]"


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """An attribute of an op: what it means, and its value when absent (``required`` if it may not be)."""

    doc: str
    required: bool = True
    default: Attribute = None


@dataclass(frozen=True, kw_only=True)
class OpDef:
    """An operation, whole.

    ``operands``: how many, or None for any. ``infer`` raises ShapeError or DTypeError. ``evaluate`` is the meaning
    on NumPy arrays: floats of 32 bits and fewer arrive in f64 and are rounded once by the interpreter, everything else
    exactly as typed. Exactly one of ``scalar`` (MAP) and ``body`` (COMPOSITE) is given for those kinds. ``ulp``: bound
    on the error of the compiled op in units in the last place of the result, beyond the propagated error of its
    operands, 0 where it chooses among its operands and rounds nothing; ``error`` where that is not enough (sums,
    contractions). ``domain``: interval of each operand on which maps are tested. ``equalities``: sizes that the entry
    must check, since the type rule takes them for equal (for maps: all sizes). ``differentiable`` is False for ops
    whose gradient is zero or undefined everywhere (comparisons, integers).
    """

    name: str
    doc: str
    kind: OpKind
    operands: int | None
    infer: TypeRule
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)
    evaluate: Meaning | None = None
    scalar: ScalarBody | None = None
    body: Body | None = None
    vjp: Vjp | None = None
    jvp: Jvp | None = None
    batch: Batch | None = None
    ulp: float = 0.5
    error: ErrorBound | None = None
    equalities: Equalities | None = None
    domain: tuple[tuple[float, float], ...] = ()
    cases: tuple[Case, ...] = ()
    commutative: bool = False
    differentiable: bool = True
    # evaluating it at compile time gives the very bits that compiled code gives
    foldable: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)


OpTable: TypeAlias = Mapping[str, OpDef]

# what memory-plan adds to the attributes of control flow and fused regions: where results, regions and carries live
PLAN_ATTRIBUTES = frozenset({"places", "base", "next"})


def own_attributes(definition: OpDef, attributes: Attributes) -> frozenset[str]:
    """The names of a node's attributes without those of the memory plan."""
    return frozenset(attributes) - (PLAN_ATTRIBUTES if definition.kind is OpKind.CONTROL else frozenset())


def float_info(dtype: DType) -> tuple[float, float]:
    """(unit roundoff, smallest subnormal) of a float dtype: 2**-(p) for p bits of precision.

    >>> from tgc import dtypes
    >>> float_info(dtypes.f32)[0] == 2.0**-24
    True
    """
    precision, smallest = {"bf16": (8, 2.0**-133), "f16": (11, 2.0**-24), "f32": (24, 2.0**-149)}.get(
        dtype.name, (53, float(np.finfo(np.float64).smallest_subnormal))
    )
    return 2.0**-precision, smallest
