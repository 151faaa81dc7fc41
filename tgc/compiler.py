"""The compiler as a whole: a module goes through the passes, its kernels are lowered, emitted, and made native code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from passes.base import Pass, PassContext, all_nodes
from tgc.backend.entry import entry_text, kernel_declarations
from tgc.backend.host import host_target
from tgc.backend.parallel import ModuleCompiler, compile_modules
from tgc.backend.run_text import RUNTIME_DECLARATION
from tgc.cache import Cache, Entry, cache_key
from tgc.errors import CompilerBug, TgcError, UserError
from tgc.executable import CompiledFunction, kept_arrays, load_function
from tgc.ir.graph import Array, Constant, Function, Module, Node, Place, State
from tgc.ir.printer import print_module
from tgc.kernels.ir import Kernel
from tgc.kernels.program import Program, launches
from tgc.lazy import LazyModule
from tgc.ops import OPS
from tgc.target import Target

if TYPE_CHECKING:
    import passes.pipeline as pipelines
    import tgc.backend.emit as emission
    import tgc.programs as assembly
    from passes.instruments import Instrument
else:
    # a process that finds its code in the cache needs neither passes nor schedules
    pipelines = LazyModule("passes.pipeline")
    emission = LazyModule("tgc.backend.emit")
    assembly = LazyModule("tgc.programs")

_FUNCTION = "f"
_ENTRY = "tgc_f"


@dataclass(frozen=True)
class Options:
    """How to compile. ``pipeline``: ``"O0"`` to ``"O3"`` or passes by name; ``passes`` run before it.

    ``target``: by default this machine. ``debug``: every load and store of the kernels checks its bounds. ``cached``:
    whether functions for this process are looked up in the cache and kept there. ``instruments`` look on while passes
    run, of which a function from the cache has none.
    """

    pipeline: str = "O3"
    passes: tuple[Pass, ...] = ()
    target: Target | None = None
    debug: bool = False
    cached: bool = True
    instruments: tuple[Instrument, ...] = field(default=(), compare=False)

    def resolved(self) -> Target:
        """The target."""
        return self.target or host_target()

    def passes_in_order(self) -> pipelines.Pipeline:
        """All passes. Raises :class:`UserError` for a pipeline that does not fit together."""
        pipeline = pipelines.parse_pipeline(self.pipeline)
        return pipelines.Pipeline(self.passes + pipeline.passes) if self.passes else pipeline

    def cache(self) -> Cache | None:
        """Where to look for code. A pass from elsewhere is not cached: its source may change."""
        known = all(pipelines.PASSES.get(p.name) is type(p) for p in self.passes)
        return Cache.default() if self.cached and known and not self.instruments else None


@dataclass(frozen=True)
class Compiled:
    """A module on its way down: after the passes, as programs, as kernels.

    ``library`` knows which kernels each fused region became.
    """

    module: Module
    programs: Mapping[str, Program]
    library: assembly.KernelLibrary
    target: Target

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel, equal ones once."""
        return tuple(self.library.kernels.values())


@contextmanager
def reproducible(module: Module, stage: str) -> Iterator[None]:
    """Turns whatever goes wrong inside, mistakes of the user excepted, into a :class:`CompilerBug` with the module."""
    try:
        yield
    except UserError:
        raise
    except CompilerBug as bug:
        if not bug.ir.startswith("module "):
            bug.ir = print_module(module)
        raise
    except TgcError as error:
        raise CompilerBug(str(error), stage=stage, ir=print_module(module)) from error
    except Exception as error:
        raise CompilerBug(f"{type(error).__name__}: {error}", stage=stage, ir=print_module(module)) from error


def optimise(module: Module, options: Options) -> Module:
    """The module after the passes of ``options``."""
    pipeline = options.passes_in_order()
    with reproducible(module, "passes"):
        return pipeline.run(module, PassContext(OPS, options.resolved()), instruments=options.instruments)


def _require_plain_layouts(module: Module, pipeline: pipelines.Pipeline) -> None:
    """Without the pass that brings layouts together, schedules take what they read for row-major."""
    if any(p.name == "layout" for p in pipeline.passes):
        return
    for node in (node for function in module.functions for node in all_nodes(function.outputs)):
        if any(t.layout is not None for t in node.types):
            raise UserError(
                f"{node.op} gives {', '.join(map(str, node.types))}, but these passes do not bring layouts together",
                hint="add layout before fusion, or use O1, O2 or O3",
            )


