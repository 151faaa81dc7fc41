"""What became of each operation: in which kernel it is, and which kernels were not joined, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from passes.base import all_nodes
from passes.fusion import Fuser, Fusion, Refusal
from passes.instruments import Step
from tgc.compiler import Compiled, Options, lower_module
from tgc.frontend.export import module_of
from tgc.frontend.jit import CompiledCallable
from tgc.inspect.work import node_flops, traffic
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Module, Node, Place
from tgc.kernels.program import Program
from tgc.location import Site
from tgc.ops import OPS

_UNSAID = frozenset({"parameter", "constant"})


@dataclass(frozen=True)
class OperationReport:
    """An operation of a kernel: its name, the type of its result, and the source lines that it comes from."""

    op: str
    type: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class KernelReport:
    """A kernel, or the few that run one after the other for one fused region.

    ``flops`` and ``bytes`` are of one run, if each array is touched once; it runs ``times`` times.
    """

    names: tuple[str, ...]
    kind: str
    operations: tuple[OperationReport, ...]
    flops: Dim
    bytes: Dim
    times: Dim = 1


@dataclass(frozen=True)
class RefusalReport:
    """Two operations in different kernels though one uses the other's result, and the reason."""

    producer: OperationReport
    consumer: OperationReport
    reason: str


@dataclass(frozen=True)
class FunctionReport:
    """A function: ``program`` tells its arrays and the size of its arena."""

    name: str
    program: Program
    kernels: tuple[KernelReport, ...]
    refusals: tuple[RefusalReport, ...]

    @property
    def flops(self) -> Dim:
        """Arithmetic operations of a call."""
        return _total((k.flops * k.times) for k in self.kernels)

    @property
    def bytes(self) -> Dim:
        """Bytes that the kernels of a call read and write."""
        return _total((k.bytes * k.times) for k in self.kernels)


def _total(terms: Iterator[Dim]) -> Dim:
    total: Dim = 0
    for term in terms:
        total = total + term
    return total


def explain(module: Module, options: Options | None = None) -> tuple[FunctionReport, ...]:
    """A report of each function of ``module``, compiled under ``options``.

    >>> from tgc.ir.parser import parse_module
    >>> text = "module @m { func @f(%x: f32[n]) -> (f32[n]) { %0 = exp(%x) %1 = neg(%0) return %1 } }"
    >>> (report,) = explain(parse_module(text, OPS))
    >>> [operation.op for kernel in report.kernels for operation in kernel.operations]
    ['exp', 'neg']
    >>> print(report.flops, report.bytes)
    2*n 8*n
    """
    options = options or Options()
    record = _FusionRecord()
    compiled = lower_module(module, replace(options, instruments=(*options.instruments, record)))
    return tuple(
        FunctionReport(name, program, *_kernels(record.fused[name], compiled))
        for name, program in compiled.programs.items()
        if name in record.fused
    )


def explain_functions(*functions: CompiledCallable, options: Options | None = None) -> tuple[FunctionReport, ...]:
    """A report of each exported function.

    >>> import tgc
    >>> @tgc.export("f32[n]")
    ... def double(x):
    ...     return x + x
    >>> [kernel.kind for kernel in explain_functions(double)[0].kernels]
    ['pointwise']
    """
    return explain(module_of(functions, "explained"), options)


@dataclass(frozen=True)
class _Fused:
    """A function as fusion saw it and left it."""

    graph: Graph
    sources: Mapping[Node, tuple[Node, ...]]
    refusals: Sequence[Refusal]
    locations: Mapping[Node, tuple[Place, ...]]


@dataclass(frozen=True)
class _FusionRecord:
    """An instrument that fuses once more, to see the decisions."""

    fused: dict[str, _Fused] = field(default_factory=dict)

    def before(self, step: Step, module: Module) -> None:
        if not isinstance(step.of, Fusion):
            return
        for function in module.functions:
            fuser = Fuser(OPS, function.outputs, step.of.max_ops)
            new = fuser.run()
            graph = Graph(function.parameters, tuple(new[v] for v in function.outputs))
            self.fused[function.name] = _Fused(graph, fuser.sources, fuser.refusals, module.locations)

    def after(self, step: Step, before: Module, after: Module) -> None:
        pass


def _kernels(fused: _Fused, compiled: Compiled) -> tuple[tuple[KernelReport, ...], tuple[RefusalReport, ...]]:
    where = {source: node for node, sources in fused.sources.items() for source in sources}
    kernels = tuple(_walk(fused.graph, fused, compiled, 1))
    refusals = {
        RefusalReport(_operation(r.producer, fused), _operation(r.consumer, fused), r.reason): None
        for r in fused.refusals
        if r.producer not in where or where[r.producer] is not where.get(r.consumer)
    }
    return kernels, tuple(refusals)


def _walk(graph: Graph, fused: _Fused, compiled: Compiled, times: Dim) -> Iterator[KernelReport]:
    """The kernels of a graph and of the regions of its control flow, in the order in which they run."""
    for node in graph.nodes():
        if node.op == "fusion":
            yield _kernel(node, fused, compiled, times)
        elif node.regions:
            length = node.attributes.get("length", 1)
            inner = times * length if isinstance(length, Dim) else times
            for region in node.regions:
                yield from _walk(region, fused, compiled, inner)


def _kernel(node: Node, fused: _Fused, compiled: Compiled, times: Dim) -> KernelReport:
    region = node.regions[0]
    lowering = compiled.library.lowering(node)
    inner = all_nodes(region.results)
    sources = fused.sources.get(node, ())
    return KernelReport(
        tuple(stage.kernel.name for stage in lowering.stages),
        str(node.attributes["kind"]),
        tuple(_operation(source, fused) for source in sources if source.op not in _UNSAID),
        _total(node_flops(n, OPS) for n in inner),
        traffic(node.operands, node.results),
        times,
    )


def _operation(node: Node, fused: _Fused) -> OperationReport:
    places = fused.locations.get(node, ())
    resolved = [place.resolve() if isinstance(place, Site) else place for place in places]
    lines = dict.fromkeys(f"{PurePath(place.file).name}:{place.line}" for place in resolved)
    name = str(node.attributes["name"]) if node.op in ("state", "literal") else node.op
    return OperationReport(name, ", ".join(map(str, node.types)), tuple(lines))
