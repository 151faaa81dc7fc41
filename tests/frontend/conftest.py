"""How the front end's tests run a function: recorded, then by the reference interpreter or by native code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tgc
from tgc.frontend.jit import record
from tgc.frontend.tree import flatten
from tgc.reference import run_with_bounds

Array = NDArray[Any]
Evaluate = Callable[..., list[tuple[Array, Array]]]


@pytest.fixture(scope="session")
def evaluate() -> Evaluate:
    """``evaluate(f, *arrays)``: (value, bound on the error of native code) of each result, by the reference."""

    def run(function: Callable[..., Any], *arrays: Array) -> list[tuple[Array, Array]]:
        types = tuple(tgc.tensor(a).type for a in arrays)
        leaves, structure = flatten((types, {}))
        recorded = record(function, leaves, structure, "f")
        state = {f"s{i}": t.array for i, t in enumerate(recorded.state)}
        constants = {f"c{i}": t.array for i, t in enumerate(recorded.constants)}
        results, _ = run_with_bounds(recorded.function, arrays, state=state, constants=constants)
        return [(bounded.value, bounded.error) for bounded in results]

    return run


@pytest.fixture(scope="session")
def agrees(evaluate: Evaluate) -> Callable[..., None]:
    """``agrees(f, formula, *arrays)``: f means the formula, and native code keeps to the reference's bounds.

    The meaning is compared in f64, where a rounding is 2⁻⁵³: 2⁻⁴⁰ of the largest magnitude tells it from a mistake.
    """

    def check(function: Callable[..., Any], formula: Callable[..., Any], *arrays: Array) -> None:
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        exact, expected = evaluate(function, *wide)[0][0], np.asarray(formula(*wide))
        assert exact.shape == expected.shape
        assert np.max(np.abs(exact - expected)) <= 2.0**-40 * max(1.0, np.max(np.abs(expected)))
        value, error = evaluate(function, *arrays)[0]
        result = tgc.jit(function)(*map(tgc.tensor, arrays)).numpy()
        assert result.dtype == value.dtype
        assert np.all(np.abs(result.astype(np.float64) - value) <= error)

    return check
