"""What a command line can be given to compile: Python files with exported functions, and graph IR as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
from safetensors import SafetensorError, deserialize

from tgc.cli.failures import users_code
from tgc.errors import ParseError, UserError, VerificationError
from tgc.frontend.export import described_functions, module_of
from tgc.frontend.jit import CompiledCallable, Exported
from tgc.ir.graph import Constant, Module, State
from tgc.ir.parser import parse_module
from tgc.ir.verify import verify
from tgc.ops import OPS
from tgc.specialise import Range, specialise

_DIM: Final = re.compile(r"([A-Za-z_]\w*)=(\d+)(?:(\.\.)(\d*))?")
_KINDS: Final = "a Python file, file.py:function, or graph IR (file.tgc)"


@dataclass(frozen=True)
class Source:
    """What is to be compiled: a module, the name of its library, and what its functions say of themselves."""

    name: str
    module: Module
    docs: Mapping[str, str] = field(default_factory=dict)


def load_source(text: str, dims: tuple[str, ...] = (), name: str | None = None) -> Source:
    """The source that ``text`` names, for dimensions as ``dims`` say; ``name`` is that of the library.

    Raises :class:`UserError` for anything that cannot be read, imported or recorded.
    """
    path_text, colon, function = text.rpartition(":")
    if not colon or not path_text.endswith(".py"):
        path_text, function = text, ""
    path = Path(path_text)
    if not path.is_file():
        raise UserError(f"there is no file {path_text}", hint=f"give {_KINDS}")
    library = name or re.sub(r"\W", "_", path.name.split(".")[0], flags=re.ASCII)
    if path.suffix == ".py":
        source = _python_source(path, function, library)
    elif path.suffix == ".tgc":
        source = _text_source(path, library)
    else:
        raise UserError(f"{path.name} is of no kind that can be compiled", hint=f"give {_KINDS}")
    return replace(source, module=specialise(source.module, parse_dims(dims))) if dims else source


def jitted_functions(text: str) -> list[CompiledCallable]:
    """The compiled functions of a Python source that were called while it was imported."""
    path = Path(text.rpartition(":")[0] if ".py:" in text else text)
    if path.suffix != ".py":
        return []
    found = (f for f in vars(import_file(path)).values() if isinstance(f, CompiledCallable))
    return [f for f in dict.fromkeys(found) if f.specialisations]


def called_function(text: str) -> CompiledCallable | None:
    """The function that ``file.py:name`` names, if it has no types of its own and was called while it was imported."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        return None
    found = getattr(import_file(Path(path)), name, None)
    return found if isinstance(found, CompiledCallable) and found.specs is None and found.specialisations else None


def parse_dims(dims: tuple[str, ...]) -> dict[str, Range]:
    """The ranges that ``name=size``, ``name=low..high`` and ``name=low..`` state.

    >>> parse_dims(("batch=1..64", "width=28", "length=1.."))
    {'batch': (1, 64), 'width': (28, 28), 'length': (1, None)}
    """
    found: dict[str, Range] = {}
    for text in dims:
        match = _DIM.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r} is no dimension", hint="write batch=32, batch=1..64 or batch=1..")
        name, low, dots, high = match.groups()
        found[name] = (int(low), int(high) if high else None if dots else int(low))
        if high and int(high) < int(low):
            raise UserError(f"{text!r}: the range is empty")
    return found


def import_file(path: Path) -> ModuleType:
    """A Python file, imported under its own name with its folder on ``sys.path``."""
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    # a file may be called like a module that is in use
    name = path.stem if known is None else f"_tgc_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with users_code(path.name):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _python_source(path: Path, function: str, library: str) -> Source:
    imported = import_file(path)
    exported = {f.name: f for f in vars(imported).values() if isinstance(f, Exported)}
    if function:
        chosen = [_exported(imported, function, path)]
    elif exported:
        chosen = list(exported.values())
    else:
        raise UserError(
            f"{path.name} exports no function", hint='mark one with @tgc.export("f32[batch, 784]"), a type per argument'
        )
    with users_code(path.name):
        return Source(library, module_of(chosen, library), described_functions(chosen))


def _exported(imported: ModuleType, name: str, path: Path) -> CompiledCallable:
    found = getattr(imported, name, None)
    if isinstance(found, CompiledCallable):
        return found
    exported = [n for n, f in vars(imported).items() if isinstance(f, Exported)]
    what = "has no" if found is None else "does not export the"
    raise UserError(
        f"{path.name} {what} function {name!r}",
        hint="it exports " + ", ".join(exported) if exported else "mark it with @tgc.export and a type per argument",
    )


def _text_source(path: Path, library: str) -> Source:
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    module = read_module(text, str(path))
    weights = path.with_name(path.name.split(".")[0] + ".safetensors")
    return Source(library, _with_weights(module, weights) if weights.is_file() else module)


def read_module(text: str, source: str) -> Module:
    """The module that a text states. Raises :class:`ParseError` for one that is malformed or breaks an invariant."""
    module = parse_module(text, OPS, source=source)
    try:
        verify(module, OPS)
    except VerificationError as error:
        raise ParseError(f"{source}: {error}") from None
    return module


def _with_weights(module: Module, path: Path) -> Module:
    """The module with the values that its text gives by digest only, from a file beside it."""
    try:
        stored = {name: entry["data"] for name, entry in deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise ParseError(f"{path} cannot be read: {error}") from None

    def filled(name: str, constant: Constant) -> Constant:
        data = stored.get(name)
        if constant.data is not None or data is None:
            return constant
        shape = tuple(int(d) for d in constant.type.shape if isinstance(d, int))
        try:
            array = np.frombuffer(data, constant.type.dtype.numpy).reshape(shape)
        except ValueError:
            raise ParseError(f"{path.name}: {name} is no {constant.type}") from None
        found = Constant.of(array, constant.type)
        if found != constant:
            raise ParseError(f"{path.name}: {name} holds other values than the text was written with")
        return found

    constants = {name: filled(name, c) for name, c in module.constants.items()}
    state = {
        name: s if s.initial is None else State(s.type, filled(name, s.initial)) for name, s in module.state.items()
    }
    return replace(module, constants=constants, state=state)
