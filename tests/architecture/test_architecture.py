"""The house's plan, held against its source: the floors, no cycles, and the limits every file keeps."""

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the ground up. A module imports from lower floors, or from an earlier entry of its own; modules that share an
# entry (a pattern) may import each other without a cycle. The first entry that names a module exactly counts, else the
# first pattern that fits. A package's own name stands for its __init__.py.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("tgc.version", "tgc.storage", "tgc.lazy", "tgc.location", "tgc.errors", "tgc.dtypes", "tgc.target"),
    (
        *("tgc.ir.monomials", "tgc.ir.polynomial", "tgc.ir.dims", "tgc.ir.types", "tgc.ir.kinds", "tgc.ir.graph"),
        *("tgc.ir.opdef", "tgc.ir.builder", "tgc.ir.lexer", "tgc.ir.printer", "tgc.ir.*", "tgc.ir.pattern", "tgc.ir"),
    ),
    ("tgc.ops.rules", "tgc.ops.*", "tgc.ops", "tgc.reference"),
    (
        *("passes.base", "passes.rules.*", "passes.rules", "passes.*"),
        *("passes.instruments", "passes.pipeline", "passes"),
    ),
    (
        *("tgc.kernels.scalar_term", "tgc.kernels.vector_math_*", "tgc.kernels.vector_math"),
        *("tgc.kernels.ir", "tgc.kernels.printer", "tgc.kernels.verify", "tgc.kernels.scopes"),
        *("tgc.kernels.memory", "tgc.kernels.builder"),
        *("tgc.kernels.interpreter", "tgc.kernels.program", "tgc.kernels.*"),
        *("tgc.kernels.choose", "tgc.kernels"),
    ),
    (
        *(
            "tgc.backend.uninterrupted",
            "tgc.backend.host",
            "tgc.backend.abi",
            "tgc.backend.*",
            "tgc.backend.emit",
            "tgc.backend.jit",
        ),
        *("tgc.backend.threads", "tgc.backend.entry", "tgc.backend.call", "tgc.backend.library"),
        *("tgc.backend.header", "tgc.backend.link", "tgc.backend"),
    ),
    (
        *("tgc.signature", "tgc.invariants", "tgc.programs", "tgc.cache", "tgc.executable", "tgc.compiler"),
        *("tgc.loading", "tgc.specialise", "tgc.artifacts"),
    ),
    (
        *(
            "tgc.frontend.tree",
            "tgc.frontend.initial",
            "tgc.frontend.nonfinite",
            "tgc.frontend.session",
            "tgc.frontend.trace",
            "tgc.frontend.reverse",
        ),
        *("tgc.frontend.base", "tgc.frontend.arithmetic"),
        *("tgc.frontend.*", "tgc.frontend.tensor", "tgc.frontend.random", "tgc.frontend.functions.*"),
        *("tgc.frontend.functions", "tgc.frontend.region", "tgc.frontend.control"),
        *("tgc.frontend.transforms", "tgc.frontend.batching"),
        *("tgc.frontend.jit", "tgc.frontend.export", "tgc.frontend"),
    ),
    (
        *("tgc.data.*", "tgc.data", "tgc.nn.*", "tgc.nn", "tgc.optim.*", "tgc.optim", "tgc.train"),
        *("tgc.onnx.*", "tgc.onnx", "tgc.inspect.*", "tgc.inspect"),
    ),
    ("tgc.cli.*", "tgc.cli", "tgc.__main__", "tgc"),
)

# Where a mutable global, or a `global` statement, is the point: one per process by nature.
PROCESS_STATE = frozenset({"tgc.ir.graph._INTERNED"})

# Functions that hand on whatever their caller's function takes.
FORWARDERS = frozenset({"__array_ufunc__", "__call__", "__init_subclass__"})

MAXIMUM_FILE_LINES = 400
MAXIMUM_FUNCTION_LINES = 80

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One module of the packages: its dotted name, its path and its syntax tree."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"

    def functions(self) -> Iterator[FunctionNode]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))


