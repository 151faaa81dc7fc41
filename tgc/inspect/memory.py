"""What a compiled function's memory is made of: the tensors that its workspace holds, and what it may not exceed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from passes.memory_plan import aligned, carried, value_bytes
from tgc.compiler import Compiled
from tgc.errors import UserError
from tgc.ir.dims import Dim, evaluate, symbols
from tgc.ir.graph import Function, Graph, Node, Place
from tgc.ir.polynomial import bounds
from tgc.kernels.program import Program, launches, scratch_bytes
from tgc.location import Site
from tgc.ops import rules

TYPICAL = 32
"""The size at which a symbolic dimension is shown that no range bounds."""
_MOST = 5  # tensors that an error names
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class TensorReport:
    """A tensor in memory: what makes it, its type and size, and the source lines that it comes from.

    ``place``: ``"arena"``, or ``"packing"`` for what a kernel keeps between its stages, ``"scratch"`` for what each of
    its threads keeps for itself, ``"constant"`` or ``"state"``.
    """

    name: str
    type: str
    place: str
    bytes: Dim
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tenant:
    """A tensor and where it begins in the workspace."""

    tensor: TensorReport
    offset: Dim


def workspace_of(program: Program) -> Dim:
    """Bytes of workspace that a call on one thread needs."""
    return aligned(program.workspace) + scratch_bytes(program)


def typical_sizes(program: Program, ranges: Mapping[str, tuple[int, int | None]]) -> dict[str, int]:
    """A size for each symbolic dimension: the largest that it may have, or 32 where nothing bounds it."""
    found = {}
    for name in program.symbols:
        low, high = ranges.get(name, (0, None))
        found[name] = max(TYPICAL, low) if high is None else high
    return found


def source_lines(places: Iterable[Place]) -> tuple[str, ...]:
    """``file.py:12`` for each place, each once."""
    resolved = (place.resolve() if isinstance(place, Site) else place for place in places)
    return tuple(dict.fromkeys(f"{PurePath(place.file).name}:{place.line}" for place in resolved))


def workspace_tensors(compiled: Compiled, name: str, sizes: Mapping[str, int]) -> tuple[TensorReport, ...]:
    """The tensors that the workspace of a function is made of, the largest at ``sizes`` first.

    Tensors take turns in a place; of those that share it the largest is told.
    """
    function = compiled.module.function(name)
    found = sorted(_tenants(function, compiled), key=lambda t: -evaluate(t.tensor.bytes, sizes))
    taken: list[tuple[int, int]] = []
    told = []
    for tenant in found:
        begin, size = evaluate(tenant.offset, sizes), evaluate(tenant.tensor.bytes, sizes)
        if size and all(begin + size <= low or high <= begin for low, high in taken):
            taken.append((begin, begin + size))
            told.append(tenant.tensor)
    scratch = scratch_bytes(compiled.programs[name])
    if scratch != 0:
        told.append(TensorReport("scratch of a thread", "", "scratch", scratch))
    return tuple(sorted(told, key=lambda t: -evaluate(t.bytes, sizes)))


def fixed_tensors(compiled: Compiled, name: str) -> tuple[TensorReport, ...]:
    """Constants and state of a function, the largest first. Their lines are those that read them."""
    module = compiled.module
    nodes = [n for n in module.function(name).nodes() if n.op in ("literal", "state")]
    lines: dict[tuple[str, str], tuple[str, ...]] = {}
    for node in nodes:
        key = ("constant" if node.op == "literal" else "state", str(node.attributes["name"]))
        lines[key] = source_lines(module.locations.get(node, ()))
    program = compiled.programs[name]
    found = [("constant", v) for v in program.constants] + [("state", v) for v in program.state]
    told = [
        TensorReport(
            v.name, f"{v.dtype}[{', '.join(map(str, v.shape))}]", place, v.bytes, lines.get((place, v.name), ())
        )
        for place, v in found
    ]
    return tuple(sorted(told, key=lambda t: -evaluate(t.bytes, dict.fromkeys(symbols(t.bytes), TYPICAL))))


def check_workspace(compiled: Compiled, limit: int) -> None:
    """Raises :class:`UserError` for a function whose workspace, on one thread, may need more than ``limit`` bytes.

    It names the tensors that need most. Sizes of dimensions are those that the module's ranges allow.
    """
    for name, program in compiled.programs.items():
        needed = workspace_of(program)
        most = bounds(needed, compiled.module.ranges)[1]
        if most is None or most > limit:
            raise _too_much(compiled, name, needed, limit, bounded=most is not None)


def _too_much(compiled: Compiled, name: str, needed: Dim, limit: int, *, bounded: bool) -> UserError:
    sizes = typical_sizes(compiled.programs[name], compiled.module.ranges)
    where = " for " + ", ".join(f"{n} = {size}" for n, size in sizes.items()) if sizes else ""
    given = f"{amount(evaluate(needed, sizes))}{where}"
    if bounded:
        message = f"{name} needs a workspace of {given}, and {amount(limit)} are allowed"
        hint = "use smaller sizes or a smaller dtype, or allow more"
    else:
        free = [n for n in sizes if compiled.module.ranges.get(n, (0, None))[1] is None]
        message = f"{name} may need any amount of workspace, since nothing bounds {' and '.join(free)}: {given}"
        hint = "bound it: " + " ".join(f"--dim {n}=1..{sizes[n]}" for n in free)
    tensors = workspace_tensors(compiled, name, sizes)[:_MOST]
    rows = [(amount(evaluate(t.bytes, sizes)), t.name, t.type, " ".join(t.lines)) for t in tensors]
    return UserError("\n".join([f"{message}. Most of it is", *table(rows)]), hint=hint)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns of the same width, the first one to the right.

    >>> table([("1 B", "x"), ("12 B", "y")])
    ['   1 B  x', '  12 B  y']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {row[0]:>{widths[0]}}  {'  '.join(f'{t:{w}}' for t, w in zip(row[1:], widths[1:], strict=True))}".rstrip()
        for row in rows
    ]


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(1023), amount(65536), amount(802816)
    ('1023 B', '64 KiB', '784 KiB')
    """
    value, unit = float(size), 0
    while value >= 1024 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {_UNITS[unit]}"


