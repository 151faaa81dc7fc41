"""What every pass owes: meaning is kept, twice is once, the output verifies, and unchanged is the same object."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from passes.autodiff import vjp
from passes.base import Pass, PassContext
from passes.instruments import Differential, difference
from passes.pipeline import PASSES
from tgc.errors import UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.graph import Function, Graph, Module, parameter
from tgc.ir.opdef import OpDef
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module
from tgc.ir.verify import verify
from tgc.ops import OPS

HERE = Path(__file__).parent
CONTEXT = PassContext()
SEPARATOR = re.compile(r"^// -----$", re.MULTILINE)


def function_of(op: OpDef, case: int) -> Function:
    types, attributes = op.cases[case]
    b = Builder(OPS)
    parameters = tuple(parameter(i, t) for i, t in enumerate(types))
    return Function(f"{op.name}_{case}", Graph(parameters, b.results(op.name, *parameters, attributes=attributes)))


def with_gradient(function: Function) -> Function | None:
    """The function with the gradients of its results' sum among its results."""
    b = Builder(OPS)
    graph = function.graph
    seeds = [b.full_like(v, 1.0) if v.dtype.is_float else None for v in graph.results]
    try:
        found = vjp(b, graph.results, graph.parameters, seeds)
    except UnsupportedError:
        return None
    gradients = tuple(g for g in found if g is not None)
    if not gradients:
        return None
    return Function(f"{function.name}_gradient", Graph(graph.parameters, graph.results + gradients))


def corpus() -> Iterator[tuple[str, Module]]:
    for op in OPS.values():
        # sizes come from the shapes of parameters, which what creates values has none of
        functions = [function_of(op, i) for i in range(min(2, len(op.cases))) if op.operands != 0 or op.name == "iota"]
        gradients = [g for g in map(with_gradient, functions[:1]) if g is not None]
        if functions:
            yield op.name, Module(op.name, (*functions, *gradients))
    for path in sorted(HERE.glob("*.tgc")):
        for i, text in enumerate(SEPARATOR.split(path.read_text())):
            module = parse_module(text, OPS)
            gradients = [g for g in map(with_gradient, module.functions) if g is not None]
            yield f"{path.stem}-{i}", module.with_functions((*module.functions, *gradients))


CORPUS = dict(corpus())
ALONE = [p() for p in PASSES.values() if not p.requires]


@pytest.mark.parametrize("module", CORPUS.values(), ids=CORPUS)
@pytest.mark.parametrize("one", ALONE, ids=lambda p: p.name)
def test_pass_keeps_its_promises(one: Pass, module: Module) -> None:
    after = one.run(module, CONTEXT)
    verify(after, OPS)
    for old, new in zip(module.functions, after.functions, strict=True):
        assert difference(module, old, after, new, Differential(), exact=one.exact) is None
    assert one.run(after, CONTEXT) is after
    if print_module(after) == print_module(module):
        assert after is module
