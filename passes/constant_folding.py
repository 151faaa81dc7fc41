"""Constant folding, where evaluating at compile time gives the very bits of compiled code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from passes.base import Pass, PassContext, rewrite, uniform
from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Constant, Function, Graph, Module, Node, Value, literal
from tgc.reference import run


@dataclass(frozen=True)
class ConstantFolding(Pass):
    """Evaluates nodes whose operands are constants, if their op is exact (``OpDef.foldable``).

    Movement, integers, comparisons, casts and the operations that IEEE 754 rounds correctly are. Other constant
    subgraphs are left to compiled code, so that files and JIT have the same bits. A result with more than ``limit``
    elements is folded only if it takes no more room than the constants that it is made from.
    """

    name = "constant-folding"
    limit: int = 1024

    def run(self, module: Module, context: PassContext) -> Module:
        constants = dict(module.constants)

        def evaluated(builder: Builder, node: Node) -> tuple[Array, ...] | None:
            if not builder.table[node.op].foldable or not self._is_known(node, constants):
                return None
            return run(Function("constant", Graph((), node.results)), (), constants=constants, table=builder.table)[0]

        def rule(builder: Builder, node: Node) -> list[Value] | None:
            arrays = evaluated(builder, node)
            if arrays is None:
                return None
            return [_value(builder, a, v, constants) for a, v in zip(arrays, node.results, strict=True)]

        def inside(builder: Builder, node: Node) -> list[Value] | None:
            # regions are closed, so that only what fits into nodes can be there
            arrays = evaluated(builder, node)
            if arrays is None or not all(map(_is_uniform, arrays)):
                return None
            return [_full(builder, a, v) for a, v in zip(arrays, node.results, strict=True)]

        rewritten = rewrite(module, rule, context, inside=inside)
        return rewritten if rewritten is module else replace(rewritten, constants=constants)

    def _is_known(self, node: Node, constants: dict[str, Constant]) -> bool:
        """Whether all operands have values here, and the results are worth keeping."""
        types = (*node.types, *(v.type for v in node.operands))
        if not node.operands or any(not isinstance(d, int) for t in types for d in t.shape):
            return False
        room = 0
        for value in node.operands:
            operand = value.node
            if operand.op == "literal":
                constant = constants.get(str(operand.attributes["name"]))
                if constant is None or constant.data is None:
                    return False
                room += constant.data.nbytes
            elif _elements(operand, value.index) > self.limit or (uniform(value) is None and operand.op != "iota"):
                return False
        if uniform(node.results[0]) is not None:
            # already the shortest way to say it
            return False
        return all(_elements(node, i) <= self.limit or _bytes(node, i) <= room for i in range(len(node.types)))


def _elements(node: Node, index: int = 0) -> int:
    return prod(d if isinstance(d, int) else 0 for d in node.types[index].shape)


def _bytes(node: Node, index: int) -> int:
    return _elements(node, index) * node.types[index].dtype.itemsize


def _bits(array: Array) -> Array:
    """The elements as integers, so that -0 is not 0 and nan is itself."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _number(first: Array, dtype: DType) -> bool | int | float:
    number = first[0]
    if dtype.is_float:
        return float(number)
    return bool(number) if dtype.kind == "bool" else int(number)


def _is_uniform(array: Array) -> bool:
    return array.ndim == 0 or (array.size > 0 and bool(np.all(_bits(array) == _bits(array.reshape(-1)[:1]))))


def _full(builder: Builder, array: Array, value: Value) -> Value:
    """A uniform array as a rank-0 constant or the broadcast of one."""
    return builder.full(_number(array.reshape(-1)[:1], value.dtype), value.shape, value.dtype)


def _value(builder: Builder, array: Array, value: Value, constants: dict[str, Constant]) -> Value:
    """The array as a constant in the graph, where it is uniform, or as one of the module."""
    if _is_uniform(array):
        return _full(builder, array, value)
    constant = Constant.of(array, value.type)
    name = f"folded_{constant.digest.removeprefix('sha256:')[:16]}_{value.dtype.name}"
    name += "".join(f"x{d}" for d in value.shape)
    known = constants.setdefault(name, constant)
    if known != constant:
        raise CompilerBug(f"two constants are called {name}", stage="constant-folding")
    return literal(name, value.type)
