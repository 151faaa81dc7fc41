"""What may look on while passes run: time, dumps, verification, and comparison with the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from passes.base import Pass, PassContext
from tgc.errors import CompilerBug, VerificationError
from tgc.ir.builder import Builder
from tgc.ir.dims import evaluate, symbols
from tgc.ir.graph import Array, Function, Module, Node, Place, Value
from tgc.ir.opdef import OpTable
from tgc.ir.pattern import RuleSet
from tgc.ir.printer import print_module
from tgc.ir.types import TensorType
from tgc.ir.verify import verify
from tgc.ops import OPS
from tgc.reference import run, run_with_bounds


@dataclass(frozen=True)
class Step:
    """A pass at its place in a pipeline, counted from 0."""

    number: int
    of: Pass


class Instrument(Protocol):
    """Called around every pass. ``after`` may raise, ``before`` and ``after`` may not change anything."""

    def before(self, step: Step, module: Module) -> None: ...

    def after(self, step: Step, before: Module, after: Module) -> None: ...


@dataclass(frozen=True)
class Timing:
    """Notes how many seconds each pass took, in ``seconds``."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    _started: list[float] = field(default_factory=list)

    def before(self, step: Step, module: Module) -> None:
        self._started.append(perf_counter())

    def after(self, step: Step, before: Module, after: Module) -> None:
        self.seconds.append((step.of.name, perf_counter() - self._started.pop()))

    def table(self) -> str:
        """One line for each pass, in the order they ran, and their sum."""
        rows = [*self.seconds, ("all passes", sum(s for _, s in self.seconds))]
        return "\n".join(f"{1000 * s:9.2f} ms  {name}" for name, s in rows)


@dataclass(frozen=True)
class Dump:
    """Writes the module as text: before the first pass, and after ``"all"`` passes, after those that make a
    ``"change"``, or after the passes of the names given. Dumps are numbered; a pass that changed nothing says so.
    """

    write: Callable[[str], None]
    when: str | Collection[str] = "change"
    locations: bool = False

    def before(self, step: Step, module: Module) -> None:
        if step.number == 0 and isinstance(self.when, str):
            self.write(f"// 00 input\n{self._text(module)}")

    def after(self, step: Step, before: Module, after: Module) -> None:
        wanted = self.when in ("all", "change") if isinstance(self.when, str) else step.of.name in self.when
        if not wanted:
            return
        title = f"// {step.number + 1:02} {step.of.name}"
        if after is before:
            self.write(f"{title} (unchanged)\n" + (self._text(after) if self.when != "change" else ""))
        else:
            self.write(f"{title}\n{self._text(after)}")

    def _text(self, module: Module) -> str:
        return print_module(module, locations=self.locations)


@dataclass(frozen=True)
class Verify:
    """Verifies the module after each pass that changed it. Raises :class:`CompilerBug` with the module before it."""

    table: OpTable = field(default_factory=lambda: OPS)

    def before(self, step: Step, module: Module) -> None:
        if step.number == 0:
            verify(module, self.table)

    def after(self, step: Step, before: Module, after: Module) -> None:
        if after is before:
            return
        try:
            verify(after, self.table)
        except VerificationError as error:
            raise CompilerBug(str(error), stage=step.of.name, ir=print_module(before)) from error


@dataclass(frozen=True)
class Differential:
    """Runs every function before and after each pass through the reference interpreter, on the same random inputs.

    A pass that is exact must keep every bit; of another, results must lie within the bounds that the ops state.
    ``sizes`` are tried in turn for symbolic dimensions. Raises :class:`CompilerBug` with the module before the pass.
    """

    seed: int = 0
    sizes: Sequence[int] = (3, 2)
    table: OpTable = field(default_factory=lambda: OPS)

    def before(self, step: Step, module: Module) -> None:
        pass

    def after(self, step: Step, before: Module, after: Module) -> None:
        if after is before:
            return
        for old, new in zip(before.functions, after.functions, strict=True):
            problem = difference(before, old, after, new, self, exact=step.of.exact)
            if problem:
                raise CompilerBug(f"{old.name}: {problem}", stage=step.of.name, ir=print_module(before))


def difference(
    before: Module, old: Function, after: Module, new: Function, how: Differential, *, exact: bool
) -> str | None:
    """What two functions compute differently on random inputs; None if nothing."""
    for size in how.sizes:
        inputs, state = random_inputs(before, old, np.random.default_rng(how.seed), size)
        first = _outcome(old, inputs, state, before, how.table, exact=exact)
        second = _outcome(new, inputs, state, after, how.table, exact=exact)
        for name, (a, error) in first.items():
            b, other_error = second[name]
            if not (same_bits(a, b) if error is None or other_error is None else within(a, b, error + other_error)):
                return f"{name} was {a.reshape(-1)[:8]} and is {b.reshape(-1)[:8]} (sizes of {size})"
    return None


