"""Comparing compiled code with the interpreter: after each pass, op by op, kernel by kernel, and as a whole.

The interpreter computes each op in f64 and rounds once. Tolerances are propagated from the bounds that the ops state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from passes.instruments import Step, Verify
from passes.pipeline import print_pass
from tgc.compiler import Options, compile_function, lower_module
from tgc.dtypes import from_numpy
from tgc.errors import CompilerBug, VerificationError
from tgc.inspect.memory import source_lines, title
from tgc.inspect.native import NativeKernels, inputs_for
from tgc.inspect.shrink import only, shrunk
from tgc.ir.graph import Array, Function, Module, Node
from tgc.ir.opdef import float_info
from tgc.ir.printer import print_module
from tgc.reference import Bounded, run, run_with_bounds
from tgc.specialise import dimensions

SIZE: Final = 17
"""The size of a dimension that nothing else decides: more than a vector of f32, and no multiple of one."""
_OP_BY_OP: Final = "decompose,dce,fusion{max-ops=1},memory-plan"
_TINY: Final = 1e-300


@dataclass(frozen=True)
class Check:
    """A comparison: of a pass, an op, a kernel, or the whole function.

    ``share``: the largest difference from the interpreter in terms of what is tolerated, so that above 1 it is wrong;
    ``ulp``: the same one in units in the last place of the value. ``wrong`` says how it is wrong.
    """

    function: str
    stage: str
    name: str
    lines: tuple[str, ...]
    ulp: float
    share: float
    wrong: str = ""


def verify_module(
    module: Module, options: Options | None = None, *, seed: int = 0, found: Callable[[Check], None] | None = None
) -> tuple[Check, ...]:
    """Compares everything that becomes of ``module`` with what it means, on random inputs and its own state.

    Stages come in order: ``"pass"``, ``"op"``, ``"kernel"``, ``"whole"``; ``found`` is told of each check. Raises
    :class:`CompilerBug` for the first one that leaves its tolerance: it names the pass, op or kernel, and carries a
    small module for which this happens as well.
    """
    options = replace(options or Options(), cached=False)
    checks: list[Check] = []
    for function in module.functions:
        alone = only(module, function.name)
        for stage in _STAGES:
            for check in _checked(alone, stage, options, seed):
                checks.append(check)
                if found is not None:
                    found(check)
                if check.wrong:
                    raise _bug(alone, check, options, seed)
    return tuple(checks)


def _bug(module: Module, check: Check, options: Options, seed: int) -> CompilerBug:
    def fails(candidate: Module) -> bool:
        try:
            first = next((c for c in _checked(candidate, check.stage, options, seed) if c.wrong), None)
        except Exception:  # noqa: BLE001 - a part of a program may be none
            return False
        return first is not None and (check.stage != "pass" or first.name == check.name)

    where = f" at {' '.join(check.lines)}" if check.lines else ""
    message = f"the {check.stage} goes wrong in {check.function}{where}: {check.wrong}"
    if check.stage == "whole":
        message = f"all of it goes wrong, though every kernel by itself is right: {check.wrong}"
    return CompilerBug(message, stage=check.name, ir=print_module(shrunk(module, fails)))


def _checked(module: Module, stage: str, options: Options, seed: int) -> Iterator[Check]:
    (function,) = module.functions
    sizes = {}
    for name in sorted(dimensions(module)):
        low, high = module.ranges.get(name, (0, None))
        sizes[name] = min(max(SIZE, low), SIZE if high is None else high)
    inputs, state = inputs_for(module, function, sizes, seed)
    yield from _STAGES[stage](_Case(module, function, inputs, state, sizes, options))


@dataclass(frozen=True)
class _Case:
    """A module of one function, with what to call it with."""

    module: Module
    function: Function
    inputs: Sequence[Array]
    state: Mapping[str, Array]
    sizes: Mapping[str, int]
    options: Options

    def meaning(self, module: Module) -> dict[str, Bounded]:
        """What the function means in a module that was made of this one."""
        (function,) = module.functions
        results, state = run_with_bounds(function, self.inputs, state=self.state, constants=module.constants)
        return {**{f"result {i}": k for i, k in enumerate(results)}, **{f"state {n}": k for n, k in state.items()}}


class _PassChecks:
    """An instrument that compares what each pass makes with what it was given."""

    def __init__(self, case: _Case) -> None:
        self.case = case
        self.meaning = case.meaning(case.module)
        self.checks: list[Check] = []

    def before(self, step: Step, module: Module) -> None:
        pass

    def after(self, step: Step, before: Module, after: Module) -> None:
        if after is before:
            return
        meaning = self.case.meaning(after)
        pairs = {
            name: (old.value, meaning[name].value, old.error + meaning[name].error)
            for name, old in self.meaning.items()
        }
        self.meaning = meaning
        self.checks.append(_compared(self.case.function.name, "pass", print_pass(step.of), (), pairs))
        if self.checks[-1].wrong:
            raise VerificationError(self.checks[-1].wrong)


def _passes(case: _Case) -> Iterator[Check]:
    options, looking = case.options, _PassChecks(case)
    try:
        lower_module(case.module, replace(options, instruments=(*options.instruments, looking, Verify())))
    except (CompilerBug, VerificationError) as error:
        if not (looking.checks and looking.checks[-1].wrong):
            stage = error.stage if isinstance(error, CompilerBug) else "the module"
            said = str(error).removeprefix(f"{stage}: ").partition("\n")[0]
            broken = Check(case.function.name, "pass", stage, (), np.inf, np.inf, said)
            looking.checks.append(broken)
    yield from looking.checks


def _kernels(case: _Case, stage: str, options: Options) -> Iterator[Check]:
    """Each kernel on the interpreter's own operands, so that no error is carried on."""
    compiled = lower_module(case.module, options)
    (function,) = compiled.module.functions
    native = NativeKernels(compiled, case.sizes, debug=True)
    checks: dict[tuple[str, tuple[str, ...]], Check] = {}

    def compared(node: Node, operands: Sequence[Array], compute: Callable[[], Sequence[Array]]) -> Sequence[Array]:
        if node.op != "fusion":
            return compute()
        meant, _ = run_with_bounds(Function("kernel", node.regions[0]), operands, sizes=case.sizes)
        lines = source_lines(compiled.module.locations.get(node, ()))
        try:
            have = native.run(node, operands)
        except CompilerBug as error:
            check = Check(case.function.name, stage, title(node), lines, np.inf, np.inf, str(error))
        else:
            pairs = {f"result {i}": (k.value, a, k.error) for i, (k, a) in enumerate(zip(meant, have, strict=True))}
            check = _compared(case.function.name, stage, title(node), lines, pairs)
        key = (check.name, check.lines)
        if key not in checks or check.share > checks[key].share:
            checks[key] = check
        return [k.value for k in meant]

    run(function, case.inputs, state=case.state, constants=compiled.module.constants, around=compared)
    yield from checks.values()