def sources() -> dict[str, Source]:
    found = {}
    for package in ("tgc", "passes"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Source(name, path)
    return found


SOURCES = sources()


def imported_names(source: Source, node: ast.stmt) -> list[str]:
    """The absolute dotted names that an import statement could mean, submodules included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        root = node.module or ""
        if node.level:
            base = source.package.split(".")[: len(source.package.split(".")) - node.level + 1]
            root = ".".join([*base, *([node.module] if node.module else [])])
        return [f"{root}.{alias.name}" for alias in node.names]
    return []


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def lazily_imported(node: ast.AST) -> list[str]:
    """What ``LazyModule("NAME")`` will import."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "LazyModule":
        return [ast.literal_eval(node.args[0])] if isinstance(node.args[0], ast.Constant) else []
    return []


def edges(source: Source) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """Each import of a module of ours, late ones too, apart from those that only a type checker sees."""
    guarded = (part for node in ast.walk(source.tree) if is_type_checking(node) for part in node.body)
    typing_only = {inner for part in guarded for inner in ast.walk(part)}
    for node in ast.walk(source.tree):
        if node not in typing_only:
            names = imported_names(source, node) if isinstance(node, ast.stmt) else lazily_imported(node)
            for name in names:
                target = name
                while target and target not in SOURCES:
                    target = target.rpartition(".")[0]
                if target and target != source.name and isinstance(node, ast.stmt | ast.expr):
                    yield node, target


def place(name: str) -> tuple[int, int] | None:
    """The floor of a module and its entry on the floor."""
    entries = [(entry, (floor, index)) for floor, row in enumerate(FLOORS) for index, entry in enumerate(row)]
    exact = [where for entry, where in entries if entry == name]
    fitting = [(len(entry), where) for entry, where in entries if "*" in entry and fnmatch.fnmatchcase(name, entry)]
    return next(iter(exact), max(fitting)[1] if fitting else None)


def report(problems: Iterable[str]) -> None:
    found = sorted(set(problems))
    assert not found, "\n" + "\n".join(found)


def test_every_module_has_a_floor() -> None:
    report(f"{name} is not in FLOORS" for name in SOURCES if place(name) is None)


def test_imports_go_down() -> None:
    def problems() -> Iterator[str]:
        for source in SOURCES.values():
            here = place(source.name)
            for node, target in edges(source):
                there = place(target)
                if here is not None and there is not None and there > here:
                    yield f"{source.at(node)}: {source.name} (floor {here[0]}) imports {target} (floor {there[0]})"

    report(problems())


def test_imports_have_no_cycle() -> None:
    graph = nx.DiGraph((source.name, target) for source in SOURCES.values() for _, target in edges(source))
    report(" <-> ".join(sorted(group)) for group in nx.strongly_connected_components(graph) if len(group) > 1)


def test_no_import_is_hidden_in_a_function() -> None:
    report(
        f"{source.at(node)}: import in {function.name}"
        for source in SOURCES.values()
        for function in source.functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def test_only_the_lazy_package_imports_by_name() -> None:
    report(
        source.at(node)
        for source in SOURCES.values()
        if source.name not in ("tgc", "tgc.lazy")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node) in ("import importlib", "from importlib import import_module")
    )


def test_nothing_is_imported_by_star() -> None:
    report(
        source.at(node)
        for source in SOURCES.values()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    )


def public_functions(source: Source) -> Iterator[FunctionNode]:
    """Functions of the module and methods of its public classes whose names are public, or special."""
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for body in (source.tree.body, *(scope.body for scope in classes)):
        for node in body:
            if isinstance(node, FunctionNode) and (not node.name.startswith("_") or node.name.startswith("__")):
                yield node


def test_public_signatures_name_their_options() -> None:
    report(
        f"{source.at(function)}: {function.name} takes **{function.args.kwarg.arg}"
        for source in SOURCES.values()
        for function in public_functions(source)
        if function.args.kwarg is not None and function.name not in FORWARDERS
    )


def test_files_and_functions_stay_short() -> None:
    def problems() -> Iterator[str]:
        for source in SOURCES.values():
            lines = source.text.count("\n")
            if lines > MAXIMUM_FILE_LINES:
                yield f"{source.path.relative_to(ROOT)}: {lines} lines"
            for function in source.functions():
                lines = (function.end_lineno or function.lineno) - function.lineno + 1
                if lines > MAXIMUM_FUNCTION_LINES:
                    yield f"{source.at(function)}: {function.name} has {lines} lines"

    report(problems())


def test_everything_public_has_a_docstring() -> None:
    def problems() -> Iterator[str]:
        for source in SOURCES.values():
            if not ast.get_docstring(source.tree):
                yield f"{source.path.relative_to(ROOT)}: the module"
            for node in source.tree.body:
                if isinstance(node, FunctionNode | ast.ClassDef) and not node.name.startswith("_"):
                    if not ast.get_docstring(node):
                        yield f"{source.at(node)}: {node.name}"

    report(problems())


def test_only_the_command_line_prints() -> None:
    streams = {"sys.stdout", "sys.stderr", "print"}
    report(
        f"{source.at(node)}: {ast.unparse(node)}"
        for source in SOURCES.values()
        if not source.name.startswith("tgc.cli")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in streams
    )


MUTABLE_CALLS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"})
MUTABLE_LITERALS = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
READ_ONLY = ("Mapping[", "Sequence[", "Collection[", "Set[", "Iterable[")


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        called = ast.unparse(value.func).rpartition(".")[2]
        return called in MUTABLE_CALLS or called.startswith("Weak")
    return isinstance(value, MUTABLE_LITERALS)


def test_modules_hold_no_mutable_state() -> None:
    """A table is a tuple, a MappingProxyType, or annotated as a Mapping or a Sequence, which a type checker defends."""

    def problems() -> Iterator[str]:
        for source in SOURCES.values():
            for node in source.tree.body:
                if isinstance(node, ast.Assign):
                    names, annotation = [ast.unparse(target) for target in node.targets], ""
                elif isinstance(node, ast.AnnAssign):
                    names, annotation = [ast.unparse(node.target)], ast.unparse(node.annotation)
                else:
                    continue
                read_only = annotation.rpartition(".")[2].removeprefix("Final[").startswith(READ_ONLY)
                allowed = names == ["__all__"] or any(f"{source.name}.{name}" in PROCESS_STATE for name in names)
                if is_mutable(node.value) and not read_only and not allowed:
                    yield f"{source.at(node)}: {', '.join(names)}"
            for inner in ast.walk(source.tree):
                if isinstance(inner, ast.Global):
                    for name in inner.names:
                        if f"{source.name}.{name}" not in PROCESS_STATE:
                            yield f"{source.at(inner)}: global {name}"

    report(problems())


def run_python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("name", sorted({source.package for source in SOURCES.values()}))
def test_each_package_can_be_imported_first(name: str) -> None:
    run_python(f"import {name}")


def test_tgc_is_lazy() -> None:
    heavy = ("numpy", "llvmlite", "networkx", "tgc.ir", "tgc.backend", "passes")
    assert run_python(f"import sys, tgc; print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_every_export_resolves() -> None:
    run_python("import tgc\nfor name in tgc.__all__: getattr(tgc, name)")


def test_tests_have_unique_names_and_no_packages() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    names = [path.name for path in files if path.name != "conftest.py"]
    report(str(path.relative_to(ROOT)) for path in files if path.name == "__init__.py" or names.count(path.name) > 1)


def test_the_top_level_holds_only_what_the_design_names() -> None:
    allowed = {"pyproject.toml", "README.md", "LICENSE", "tgc", "passes", "tests", "examples", "benchmarks"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.partition("/")[0] for line in tracked.splitlines()}
    report(name for name in top if name not in allowed and not name.startswith("."))
