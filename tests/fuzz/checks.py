"""What must hold of a random function, and how to make one that breaks it small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from passes.base import substitute
from tests.fuzz.generator import Sample
from tgc.backend.emit import emit_module
from tgc.backend.entry import entry_text
from tgc.backend.host import host_target
from tgc.backend.parallel import compile_modules
from tgc.backend.run_text import RUNTIME_DECLARATION
from tgc.compiler import Options, lower_module
from tgc.dtypes import from_numpy
from tgc.executable import CompiledFunction, load_function
from tgc.inspect.limits import on_threads
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Function, Graph, Module, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import float_info
from tgc.ir.printer import print_module
from tgc.ir.verify import verify
from tgc.kernels.program import Branch, Launch, Program, Repeat, Step, While
from tgc.ops import OPS
from tgc.reference import Bounded, run_with_bounds
from tgc.target import Target, baseline

# Results of ops whose order of summation depends on how their operands lie in memory, which O3 chooses.
_SUMS = (OpKind.CONTRACT, OpKind.CONVOLUTION, OpKind.REDUCE, OpKind.WINDOW, OpKind.CUMULATIVE, OpKind.CONTROL)
# Results that depend on the sign of a NaN, which nothing says.
_SIGNS = ("signbit", "bitcast", "copysign")
_LESSER = ("x86-64", "x86-64-v3")
# Results so uncertain that following their error through a map to first order may not hold.
_VAGUE = 1e-2


class Wrong(AssertionError):
    """Compiled code that does not do what the function says."""


@dataclass
class Tally:
    """How many results were compared with the interpreter, and how many it is too uncertain of."""

    compared: int = 0
    uncertain: int = 0


def _dear(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps, each launch so expensive that it is split as far as it goes."""
    result: list[Step] = []
    for step in steps:
        if isinstance(step, Launch):
            step = replace(step, cost=10**7)
        elif isinstance(step, Repeat):
            step = replace(step, body=_dear(step.body))
        elif isinstance(step, While):
            step = replace(step, condition_steps=_dear(step.condition_steps), body_steps=_dear(step.body_steps))
        elif isinstance(step, Branch):
            step = replace(step, then_steps=_dear(step.then_steps), else_steps=_dear(step.else_steps))
        result.append(step)
    return tuple(result)


def targets() -> tuple[Target, ...]:
    """This machine, and lesser ones whose code it can run."""
    host = host_target()
    return (host, *(baseline(host.triple, cpu) for cpu in _LESSER if host.triple.startswith("x86_64")))


def compiled(module: Module, pipeline: str, target: Target | None = None) -> CompiledFunction:
    """The module's only function, with every access checked and every launch worth splitting."""
    options = Options(pipeline=pipeline, target=target, cached=False, debug=True)
    lowered = lower_module(module, options)
    (program,) = lowered.programs.values()
    program: Program = replace(program, steps=_dear(program.steps))
    text = emit_module(lowered.kernels, lowered.target, debug=True) + entry_text(program, symbol="tgc_f")
    images = compile_modules([text + RUNTIME_DECLARATION], lowered.target, external=frozenset({"tgc_run"}))
    constants = {name: c.data for name, c in lowered.module.constants.items() if c.data is not None}
    return load_function(program, "tgc_f", images, constants)


def outcome(function: CompiledFunction, inputs: list[Array], state: dict[str, Array]) -> list[Array]:
    """Results, then the state afterwards."""
    held = {name: array.copy() for name, array in state.items()}
    results = function.run(inputs, [held[value.name] for value in function.program.state])
    return [*results, *held.values()]