def lower_module(
    module: Module, options: Options | None = None, *, made: Callable[[Kernel], None] | None = None
) -> Compiled:
    """Kernels and programs of a module, passes included; a module whose memory is planned is taken as it is.

    ``made`` is called with each kernel as soon as there is one. Raises :class:`UserError` for a pipeline that does not
    end in planned memory.
    """
    options = options or Options()
    target = options.resolved()
    planned = all(f.workspace is not None for f in module.functions)
    if not planned:
        _require_plain_layouts(module, options.passes_in_order())
    optimised = module if planned else optimise(module, options)
    if any(f.workspace is None for f in optimised.functions):
        raise UserError(
            "the passes leave memory unplanned, so that there is nothing to compile",
            hint="end the pipeline with fusion,memory-plan, or with O0, O1, O2 or O3",
        )
    library = assembly.KernelLibrary(OPS, target, made=made)
    unassigned = frozenset(optimised.state).difference(name for f in optimised.functions for name, _ in f.assigns)
    with reproducible(module, "lowering"):
        programs = {
            f.name: assembly.program_of(
                f,
                library,
                state=optimised.state,
                constants=optimised.constants,
                ranges=module.ranges,
                unassigned=unassigned,
            )
            for f in optimised.functions
        }
    return Compiled(optimised, programs, library, target)


def compile_function(
    function: Function,
    *,
    state: Mapping[str, State] | None = None,
    constants: Mapping[str, Constant] | None = None,
    locations: Mapping[Node, tuple[Place, ...]] | None = None,
    options: Options | None = None,
) -> CompiledFunction:
    """Native code of a function, from the cache when it was compiled before.

    State and constants of the result are those that the function uses, in the order of the mappings. Its code does not
    depend on what the state is, so that a process that starts anew finds it.
    """
    options = options or Options()
    held = {name: State(s.type) for name, s in (state or {}).items()}
    module = Module("jit", (replace(function, name=_FUNCTION),), held, constants or {}, {}, locations or {})
    cache = options.cache()
    key = cache_key(module, options.resolved(), options.pipeline, options.passes, options.debug) if cache else ""
    entry = cache.get(key) if cache else None
    if entry is None:
        entry = _compiled_entry(module, options)
        if cache:
            cache.put(key, entry)
    arrays = {**_arrays(module.constants), **entry.constants}
    return load_function(entry.program, _ENTRY, entry.images, arrays, debug=options.debug)


def _compiled_entry(module: Module, options: Options) -> Entry:
    """Code generation takes most of the time: each kernel is compiled on another thread while the next is made."""
    target = options.resolved()
    with ModuleCompiler(target, external=frozenset({"tgc_run"})) as compiler:
        if options.debug:
            # the kernels share the record of what went wrong, so they share a module
            compiled = lower_module(module, options)
            parts = emission.emit_module(compiled.kernels, target, debug=True)
        else:
            compiled = lower_module(
                module, options, made=lambda kernel: compiler.add(emission.emit_module([kernel], target))
            )
            parts = emission.emit_module([], target) + kernel_declarations(compiled.programs.values())
        program = compiled.programs[_FUNCTION]
        with reproducible(module, "code generation"):
            compiler.add(parts + entry_text(program, symbol=_ENTRY) + RUNTIME_DECLARATION)
            images = compiler.finish()
    computed = {n: c for n, c in compiled.module.constants.items() if n not in module.constants}
    signature = replace(program, steps=(), setup=program.setup and replace(program.setup, steps=()))
    used = {v.name for p in (program, program.setup) if p is not None for v in p.constants}
    return Entry(signature, images, {n: a for n, a in _arrays(computed).items() if n in used})


def computed_constants(setup: Program, compiled: Compiled) -> dict[str, Array]:
    """What a setup without state computes, by name, from the constants of ``compiled``.

    Its kernels are compiled for this machine: they move and convert numbers, with the same result on any.
    """
    target, launched = host_target(), {launch.kernel for launch in launches(setup)}
    kernels = [kernel for kernel in compiled.kernels if kernel.name in launched]
    text = emission.emit_module(kernels, target) + entry_text(setup, symbol=_ENTRY) + RUNTIME_DECLARATION
    images = compile_modules([text], target, external=frozenset({"tgc_run"}))
    results = kept_arrays(setup.state)
    load_function(setup, _ENTRY, images, _arrays(compiled.module.constants)).run((), list(results.values()))
    return results


def _arrays(constants: Mapping[str, Constant]) -> dict[str, Array]:
    return {name: constant.data for name, constant in constants.items() if constant.data is not None}