def _whole(case: _Case) -> Iterator[Check]:
    meaning = case.meaning(case.module)
    module = case.module
    compiled = compile_function(
        case.function, state=module.state, constants=module.constants, locations=module.locations, options=case.options
    )
    held = {value.name: case.state[value.name].copy() for value in compiled.program.state}
    results = compiled.run(case.inputs, list(held.values()))
    have = {f"result {i}": a for i, a in enumerate(results)} | {f"state {n}": a for n, a in held.items()}
    pairs = {name: (meaning[name].value, a, meaning[name].error) for name, a in have.items()}
    yield _compared(case.function.name, "whole", case.function.name, (), pairs)


def _compared(
    function: str, stage: str, name: str, lines: tuple[str, ...], pairs: Mapping[str, tuple[Array, Array, Array]]
) -> Check:
    """The worst of pairs of what is meant and what there is, with the bounds on their difference."""
    worst = Check(function, stage, name, lines, 0.0, 0.0)
    for what, (meant, have, bound) in pairs.items():
        if meant.dtype != have.dtype or meant.shape != have.shape:
            wrong = f"{what} is {have.dtype}{list(have.shape)} and ought to be {meant.dtype}{list(meant.shape)}"
            return replace(worst, ulp=np.inf, share=np.inf, wrong=wrong)
        if not meant.size:
            continue
        shares, ulps = _distances(meant, have, bound)
        at = np.unravel_index(int(np.argmax(shares)), shares.shape)
        share, ulp = float(shares[at]), float(ulps[at])
        if share <= worst.share:
            continue
        place = f"{what}{[int(i) for i in at] if at else ''}"
        right = f"{meant[at]!s} ± {bound[at]:.2g}"
        wrong = f"{place} is {have[at]!s} and ought to be {right} ({ulp:.3g} ULP off)" if share > 1 else ""
        worst = replace(worst, ulp=ulp, share=share, wrong=wrong)
    return worst


def _distances(meant: Array, have: Array, bound: Array) -> tuple[Array, Array]:
    """How far each element is off, in terms of its bound and in units in the last place."""
    wide, other = meant.astype(np.float64), have.astype(np.float64)
    with np.errstate(all="ignore"):
        # 64-bit integers differ where their floats may not
        least = 1.0 if meant.dtype.kind in "iu" else 0.0
        distance = np.where(meant == have, 0.0, np.maximum(np.abs(wide - other), least))
        distance = np.where(np.isnan(wide) & np.isnan(other), 0.0, np.where(np.isnan(distance), np.inf, distance))
        shares = np.where(distance == 0, 0.0, distance / np.maximum(bound, _TINY))
        # an infinite distance within an infinite bound
        return np.where(np.isnan(shares), 0.0, shares), distance / _unit(wide, meant)


def _unit(wide: Array, meant: Array) -> Array:
    """A unit in the last place of each value; 1 for integers."""
    dtype = from_numpy(meant.dtype)
    if not dtype.is_float:
        return np.ones(wide.shape)
    roundoff, smallest = float_info(dtype)
    exponent = np.frexp(np.where(np.isfinite(wide), wide, 0.0))[1]
    return np.maximum(np.ldexp(roundoff, exponent), smallest)


_STAGES: Mapping[str, Callable[[_Case], Iterator[Check]]] = {
    "pass": _passes,
    "op": lambda case: _kernels(case, "op", replace(case.options, pipeline=_OP_BY_OP, passes=())),
    "kernel": lambda case: _kernels(case, "kernel", case.options),
    "whole": _whole,
}
