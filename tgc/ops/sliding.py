"""How windows slide over dimensions: what convolution and pooling have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

import tgc.ops.rules as rules
from tgc.errors import ShapeError, UserError
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes

Index: TypeAlias = "tuple[Any, ...]"


def pairs(attributes: Attributes, name: str) -> tuple[tuple[int, int], ...]:
    """The attribute ``name``, pairs of integers >= 0; :class:`UserError` if it is something else."""
    value = attributes[name]
    found = []
    for pair in value if isinstance(value, tuple) else (None,):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UserError(f"attribute {name} must be pairs of integers, not {value!r}")
        low, high = pair
        if type(low) is not int or type(high) is not int or low < 0 or high < 0:
            raise UserError(f"attribute {name} must be pairs of integers >= 0, not {value!r}")
        found.append((low, high))
    return tuple(found)


def window_count(size: Dim, window: int, stride: int, padding: tuple[int, int], dilation: int, what: str) -> Dim:
    """How many windows fit along a dimension: ⌊(size + padding − dilation·(window − 1) − 1) / stride⌋ + 1.

    Raises :class:`ShapeError`, starting with ``what``, when not one fits; of a dimension of nothing, windows of 1 are
    none.

    >>> window_count(28, 3, 2, (1, 1), 1, "convolution")
    14
    """
    span = dilation * (window - 1) + 1
    padded = size + sum(padding)
    if span > 1 and rules.provably_less(padded, span):
        raise ShapeError(
            f"{what}: a window of {span} does not fit in a dimension of {size} padded to {padded}",
            hint="pad more, or make the window smaller",
        )
    return (padded - span) // stride + 1


def trailing(index: Sequence[int | slice]) -> Index:
    """An index of the last dimensions of an array, all of the others being taken whole."""
    return (..., *index)


def taps(
    window: Sequence[int], output: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[Index, Index]]:
    """Each position in the window, row-major, and what it meets in the padded operand: one slice of ``output`` steps.

    >>> [met[1] for _, met in taps([2], [3], [2], [1])]
    [slice(0, 5, 2), slice(1, 6, 2)]
    """
    for position in product(*map(range, window)):
        starts = [k * d for k, d in zip(position, dilation, strict=True)]
        yield (
            trailing(position),
            trailing(
                [
                    slice(start, start + (count - 1) * step + 1, step) if count else slice(0, 0)
                    for start, count, step in zip(starts, output, stride, strict=True)
                ]
            ),
        )
