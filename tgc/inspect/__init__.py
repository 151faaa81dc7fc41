"""What the compiler did with a program, as data: kernels and their work, edges that were not fused and why."""

from tgc.inspect.explain import explain
from tgc.inspect.explanation import Explanation
from tgc.inspect.report import (
    EdgeReport,
    FunctionReport,
    KernelReport,
    OperationReport,
    RefusalReport,
    RuleReport,
    SpecialisationReport,
)

__all__ = [
    "EdgeReport",
    "Explanation",
    "FunctionReport",
    "KernelReport",
    "OperationReport",
    "RefusalReport",
    "RuleReport",
    "SpecialisationReport",
    "explain",
]