def _outcome(
    function: Function,
    inputs: Sequence[Array],
    state: Mapping[str, Array],
    module: Module,
    table: OpTable,
    *,
    exact: bool,
) -> dict[str, tuple[Array, NDArray[np.float64] | None]]:
    """Every result and all state after the function, each with a bound on its error unless ``exact``."""
    if exact:
        results, after = run(function, inputs, state=state, constants=module.constants, table=table)
        arrays = {**{f"result {i}": a for i, a in enumerate(results)}, **{f"state {n}": a for n, a in after.items()}}
        return {name: (a, None) for name, a in arrays.items()}
    bounded, states = run_with_bounds(function, inputs, state=state, constants=module.constants, table=table)
    named = {**{f"result {i}": k for i, k in enumerate(bounded)}, **{f"state {n}": k for n, k in states.items()}}
    return {name: (k.value, k.error) for name, k in named.items()}


@dataclass(frozen=True)
class FiredRule:
    """A rule that was applied: by which pass, what it says and why, and where in the source."""

    by: str
    rule: str
    because: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class RuleRecord:
    """Notes in ``fired`` which rewrite rules are applied, by running the passes of the names given once more."""

    passes: Collection[str] = ("algebraic", "canonicalize")
    fired: list[FiredRule] = field(default_factory=list)

    def before(self, step: Step, module: Module) -> None:
        name = step.of.name
        if name not in self.passes:
            return

        def note(rule: object, builder: Builder, node: Node, values: tuple[Value, ...]) -> None:
            found = rule.first(builder, node) if isinstance(rule, RuleSet) else None
            text, because = _change(node, values), "" if found is None else found[0].because
            if found is not None and isinstance(found[0].replacement, str):
                text = f"{found[0].pattern} → {found[0].replacement}"
            self.fired.append(FiredRule(name, text, because, builder.locations.get(node, ())))

        step.of.run(module, PassContext(fired=note))

    def after(self, step: Step, before: Module, after: Module) -> None:
        pass


def _change(node: Node, values: Sequence[Value]) -> str:
    """What a rule did, as a rule: each value that it leaves alone has a letter."""
    letters: dict[Value, str] = {}

    def text(value: Value, depth: int) -> str:
        inner = value.node
        if value in letters or depth == 0 or not inner.operands:
            number = inner.attributes.get("value") if inner.op == "constant" else None
            return letters.setdefault(value, chr(ord("a") + len(letters) % 26)) if number is None else str(number)
        return f"{inner.op}({', '.join(text(v, depth - 1) for v in inner.operands)})"

    before = text(node.results[0], 2)
    return f"{before} → {', '.join(text(v, 2) for v in values)}"


def random_inputs(
    module: Module, function: Function, rng: np.random.Generator, size: int | Mapping[str, int]
) -> tuple[list[Array], dict[str, Array]]:
    """Arrays for the function's parameters and the module's state, where symbolic dimensions are ``size``, of which a
    mapping has one for each, as far as their ranges allow. Floats are small multiples of 1/8, integers small: sums of
    them are exact."""
    types = [p.type for p in function.parameters]
    names = sorted({name for t in (*types, *(s.type for s in module.state.values())) for name in _symbols(t)})
    sizes = {}
    for name in names:
        low, high = module.ranges.get(name, (0, None))
        wanted = size if isinstance(size, int) else size[name]
        sizes[name] = min(max(wanted, low), wanted if high is None else high)
    return [_random(t, rng, sizes) for t in types], {
        name: _random(s.type, rng, sizes) for name, s in module.state.items()
    }


def _symbols(type: TensorType) -> frozenset[str]:
    return frozenset[str]().union(*(symbols(d) for d in type.shape))


def _random(type: TensorType, rng: np.random.Generator, sizes: dict[str, int]) -> Array:
    shape = [evaluate(d, sizes) for d in type.shape]
    if type.dtype.kind == "bool":
        return np.asarray(rng.integers(0, 2, shape), type.dtype.numpy)
    if type.dtype.is_integer:
        return np.asarray(rng.integers(0 if type.dtype.kind == "uint" else -3, 4, shape), type.dtype.numpy)
    return np.asarray(rng.integers(-16, 17, shape) / 8, type.dtype.numpy)


def same_bits(a: Array, b: Array) -> bool:
    """Whether dtype, shape and every element agree: -0 is not 0, any nan is any nan."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    wide, other = a.astype(np.float64), b.astype(np.float64)
    return bool(np.all((wide == other) & (np.signbit(wide) == np.signbit(other)) | np.isnan(wide) & np.isnan(other)))


def within(a: Array, b: Array, error: Array) -> bool:
    """Whether ``|a - b| <= error``; equal infinities and nans agree."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    wide, other = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return bool(np.all((wide == other) | (np.isnan(wide) & np.isnan(other)) | (np.abs(wide - other) <= error)))
