"""Pipelines: passes by name, in order. ``PASSES`` and ``PIPELINES`` are the compiler's table of contents."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from passes.algebraic import Algebraic
from passes.base import Pass, PassContext
from passes.canonicalize import Canonicalize
from passes.constant_folding import ConstantFolding
from passes.cse import CommonSubexpressions
from passes.dce import DeadCode
from passes.decompose import Decompose
from passes.fusion import Fusion
from passes.instruments import Instrument, Step
from passes.layout import LayoutChoice
from passes.memory_plan import MemoryPlan
from passes.rematerialization import Rematerialization
from passes.scan_hoist import ScanHoist
from tgc.errors import CompilerBug, TgcError, UserError
from tgc.ir.graph import Module
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module

_ALL: tuple[type[Pass], ...] = (
    Algebraic,
    Canonicalize,
    ConstantFolding,
    CommonSubexpressions,
    DeadCode,
    Decompose,
    Rematerialization,
    Fusion,
    LayoutChoice,
    MemoryPlan,
    ScanHoist,
)
PASSES: Mapping[str, type[Pass]] = MappingProxyType({p.name: p for p in _ALL})

_CLEAN = "decompose,canonicalize,algebraic,constant-folding"
_KERNELS = "dce,layout,fusion,memory-plan"

PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "O0": "decompose,dce,fusion,memory-plan",
        "O1": f"{_CLEAN},{_KERNELS}",
        "O2": f"{_CLEAN},canonicalize,cse,{_KERNELS}",
        "O3": f"{_CLEAN},scan-hoist,canonicalize,cse,{_KERNELS}",
    }
)

_STEP = re.compile(r"\s*([^\s,{}]+)\s*(?:\{([^{}]*)\})?\s*(,|$)")
_OPTION = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*=\s*([^\s,=]+)\s*(?:[,\s]|$)")


@dataclass(frozen=True)
class Pipeline:
    """Passes to be run one after the other.

    Raises :class:`UserError` when a pass requires a property that nothing before it ensures.
    """

    passes: tuple[Pass, ...]
    has: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        have = set(self.has)
        for p in self.passes:
            missing = sorted(p.requires - have)
            if missing:
                makers = [name for name, other in PASSES.items() if other.ensures & p.requires]
                raise UserError(
                    f"pass {p.name} requires {', '.join(missing)} modules, and no pass before it ensures that",
                    hint=f"put {' or '.join(makers)} before it" if makers else None,
                )
            have -= p.breaks
            have |= p.ensures

    def run(
        self, module: Module, context: PassContext | None = None, *, instruments: Sequence[Instrument] = ()
    ) -> Module:
        """The module after all passes. ``instruments`` look on before and after each.

        An exception of a pass that is not a tgc error becomes a :class:`CompilerBug` that names the pass.
        """
        context = context or PassContext()
        for number, p in enumerate(self.passes):
            step = Step(number, p)
            for instrument in instruments:
                instrument.before(step, module)
            try:
                after = p.run(module, context)
            except TgcError:
                raise
            except Exception as error:
                raise CompilerBug(f"{type(error).__name__}: {error}", stage=p.name) from error
            for instrument in reversed(instruments):
                instrument.after(step, module, after)
            module = after
        return module

    def __str__(self) -> str:
        return ",".join(map(print_pass, self.passes))


def print_pass(p: Pass) -> str:
    """The pass as pipelines write it: its name and the options that differ from their defaults."""
    options = []
    for field in dataclasses.fields(p):
        value = getattr(p, field.name)
        if value != field.default:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            options.append(f"{field.name.replace('_', '-')}={text}")
    return p.name + (f"{{{' '.join(options)}}}" if options else "")


def parse_pipeline(
    text: str,
    *,
    passes: Mapping[str, type[Pass]] = PASSES,
    load: Callable[[str], type[Pass]] | None = None,
    has: frozenset[str] = frozenset(),
) -> Pipeline:
    """The pipeline that ``text`` describes: names of passes with options, or of pipelines, separated by commas.

    ``"cse,fusion{max-ops=32}"``; options are separated by blanks or commas. ``str`` of the pipeline is the inverse.
    What stands where a name would and has a colon, such as ``my_pass.py:MyPass``, is given to ``load``. ``has``: the
    properties of the modules that it is for.
    Raises :class:`UserError` for names and options that there are not, and values that an option does not take.
    """
    found: list[Pass] = []
    position = 0
    while position < len(text.rstrip()):
        match = _STEP.match(text, position)
        if match is None:
            raise UserError(
                f"expected the name of a pass at {text[position:]!r}",
                hint="write pass,pass{option=value}, for example constant-folding,cse",
            )
        name, options, _ = match.groups()
        position = match.end()
        if name in PIPELINES and name not in passes and options is None:
            found.extend(parse_pipeline(PIPELINES[name], passes=passes).passes)
        elif name in passes:
            found.append(_with_options(passes[name], options or ""))
        elif ":" in name and load is not None:
            found.append(_with_options(load(name), options or ""))
        else:
            raise UserError(
                f"there is no pass {name!r}", hint=f"there are {', '.join([*sorted(passes), *sorted(PIPELINES)])}"
            )
    return Pipeline(tuple(found), has)


def _with_options(kind: type[Pass], text: str) -> Pass:
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    values: dict[str, object] = {}
    position = 0
    while text[position:].strip():
        match = _OPTION.match(text, position)
        if match is None:
            raise UserError(f"pass {kind.name}: expected option=value at {text[position:]!r}")
        name, value = match.groups()
        position = match.end()
        if name not in fields:
            known = f"it has {', '.join(fields)}" if fields else "it has no options"
            raise UserError(f"pass {kind.name} has no option {name!r}", hint=known)
        values[fields[name].name] = _option(kind.name, name, value, fields[name].default)
    return kind(**values)


def _option(pass_name: str, name: str, text: str, default: object) -> bool | int | float | str:
    """``text`` as the type that the option's default has."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError):
        raise UserError(
            f"pass {pass_name}: option {name} takes {type(default).__name__}, not {text!r}",
        ) from None
    return text


def run_text(
    text: str,
    pipeline: str | Pipeline,
    *,
    context: PassContext | None = None,
    instruments: Sequence[Instrument] = (),
    source: str = "<text>",
    locations: bool = False,
) -> str:
    """The module that ``text`` states, after the pipeline, as text: what `tgc opt` does.

    >>> print(run_text('''module @m { func @f(%x: f32[2]) -> (f32[2]) {
    ...   %y = reshape(%x) {shape = [2]}
    ...   return %y
    ... } }''', "canonicalize"))
    module @m {
      func @f(%x: f32[2]) -> (f32[2]) {
        return %x
      }
    }
    """
    context = context or PassContext()
    passes = parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
    module = parse_module(text, context.table, source=source)
    return print_module(passes.run(module, context, instruments=instruments), locations=locations)
