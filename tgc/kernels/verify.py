"""The invariants of kernel IR, one small function for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tgc.dtypes import bool_, i64
from tgc.errors import VerificationError
from tgc.ir.dims import symbols
from tgc.kernels.ir import (
    ARITHMETIC,
    BITWISE,
    COUNTING,
    FUSED,
    PREDICATES,
    REDUCTIONS,
    ROUNDING,
    SHIFTS,
    Block,
    Buffer,
    Kernel,
    Operation,
    Value,
    is_condition,
    is_index,
    same_types,
)

Rule = Callable[[Operation], bool]
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def verify(kernel: Kernel) -> None:
    """Raise :class:`VerificationError`, naming the invariant and the operation, unless the kernel is well formed."""
    check_names(kernel)
    check_symbols(kernel)
    visible: set[int] = set()
    check_block(kernel, kernel.prelude, visible)
    for operation in kernel.prelude.operations:
        if operation.blocks or operation.name in MEMORY:
            raise _error("the prelude holds values of dimensions and constants alone", operation)
    if len(kernel.body.arguments) != 1 or not is_index(kernel.iteration):
        raise VerificationError(f"the body of kernel {kernel.name} has the iteration as its only argument")
    check_block(kernel, kernel.body, visible)


def check_names(kernel: Kernel) -> None:
    """Names are identifiers, and those of buffers differ."""
    names = [buffer.name for buffer in kernel.buffers + kernel.scratch]
    if len(set(names)) != len(names):
        raise VerificationError(f"buffers of kernel {kernel.name} share a name: {', '.join(names)}")
    for name in (kernel.name, *names, *kernel.symbols):
        if not _IDENTIFIER.fullmatch(name):
            raise VerificationError(f"{name!r} in kernel {kernel.name} is no identifier")


def check_symbols(kernel: Kernel) -> None:
    """Every symbolic dimension is listed, once."""
    used = set(symbols(kernel.count)).union(*(symbols(b.size) for b in kernel.buffers + kernel.scratch))
    used.update(str(o.attributes[0]) for o in kernel.walk() if o.name == "symbol")
    if not used <= set(kernel.symbols) or len(set(kernel.symbols)) != len(kernel.symbols):
        raise VerificationError(f"kernel {kernel.name} uses the dimensions {sorted(used)}, but lists {kernel.symbols}")


def check_block(kernel: Kernel, block: Block, visible: set[int]) -> None:
    """Operations are well typed, and their operands are defined before, in this block or one around it."""
    visible.update(v.number for v in block.arguments)
    for operation in block.operations:
        check_operands(operation, operation.operands, visible)
        if operation.blocks:
            check_structure(operation)
            check_inner_blocks(kernel, operation, visible)
        else:
            check_types(operation)
            if operation.name in MEMORY:
                check_access(kernel, operation)
        for result in operation.results:
            if result.number in visible:
                raise _error("a value is defined once", operation)
            if result.lanes < 1 or result.lanes & (result.lanes - 1):
                raise _error("the number of lanes is a power of two", operation)
            visible.add(result.number)


def check_inner_blocks(kernel: Kernel, operation: Operation, visible: set[int]) -> None:
    """Values of a block end with it; the second block of a while sees those of the first."""
    inner = set(visible)
    for block in operation.blocks:
        if operation.name != "while":
            inner = set(visible)
        check_block(kernel, block, inner)
        check_operands(operation, block.yields, inner)


def check_operands(operation: Operation, values: tuple[Value, ...], visible: set[int]) -> None:
    """What an operation uses is defined."""
    for value in values:
        if value.number not in visible:
            raise _error(f"{value} is not defined here", operation)


def check_structure(operation: Operation) -> None:
    """Loops carry and branches yield the types that they should."""
    blocks, operands = operation.blocks, operation.operands
    match operation.name:
        case "for":
            (body,) = blocks
            good = (
                len(operands) >= 3
                and all(map(is_index, operands[:3]))
                and operands[2].constant != 0
                and same_types(body.arguments, (operands[0], *operands[3:]))
                and same_types(body.yields, operands[3:])
                and same_types(operation.results, operands[3:])
            )
        case "while":
            good = (
                len(blocks) == 2
                and len(blocks[0].yields) == 1
                and is_condition(blocks[0].yields[0])
                and not blocks[1].arguments
                and all(same_types(v, operands) for v in (blocks[0].arguments, blocks[1].yields, operation.results))
            )
        case "if":
            good = (
                len(blocks) == 2
                and len(operands) == 1
                and is_condition(operands[0])
                and not blocks[0].arguments
                and not blocks[1].arguments
                and all(same_types(block.yields, operation.results) for block in blocks)
            )
        case _:
            good = False
    if not good:
        raise _error("blocks, operands and results do not fit together", operation)


def check_types(operation: Operation) -> None:
    """Each operation has the operands and results that its definition says."""
    rule = RULES.get(operation.name)
    if rule is None:
        raise _error("there is no such operation", operation)
    count = OPERANDS.get(operation.name)
    if count is not None and len(operation.operands) != count:
        raise _error(f"it has {count} operands", operation)
    if not rule(operation):
        raise _error("operands and results have the wrong types", operation)


def check_access(kernel: Kernel, operation: Operation) -> None:
    """Buffers belong to the kernel and are accessed as they are declared."""
    buffer = operation.buffer
    if not any(buffer is other for other in kernel.buffers + kernel.scratch):
        raise _error(f"{buffer.name} is no buffer of kernel {kernel.name}", operation)
    forbidden = {"load": "write", "gather": "write", "store": "read", "scatter": "read"}.get(operation.name)
    if buffer.access == forbidden:
        raise _error(f"{buffer.name} is for {buffer.access} only", operation)


def _error(message: str, operation: Operation) -> VerificationError:
    operands = ", ".join(map(repr, operation.operands))
    results = ", ".join(map(repr, operation.results))
    return VerificationError(f"{message}: {operation.name}({operands}) -> ({results})")


# -- rules ---------------------------------------------------------------------------------------------------------


def _same(operation: Operation) -> bool:
    """One result, of the type of all operands."""
    operands = operation.operands
    return len(operation.results) == 1 and all(same_types((v,), operation.results) for v in operands)


def _arithmetic(operation: Operation) -> bool:
    dtype = operation.operands[0].dtype
    return _same(operation) and dtype.kind != "bool" and dtype.compute is dtype


def _float(operation: Operation) -> bool:
    return _arithmetic(operation) and operation.operands[0].dtype.is_float


def _integer(operation: Operation) -> bool:
    return _same(operation) and operation.operands[0].dtype.is_integer


def _bits(operation: Operation) -> bool:
    return _same(operation) and not operation.operands[0].dtype.is_float


def _constant(operation: Operation) -> bool:
    (result,) = operation.results
    (value,) = operation.attributes
    dtype = result.dtype
    if dtype.is_float:
        return type(value) is float
    if dtype is bool_:
        return type(value) is bool
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
    return type(value) is int and low <= value < low + (1 << dtype.bits)


def _compare(operation: Operation) -> bool:
    a, b = operation.operands
    (result,) = operation.results
    ordered = operation.attributes[0] in PREDICATES and a.dtype.compute is a.dtype
    return ordered and same_types((a,), (b,)) and result.dtype is bool_ and result.lanes == a.lanes


def _select(operation: Operation) -> bool:
    condition, a, b = operation.operands
    lanes = condition.lanes in (1, a.lanes)
    return condition.dtype is bool_ and lanes and same_types((a, b), operation.results * 2)


def _multiply_high(operation: Operation) -> bool:
    dtype = operation.operands[0].dtype
    return _same(operation) and dtype.kind == "uint" and dtype.bits >= 32


def _convert(operation: Operation) -> bool:
    return operation.operands[0].lanes == operation.results[0].lanes


def _bitcast(operation: Operation) -> bool:
    (a,), (result,) = operation.operands, operation.results
    return bool_ not in (a.dtype, result.dtype) and a.dtype.bits * a.lanes == result.dtype.bits * result.lanes


def _splat(operation: Operation) -> bool:
    (a,), (result,) = operation.operands, operation.results
    return a.lanes == 1 and a.dtype is result.dtype


def _extract(operation: Operation) -> bool:
    (a,), (result,), (lane,) = operation.operands, operation.results, operation.attributes
    return isinstance(lane, int) and 0 <= lane < a.lanes and result.lanes == 1 and a.dtype is result.dtype


def _insert(operation: Operation) -> bool:
    a, value = operation.operands
    (lane,) = operation.attributes
    scalar = value.lanes == 1 and value.dtype is a.dtype
    return isinstance(lane, int) and 0 <= lane < a.lanes and scalar and same_types((a,), operation.results)


def _lane_indices(operation: Operation) -> bool:
    (result,) = operation.results
    return result.dtype.is_integer and (result.lanes - 1).bit_length() <= result.dtype.bits - (
        result.dtype.kind == "int"
    )


def _shuffle(operation: Operation) -> bool:
    a, b = operation.operands
    (result,), mask = operation.results, operation.attributes
    inside = all(isinstance(m, int) and 0 <= m < 2 * a.lanes for m in mask)
    return same_types((a,), (b,)) and inside and a.lanes > 1 and (result.dtype, result.lanes) == (a.dtype, len(mask))


def _reduce(operation: Operation) -> bool:
    (a,), (result,), (name,) = operation.operands, operation.results, operation.attributes
    bitwise = name in BITWISE
    fits = not a.dtype.is_float if bitwise else a.dtype is not bool_ and a.dtype.compute is a.dtype
    return name in REDUCTIONS and fits and not a.lanes & (a.lanes - 1) and (result.dtype, result.lanes) == (a.dtype, 1)


def _guard(operation: Operation, rest: tuple[Value, ...], lanes: int) -> bool:
    """The last operand of an access: a number of lanes, or a bool for each."""
    match operation.attributes[1]:
        case "":
            return not rest
        case "count":
            return len(rest) == 1 and is_index(rest[0])
        case "mask":
            return len(rest) == 1 and rest[0].dtype is bool_ and rest[0].lanes == lanes
        case _:
            return False


def _load(operation: Operation) -> bool:
    offset, *rest = operation.operands
    (result,) = operation.results
    return is_index(offset) and result.dtype is operation.buffer.dtype and _guard(operation, tuple(rest), result.lanes)


def _store(operation: Operation) -> bool:
    offset, value, *rest = operation.operands
    stored = not operation.results and value.dtype is operation.buffer.dtype
    return is_index(offset) and stored and _guard(operation, tuple(rest), value.lanes)


def _gather(operation: Operation) -> bool:
    offsets, *rest = operation.operands
    (result,) = operation.results
    loaded = result.dtype is operation.buffer.dtype and result.lanes == offsets.lanes
    return _offsets(offsets) and loaded and _guard(operation, tuple(rest), result.lanes)


def _scatter(operation: Operation) -> bool:
    offsets, value, *rest = operation.operands
    stored = not operation.results and value.dtype is operation.buffer.dtype and value.lanes == offsets.lanes
    return _offsets(offsets) and stored and _guard(operation, tuple(rest), value.lanes)


def _offsets(value: Value) -> bool:
    return value.dtype.kind == "int" and value.dtype.bits >= 32


def _prefetch(operation: Operation) -> bool:
    return not operation.results and is_index(operation.operands[0]) and isinstance(operation.buffer, Buffer)


def _symbol(operation: Operation) -> bool:
    return is_index(operation.results[0]) and operation.results[0].dtype is i64


MEMORY: Final = frozenset(("load", "store", "gather", "scatter", "prefetch"))
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **dict.fromkeys(ARITHMETIC | {"neg", "abs"}, _arithmetic),
        **dict.fromkeys(ROUNDING | FUSED, _float),
        **dict.fromkeys(SHIFTS | COUNTING | {"rem", "floor_divide", "modulo"}, _integer),
        **dict.fromkeys(BITWISE | {"bit_not"}, _bits),
        "bitcast": _bitcast,
        "compare": _compare,
        "constant": _constant,
        "convert": _convert,
        "extract": _extract,
        "gather": _gather,
        "insert": _insert,
        "lane_indices": _lane_indices,
        "load": _load,
        "multiply_high": _multiply_high,
        "prefetch": _prefetch,
        "reduce": _reduce,
        "scatter": _scatter,
        "select": _select,
        "shuffle": _shuffle,
        "splat": _splat,
        "store": _store,
        "symbol": _symbol,
    }
)
OPERANDS: Final[Mapping[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(ARITHMETIC | BITWISE | SHIFTS | {"floor_divide", "modulo", "multiply_high", "compare"}, 2),
        **dict.fromkeys(ROUNDING | COUNTING | {"neg", "abs", "bit_not", "convert", "bitcast"}, 1),
        **dict.fromkeys(("splat", "extract", "reduce", "prefetch"), 1),
        **dict.fromkeys(("insert", "shuffle"), 2),
        **dict.fromkeys(FUSED | {"select"}, 3),
        **dict.fromkeys(("constant", "lane_indices", "symbol"), 0),
    }
)
