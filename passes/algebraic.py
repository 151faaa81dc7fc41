"""Algebraic simplification by the rules of :mod:`passes.rules`."""

from __future__ import annotations

from dataclasses import dataclass

from passes.base import Pass, PassContext, rewrite
from passes.rules import ALGEBRAIC
from tgc.ir.graph import Module
from tgc.ir.pattern import RuleSet


@dataclass(frozen=True)
class Algebraic(Pass):
    """Applies the exact rules; with ``fast_math`` those too that hold for real numbers only."""

    name = "algebraic"
    fast_math: bool = False

    @property
    def exact(self) -> bool:
        """Only with fast-math are bits given up."""
        return not self.fast_math

    def run(self, module: Module, context: PassContext) -> Module:
        return rewrite(module, RuleSet(ALGEBRAIC, fast_math=self.fast_math), context)
