"""Every op of the table, compiled alone through the whole pipeline, against the interpreter within derived bounds."""

import numpy as np
import pytest

from tgc.compiler import Options, compile_function
from tgc.ir.builder import Builder
from tgc.ir.graph import Function, Graph, parameter
from tgc.ir.kinds import OpKind
from tgc.ops import OPS
from tgc.ops.cases import Input, cases
from tgc.reference import run_with_bounds

SOURCES = frozenset({"parameter", "state", "literal"})
COMPILED = [n for n, d in OPS.items() if d.kind is not OpKind.CONTROL and n not in SOURCES]


def function_of(name: str, case: Input) -> Function:
    parameters = tuple(parameter(i, t) for i, t in enumerate(case.types))
    results = Builder(OPS).results(name, *parameters, attributes=case.attributes)
    return Function(name, Graph(parameters, results))


def holds_only_known_symbols(function: Function) -> bool:
    """A function whose results have sizes that no parameter has cannot be called."""
    known = {d for v in function.parameters for d in v.shape}
    return (
        all(isinstance(d, int) or d in known for v in function.results for d in v.shape) and function.parameters != ()
    )


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_code_agrees_with_the_interpreter(name: str) -> None:
    for case in cases(OPS[name]):
        function = function_of(name, case)
        if not holds_only_known_symbols(function):
            continue
        compiled = compile_function(function, options=Options(cached=False, debug=True))
        results = compiled.run(list(case.arrays))
        expected, _ = run_with_bounds(function, list(case.arrays))
        for have, want in zip(results, expected, strict=True):
            assert have.shape == want.value.shape
            if have.dtype.kind in "biu":
                np.testing.assert_array_equal(have, want.value)
                continue
            a, b = have.astype(np.float64), want.value.astype(np.float64)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            with np.errstate(invalid="ignore"):
                near = np.abs(a - b) <= want.error
            assert np.all(same | near), f"{case.types} {case.attributes}\n{have}\n{want.value}\n{want.error}"
