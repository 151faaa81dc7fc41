"""What measures errors finds them."""

from typing import Any

import numpy as np
import pytest

import tgc
from benchmarks.accuracy import NARROW, Narrow, double, narrow, single, table

STEP = 1 << 10


def test_a_correctly_rounded_function_is_half_an_ulp_off_at_most() -> None:
    found = [single("sqrt", STEP), double("sqrt", 50), *(narrow("sqrt", f) for f in NARROW)]
    assert all(0.4 < e.maximum <= 0.5 for e in found)
    assert [e.misrounded for e in found[2:]] == [0.0, 0.0]
    assert found[0].count > 0.45 * 2**32 / STEP  # most of the others are negative
    assert "| sqrt | 0.500 |" in table(found)


def test_a_pair_at_fault_is_named() -> None:
    found = single("hypot", STEP)
    assert 0.5 < found.maximum < 1.0
    x, y = found.worst
    exact = np.hypot(x, y)
    assert abs(float(np.float32(exact)) - exact) < np.spacing(np.float32(exact))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda x: tgc.nextafter(tgc.sqrt(x), tgc.full_like(x, np.inf)), (1.0, 1.5)),
        (lambda x: tgc.where(x == 0.0, tgc.abs(x), tgc.sqrt(x)), (np.inf, np.inf)),
        (lambda x: tgc.where(tgc.isnan(x), 1.0, tgc.sqrt(x)), (np.inf, np.inf)),
    ],
    ids=["next float", "sign of zero", "not a number"],
)
def test_an_error_is_seen(monkeypatch: pytest.MonkeyPatch, wrong: Any, expected: tuple[float, float]) -> None:
    right = tgc.sqrt
    monkeypatch.setattr(tgc, "rsqrt", lambda x: right(x) if x.dtype is tgc.f64 else wrong(x))
    low, high = expected
    assert low <= single("rsqrt", STEP).maximum <= high


@pytest.mark.parametrize("format_", NARROW, ids=lambda f: np.dtype(f.dtype).name)
def test_results_of_16_bits_are_held_against_the_nearest(monkeypatch: pytest.MonkeyPatch, format_: Narrow) -> None:
    right = tgc.sqrt
    slightly = 1.0 + 2.0**-format_.mantissa
    monkeypatch.setattr(tgc, "rsqrt", lambda x: right(x) * (1.0 if x.dtype is tgc.f64 else slightly))
    found = narrow("rsqrt", format_)
    assert found.misrounded is not None
    assert found.misrounded > 0.3
    assert 0.5 < found.maximum <= 3.0
