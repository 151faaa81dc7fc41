"""What the compiler did with a program, as data: kernels and their work, edges that were not fused and why."""

from tgc.inspect.explain import (
    FunctionReport,
    KernelReport,
    OperationReport,
    RefusalReport,
    explain,
    explain_functions,
)

__all__ = ["FunctionReport", "KernelReport", "OperationReport", "RefusalReport", "explain", "explain_functions"]
