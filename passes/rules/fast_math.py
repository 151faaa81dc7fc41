"""What holds for real numbers and is not bit for bit so for floats: applied only where ``fast-math`` is asked for."""

from __future__ import annotations

from passes.rules.arithmetic import is_float, product_of_numbers, sum_of_numbers, times_reciprocal
from tgc.ir.pattern import Replacement, Rule

_REAL = "true of real numbers"
_ORDER = "associative in real numbers"


def _fast(pattern: str, replacement: Replacement, because: str = _REAL) -> Rule:
    return Rule(pattern, replacement, when=is_float, exact=False, because=because)


FAST_MATH: tuple[Rule, ...] = (
    _fast("add(x, 0)", "x", "apart from the sign of zero"),
    _fast("sub(0, x)", "neg(x)", "apart from the sign of zero"),
    _fast("mul(x, 0)", "0", "apart from the sign of zero, inf and nan"),
    _fast("sub(x, x)", "0", "apart from inf and nan"),
    _fast("div(x, x)", "1", "apart from 0, inf and nan"),
    _fast("div(x, $c)", times_reciprocal, "a product is faster, and rounded twice"),
    _fast("add(add(x, $c), $d)", sum_of_numbers, _ORDER),
    _fast("mul(mul(x, $c), $d)", product_of_numbers, _ORDER),
    _fast("add(mul(x, y), mul(x, z))", "mul(x, add(y, z))", "distributive in real numbers"),
    _fast("sub(mul(x, y), mul(x, z))", "mul(x, sub(y, z))", "distributive in real numbers"),
    _fast("div(div(x, y), z)", "div(x, mul(y, z))"),
    _fast("mul(x, reciprocal(y))", "div(x, y)"),
    _fast("mul(x, rsqrt(x))", "sqrt(x)"),
    _fast("div(x, sqrt(y))", "mul(x, rsqrt(y))"),
    _fast("reciprocal(sqrt(x))", "rsqrt(x)"),
    _fast("reciprocal(reciprocal(x))", "x"),
    _fast("square(sqrt(x))", "x"),
    _fast("sqrt(square(x))", "abs(x)"),
    _fast("exp(log(x))", "x"),
    _fast("log(exp(x))", "x"),
    _fast("mul(exp(x), exp(y))", "exp(add(x, y))"),
    _fast("reciprocal(exp(x))", "exp(neg(x))"),
    _fast("pow(x, 2)", "square(x)"),
    _fast("pow(x, 3)", "mul(x, square(x))"),
    _fast("pow(x, 0.5)", "sqrt(x)"),
    _fast("pow(x, -1)", "reciprocal(x)"),
    _fast("pow(x, -0.5)", "rsqrt(x)"),
)
