"""The kinds of operations, and what a schedule can take: the one table that fusion and schedules share."""

from __future__ import annotations

from enum import Enum


class OpKind(Enum):
    """What an operation does with its operands' elements."""

    MAP = "map"  # one result element from one element of each operand, same index
    REDUCE = "reduce"  # folds whole dimensions
    CONTRACT = "contract"  # sums of products: einsum of two operands
    CONVOLUTION = "convolution"  # sums of products over sliding windows, and both gradients
    WINDOW = "window"  # folds sliding windows
    MOVEMENT = "movement"  # each result element is one operand element, at an index that is a function of the result's
    INDEX = "index"  # gather and scatter: indices are data
    CUMULATIVE = "cumulative"  # prefix folds along a dimension
    SORT = "sort"
    CREATE = "create"  # no operands: constants, iota
    CONTROL = "control"  # regions: cond, while_loop, scan, fusion
    COMPOSITE = "composite"  # has a body in primitives
    BARRIER = "barrier"  # identity that no pass removes before fusion


class FusionKind(Enum):
    """Which schedule a fusion region is for. The value is the ``kind`` attribute of the ``fusion`` node."""

    POINTWISE = "pointwise"  # maps and movement over the result's index space
    REDUCTION = "reduction"  # reductions with maps before and after; row-wise multi-pass included
    CONTRACTION = "contraction"  # one contract, maps on its operands' elements before, maps on its result after
    ATTENTION = "attention"  # a contraction, maps and reductions of its rows, and a contraction with these rows
    CONVOLUTION = "convolution"  # one convolution or gradient of one, with an epilogue of maps
    WINDOW = "window"
    INDEX = "index"
    CUMULATIVE = "cumulative"
    SORT = "sort"
