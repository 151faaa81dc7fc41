"""A pass of your own, in one file: `tgc opt --passes "examples/my_pass.py:SmallPowers{largest=4}" net.tgc`."""

from dataclasses import dataclass

from passes.base import Pass, PassContext, rewrite, uniform
from tgc.ir.builder import Builder
from tgc.ir.graph import Module, Node, Value


@dataclass(frozen=True)
class SmallPowers(Pass):
    """pow(x, n) becomes x * … * x for constants n = 2, …, ``largest``: faster, and rounded more than once."""

    name = "small-powers"
    exact = False
    largest: int = 3

    def run(self, module: Module, context: PassContext) -> Module:
        def rule(builder: Builder, node: Node) -> Value | None:
            if node.op != "pow" or uniform(node.operands[1]) not in range(2, self.largest + 1):
                return None
            base = power = node.operands[0]
            for _ in range(int(uniform(node.operands[1]) or 1) - 1):
                power = builder.mul(power, base)
            return power

        return rewrite(module, rule, context)
