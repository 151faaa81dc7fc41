"""Comparisons, choices and bits: exact by nature."""

from __future__ import annotations

from tgc.ir.pattern import Match, Rule


def _of_integers(m: Match) -> bool:
    return not m["x"].dtype.is_float


_NAN = "only nan differs from itself, and integers have none"
_SAME = "both are the same"
_BITS = "each bit by its truth table"

LOGIC: tuple[Rule, ...] = (
    Rule("eq(x, x)", "true", when=_of_integers, because=_NAN),
    Rule("le(x, x)", "true", when=_of_integers, because=_NAN),
    Rule("ge(x, x)", "true", when=_of_integers, because=_NAN),
    Rule("ne(x, x)", "is_nan(x)", when=lambda m: m["x"].dtype.is_float, because="it is the definition"),
    Rule("ne(x, x)", "false", when=_of_integers, because=_NAN),
    Rule("lt(x, x)", "false", because="nothing is less than itself, nan included"),
    Rule("gt(x, x)", "false", because="nothing is greater than itself, nan included"),
    Rule("logical_not(logical_not(x))", "x", because=_BITS),
    Rule("logical_not(eq(x, y))", "ne(x, y)", because="nan is not equal to anything, and is unequal to everything"),
    Rule("logical_not(ne(x, y))", "eq(x, y)", because="nan is not equal to anything, and is unequal to everything"),
    Rule("logical_not(lt(x, y))", "ge(x, y)", when=_of_integers, because="integers are ordered"),
    Rule("logical_not(ge(x, y))", "lt(x, y)", when=_of_integers, because="integers are ordered"),
    Rule("logical_not(gt(x, y))", "le(x, y)", when=_of_integers, because="integers are ordered"),
    Rule("logical_not(le(x, y))", "gt(x, y)", when=_of_integers, because="integers are ordered"),
    Rule("bitwise_not(bitwise_not(x))", "x", because=_BITS),
    Rule("bitwise_and(x, x)", "x", because=_BITS),
    Rule("bitwise_or(x, x)", "x", because=_BITS),
    Rule("bitwise_and(x, 0)", "0", because=_BITS),
    Rule("bitwise_or(x, 0)", "x", because=_BITS),
    Rule("bitwise_xor(x, 0)", "x", because=_BITS),
    Rule("bitwise_and(x, true)", "x", because=_BITS),
    Rule("bitwise_and(x, false)", "false", because=_BITS),
    Rule("bitwise_or(x, true)", "true", because=_BITS),
    Rule("bitwise_or(x, false)", "x", because=_BITS),
    Rule("bitwise_xor(x, false)", "x", because=_BITS),
    Rule("bitwise_xor(x, true)", "logical_not(x)", because=_BITS),
    Rule("bitwise_xor(bitwise_xor(x, y), y)", "x", because=_BITS),
    Rule("shift_left(x, 0)", "x", because="no bit moves"),
    Rule("shift_right(x, 0)", "x", because="no bit moves"),
    Rule("select(c, x, x)", "x", because=_SAME),
    Rule("select(true, x, y)", "x", because="the condition holds"),
    Rule("select(false, x, y)", "y", because="the condition does not hold"),
    Rule("select(c, true, false)", "c", because="it is the condition"),
    Rule("select(c, false, true)", "logical_not(c)", because="it is not the condition"),
    Rule("select(logical_not(c), x, y)", "select(c, y, x)", because="the other one is chosen"),
    Rule("select(c, select(c, x, y), z)", "select(c, x, z)", because="the condition is known there"),
    Rule("select(c, x, select(c, y, z))", "select(c, x, z)", because="the condition is known there"),
    Rule("is_nan(neg(x))", "is_nan(x)", because="the sign does not matter"),
    Rule("is_nan(abs(x))", "is_nan(x)", because="the sign does not matter"),
    Rule("is_inf(neg(x))", "is_inf(x)", because="the sign does not matter"),
    Rule("is_inf(abs(x))", "is_inf(x)", because="the sign does not matter"),
    Rule("is_finite(neg(x))", "is_finite(x)", because="the sign does not matter"),
    Rule("is_finite(abs(x))", "is_finite(x)", because="the sign does not matter"),
)
