"""What became of each operation: in which kernel it is, and which kernels were not joined, and why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from passes.base import all_nodes
from passes.fusion import Fuser, Fusion, Refusal
from passes.fusion_groups import is_alias
from passes.instruments import RuleRecord
from passes.instruments import Step as PassStep
from passes.memory_plan import execution_order
from tgc.compiler import Compiled, Options, lower_module
from tgc.errors import UserError
from tgc.frontend.export import joined, module_of
from tgc.frontend.jit import CompiledCallable
from tgc.inspect.explanation import Explanation
from tgc.inspect.limits import measured_limits, on_threads
from tgc.inspect.memory import fixed_tensors, source_lines, typical_sizes, workspace_of, workspace_tensors
from tgc.inspect.native import NativeKernels, inputs_for
from tgc.inspect.report import (
    EdgeReport,
    FunctionReport,
    KernelReport,
    OperationReport,
    RefusalReport,
    RuleReport,
    SpecialisationReport,
    total,
)
from tgc.inspect.work import node_flops, traffic
from tgc.ir.dims import Dim, evaluate
from tgc.ir.graph import Array, Function, Graph, Module, Node, Place, Value
from tgc.kernels.program import Launch, Repeat, Step, bodies
from tgc.ops import OPS
from tgc.reference import run as run_reference

_UNSAID = frozenset({"parameter", "constant"})
_SECONDS = 0.02  # for each kernel that is timed
_ALIASED = "they are joined by a reshape, whose operand lies in memory"
_LOOPED = "control flow stands between them"


def explain(
    source: Module | CompiledCallable | Sequence[CompiledCallable],
    *,
    options: Options | None = None,
    run: bool = False,
) -> Explanation:
    """What becomes of a module, an exported function, several of them, or the compiled forms of a jitted one.

    ``run``: kernels are timed on this machine, on random inputs. Symbolic dimensions then have the largest size that
    they may have, or 32. Raises :class:`UserError` for a jitted function that was not called yet.

    >>> import tgc
    >>> @tgc.export("f32[n]")
    ... def f(x):
    ...     return -x.exp()
    >>> (function,) = explain(f).functions
    >>> [operation.op for kernel in function.kernels for operation in kernel.operations]
    ['exp', 'neg']
    >>> print(function.flops, function.bytes)
    2*n 8*n
    """
    options = options or Options()
    module, specialisations = _module(source)
    fusion, rules = _FusionRecord(), RuleRecord()
    compiled = lower_module(module, replace(options, instruments=(*options.instruments, fusion, rules)))
    functions = tuple(
        _Explainer(module, compiled, compiled.module.function(name), fusion.fused.get(name, _Fused()), run=run).report()
        for name in compiled.programs
    )
    limits = None
    if run:
        with on_threads(1):
            limits = measured_limits(1)
    return Explanation(functions, _rules(rules), specialisations, limits, compiled)


def _module(
    source: Module | CompiledCallable | Sequence[CompiledCallable],
) -> tuple[Module, tuple[SpecialisationReport, ...]]:
    if isinstance(source, Module):
        return source, ()
    functions = [source] if isinstance(source, CompiledCallable) else list(source)
    specialisations = specialisations_of(functions)
    if not isinstance(source, CompiledCallable) or source.specs is not None:
        return module_of(functions, "explained"), specialisations
    recordings = source.recordings
    if not recordings:
        raise UserError(
            f"{source.name} was not compiled yet, so that there is nothing to explain",
            hint=f'call it before, or give the types of its arguments: tgc.jit({source.name}, "f32[batch, 784]")',
        )
    named = [
        replace(r, function=replace(r.function, name=f"{source.name}_{i}" if i else source.name))
        for i, r in enumerate(recordings)
    ]
    return joined([(source.function, r) for r in named], "explained"), specialisations


def specialisations_of(functions: Sequence[CompiledCallable]) -> tuple[SpecialisationReport, ...]:
    """The forms in which functions were compiled in this process, and why."""
    return tuple(
        SpecialisationReport(f.name, signature, cause) for f in functions for signature, cause in f.specialisations
    )


def _rules(record: RuleRecord) -> tuple[RuleReport, ...]:
    counts: dict[tuple[str, str, str, tuple[str, ...]], int] = {}
    for rule in record.fired:
        key = (rule.by, rule.rule, rule.because, source_lines(rule.places))
        counts[key] = counts.get(key, 0) + 1
    return tuple(RuleReport(*key, count) for key, count in counts.items())


@dataclass(frozen=True)
class _Fused:
    """What fusion made of a function; nothing is known of one that came fused."""

    outputs: tuple[Value, ...] = ()
    sources: Mapping[Node, tuple[Node, ...]] = field(default_factory=dict)
    refusals: Sequence[Refusal] = ()
    locations: Mapping[Node, tuple[Place, ...]] = field(default_factory=dict)

    def origins(self, planned: Function) -> dict[Node, Node]:
        """The nodes as fusion left them, by what the memory plan made of them."""
        found: dict[Node, Node] = {}
        pending = [(planned.outputs, self.outputs)] if self.outputs else []
        while pending:
            new, old = pending.pop()
            for after, before in zip(execution_order(new, OPS), execution_order(old, OPS), strict=False):
                found[after] = before
                if after.op != "fusion":
                    pending += [(a.results, b.results) for a, b in zip(after.regions, before.regions, strict=False)]
        return found


@dataclass(frozen=True)
class _FusionRecord:
    """An instrument that fuses once more, to see the decisions."""

    fused: dict[str, _Fused] = field(default_factory=dict)

    def before(self, step: PassStep, module: Module) -> None:
        if not isinstance(step.of, Fusion):
            return
        for function in module.functions:
            fuser = Fuser(OPS, function.outputs, step.of.max_ops)
            new = fuser.run()
            outputs = tuple(new[v] for v in function.outputs)
            self.fused[function.name] = _Fused(outputs, fuser.sources, fuser.refusals, module.locations)

    def after(self, step: PassStep, before: Module, after: Module) -> None:
        pass


@dataclass(frozen=True)
class _Source:
    """Where a value comes from: a kernel or an input by its id, through an alias or a loop or not."""

    id: str
    reason: str = ""


def _count(steps: Sequence[Step], times: Dim, found: dict[str, set[Dim]]) -> None:
    """Notes how often each kernel is launched."""
    for step in steps:
        if isinstance(step, Launch):
            found.setdefault(step.kernel, set()).add(times)
        for body in bodies(step):
            _count(body, times * step.count if isinstance(step, Repeat) else times, found)


class _Explainer:
    """Reports one function."""

    def __init__(self, module: Module, compiled: Compiled, function: Function, fused: _Fused, *, run: bool) -> None:
        self.function = function
        self.fused = fused
        self.origins = fused.origins(function)
        self.compiled = compiled
        self.program = compiled.programs[function.name]
        self.sizes = typical_sizes(self.program, module.ranges)
        self.seconds = self._seconds() if run else None
        self.runs: dict[str, set[Dim]] = {}
        _count(self.program.steps, 1, self.runs)
        self.kernels: list[KernelReport] = []
        self.ids: dict[Node, str] = {}
        self.read: dict[tuple[str, str, str], set[str]] = {}

    def report(self) -> FunctionReport:
        """What became of the function."""
        function = self.function
        given = [(_Source(f"input {value.name}"),) for value in self.program.inputs]
        results = self._walk(Graph(function.parameters, function.outputs), given, 1)
        names = [f"output {value.name}" for value in self.program.outputs] + [
            f"assign {n}" for n, _ in function.assigns
        ]
        for name, value, sources in zip(names, function.outputs, results, strict=True):
            self._reads(sources, name, value)
        refusals = self._refusals()
        return FunctionReport(
            function.name,
            self.program,
            tuple(self.kernels),
            tuple(self._edge(*key, why, refusals) for key, why in self.read.items()),
            refusals,
            workspace_of(self.program),
            workspace_tensors(self.compiled, function.name, self.sizes) + fixed_tensors(self.compiled, function.name),
            self.sizes,
        )

    def _walk(self, graph: Graph, given: Sequence[tuple[_Source, ...]], times: Dim) -> list[tuple[_Source, ...]]:
        """Notes the kernels of a graph and of the regions of its control flow, in the order in which they run.

        ``given``: where the parameters come from. The same is told of the results.
        """
        found: dict[Value, tuple[_Source, ...]] = {}
        for node in graph.nodes():
            sources = [found[v] for v in node.operands]
            if node.op == "parameter":
                made = [given[int(node.attributes["index"])]]  # type: ignore[arg-type]
            elif node.op in ("state", "literal"):
                space = "state" if node.op == "state" else "constant"
                made = [(_Source(f"{space} {node.attributes['name']}"),)]
            elif node.op == "fusion":
                made = [(_Source(self._kernel(node, sources, times)),)] * len(node.types)
            elif is_alias(node):
                made = [tuple(replace(s, reason=s.reason or _ALIASED) for s in sources[0])]
            else:
                made = self._control(node, sources, times)
            found.update(zip(node.results, made, strict=True))
        return [found[v] for v in graph.results]

    def _control(self, node: Node, sources: list[tuple[_Source, ...]], times: Dim) -> list[tuple[_Source, ...]]:
        def through(found: Sequence[tuple[_Source, ...]]) -> list[tuple[_Source, ...]]:
            return [tuple(replace(s, reason=_LOOPED) for s in each) for each in found]

        inside = through(sources)
        length = node.attributes.get("length", 1)
        inner = times * length if isinstance(length, Dim) else times
        given = {"scan": [(), *inside], "cond": inside[1:]}.get(node.op, inside)
        results = [self._walk(region, given, inner) for region in node.regions]
        if node.op == "while_loop":
            return through(results[1])
        merged = [
            tuple(dict.fromkeys(s for each in alternatives for s in each))
            for alternatives in zip(*results, strict=True)
        ]
        return through(merged)

    def _kernel(self, node: Node, sources: Sequence[tuple[_Source, ...]], times: Dim) -> str:
        region = node.regions[0]
        lowering = self.compiled.library.lowering(node)
        inner = all_nodes(region.results)
        origin = self.origins.get(node, node)
        made_of = self.fused.sources.get(origin) or region.nodes()
        runs = [self._runs(stage.kernel.name, times) for stage in lowering.stages]
        name = str(len(self.kernels))
        self.ids.setdefault(origin, name)
        self.kernels.append(
            KernelReport(
                name,
                tuple(stage.kernel.name for stage in lowering.stages),
                str(node.attributes["kind"]),
                tuple(self._operation(source) for source in made_of if source.op not in _UNSAID),
                total(node_flops(n, OPS) for n in inner),
                traffic(node.operands, node.results),
                times,
                total(n * stage.kernel.count * stage.cost for stage, n in zip(lowering.stages, runs, strict=True)),
                self._measured(node, runs),
            )
        )
        for value, each in zip(node.operands, sources, strict=True):
            self._reads(each, name, value)
        return name

    def _reads(self, sources: Sequence[_Source], target: str, value: Value) -> None:
        for source in sources:
            self.read.setdefault((source.id, target, str(value.type)), set()).add(source.reason)

    def _edge(
        self, source: str, target: str, type_: str, found: set[str], refusals: Sequence[RefusalReport]
    ) -> EdgeReport:
        reasons = [r.reason for r in refusals if r.kernels == (source, target)]
        known = {k.id for k in self.kernels}
        if source in known and target in known and not reasons:
            reasons = sorted(found - {""}) or ["the value is also needed elsewhere, and is read from memory"]
        return EdgeReport(source, target, type_, tuple(dict.fromkeys(reasons)))

    def _refusals(self) -> tuple[RefusalReport, ...]:
        where = {source: node for node, sources in self.fused.sources.items() for source in sources}
        found: dict[RefusalReport, None] = {}
        for each in self.fused.refusals:
            producer, consumer = where.get(each.producer), where.get(each.consumer)
            if producer is None or producer is not consumer:
                kernels = tuple(self.ids.get(n, "") if n is not None else "" for n in (producer, consumer))
                report = RefusalReport(
                    self._operation(each.producer),
                    self._operation(each.consumer),
                    each.reason,
                    (kernels[0], kernels[1]),
                )
                found[report] = None
        return tuple(found)

    def _operation(self, node: Node) -> OperationReport:
        name = str(node.attributes["name"]) if node.op in ("state", "literal") else node.op
        lines = source_lines(self.fused.locations.get(node, ()))
        return OperationReport(name, ", ".join(map(str, node.types)), lines)

    def _runs(self, kernel: str, times: Dim) -> Dim:
        """How often a kernel of a node that runs ``times`` times does: less if it left a loop, or the call."""
        found = self.runs.get(kernel, {0})
        return times if times in found else max(found, key=lambda n: evaluate(n, self.sizes))

    def _measured(self, node: Node, runs: Sequence[Dim]) -> float | None:
        if self.seconds is None:
            return None
        # a branch that is not taken runs no kernel
        seconds = self.seconds.get(node, {}).values()
        return sum(each * evaluate(n, self.sizes) for each, n in zip(seconds, runs, strict=False))

    def _seconds(self) -> dict[Node, dict[str, float]]:
        """The measured time of each kernel."""
        function, module = self.function, self.compiled.module
        native = NativeKernels(self.compiled, self.sizes)
        found: dict[Node, dict[str, float]] = {}

        def timed(node: Node, operands: Sequence[Array], compute: Callable[[], Sequence[Array]]) -> Sequence[Array]:
            if node.op != "fusion":
                return compute()
            results, seconds = native.timed(node, operands, 0.0 if node in found else _SECONDS)
            found.setdefault(node, seconds)
            return results

        inputs, state = inputs_for(module, function, self.sizes)
        run_reference(function, inputs, state=state, constants=module.constants, around=timed)
        return found
