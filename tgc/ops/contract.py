"""Sums of products over named indices: the two-operand einsum that every dense layer comes down to."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import f16, f32, f64, i8, i32
from tgc.errors import ShapeError
from tgc.ir.dims import Dim
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.rules import Floats


def common_dim(a: Dim, b: Dim, what: str) -> Dim:
    """The size that two dimensions have which must agree: the number, where one of them is a symbol.

    Raises :class:`ShapeError`, starting with ``what``, when they provably differ; the rest is checked at entry.

    >>> common_dim(4, 4, "rows")
    4
    """
    if a == b:
        return a
    if rules.provably_different(a, b):
        raise ShapeError(f"{what}: {a} against {b}", hint="the two sizes must be equal")
    return b if isinstance(b, int) else a


@dataclass(frozen=True, slots=True)
class Spec:
    """An einsum of two operands: the index letters of each and of the result.

    >>> Spec.parse("bmk,bkn->bmn").summed
    'k'
    """

    a: str
    b: str
    out: str

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(text: str) -> Spec:
        """Reads ``"mk,kn->mn"``. Raises :class:`ShapeError` for repeated letters and letters from nowhere."""
        operands, arrow, out = text.partition("->")
        a, comma, b = operands.partition(",")
        well_formed = arrow and comma and all(c in string.ascii_letters for c in a + b + out)
        if not well_formed or any(len(set(part)) < len(part) for part in (a, b, out)):
            raise ShapeError(
                f"contract: {text!r} is not a specification of two operands",
                hint='write one distinct letter per dimension, such as "bmk,bkn->bmn"',
            )
        unknown = sorted(set(out) - set(a) - set(b))
        if unknown:
            raise ShapeError(f"contract {text!r}: the result's index {unknown[0]!r} occurs in no operand")
        return Spec(a, b, out)

    @property
    def summed(self) -> str:
        """Letters that the result does not have, in order of occurrence."""
        return "".join(dict.fromkeys(c for c in self.a + self.b if c not in self.out))

    def sizes(self, a: Sequence[Dim], b: Sequence[Dim]) -> dict[str, Dim]:
        """The size of each letter, given the shapes of the operands; :class:`ShapeError` where they cannot agree."""
        for name, letters, shape in (("left", self.a, a), ("right", self.b, b)):
            if len(letters) != len(shape):
                raise ShapeError(
                    f"contract {str(self)!r}: the {name} operand has {len(shape)} dimensions, not {len(letters)}"
                )
        sizes: dict[str, Dim] = {}
        for letter, size in zip(self.a + self.b, (*a, *b), strict=True):
            sizes[letter] = common_dim(sizes.get(letter, size), size, f"contract {str(self)!r}: index {letter!r}")
        return sizes

    def __str__(self) -> str:
        return f"{self.a},{self.b}->{self.out}"


def _spec(attributes: Attributes) -> Spec:
    return Spec.parse(rules.text(attributes, "spec"))


def _infer(operands: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    rules.require_kinds("contract", operands, rules.NUMERIC)
    dtype = rules.require_same_dtype("contract", operands)
    a, b = operands
    spec = _spec(attributes)
    sizes = spec.sizes(a.shape, b.shape)
    return (TensorType(dtype, [sizes[c] for c in spec.out]),)


def _equalities(operands: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    spec = _spec(attributes)
    left = dict(zip(spec.a, operands[0].shape, strict=True))
    right = dict(zip(spec.b, operands[1].shape, strict=True))
    return ((left[c], right[c]) for c in left if c in right)


def _evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    a, b = operands
    # sums begin with +0, those of one product too
    return (np.einsum(rules.text(attributes, "spec"), a, b, optimize=True) + a.dtype.type(0),)


def _vjp(builder: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> Sequence[Value | None]:
    (g,) = cotangents
    if g is None:
        return (None, None)
    spec = _spec(node.attributes)
    a, b = node.operands
    return (
        _cotangent(builder, g, b, Spec(spec.out, spec.b, spec.a), a),
        _cotangent(builder, g, a, Spec(spec.out, spec.a, spec.b), b),
    )


def _cotangent(builder: GraphBuilder, g: Value, other: Value, spec: Spec, target: Value) -> Value:
    """The cotangent of ``target``: an index that neither ``g`` nor ``other`` has was summed alone, so it repeats."""
    kept = [i for i, c in enumerate(spec.out) if c in spec.a or c in spec.b]
    found = builder.contract(g, other, str(Spec(spec.a, spec.b, "".join(spec.out[i] for i in kept))))
    return builder.broadcast(found, target.shape, kept)


def bilinear_jvp(builder: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> Sequence[Value | None]:
    """f(da, b) + f(a, db) for an op that is linear in each of its two operands."""
    terms = []
    for i, tangent in enumerate(tangents):
        if tangent is not None:
            operands = [*node.operands[:i], tangent, *node.operands[i + 1 :]]
            terms.append(builder.op(node.op, *operands, attributes=node.attributes))
    if not terms:
        return (None,)
    return (terms[0] if len(terms) == 1 else builder.add(terms[0], terms[1]),)


def _batch(
    builder: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    spec = _spec(attributes)
    letter = next(c for c in string.ascii_letters if c not in spec.a + spec.b)
    a, b = (letter * has + letters for has, letters in zip(batched, (spec.a, spec.b), strict=True))
    return (builder.contract(operands[0], operands[1], str(Spec(a, b, letter + spec.out))),)


def bilinear_error(
    product: Callable[[Floats, Floats], Array],
    terms: int,
    operands: Sequence[Array],
    errors: Sequence[Array],
    result: Array,
) -> Array:
    """γ·(|a| + ea)(|b| + eb) + (|a| + ea)(|b| + eb) − |a||b| for a sum of ``terms`` products per result element.

    Holds for every order of summation, with and without fused multiply-add.
    """
    a, b = (np.abs(rules.as_floats(x)) for x in operands)
    disturbed = product(a + errors[0], b + errors[1])
    return np.asarray(rules.gamma(result, terms) * disturbed + (disturbed - product(a, b)))


def _error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    spec = _spec(attributes)
    sizes = dict(zip(spec.a + spec.b, (*operands[0].shape, *operands[1].shape), strict=True))

    def product(a: Floats, b: Floats) -> Array:
        return np.asarray(np.einsum(str(spec), a, b, optimize=True))

    return (bilinear_error(product, prod(sizes[c] for c in spec.summed), operands, errors, results[0]),)


_CONTRACT = OpDef(
    name="contract",
    doc="""Einsum of two operands (NumPy's ``einsum`` with an explicit result).

    ``spec`` names each dimension by a letter, ``"bmk,bkn->bmn"``. Letters that the result lacks are summed. Floats of
    16 bits are accumulated in f32 and rounded once, f32 and f64 in their own dtype; integers wrap. An empty sum is 0.
    Raises ShapeError where sizes of one letter differ, DTypeError for operands of different dtypes or bool.""",
    kind=OpKind.CONTRACT,
    operands=2,
    infer=_infer,
    attributes={"spec": AttributeSpec("index letters of both operands and the result")},
    evaluate=_evaluate,
    vjp=_vjp,
    jvp=bilinear_jvp,
    batch=_batch,
    error=_error,
    equalities=_equalities,
    cases=(
        ((TensorType(f32, (5, 7)), TensorType(f32, (7, 3))), {"spec": "mk,kn->mn"}),
        ((TensorType(f32, (2, 5, 7)), TensorType(f32, (2, 3, 7))), {"spec": "bmk,bnk->bnm"}),
        ((TensorType(f64, (4,)), TensorType(f64, (4,))), {"spec": "i,i->"}),
        ((TensorType(f32, (3,)), TensorType(f32, (4,))), {"spec": "i,j->ji"}),
        ((TensorType(f32, (3, 2)), TensorType(f32, (3, 4, 5))), {"spec": "is,itj->ij"}),
        ((TensorType(f16, (3, 6)), TensorType(f16, (6,))), {"spec": "ik,k->i"}),
        ((TensorType(f32, (3, 0)), TensorType(f32, (0, 2))), {"spec": "ik,kj->ij"}),
        ((TensorType(i32, (2, 3)), TensorType(i32, (3, 2))), {"spec": "ik,kj->ij"}),
        ((TensorType(i8, (2, 9)), TensorType(i8, (9, 2))), {"spec": "ik,kj->ij"}),
    ),
)

OPS_CONTRACT: tuple[OpDef, ...] = (_CONTRACT,)
