import math

import pytest

from tgc.dtypes import bool_, f32, i64
from tgc.errors import CompilerBug, ParseError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Value, parameter
from tgc.ir.pattern import Apply, Capture, Filled, Match, Rule, RuleSet, parse_expression, same_number
from tgc.ir.types import TensorType
from tgc.ops import OPS

n = symbol("n")
x, y, z = (parameter(i, TensorType(f32, (n, 4))) for i in range(3))


@pytest.fixture
def b() -> Builder:
    return Builder(OPS)


def test_text_is_parsed_to_a_tree() -> None:
    assert parse_expression('add(x, sum($c) {axes = a, keep = true, names = ["f32", f32]} #1)') == Apply(
        "add",
        (
            Capture("x"),
            Apply(
                "sum",
                (Filled(name="c"),),
                (("axes", Capture("a")), ("keep", (True,)), ("names", (("f32", f32),))),
                1,
            ),
        ),
    )
    assert parse_expression("-0") == Filled(-0.0)
    assert parse_expression("true") == Filled(True)
    assert parse_expression("-2.5e-3") == Filled(-0.0025)
    assert parse_expression("-inf") == Filled(-math.inf)


@pytest.mark.parametrize(
    "text", ["", "add(", "add(x", "add(x y)", "x)", "add(x) {a}", "add(x) #", "(" * 999, "a(" * 999]
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="<pattern>"):
        parse_expression(text)


def test_a_name_that_occurs_twice_is_one_value(b: Builder) -> None:
    rule = Rule("sub(x, x)", "0", because="equal numbers differ by 0", exact=False)
    assert rule.apply(b, b.sub(x, x)) == b.full_like(x, 0.0)
    assert rule.apply(b, b.sub(x, y)) is None


def test_numbers_are_told_apart_by_bits(b: Builder) -> None:
    rule = Rule("sub(x, 0)", "x", because="x - 0 is x, and -0 - 0 is -0")
    assert rule.apply(b, b.sub(x, b.full_like(x, 0.0))) == x
    assert rule.apply(b, b.sub(x, b.full_like(x, -0.0))) is None
    i = parameter(0, TensorType(i64, ()))
    assert rule.apply(b, b.sub(i, b.constant(0, i64))) == i
    assert same_number(math.nan, math.nan)
    assert not same_number(math.nan, 1.0)
    assert not same_number(1, True)


def test_commutative_ops_match_in_either_order(b: Builder) -> None:
    rule = Rule("add(mul(x, y), mul(x, z))", "mul(x, add(y, z))", exact=False, because="distributivity")
    expected = b.mul(x, b.add(y, z))
    assert rule.apply(b, b.add(b.mul(x, y), b.mul(x, z))) == expected
    assert rule.apply(b, b.add(b.mul(y, x), b.mul(x, z))) == expected
    assert rule.apply(b, b.add(b.mul(y, x), b.mul(z, x))) == expected
    assert rule.apply(b, b.add(b.mul(y, y), b.mul(z, x))) is None
    one = Rule("div(1, x)", "x", because="a test")
    assert one.apply(b, b.div(x, b.full_like(x, 1.0))) is None


def test_a_condition_chooses_among_matches(b: Builder) -> None:
    rule = Rule("add(x, y)", "neg(y)", when=lambda m: m["y"] == x, because="a test")
    assert rule.apply(b, b.add(x, z)) == b.neg(x)
    assert rule.apply(b, b.add(y, z)) is None


def test_attributes_are_captured_or_compared(b: Builder) -> None:
    rule = Rule("reshape(reshape(x)) {shape = s}", "reshape(x) {shape = s}", because="order is kept")
    twice = b.reshape(b.reshape(x, (2, 2 * n)), (4 * n,))
    assert rule.apply(b, twice) == b.reshape(x, (4 * n,))
    only = Rule("sum(x) {axes = [0]}", "sum(neg(x)) {axes = [0]}", because="a test")
    assert only.apply(b, b.sum(x, (0,))) == b.sum(b.neg(x), (0,))
    assert only.apply(b, b.sum(x, (1,))) is None
    same = Rule("sub(sum(x) {axes = a}, sum(y) {axes = a})", "sum(sub(x, y)) {axes = a}", exact=False, because="linear")
    assert same.apply(b, b.sub(b.sum(x, (0,)), b.sum(y, (0,)))) == b.sum(b.sub(x, y), (0,))
    square = (parameter(i, TensorType(f32, (n, n))) for i in range(2))
    first, second = square
    assert same.apply(b, b.sub(b.sum(first, (0,)), b.sum(second, (1,)))) is None


def test_replacements_may_be_computed(b: Builder) -> None:
    def folded(builder: Builder, m: Match) -> Value | None:
        factor = m.number("a") * m.number("c")
        return builder.mul(m["x"], builder.full_like(m["x"], factor)) if math.isfinite(factor) else None

    rule = Rule("mul(mul(x, $a), $c)", folded, exact=False, because="associativity")
    half, four = b.full_like(x, 0.5), b.full_like(x, 4.0)
    assert rule.apply(b, b.mul(b.mul(x, half), four)) == b.mul(x, b.full_like(x, 2.0))
    assert rule.apply(b, b.mul(b.mul(x, half), b.full_like(x, math.inf))) is None


def test_numbers_in_replacements_take_the_form_of_their_neighbour(b: Builder) -> None:
    rule = Rule("add(x, x)", "mul(x, 2)", because="doubling is exact")
    assert rule.apply(b, b.add(x, x)) == b.mul(x, b.full_like(x, 2.0))
    known = Rule("eq(x, x)", "true", exact=False, because="a test")
    result = known.apply(b, b.map("eq", x, x))
    assert result is not None
    assert result.type == TensorType(bool_, (n, 4))


def test_a_replacement_of_another_type_is_not_put_in(b: Builder) -> None:
    rule = Rule("reshape(x)", "x", because="the shape is the same")
    assert rule.apply(b, b.reshape(x, (4, n))) is None
    same = b.op("reshape", x, attributes={"shape": (n, 4)})
    assert rule.apply(b, same) == x


def test_a_rule_set_applies_the_first_rule_that_fits(b: Builder) -> None:
    exact = Rule("neg(neg(x))", "x", because="the sign flips twice")
    loose = Rule("neg(x)", "mul(x, -1)", exact=False, because="a test")
    value = b.neg(b.neg(x))
    assert RuleSet([exact, loose])(b, value.node) == (x,)
    assert RuleSet([exact, loose])(b, b.neg(y).node) is None
    assert RuleSet([exact, loose], fast_math=True)(b, b.neg(y).node) == (b.mul(y, b.full_like(y, -1.0)),)
    assert RuleSet([exact])(b, b.add(x, y).node) is None


def test_rules_with_loose_ends_are_bugs() -> None:
    with pytest.raises(CompilerBug, match="names that"):
        Rule("neg(x)", "y", because="a test")
    with pytest.raises(CompilerBug, match="is no op"):
        Rule("x", "x", because="a test")
