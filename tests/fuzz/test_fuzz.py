"""Random functions: O0 = O3 = the interpreter within its bounds, on one thread as on several bit for bit."""

import pytest

from passes.base import all_nodes
from tests.fuzz.checks import check, expected, shrunk, targets, text
from tests.fuzz.generator import Sample, focused, sample
from tests.fuzz.grower import LARGE
from tgc.backend.host import host_target
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module
from tgc.ops import OPS
from tgc.target import Target

FUNCTIONS = 50
LARGE_FUNCTIONS = 6
FOCUSED_FUNCTIONS = 10


def assert_right(found: Sample, target: Target) -> None:
    def fails(candidate: Sample) -> bool:
        try:
            check(candidate, target=target)
        except Exception:  # noqa: BLE001
            return True
        return False

    try:
        check(found, target=target)
    except Exception as error:
        small = shrunk(found, fails, budget=40)
        raise AssertionError(f"{error}\n{text(small)}") from error


@pytest.mark.parametrize("seed", range(FUNCTIONS))
def test_compiled_code_does_what_the_function_says(seed: int) -> None:
    """Every other one for this machine, the rest also for machines with narrower vectors."""
    assert_right(sample(seed, length=8), targets()[seed // 2 % len(targets())] if seed % 2 else host_target())


@pytest.mark.parametrize("seed", range(LARGE_FUNCTIONS))
def test_compiled_code_does_what_the_function_says_for_large_tensors(seed: int) -> None:
    assert_right(sample(seed, length=4, extent=LARGE), host_target())


@pytest.mark.parametrize("seed", range(FOCUSED_FUNCTIONS))
def test_compiled_code_does_what_the_function_says_at_the_sizes_that_schedules_are_made_for(seed: int) -> None:
    assert_right(focused(seed), targets()[seed % len(targets())])


def test_most_results_are_certain_enough_to_be_compared() -> None:
    results = [
        r
        for seed in range(40)
        for found in [sample(seed, length=8)]
        for r in expected(found, *found.arrays(found.sizes[0]))
    ]
    assert sum(r is not None for r in results) > 4 * sum(r is None for r in results)


def test_random_functions_have_every_op() -> None:
    """But those that passes put in."""
    found = {n.op for seed in range(800) for n in all_nodes(sample(seed).function.outputs)}
    assert OPS.keys() - found <= {"fusion", "relayout", "window_max_take"}


def test_a_seed_gives_one_function() -> None:
    assert sample(7).function == sample(7).function
    assert sample(7).function != sample(8).function


@pytest.mark.parametrize("seed", range(100, 110))
def test_random_functions_are_what_their_text_says(seed: int) -> None:
    module = sample(seed).module
    assert parse_module(print_module(module), OPS) == module


def test_failures_shrink_to_what_fails() -> None:
    """Here everything with a contraction is said to fail."""

    def has_product(candidate: Sample) -> bool:
        return any(n.op == "contract" for n in candidate.function.nodes())

    found = next(s for s in map(sample, range(100)) if has_product(s))
    small = shrunk(found, has_product)
    assert [n.op for n in small.function.nodes() if n.op != "parameter"] == ["contract"]
