"""What measures errors finds them."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tgc
from benchmarks.accuracy import NARROW, double, narrow, single, table

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


def test_results_of_16_bits_are_held_against_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tgc.sqrt
    monkeypatch.setattr(tgc, "rsqrt", lambda x: right(x) * (1.0 if x.dtype is tgc.f64 else 1.001))
    for format_ in NARROW:
        found = narrow("rsqrt", format_)
        assert found.misrounded is not None
        assert found.misrounded > 0.01
        assert 0.5 < found.maximum <= 3.0
    assert found.dtype == np.dtype(ml_dtypes.bfloat16).name