def _tenants(function: Function, compiled: Compiled) -> Iterator[_Tenant]:
    yield from _arena(Graph(function.parameters, function.outputs), compiled, 0)
    library = compiled.library
    for launch in launches(compiled.programs[function.name]):
        node = library.sources.get(launch.kernel)
        lowering = None if node is None else library.lowering(node)
        if node is None or lowering is None:
            continue  # the counter of a loop
        lines = source_lines(compiled.module.locations.get(node, ()))
        for buffer, address in zip(library.kernels[launch.kernel].buffers, launch.buffers, strict=True):
            temporary = lowering.temporaries.get(buffer.name)
            if temporary is not None and address.space == "workspace":
                size = temporary.size * temporary.dtype.itemsize
                type_ = f"{temporary.dtype}[{temporary.size}]"
                yield _Tenant(TensorReport(f"packed for {title(node)}", type_, "packing", size, lines), address.offset)


def _arena(graph: Graph, compiled: Compiled, base: Dim) -> Iterator[_Tenant]:
    for node in graph.nodes():
        if "places" not in node.attributes:
            continue
        lines = source_lines(compiled.module.locations.get(node, ()))
        places = zip(node.results, rules.sequence(node.attributes, "places"), strict=True)
        held = [(value, place[1]) for value, place in places if isinstance(place, tuple) and place[0] == "arena"]
        if node.op != "fusion":
            inner = base + rules.dim(node.attributes, "base")
            held += zip(carried(node), rules.sequence(node.attributes, "next"), strict=True)
            for region in node.regions:
                yield from _arena(region, compiled, inner)
        for value, offset in held:
            tensor = TensorReport(title(node), str(value.type), "arena", value_bytes(value.type), lines)
            yield _Tenant(tensor, base + rules.dim({"offset": offset}, "offset"))


def title(node: Node) -> str:
    """What a node does: of a fused one, the ops of its kernel that say most."""
    if node.op != "fusion":
        return node.op
    unsaid = ("parameter", "constant", "broadcast", "iota", "reshape", "relayout", "cast")
    ops = dict.fromkeys(n.op for n in node.regions[0].nodes() if n.op not in unsaid)
    return ", ".join(ops) or "copy"
