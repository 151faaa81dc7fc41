"""An explanation as JSON, and as one page of HTML that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeAlias

from tgc.inspect.drawing import draw
from tgc.inspect.limits import Limits
from tgc.inspect.report import Findings, FunctionReport, KernelReport, OperationReport
from tgc.inspect.text import shares
from tgc.ir.dims import Dim, evaluate

Data: TypeAlias = dict[str, Any]


def as_data(findings: Findings) -> Data:
    """What JSON can hold of it: everything but code."""
    limits = findings.limits
    return {
        "machine": findings.machine,
        "limits": limits and {"threads": limits.threads, "flops": limits.flops, "bandwidth": limits.bandwidth},
        "functions": [_function(f, limits) for f in findings.functions],
        "rules": [
            {"by": r.by, "rule": r.rule, "because": r.because, "lines": r.lines, "count": r.count}
            for r in findings.rules
        ],
        "specialisations": [
            {"function": s.function, "signature": s.signature, "cause": s.cause} for s in findings.specialisations
        ],
    }


def _function(report: FunctionReport, limits: Limits | None) -> Data:
    program, sizes = report.program, report.sizes
    arrays = {"inputs": program.inputs, "outputs": program.outputs, "state": program.state}
    return {
        "name": report.name,
        **{space: list(map(str, values)) for space, values in (*arrays.items(), ("constants", program.constants))},
        "sizes": dict(sizes),
        "flops": _amount(report.flops, sizes),
        "bytes": _amount(report.bytes, sizes),
        "workspace": _amount(report.workspace, sizes),
        "estimate": evaluate(report.nanoseconds, sizes) * 1e-9,
        "seconds": report.seconds,
        "kernels": [_kernel(k, report, limits) for k in report.kernels],
        "edges": [{"source": e.source, "target": e.target, "type": e.type, "reasons": e.reasons} for e in report.edges],
        "refusals": [
            {
                "producer": _operation(r.producer),
                "consumer": _operation(r.consumer),
                "reason": r.reason,
                "kernels": r.kernels,
            }
            for r in report.refusals
        ],
        "tensors": [
            {"name": t.name, "type": t.type, "place": t.place, "bytes": _amount(t.bytes, sizes), "lines": t.lines}
            for t in report.tensors
        ],
    }


def _kernel(kernel: KernelReport, report: FunctionReport, limits: Limits | None) -> Data:
    found = {
        "id": kernel.id,
        "names": kernel.names,
        "kind": kernel.kind,
        "operations": list(map(_operation, kernel.operations)),
        "flops": _amount(kernel.flops, report.sizes),
        "bytes": _amount(kernel.bytes, report.sizes),
        "times": _amount(kernel.times, report.sizes),
        "estimate": evaluate(kernel.nanoseconds, report.sizes) * 1e-9,
        "seconds": kernel.seconds,
    }
    if kernel.seconds is not None and limits is not None:
        found["of_peak"], found["of_bandwidth"] = shares(kernel, report, limits)
    return found


def _operation(operation: OperationReport) -> Data:
    return {"op": operation.op, "type": operation.type, "lines": operation.lines}


def _amount(amount: Dim, sizes: Mapping[str, int]) -> int | Data:
    return amount if isinstance(amount, int) else {"formula": str(amount), "value": evaluate(amount, sizes)}


def as_page(findings: Findings) -> str:
    """The page: the template beside this file, with the data in it."""
    data = as_data(findings)
    for report, function in zip(findings.functions, data["functions"], strict=True):
        function["drawing"] = _drawing(report)
    data["code"] = {name: {"kernel": c.kernel, "assembly": c.assembly} for name, c in findings.code.items()}
    template = files("tgc.inspect").joinpath("explain.html").read_text(encoding="utf8")
    # a script ends at the first </script, whatever is in it
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("{{data}}", text)


def _drawing(report: FunctionReport) -> Data:
    kernels = {k.id for k in report.kernels}
    edges = list(dict.fromkeys((e.source, e.target) for e in report.edges))
    sources = [s for s, _ in edges if s not in kernels]
    targets = [t for _, t in edges if t not in kernels]
    nodes = list(dict.fromkeys([*sources, *(k.id for k in report.kernels), *targets]))
    drawing = draw(nodes, frozenset(nodes) - kernels, edges)
    return {
        "boxes": {
            name: [round(box.x), round(box.y), round(box.width), round(box.height)]
            for name, box in drawing.boxes.items()
        },
        "lines": [
            {"source": source, "target": target, "points": [[round(x), round(y)] for x, y in line]}
            for (source, target), line in zip(edges, drawing.lines, strict=True)
        ],
    }
