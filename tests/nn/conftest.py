"""How the tests of layers compare: native code with a formula in f64, up to f32's rounding of so many operations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tgc


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """``close(result, expected, terms)``: equal up to ``terms`` roundings of f32, of the largest magnitude."""

    def check(result: tgc.Tensor, expected: Any, terms: int) -> None:
        found, wanted = result.numpy(), np.asarray(expected, np.float64)
        assert found.shape == wanted.shape
        assert found.dtype == np.float32
        assert np.max(np.abs(found - wanted)) <= terms * 2.0**-24 * max(1.0, np.max(np.abs(wanted)))

    return check
