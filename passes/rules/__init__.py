"""Rewrite rules as data, by subject."""

from __future__ import annotations

from passes.rules.arithmetic import ARITHMETIC
from passes.rules.fast_math import FAST_MATH
from passes.rules.logic import LOGIC
from tgc.ir.pattern import Rule

ALGEBRAIC: tuple[Rule, ...] = (*ARITHMETIC, *LOGIC, *FAST_MATH)
