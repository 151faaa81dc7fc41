"""Arithmetic that is the same bit for bit: ±0, infinities and nan included, integers wrapping."""

from __future__ import annotations

from math import frexp

from tgc.ir.builder import Builder
from tgc.ir.graph import Value
from tgc.ir.opdef import float_info
from tgc.ir.pattern import Match, Rule


def is_float(m: Match) -> bool:
    """Whether the result is of floats."""
    return m.root.dtype.is_float


def is_integer(m: Match) -> bool:
    """Whether the result is of integers."""
    return m.root.dtype.is_integer


def _is_signed(m: Match) -> bool:
    return m.root.dtype.kind != "uint"


def times_reciprocal(b: Builder, m: Match) -> Value | None:
    """x · (1 / c) for a captured number c, where both c and 1 / c are normal."""
    c = m.number("c")
    unit, smallest = float_info(m.root.dtype)
    least_normal = smallest / (2 * unit)
    if not least_normal <= abs(c) <= 1 / least_normal:
        return None
    return b.mul(m["x"], b.full_like(m.root, 1 / c))


def sum_of_numbers(b: Builder, m: Match) -> Value:
    """x + (c + d)."""
    return b.add(m["x"], b.add(b.full_like(m.root, m.number("c")), b.full_like(m.root, m.number("d"))))


def product_of_numbers(b: Builder, m: Match) -> Value:
    """x · (c · d)."""
    return b.mul(m["x"], b.mul(b.full_like(m.root, m.number("c")), b.full_like(m.root, m.number("d"))))


_SIGN = "negation flips the sign bit, and rounding is symmetric"
_INTEGRAL = "the inner result is an integer already, or infinite or nan"
_ROUNDINGS = ("floor", "ceil", "trunc", "round")

ARITHMETIC: tuple[Rule, ...] = (
    Rule("neg(neg(x))", "x", because=_SIGN),
    Rule("sub(x, neg(y))", "add(x, y)", because=_SIGN),
    Rule("add(x, neg(y))", "sub(x, y)", because=_SIGN),
    Rule("mul(neg(x), neg(y))", "mul(x, y)", because=_SIGN),
    Rule("div(neg(x), neg(y))", "div(x, y)", because=_SIGN),
    Rule("square(neg(x))", "square(x)", because=_SIGN),
    Rule("square(abs(x))", "square(x)", because=_SIGN),
    Rule("abs(neg(x))", "abs(x)", when=_is_signed, because=_SIGN),
    Rule("abs(abs(x))", "abs(x)", because="the sign bit is clear already"),
    Rule("sign(sign(x))", "sign(x)", because="the sign of -1, 0, 1 and nan is itself"),
    Rule("add(x, -0.0)", "x", because="x + -0 is x, of both zeros too"),
    Rule("sub(x, 0)", "x", because="x - 0 is x, of both zeros too"),
    Rule("sub(-0.0, x)", "neg(x)", because="-0 - x is -x, of both zeros too"),
    Rule("add(x, 0)", "x", when=is_integer, because="floats turn -0 into 0, integers have one zero"),
    Rule("sub(0, x)", "neg(x)", when=is_integer, because="floats have 0 - 0 = 0, integers have one zero"),
    Rule("sub(x, x)", "0", when=is_integer, because="integers have neither inf nor nan"),
    Rule("mul(x, 0)", "0", when=is_integer, because="integers have neither inf nor nan"),
    Rule("mul(x, 1)", "x", because="multiplication by 1 is exact"),
    Rule("mul(x, -1)", "neg(x)", because="multiplication by -1 is exact"),
    Rule("div(x, 1)", "x", because="division by 1 is exact"),
    Rule("div(x, -1)", "neg(x)", because="division by -1 is exact"),
    Rule("div(1, x)", "reciprocal(x)", because="it is the definition"),
    Rule(
        "div(x, $c)",
        times_reciprocal,
        when=lambda m: abs(frexp(m.number("c"))[0]) == 0.5,
        because="the reciprocal of a power of two is exact, and so one rounding remains",
    ),
    Rule("mul(x, x)", "square(x)", because="it is the definition"),
    Rule("floor_divide(x, 1)", "x", when=is_integer, because="division by 1 is exact"),
    Rule("remainder(x, 1)", "0", when=is_integer, because="1 divides every integer"),
    Rule("add(add(x, $c), $d)", sum_of_numbers, when=is_integer, because="integers wrap: addition is associative"),
    Rule("mul(mul(x, $c), $d)", product_of_numbers, when=is_integer, because="integers wrap: so is multiplication"),
    Rule("maximum(x, x)", "x", because="the larger of one number"),
    Rule("minimum(x, x)", "x", because="the smaller of one number"),
    Rule("maximum(x, 0)", "relu(x)", when=is_float, because="it is the definition"),
    Rule("relu(relu(x))", "relu(x)", because="it is not negative already"),
    Rule("relu(abs(x))", "abs(x)", because="it is not negative already"),
    Rule("copysign(x, x)", "x", because="it has that sign already"),
    Rule("abs(relu(x))", "relu(x)", because="it is not negative already"),
    *(Rule(f"{outer}({inner}(x))", f"{inner}(x)", because=_INTEGRAL) for outer in _ROUNDINGS for inner in _ROUNDINGS),
)
