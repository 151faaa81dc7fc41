"""The compiler as a whole: a module goes through the passes, its kernels are lowered, emitted, and made native code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from passes.base import Pass, PassContext
from passes.instruments import Instrument
from passes.pipeline import Pipeline, parse_pipeline
from tgc.backend.call import NativeFunction
from tgc.backend.codegen import compile_module as emit_object
from tgc.backend.emit import emit_module
from tgc.backend.entry import entry_symbols, entry_text
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.run_text import RUNTIME_DECLARATION
from tgc.backend.threads import process_runtime
from tgc.cache import Cache, cache_key
from tgc.errors import CompilerBug
from tgc.executable import CompiledFunction
from tgc.ir.graph import Constant, Function, Module, Node, Place, State
from tgc.kernels.ir import Kernel
from tgc.kernels.program import Program
from tgc.ops import OPS
from tgc.programs import KernelLibrary, program_of
from tgc.target import Target


@dataclass(frozen=True)
class Options:
    """How to compile. ``pipeline``: ``"O0"`` to ``"O3"`` or passes by name; ``passes`` run before it.

    ``debug``: every load and store of the kernels checks its bounds.
    """

    pipeline: str = "O3"
    passes: tuple[Pass, ...] = ()
    target: Target | None = None
    debug: bool = False
    cached: bool = True

    def resolved(self) -> Target:
        return self.target or host_target()


@dataclass(frozen=True)
class Compiled:
    """A module on its way down: after the passes, as programs, as kernels."""

    module: Module
    programs: Mapping[str, Program]
    kernels: tuple[Kernel, ...]
    sources: Mapping[str, Node]
    target: Target
    options: Options = field(default_factory=Options)

    def llvm(self) -> str:
        """LLVM IR of the kernels and of one entry per function, for use in process."""
        entries = [entry_text(p, symbol=entry_symbol(name)) for name, p in self.programs.items()]
        kernels = emit_module(self.kernels, self.target, self.options.debug)
        return "\n".join([kernels, *entries, RUNTIME_DECLARATION])


def entry_symbol(name: str) -> str:
    """The symbol of a function's inner entry."""
    return f"tgc_{name}"


def optimise(module: Module, options: Options, instruments: Sequence[Instrument] = ()) -> Module:
    """The module after the passes of ``options``."""
    pipeline = parse_pipeline(options.pipeline)
    if options.passes:
        pipeline = Pipeline(options.passes + pipeline.passes)
    return pipeline.run(module, PassContext(OPS, options.resolved()), instruments=instruments)


def lower_module(module: Module, options: Options | None = None, instruments: Sequence[Instrument] = ()) -> Compiled:
    """Kernels and programs of a module, passes included."""
    options = options or Options()
    target = options.resolved()
    optimised = optimise(module, options, instruments)
    library = KernelLibrary(OPS, target)
    programs = {
        f.name: program_of(f, library, state=optimised.state, constants=optimised.constants, ranges=optimised.ranges)
        for f in optimised.functions
    }
    return Compiled(optimised, programs, tuple(library.kernels.values()), library.sources, target, options)


def compile_function(
    function: Function,
    *,
    state: Mapping[str, State] | None = None,
    constants: Mapping[str, Constant] | None = None,
    locations: Mapping[Node, tuple[Place, ...]] | None = None,
    options: Options | None = None,
) -> CompiledFunction:
    """Native code of a function, from the cache when it was compiled before.

    State and constants of the result are those that the function uses, in the order of the mappings.
    """
    options = options or Options()
    module = Module("jit", (replace(function, name="f"),), state or {}, constants or {}, {}, locations or {})
    cache = Cache.default() if options.cached else None
    key = cache_key(module, options.resolved(), options.pipeline, options.passes, options.debug) if cache else ""
    entry = cache.get(key) if cache else None
    known = module.constants
    if entry is None:
        compiled = lower_module(module, options)
        known = compiled.module.constants
        program = replace(compiled.programs["f"], steps=())
        image = emit_object(compiled.llvm(), compiled.target, external=frozenset({"tgc_run"}))
        if cache:
            cache.put(key, program, image)
    else:
        program, image = entry
        if any(value.name not in known for value in program.constants):
            # constants that the passes computed
            known = optimise(module, options).constants
    return load_function(program, image, known)


def load_function(program: Program, image: bytes, constants: Mapping[str, Constant]) -> CompiledFunction:
    """The function ``f`` of an object file, ready to be called."""
    symbol = entry_symbol("f")
    runtime = process_runtime()
    library = Library(image, entry_symbols(symbol), addresses=runtime.symbols, dependencies=(runtime,))
    arrays = []
    for value in program.constants:
        data = constants[value.name].data
        if data is None:
            raise CompilerBug(f"constant {value.name} has no data", stage="loading")
        arrays.append(data)
    native = NativeFunction(program, address=library.address, symbol=symbol, constants=arrays, keepalive=library)
    return CompiledFunction(program, native)
