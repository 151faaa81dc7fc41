import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tgc.errors import ParseError, ShapeError
from tgc.ir.dims import (
    Dim,
    Expr,
    bounds,
    dim_max,
    dim_min,
    divisible,
    evaluate,
    parse_dim,
    parse_dims,
    product,
    provably_equal,
    substitute,
    symbol,
    symbols,
)

n, h, w = symbol("n"), symbol("h"), symbol("w")
Meaning = Callable[[dict[str, int]], int]
NAMES = ("n", "h", "w")
values = st.fixed_dictionaries({name: st.integers(0, 40) for name in NAMES})


def _binary(draw: st.DrawFn, left: tuple[Dim, Meaning], right: tuple[Dim, Meaning]) -> tuple[Dim, Meaning]:
    (a, f), (b, g) = left, right
    op = draw(st.sampled_from(["+", "-", "*", "//", "%", "max", "min"]))
    if op in ("//", "%") and isinstance(b, int):
        b = abs(b) + 1
        return (a // b, lambda e: f(e) // b) if op == "//" else (a % b, lambda e: f(e) % b)
    make, meaning = {
        "+": (lambda: a + b, lambda e: f(e) + g(e)),
        "-": (lambda: a - b, lambda e: f(e) - g(e)),
        "*": (lambda: a * b, lambda e: f(e) * g(e)),
        "//": (lambda: a // b, lambda e: f(e) // _positive(g(e))),
        "%": (lambda: a % b, lambda e: f(e) % _positive(g(e))),
        "max": (lambda: dim_max(a, b), lambda e: max(f(e), g(e))),
        "min": (lambda: dim_min(a, b), lambda e: min(f(e), g(e))),
    }[op]
    try:
        return make(), meaning
    except ShapeError:
        # a divisor that is never positive, such as -2*n
        assume(False)
        raise


def _positive(divisor: int) -> int:
    if divisor <= 0:
        raise ZeroDivisionError
    return divisor


@st.composite
def dims(draw: st.DrawFn, depth: int = 4) -> tuple[Dim, Meaning]:
    """A dimension made by the operators, and the function that it must be."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        if draw(st.booleans()):
            constant = draw(st.integers(-3, 9))
            return constant, lambda _: constant
        name = draw(st.sampled_from(NAMES))
        return symbol(name), lambda e: e[name]
    return _binary(draw, draw(dims(depth=depth - 1)), draw(dims(depth=depth - 1)))


def meant(meaning: Meaning, env: dict[str, int]) -> int:
    try:
        return meaning(env)
    except ZeroDivisionError:
        assume(False)
        raise


@settings(max_examples=400, deadline=None)
@given(dims(), values)
def test_folding_keeps_the_value(case: tuple[Dim, Meaning], env: dict[str, int]) -> None:
    d, meaning = case
    expected = meant(meaning, env)
    assert evaluate(d, env) == expected


@settings(max_examples=300, deadline=None)
@given(dims())
def test_text_is_read_back_as_the_same_dimension(case: tuple[Dim, Meaning]) -> None:
    d, _ = case
    assert parse_dim(str(d)) == d
    assert str(parse_dim(str(d))) == str(d)


@settings(max_examples=300, deadline=None)
@given(dims(), values)
def test_bounds_hold(case: tuple[Dim, Meaning], env: dict[str, int]) -> None:
    d, meaning = case
    value = meant(meaning, env)
    for ranges in ({}, {name: (value_, value_ + 3) for name, value_ in env.items()}):
        low, high = bounds(d, ranges)
        assert low is None or low <= value
        assert high is None or value <= high


@settings(max_examples=200, deadline=None)
@given(dims(depth=3), dims(depth=2), values)
def test_substitution_commutes_with_evaluation(
    case: tuple[Dim, Meaning], inner: tuple[Dim, Meaning], env: dict[str, int]
) -> None:
    inside = meant(inner[1], env)
    assume(inside >= 0)
    expected = meant(case[1], {**env, "n": inside})
    assert evaluate(substitute(case[0], {"n": inner[0]}), env) == expected


@settings(max_examples=200, deadline=None)
@given(dims(depth=3), dims(depth=3), values)
def test_what_is_called_equal_is_equal(
    left: tuple[Dim, Meaning], right: tuple[Dim, Meaning], env: dict[str, int]
) -> None:
    if provably_equal(left[0], right[0]):
        assert meant(left[1], env) == meant(right[1], env)
    assert provably_equal(left[0] + right[0], right[0] + left[0])


@settings(max_examples=200, deadline=None)
@given(dims(depth=3), dims(depth=3), dims(depth=3))
def test_sums_and_products_have_one_form(
    a: tuple[Dim, Meaning], b: tuple[Dim, Meaning], c: tuple[Dim, Meaning]
) -> None:
    assert (a[0] + b[0]) * c[0] == c[0] * b[0] + a[0] * c[0]
    assert a[0] - a[0] == 0
    assert dim_max(a[0], b[0]) == dim_max(b[0], a[0])


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        ((2 * n) // 2, "n"),
        ((4 * n + 2) % 2, "0"),
        ((4 * n + 2) // 4, "n"),
        ((2 * n + 1) // 4, "n//2"),
        (n * 0, "0"),
        (n - n, "0"),
        (dim_max(n, 0), "n"),
        (dim_min(n, n + 1), "n"),
        (dim_max(2 * n, dim_max(n, h)), "max(2*n,h)"),
        (dim_max(n - n // 2, 0), "n-(n//2)"),
        ((6 * n * h) // (2 * n), "3*h"),
        ((6 * n * h * w) // (4 * h * n), "w+w//2"),
        ((n * (2 * h + 1)) // (2 * h + 1), "n"),
        ((n * h + 3) // n, "3//n+h"),
        ((n * n - 1) // (n + 1), "n-1"),
        ((n // 2) // 3, "n//6"),
        ((n // 2 + h) // 3, "(2*h+n)//6"),
        (-(-n // 4), "(n+3)//4"),
        (-n % 4, "(-n)%4"),
        ((n % 8 + h) % 4, "(h+n)%4"),
        ((n % 4) // 4, "0"),
        ((6 * n + 3) % 4, "2*((n+1)%2)+1"),
        (n % 1, "0"),
        (n // 1, "n"),
        ((n + 1) * (n - 1), "n*n-1"),
        (5 * (n // 4) - 3, "5*(n//4)-3"),
        ((n // h) // w, "(n//h)//w"),
        ((-5) // n, "(-5)//n"),
    ],
)
def test_canonical_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


def test_constants_are_ints() -> None:
    assert type(n - n + 3) is int
    assert type((4 * n) % 4) is int
    assert type(product([2, 3])) is int
    assert product([]) == 1
    assert product([n, 2, h]) == 2 * h * n


def test_padding_to_a_multiple_is_seen_to_be_one() -> None:
    assert divisible((n + 15) // 16 * 16, 16)
    assert divisible(n * h, h)
    assert not divisible(n, 2)
    assert provably_equal(n // 4 * 4 + n % 4, n)
    assert not provably_equal(n, h)


def test_ranges_sharpen_bounds() -> None:
    assert bounds(n // 4, {"n": (8, 15)}) == (2, 3)
    assert bounds(n * h, {"n": (1, 4), "h": (2, 3)}) == (2, 12)
    assert bounds(dim_min(n, 64), {}) == (0, 64)
    assert bounds(n - h, {}) == (None, None)
    assert bounds(n % 16, {"n": (0, 7)}) == (0, 7)


def test_symbols_are_found_everywhere() -> None:
    assert symbols(dim_max(n, h // (w + 1)) + 1) == {"n", "h", "w"}
    assert symbols(7) == frozenset()


@pytest.mark.parametrize("divide", [lambda: n // 0, lambda: n % -2, lambda: n // -1])
def test_division_by_a_constant_that_is_not_positive_is_refused(divide: Callable[[], Dim]) -> None:
    with pytest.raises(ShapeError, match="divided by"):
        divide()


def test_evaluation_names_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match="h is not known"):
        evaluate(n + h, {"n": 1})
    with pytest.raises(ShapeError, match="divisor is 0"):
        evaluate(7 // n, {"n": 0})
    assert evaluate(n * n * n, {"n": 1 << 40}) == 1 << 120


@pytest.mark.parametrize("name", ["", "2n", "a-b", "max", "é", "a b"])
def test_names_that_text_could_not_hold_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="no name for a dimension"):
        symbol(name)


@pytest.mark.parametrize(
    "text",
    [
        "", "n +", "(n", "n)", "n n", "2 ** n", "n // 0", "n % (1 - 1)", "max(n", "max", "n, h", "é", "n @ 2", "max(,)",
        "9" * 5000, "(" * 5000, "-" * 5000 + "n", "max(" * 500 + "n", "*".join(["9999999999999"] * 400),
        "*".join(["(a+b+c+d)"] * 200), "n" + "+n" * 100_000,
    ],
)  # fmt: skip
def test_malformed_text_is_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_dim(text)


def test_lists_of_dimensions() -> None:
    assert parse_dims("") == ()
    assert parse_dims(" batch , max(h, 3), 2*h+1 ") == (symbol("batch"), dim_max(h, 3), 2 * h + 1)


def test_dimensions_survive_copying() -> None:
    d = dim_max(n // 3, h) * 2 + 1
    assert isinstance(d, Expr)
    assert pickle.loads(pickle.dumps(d)) == d == copy.deepcopy(d)
    assert hash(pickle.loads(pickle.dumps(d))) == hash(d)
    assert d != 1
    assert d != "2*max(h,n//3)+1"
