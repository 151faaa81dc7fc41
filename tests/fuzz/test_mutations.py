"""Damaged IR text and weight files: a sound result or an error, and an end."""

import pytest

from tests.fuzz.mutations import check_text, check_weights, damaged_text, damaged_weights, ending

BATCH = 25


@pytest.mark.parametrize("first", range(0, 8 * BATCH, BATCH))
def test_damaged_text_is_refused_or_still_a_module(first: int) -> None:
    for seed in range(first, first + BATCH):
        with ending():
            check_text(damaged_text(seed))


def test_damaged_weights_are_refused_or_still_arrays() -> None:
    became = {check_weights(damaged_weights(seed)) for seed in range(8 * BATCH)}
    assert became == {"ParseError", "sound"}