def same_bits(a: Array, b: Array) -> bool:
    """Equal bits, all NaN being one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    x, y = np.ascontiguousarray(a), np.ascontiguousarray(b)
    same = x.view(f"u{x.dtype.itemsize}") == y.view(f"u{x.dtype.itemsize}")
    if from_numpy(a.dtype).is_float:
        same |= np.isnan(x.astype(np.float64)) & np.isnan(y.astype(np.float64))
    return bool(np.all(same))


def certain(bounded: Bounded) -> bool:
    """Whether the bound says something."""
    error, value = bounded.error, bounded.value.astype(np.float64)
    if not from_numpy(bounded.value.dtype).is_float:
        return not np.any(error)
    size = np.where(np.isfinite(value), np.abs(value), 0.0)
    # a bound below some units in the last place is always good enough
    unit = 16 * float_info(from_numpy(bounded.value.dtype))[0]
    return bool(np.all(error <= np.maximum(_VAGUE, unit) * np.maximum(size, _VAGUE)))


def _near(have: Array, want: Bounded) -> bool:
    if have.dtype != want.value.dtype or have.shape != want.value.shape:
        return False
    if have.dtype.kind in "biu":
        return bool(np.array_equal(have, want.value))
    a, b = have.astype(np.float64), want.value.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return bool(np.all((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= want.error)))


def _trusted(function: Function, bounds: dict[Value, Bounded]) -> set[Value]:
    """Values all of whose ancestors are certain, so that bounds to first order hold."""
    trusted: set[Value] = set()
    for node in function.nodes():
        signs = node.op in _SIGNS and any(np.any(bounds[v].value != bounds[v].value) for v in node.operands)
        if not signs and all(v in trusted for v in node.operands):
            trusted |= {v for v in node.results if certain(bounds[v])}
    return trusted


def _every_value(function: Function) -> tuple[Function, list[Value]]:
    values = [v for node in function.nodes() for v in node.results]
    return replace(function, graph=Graph(function.parameters, tuple(values)), assigns=()), values


def expected(sample: Sample, inputs: list[Array], state: dict[str, Array]) -> list[Bounded | None]:
    """What the interpreter gives for the results and the state afterwards; None where it is too uncertain."""
    everything, values = _every_value(sample.function)
    used = {str(n.attributes["name"]) for n in everything.nodes() if n.op == "state"}
    held = {k: v for k, v in state.items() if k in used}
    found, _ = run_with_bounds(everything, inputs, state=held, constants=sample.constants)
    bounds = dict(zip(values, found, strict=True))
    trusted = _trusted(sample.function, bounds)
    assigned = dict(sample.function.assigns)
    results: list[Bounded | None] = [bounds[v] if v in trusted else None for v in sample.function.results]
    for name, before in state.items():
        if name not in assigned:
            results.append(Bounded(before, np.zeros(before.shape)))
        else:
            value = assigned[name]
            results.append(bounds[value] if value in trusted else None)
    return results


def _may_differ(function: Function) -> bool:
    return any(
        OPS[n.op].kind in _SUMS or n.op in _SIGNS or OPS[n.op].kind is OpKind.COMPOSITE or n.op.startswith("scatter")
        for n in function.nodes()
    )


def check(sample: Sample, tally: Tally | None = None, target: Target | None = None) -> None:
    """Raises :class:`Wrong` unless O0, O3 and the interpreter agree, on any number of threads.

    Whatever else is raised is wrong as well. ``target``: what to compile for, which this machine must be able to run.
    """
    verify(sample.module, OPS)
    plain, optimised = (compiled(sample.module, level, target) for level in ("O0", "O3"))
    exact = not _may_differ(sample.function)
    for sizes in sample.sizes:
        inputs, state = sample.arrays(sizes)
        wanted = expected(sample, inputs, state)
        with on_threads(1):
            slow, fast = outcome(plain, inputs, state), outcome(optimised, inputs, state)
        for count in (2, 3):
            with on_threads(count):
                for name, function, serial in (("O0", plain, slow), ("O3", optimised, fast)):
                    for i, (a, b) in enumerate(zip(outcome(function, inputs, state), serial, strict=True)):
                        if not same_bits(a, b):
                            raise Wrong(f"{name} on {count} threads, output {i}, {sizes}\n{a}\n{b}")
        for i, (a, b, want) in enumerate(zip(slow, fast, wanted, strict=True)):
            if exact and not same_bits(a, b):
                raise Wrong(f"O0 and O3, output {i}, {sizes}\n{a}\n{b}")
            if tally is not None:
                tally.compared += want is not None
                tally.uncertain += want is None
            for name, have in (("O0", a), ("O3", b)):
                if want is not None and not _near(have, want):
                    raise Wrong(f"{name} and the interpreter, output {i}, {sizes}\n{have}\n{want.value}\n{want.error}")


# -- making failures small ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut(Sample):
    """A sample some of whose parameters have the values that were computed for what they replace."""

    given: tuple[tuple[dict[str, int], list[Array]], ...] = ()

    def arrays(self, sizes: dict[str, int]) -> tuple[list[Array], dict[str, Array]]:
        inputs, state = super().arrays(sizes)
        for known, arrays in self.given:
            if known == sizes:
                inputs = arrays
        return inputs, state


def _pruned(sample: Sample) -> Sample:
    """Without state and constants that nothing uses."""
    nodes = sample.function.nodes()
    read = {str(n.attributes["name"]) for n in nodes if n.op in ("state", "literal")}
    read |= {n for n, _ in sample.function.assigns}
    state, constants = ({k: v for k, v in named.items() if k in read} for named in (sample.state, sample.constants))
    return replace(sample, state=state, constants=constants)


def _smaller(sample: Cut) -> Iterator[Cut]:
    function = sample.function
    for sizes in sample.sizes if len(sample.sizes) > 1 else ():
        yield replace(sample, sizes=(sizes,))
    if len(function.outputs) > 1:
        for i in range(len(function.results)):
            if len(function.results) > 1:
                yield replace(
                    sample,
                    function=replace(function, graph=Graph(function.parameters, (function.results[i],)), assigns=()),
                )
        for i in range(len(function.results)):
            rest = function.results[:i] + function.results[i + 1 :]
            yield replace(sample, function=replace(function, graph=Graph(function.parameters, rest)))
        for i in range(len(function.assigns)):
            yield replace(sample, function=replace(function, assigns=function.assigns[:i] + function.assigns[i + 1 :]))
    for node in reversed(function.nodes()):
        if node.op not in ("parameter", "constant", "iota", "dimension"):
            yield from _cut(sample, node.results)
            for operand in node.operands:
                if len(node.results) == 1 and operand.type == node.types[0]:
                    yield _substituted(sample, {node.results[0]: operand})


def _substituted(sample: Cut, replacements: dict[Value, Value]) -> Cut:
    function = sample.function
    outputs = substitute(Builder(OPS), function.outputs, replacements)
    return replace(sample, function=function.with_outputs(tuple(outputs)))


def _cut(sample: Cut, values: tuple[Value, ...]) -> Iterator[Cut]:
    """With parameters in place of the values, which are given what the interpreter computes."""
    function = sample.function
    given = []
    for sizes in sample.sizes:
        inputs, state = sample.arrays(sizes)
        whole = replace(function, graph=Graph(function.parameters, values), assigns=())
        used = {str(n.attributes["name"]) for n in whole.nodes() if n.op == "state"}
        held = {k: v for k, v in state.items() if k in used}
        found, _ = run_with_bounds(whole, inputs, state=held, constants=sample.constants)
        given.append((sizes, [*inputs, *(f.value for f in found)]))
    count = len(function.parameters)
    fresh = tuple(parameter(count + i, v.type) for i, v in enumerate(values))
    graph = Graph((*function.parameters, *fresh), function.results)
    widened = replace(sample, function=replace(function, graph=graph), given=tuple(given))
    yield _substituted(widened, dict(zip(values, fresh, strict=True)))


def shrunk(sample: Sample, fails: Callable[[Sample], bool], *, budget: int = 200) -> Sample:
    """A smaller sample that still fails."""
    best = Cut(**{k: getattr(sample, k) for k in ("seed", "function", "state", "sizes", "constants")})
    best = replace(best, given=tuple((s, sample.arrays(s)[0]) for s in sample.sizes))
    tried = 0
    going = True
    while going and tried < budget:
        going = False
        for candidate in _smaller(best):
            tried += 1
            if tried >= budget:
                break
            if len(candidate.function.nodes()) + len(candidate.function.outputs) + len(candidate.sizes) >= len(
                best.function.nodes()
            ) + len(best.function.outputs) + len(best.sizes):
                continue
            if fails(candidate):
                best, going = candidate, True
                break
    return best


def text(sample: Sample) -> str:
    """The sample's function as IR, with its sizes."""
    return f"# seed {sample.seed}, sizes {sample.sizes}\n{print_module(_pruned(sample).module)}"
