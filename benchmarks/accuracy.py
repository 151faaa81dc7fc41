"""`python -m benchmarks.accuracy`: the error of each elementwise function, in units in the last place (ulp).

f32: functions of one number on all 2^32 inputs, of two on random pairs, against the same function compiled in f64. That
one is held against mpmath on points that are dense where functions are hard; f16 and bf16, on all 2^16 inputs, against
f64 rounded. An error is infinite where a special value, or the sign of a zero, is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import ml_dtypes
import mpmath
import numpy as np
from numpy.typing import NDArray

import tgc

Array = NDArray[Any]
Exact = Callable[..., Any]

CHUNK = 1 << 22
# what mpmath computes, as far as it takes finite time
FUNCTIONS: Mapping[str, Exact] = MappingProxyType(
    {
        "sqrt": mpmath.sqrt,
        "reciprocal": lambda x: 1 / x,
        "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "exp": mpmath.exp,
        "exp2": lambda x: mpmath.power(2, x),
        "expm1": mpmath.expm1,
        "log": mpmath.log,
        "log2": lambda x: mpmath.log(x) / mpmath.log(2),
        "log10": lambda x: mpmath.log(x) / mpmath.log(10),
        "log1p": mpmath.log1p,
        "sin": mpmath.sin,
        "cos": mpmath.cos,
        "tan": mpmath.tan,
        "asin": mpmath.asin,
        "acos": mpmath.acos,
        "atan": mpmath.atan,
        "sinh": mpmath.sinh,
        "cosh": mpmath.cosh,
        "tanh": mpmath.tanh,
        "asinh": mpmath.asinh,
        "acosh": mpmath.acosh,
        "atanh": mpmath.atanh,
        "erf": mpmath.erf,
        "erfc": mpmath.erfc,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "divide": lambda x, y: x / y,
        "pow": mpmath.power,
        "atan2": mpmath.atan2,
        "hypot": mpmath.hypot,
        "logaddexp": lambda x, y: mpmath.log(mpmath.exp(x) + mpmath.exp(y)),
    }
)
PAIRS = ("divide", "pow", "atan2", "hypot", "logaddexp")
# where formulas change: quarters of turns, halves of powers of two and of e, bounds of polynomials, overflow
PLACES = (
    *(k * np.pi / 4 for k in range(1, 200)),
    *((k + 0.5) * np.log(2.0) for k in range(-45, 45)),
    *(2.0 ** (k / 2) for k in range(-120, 121)),
    *(0.3, 0.47, 0.75, 0.95, 1.5, 2.5, 4.0, 5.95, 10.0, 17.3, 26.5, 37.4, 88.7, 103.9, 708.4, 745.1),
)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, np.inf, -np.inf, np.nan, 1e-310, 5e-324, 1e308)


@dataclass(frozen=True)
class Errors:
    """Of a function in one dtype: the largest error and its arguments, and the mean.

    ``tried`` inputs gave ``count`` results that are numbers; ``misrounded`` is the share that is not the nearest float.
    """

    name: str
    dtype: str
    maximum: float
    mean: float
    worst: tuple[float, ...]
    tried: int
    count: int
    misrounded: float | None = None


@dataclass(frozen=True)
class Narrow:
    """A type of 16 bits: how many its mantissa stores, and its largest exponent."""

    dtype: type[np.generic]
    mantissa: int
    bias: int


NARROW = (Narrow(np.float16, 10, 15), Narrow(ml_dtypes.bfloat16, 7, 127))


def measured(name: str) -> Callable[..., tuple[Any, Any, Any, Any]]:
    """A compiled function of f32 arrays: the largest error, where it is, the sum of all, and how many are numbers."""
    function = getattr(tgc, name)
    top = 2.0**128

    def measure(*arguments: Any) -> tuple[Any, Any, Any, Any]:
        found, exact = function(*arguments), function(*(x.astype(tgc.f64) for x in arguments))
        # the unit is that of the binade of the exact value, at powers of two that of the smaller numbers below them
        size = tgc.minimum(tgc.abs(exact.astype(tgc.f32)), float(np.finfo(np.float32).max))
        wide = size.astype(tgc.f64)
        above = tgc.nextafter(size, tgc.full_like(size, np.inf)).astype(tgc.f64) - wide
        below = wide - tgc.nextafter(size, tgc.zeros_like(size)).astype(tgc.f64)
        unit = tgc.where((tgc.abs(exact) < wide) | tgc.isinf(above), below, above)
        result = found.astype(tgc.f64)
        # infinity is where the next float would be
        difference = tgc.abs(tgc.clip(result, -top, top) - tgc.clip(exact, -top, top)) / unit
        nan = tgc.isnan(exact)
        wrong = (tgc.isnan(found) != nan) | ((found == 0.0) & (tgc.signbit(found) != tgc.signbit(exact)) & ~nan)
        error = tgc.where(wrong, np.inf, tgc.where(nan, 0.0, difference))
        return tgc.max(error), tgc.argmax(error), tgc.sum(error), tgc.sum((~nan).astype(tgc.i64))

    compiled: Callable[..., tuple[Any, Any, Any, Any]] = tgc.jit(measure)
    return compiled


def every_input(step: int) -> Iterator[tuple[Array, ...]]:
    """All f32 numbers, or every ``step``-th in chunks."""
    for start in range(0, 1 << 32, CHUNK * step):
        yield (np.arange(start, start + CHUNK * step, step, dtype=np.uint64).astype(np.uint32).view(np.float32),)


def random_pairs(name: str, chunks: int) -> Iterator[tuple[Array, ...]]:
    """In turns: any bits, magnitudes around 1, and numbers near 1 beside numbers up to 1000.

    Those of logaddexp are not negative: where its terms cancel, the error is relative to them.
    """
    random = np.random.default_rng(0)
    for chunk in range(chunks):
        if chunk % 3 == 0:
            pair = random.integers(0, 1 << 32, (2, CHUNK), dtype=np.uint32).view(np.float32)
        elif chunk % 3 == 1:
            pair = np.exp2(random.uniform(-20.0, 7.0, (2, CHUNK))) * random.choice([-1.0, 1.0], (2, CHUNK))
        else:
            pair = np.array([random.uniform(0.5, 2.0, CHUNK), random.uniform(-1000.0, 1000.0, CHUNK)])
        x, y = pair.astype(np.float32)
        yield (np.abs(x), np.abs(y)) if name == "logaddexp" else (x, y)


def single(name: str, step: int) -> Errors:
    """The errors of f32."""
    measure = measured(name)
    chunks = (1 << 32) // (CHUNK * step)
    inputs = random_pairs(name, max(3, chunks // 16)) if name in PAIRS else every_input(step)
    worst: tuple[float, ...] = ()
    maximum, total, tried, count = -1.0, 0.0, 0, 0
    for arguments in inputs:
        largest, where, errors, numbers = (float(v) for v in measure(*arguments))
        if largest > maximum:
            maximum, worst = largest, tuple(float(x[int(where)]) for x in arguments)
        total, tried, count = total + errors, tried + CHUNK, count + int(numbers)
    return Errors(name, "f32", maximum, total / count, worst, tried, count)


def hard_points(count: int) -> Array:
    """f64 numbers of all exponents, of moderate size, and close to the places where formulas change."""
    random = np.random.default_rng(1)
    bits = random.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)
    near = np.array(PLACES)
    steps = random.integers(-40, 41, (max(1, count // near.size), near.size))
    places = (near.view(np.int64) + steps).view(np.float64).ravel()
    moderate = [random.uniform(-limit, limit, count // 2) for limit in (1.0, 8.0, 40.0)]
    signs = random.choice([-1.0, 1.0], places.size)
    return np.concatenate([bits, places * signs, *moderate, np.array(SPECIAL)])


def _feasible(name: str, arguments: Sequence[float], found: float) -> bool:
    """Whether mpmath can tell: results that over- or underflow are left to f32, where all of them are tried."""
    moderate = all(abs(x) < 2000.0 for x in arguments) or name not in ("exp", "exp2", "expm1", "sinh", "cosh", "erfc")
    inside = name not in ("pow", "logaddexp", "sigmoid") or all(1e-100 < abs(x) < 1e100 for x in arguments)
    # mpmath has one zero only
    return bool(
        np.isfinite(found) and all(map(np.isfinite, arguments)) and found and all(arguments) and moderate and inside
    )


def double(name: str, count: int) -> Errors:
    """The errors of f64 against mpmath."""
    points = hard_points(count)
    arguments = [points]
    if name in PAIRS:
        arguments.append(np.random.default_rng(2).permutation(points))
    if name == "logaddexp":
        arguments = [np.abs(x) for x in arguments]
    found = tgc.jit(getattr(tgc, name))(*arguments).numpy()
    worst: tuple[float, ...] = ()
    maximum, total, compared = 0.0, 0.0, 0
    for row in zip(*arguments, found, strict=True):
        *xs, y = map(float, row)
        if not _feasible(name, xs, y):
            continue
        with mpmath.workprec(120 if name != "logaddexp" else 2000):
            exact = FUNCTIONS[name](*map(mpmath.mpf, xs))
            exponent = max(int(mpmath.floor(mpmath.log(abs(exact), 2))), -1022)
            error = float(abs(exact - y) / mpmath.ldexp(1, exponent - 52))
        total, compared = total + error, compared + 1
        if error > maximum:
            maximum, worst = error, tuple(xs)
    return Errors(name, "f64", maximum, total / compared, worst, points.size, compared)


def narrow(name: str, format_: Narrow) -> Errors:
    """The errors of a type of 16 bits: all inputs, or for pairs all beside all others in random order."""
    dtype = format_.dtype
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    arguments = [every, np.random.default_rng(3).permutation(every)] if name in PAIRS else [every]
    if name == "logaddexp":
        arguments = [np.abs(x) for x in arguments]
    function = getattr(tgc, name)
    with np.errstate(all="ignore"):
        wide = [x.astype(np.float64) for x in arguments]
        found = tgc.jit(function)(*map(tgc.tensor, arguments)).numpy().astype(np.float64)
        exact = tgc.jit(function)(*wide).numpy()
        nearest = exact.astype(dtype).astype(np.float64)
        errors, same = _against(found, exact, nearest, format_)
    worst = int(np.argmax(errors))
    return Errors(
        name,
        str(np.dtype(dtype)),
        float(errors[worst]),
        float(errors.sum() / np.sum(~np.isnan(exact))),
        tuple(float(x[worst]) for x in wide),
        every.size,
        int(np.sum(~np.isnan(exact))),
        float(np.mean(~same)),
    )


def _against(found: Array, exact: Array, nearest: Array, format_: Narrow) -> tuple[Array, Array]:
    """The error of each result, and whether it is the nearest float."""
    nan = np.isnan(exact)
    signs = np.signbit(found) == np.signbit(exact)
    top = 2.0 ** (format_.bias + 1)
    exponent = np.minimum(np.frexp(np.where(nan, 1.0, np.clip(exact, -top, top)))[1] - 1, format_.bias)
    unit = np.exp2(np.maximum(exponent, 1 - format_.bias) - format_.mantissa)
    errors = np.abs(np.clip(found, -top, top) - np.clip(exact, -top, top)) / unit
    wrong = (np.isnan(found) != nan) | (found == 0) & ~signs & ~nan
    same = np.isnan(found) & nan | (found == nearest) & signs
    return np.where(wrong, np.inf, np.where(nan, 0.0, errors)), same


def table(results: Sequence[Errors]) -> str:
    """All results as Markdown, a row for each function."""
    titles = ("function", "f32 max", "f32 mean", "largest at", "inputs", "f64 max", "f64 mean")
    titles += ("f16 misrounded", "bf16 misrounded")
    lines = ["| " + " | ".join(titles) + " |", "| --- | ---: | ---: | --- |" + " ---: |" * (len(titles) - 4)]
    by_key = {(r.name, r.dtype): r for r in results}
    for name in dict.fromkeys(r.name for r in results):
        one, two = by_key[name, "f32"], by_key[name, "f64"]
        shares = [by_key[name, dtype].misrounded or 0.0 for dtype in ("float16", "bfloat16")]
        at = ", ".join(f"{x:.9g}" for x in one.worst)
        cells = [name, f"{one.maximum:.3f}", f"{one.mean:.3f}", at, f"2^{np.log2(one.tried):.0f}"]
        cells += [f"{two.maximum:.3f}", f"{two.mean:.3f}", *(f"{share:.3%}" for share in shares)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def kept(path: Path) -> list[Errors]:
    """The results that a run before this one has written."""
    entries = json.loads(path.read_text()) if path.exists() else []
    return [Errors(**{**entry, "worst": tuple(entry["worst"])}) for entry in entries]


@click.command()
@click.option("--function", "names", multiple=True, type=click.Choice(list(FUNCTIONS)), help="All by default.")
@click.option("--step", default=1, show_default=True, help="Take every so many-th of the 2^32 inputs, a power of two.")
@click.option("--points", default=6000, show_default=True, help="How many points of each kind are tried in f64.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="For accuracy.md and accuracy.json; what is there of other functions stays.",
)
def main(names: Sequence[str], step: int, points: int, output: Path | None) -> None:
    """Measures, tells its progress, and prints a table."""
    results = kept(output / "accuracy.json") if output else []
    for name in names or FUNCTIONS:
        start = time.perf_counter()
        found = [single(name, step), double(name, points), *(narrow(name, format_) for format_ in NARROW)]
        summary = ", ".join(f"{r.dtype} {r.maximum:.4f}" for r in found)
        click.echo(f"{name}: {summary} ({time.perf_counter() - start:.0f} s)", err=True)
        others = [r for r in results if r.name != name]
        results = sorted(others + found, key=lambda r: list(FUNCTIONS).index(r.name))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            (output / "accuracy.md").write_text(table(results))
            (output / "accuracy.json").write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    click.echo(table(results))


if __name__ == "__main__":
    main()
