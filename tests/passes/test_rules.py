"""Every rewrite rule, on every dtype that takes it, on edge values: exact rules keep every bit."""

from itertools import product
from math import inf, nan

import numpy as np
import pytest

from passes.instruments import same_bits, within
from passes.rules import ALGEBRAIC
from tgc.dtypes import DTYPES, DType, bool_
from tgc.errors import DTypeError
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Function, Graph, Value, parameter
from tgc.ir.pattern import Capture, Expression, Filled, Match, Rule, build, captures
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.reference import run

NUMBERS = (2.0, -0.25, 3.0, 2.0**-140, 0.0, -1.0)


def edges(dtype: DType) -> Array:
    """Zeros, ones, extremes, what overflows and underflows, infinities and nan."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        values = {0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1, *((-1, -2, -7) if info.min else ())}
        return np.array(sorted(values), dtype.numpy)
    tiny = {"bf16": 2.0**-133, "f16": 2.0**-24, "f32": 2.0**-149, "f64": 5e-324}[dtype.name]
    huge = {"bf16": 3e38, "f16": 6e4, "f32": 3e38, "f64": 1e308}[dtype.name]
    positive = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 0.1, tiny, 3 * tiny, huge, inf, nan]
    return np.array([*positive, *(-v for v in positive)]).astype(dtype.numpy)


def choices(expression: Expression) -> frozenset[str]:
    """The names of captures that are the condition of a select."""
    if isinstance(expression, (Capture, Filled)):
        return frozenset()
    found = frozenset[str]().union(*map(choices, expression.operands))
    first = expression.operands[0]
    return found | {first.name} if expression.op == "select" and isinstance(first, Capture) else found


def instances(rule: Rule, dtype: DType) -> list[tuple[Value, Value, dict[str, Value]]]:
    """Pattern and replacement on parameters of ``dtype``, with several numbers where the rule captures some."""
    names = captures(rule.expression)
    free = sorted(name for name in names if not name.startswith("$"))
    conditions = choices(rule.expression) | ({"c"} if "logical_not(c)" in rule.pattern else set())
    size = len(edges(dtype)) ** len([n for n in free if n not in conditions])
    size *= 2 ** len([n for n in free if n in conditions])
    values = {n: parameter(i, TensorType(bool_ if n in conditions else dtype, (size,))) for i, n in enumerate(free)}
    beside = next((v for n, v in values.items() if n not in conditions), None)
    numbered = sorted(name[1:] for name in names if name.startswith("$"))
    found = []
    for numbers in product(NUMBERS, repeat=len(numbered)):
        b = Builder(OPS)
        kind = float if dtype.is_float else int
        if not dtype.is_float and any(n != int(n) or (n < 0 and dtype.kind == "uint") for n in numbers):
            continue
        attributes = {
            n: float(dtype.numpy.type(x)) if dtype.is_float else kind(x) for n, x in zip(numbered, numbers, strict=True)
        }
        root = beside if beside is not None else next(iter(values.values()))
        try:
            pattern = build(rule.expression, b, Match(root, values, attributes))
        except (DTypeError, OverflowError):
            continue
        replacement = rule.apply(b, pattern)
        if replacement is not None:
            found.append((pattern, replacement, values))
    return found


def arrays(values: dict[str, Value], dtype: DType, domain: Array | None = None) -> list[Array]:
    each = [
        np.array([False, True]) if v.dtype is bool_ and dtype is not bool_ else edges(v.dtype) for v in values.values()
    ]
    if domain is not None:
        each = [domain if v.dtype is dtype else e for v, e in zip(values.values(), each, strict=True)]
    return [np.asarray(column).reshape(-1) for column in np.meshgrid(*each, indexing="ij")]


EXACT = [rule for rule in ALGEBRAIC if rule.exact]
INEXACT = [rule for rule in ALGEBRAIC if not rule.exact]


@pytest.mark.parametrize("rule", EXACT, ids=lambda r: r.pattern)
def test_exact_rules_keep_every_bit(rule: Rule) -> None:
    tried = 0
    for dtype in DTYPES.values():
        for pattern, replacement, values in instances(rule, dtype):
            graph = Graph(tuple(values.values()), (pattern, replacement))
            (before, after), _ = run(Function("rule", graph), arrays(values, dtype))
            assert same_bits(before, after), dtype
            tried += 1
    assert tried, "the rule applies to no dtype"


@pytest.mark.parametrize("rule", INEXACT, ids=lambda r: r.pattern)
def test_inexact_rules_hold_for_real_numbers(rule: Rule) -> None:
    """Of 53 bits, the roundings of a few operations leave more than 30 on numbers of moderate size."""
    tried = 0
    dtype = DTYPES["f64"]
    domain = np.resize(np.array([0.5, 0.75, 1.0, 1.3, 2.0, 3.7]), len(edges(dtype)))
    for pattern, replacement, values in instances(rule, dtype):
        graph = Graph(tuple(values.values()), (pattern, replacement))
        (before, after), _ = run(Function("rule", graph), arrays(values, dtype, domain))
        assert within(before, after, 2.0**-30 * np.maximum(1, np.abs(before)))
        tried += 1
    assert tried, "the rule applies to no dtype"


def test_rules_are_said_once() -> None:
    seen = [(rule.pattern, rule.when) for rule in ALGEBRAIC]
    assert len(set(seen)) == len(seen)
