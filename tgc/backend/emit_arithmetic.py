"""LLVM IR for arithmetic, comparisons, bits and lanes: no operation that traps, is undefined or calls a library."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tgc.backend.emit_fused import fused_by_parts
from tgc.backend.llvm_text import Writer, all_lanes, literal, register_type, suffix, vector
from tgc.kernels.ir import Operation, Value

_FLOAT_PREDICATES: Final = MappingProxyType(
    {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
)
_BITWISE: Final = MappingProxyType({"bit_and": "and", "bit_or": "or", "bit_xor": "xor"})
_ROUNDING: Final = MappingProxyType({"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round_even": "roundeven"})


def _parts(w: Writer, operation: Operation) -> tuple[Value, str, str, str]:
    """The first operand, its type, and the texts of two operands."""
    a, b = operation.operands
    return a, register_type(a.dtype, a.lanes), w.name(a), w.name(b)


def binary(w: Writer, operation: Operation) -> str:
    """add, sub and mul."""
    a, t, x, y = _parts(w, operation)
    return w.op(f"{'f' if a.dtype.is_float else ''}{operation.name} {t} {x}, {y}")


def bitwise(w: Writer, operation: Operation) -> str:
    """bit_and, bit_or and bit_xor."""
    _, t, x, y = _parts(w, operation)
    return w.op(f"{_BITWISE[operation.name]} {t} {x}, {y}")


def bit_not(w: Writer, operation: Operation) -> str:
    """Exclusive or with all ones."""
    (a,) = operation.operands
    minus_one = literal(True if a.dtype.kind == "bool" else -1, a.dtype, a.lanes)
    return w.op(f"xor {w.typed(a)}, {minus_one}")


def shift(w: Writer, operation: Operation) -> str:
    """Shifts by at least the width, which LLVM leaves undefined, give 0 or the sign."""
    a, t, x, y = _parts(w, operation)
    bits = a.dtype.bits
    signed = operation.name == "shift_right" and a.dtype.kind == "int"
    mnemonic = "shl" if operation.name == "shift_left" else "ashr" if signed else "lshr"
    amount = operation.operands[1].constant
    if amount is not None:
        if 0 <= amount < bits:
            return w.op(f"{mnemonic} {t} {x}, {y}")
        return w.op(f"ashr {t} {x}, {literal(bits - 1, a.dtype, a.lanes)}") if signed else literal(0, a.dtype, a.lanes)
    inside = w.op(f"icmp ult {t} {y}, {literal(bits, a.dtype, a.lanes)}")
    mask = vector("i1", a.lanes)
    if signed:
        clamped = w.op(f"select {mask} {inside}, {t} {y}, {t} {literal(bits - 1, a.dtype, a.lanes)}")
        return w.op(f"ashr {t} {x}, {clamped}")
    shifted = w.op(f"{mnemonic} {t} {x}, {y}")
    return w.op(f"select {mask} {inside}, {t} {shifted}, {t} {literal(0, a.dtype, a.lanes)}")


def divide(w: Writer, operation: Operation) -> str:
    """div, rem, floor_divide and modulo."""
    a, t, x, y = _parts(w, operation)
    if a.dtype.is_float:
        return w.op(f"fdiv {t} {x}, {y}")
    name, divisor = operation.name, operation.operands[1].constant
    if (
        divisor is not None
        and name in ("floor_divide", "modulo")
        and divisor > 0
        and not int(divisor) & (int(divisor) - 1)
    ):
        if name == "modulo":
            return w.op(f"and {t} {x}, {literal(int(divisor) - 1, a.dtype, a.lanes)}")
        amount = literal(int(divisor).bit_length() - 1, a.dtype, a.lanes)
        return w.op(f"{'ashr' if a.dtype.kind == 'int' else 'lshr'} {t} {x}, {amount}")
    if divisor == 0:
        return literal(0, a.dtype, a.lanes)
    quotient = _quotient(w, operation, t, x, y)
    if name == "div" or (name == "floor_divide" and a.dtype.kind == "uint"):
        return quotient
    remainder = w.op(f"sub {t} {x}, {w.op(f'mul {t} {quotient}, {y}')}")
    zero, mask = literal(0, a.dtype, a.lanes), vector("i1", a.lanes)
    if divisor is None:
        remainder = w.op(f"select {mask} {w.op(f'icmp eq {t} {y}, {zero}')}, {t} {zero}, {t} {remainder}")
    if name == "rem" or a.dtype.kind == "uint":
        return remainder
    # truncation went the wrong way where there is a remainder and it has not the divisor's sign
    opposite = w.op(f"icmp slt {t} {w.op(f'xor {t} {remainder}, {y}')}, {zero}")
    wrong = w.op(f"and {mask} {opposite}, {w.op(f'icmp ne {t} {remainder}, {zero}')}")
    if name == "floor_divide":
        return w.op(f"add {t} {quotient}, {w.op(f'sext {mask} {wrong} to {t}')}")
    return w.op(f"select {mask} {wrong}, {t} {w.op(f'add {t} {remainder}, {y}')}, {t} {remainder}")


def _quotient(w: Writer, operation: Operation, t: str, x: str, y: str) -> str:
    a, b = operation.operands
    signed = a.dtype.kind == "int"
    mnemonic = "sdiv" if signed else "udiv"
    if b.constant is not None and b.constant != -1:
        return w.op(f"{mnemonic} {t} {x}, {y}")
    mask, zero, one = vector("i1", a.lanes), literal(0, a.dtype, a.lanes), literal(1, a.dtype, a.lanes)
    is_zero = w.op(f"icmp eq {t} {y}, {zero}")
    if not signed:
        quotient = w.op(f"udiv {t} {x}, {w.op(f'select {mask} {is_zero}, {t} {one}, {t} {y}')}")
        return w.op(f"select {mask} {is_zero}, {t} {zero}, {t} {quotient}")
    is_negation = w.op(f"icmp eq {t} {y}, {literal(-1, a.dtype, a.lanes)}")
    special = w.op(f"or {mask} {is_zero}, {is_negation}")
    quotient = w.op(f"sdiv {t} {x}, {w.op(f'select {mask} {special}, {t} {one}, {t} {y}')}")
    negated = w.op(f"sub {t} {zero}, {x}")
    quotient = w.op(f"select {mask} {is_negation}, {t} {negated}, {t} {quotient}")
    return w.op(f"select {mask} {is_zero}, {t} {zero}, {t} {quotient}")


def extremum(w: Writer, operation: Operation) -> str:
    """minimum and maximum."""
    a, t, x, y = _parts(w, operation)
    bound = operation.operands[1].constant
    # With a constant on the right one comparison does: an unordered x stays, and of equal operands the constant is
    # taken, which is wrong only for the zero of the other sign. minimum with -0.0 would be right, but LLVM 22 turns its
    # vector form into WebAssembly's pmin, which gives +0.0.
    if a.dtype.is_float and bound is not None and not math.isnan(bound):
        maximum = operation.name == "maximum"
        if bound != 0 or (maximum and math.copysign(1.0, bound) > 0):
            stays = w.op(f"fcmp {'ugt' if maximum else 'ult'} {t} {x}, {y}")
            return w.op(f"select {vector('i1', a.lanes)} {stays}, {t} {x}, {t} {y}")
    return _extremum(w, operation.name, a, t, x, y)


def _extremum(w: Writer, name: str, like: Value, t: str, x: str, y: str) -> str:
    intrinsic = name if like.dtype.is_float else ("s" if like.dtype.kind == "int" else "u") + name[:3]
    return w.call(f"llvm.{intrinsic}.{_suffix_of(t)}", t, (t, x), (t, y))


def _suffix_of(t: str) -> str:
    """The overload of an intrinsic for an LLVM type, such as ``v8f32``."""
    short = {"float": "f32", "double": "f64"}
    if t.startswith("<"):
        lanes, _, element = t[1:-1].partition(" x ")
        return f"v{lanes}{short.get(element, element)}"
    return short.get(t, t)


def fused(w: Writer, operation: Operation) -> str:
    """fma and multiply_add."""
    a, b, c = operation.operands
    t = register_type(a.dtype, a.lanes)
    x, y, z = w.name(a), w.name(b), w.name(c)
    if operation.name == "multiply_add" and not w.target.fma:
        return w.op(f"fadd {t} {w.op(f'fmul {t} {x}, {y}')}, {z}")
    if w.capabilities.fma:
        return w.call(f"llvm.fma.{suffix(a.dtype, a.lanes)}", t, (t, x), (t, y), (t, z))
    return fused_by_parts(w, a.dtype, a.lanes, (x, y, z))


def unary(w: Writer, operation: Operation) -> str:
    """neg, abs and the counting of bits."""
    (a,) = operation.operands
    t, x, end = register_type(a.dtype, a.lanes), w.name(a), suffix(a.dtype, a.lanes)
    match operation.name:
        case "neg":
            return w.op(f"fneg {t} {x}" if a.dtype.is_float else f"sub {t} {literal(0, a.dtype, a.lanes)}, {x}")
        case "abs":
            if a.dtype.is_float:
                return w.call(f"llvm.fabs.{end}", t, (t, x))
            return x if a.dtype.kind == "uint" else w.call(f"llvm.abs.{end}", t, (t, x), ("i1", "false"))
        case "count_leading_zeros":
            return w.call(f"llvm.ctlz.{end}", t, (t, x), ("i1", "false"))
        case "population_count":
            return w.call(f"llvm.ctpop.{end}", t, (t, x))
        case _:
            return w.call(f"llvm.sqrt.{end}", t, (t, x))


def rounding(w: Writer, operation: Operation) -> str:
    """floor, ceil, trunc and round_even."""
    (a,) = operation.operands
    t, x = register_type(a.dtype, a.lanes), w.name(a)
    if w.capabilities.rounding:
        return w.call(f"llvm.{_ROUNDING[operation.name]}.{suffix(a.dtype, a.lanes)}", t, (t, x))
    # adding and subtracting 2^(p-1) rounds a smaller magnitude to an integer; larger ones are integers
    end, mask = suffix(a.dtype, a.lanes), vector("i1", a.lanes)
    large = literal(2.0**23 if a.dtype.bits == 32 else 2.0**52, a.dtype, a.lanes)
    one = literal(1.0, a.dtype, a.lanes)
    zero = literal(0.0, a.dtype, a.lanes)
    size = w.call(f"llvm.fabs.{end}", t, (t, x))
    near = w.op(f"fsub {t} {w.op(f'fadd {t} {size}, {large}')}, {large}")
    if operation.name == "trunc":
        excess = w.op(f"select {mask} {w.op(f'fcmp ogt {t} {near}, {size}')}, {t} {one}, {t} {zero}")
        near = w.op(f"fsub {t} {near}, {excess}")
    near = w.call(f"llvm.copysign.{end}", t, (t, near), (t, x))
    if operation.name in ("floor", "ceil"):
        relation, mnemonic = ("ogt", "fsub") if operation.name == "floor" else ("olt", "fadd")
        excess = w.op(f"select {mask} {w.op(f'fcmp {relation} {t} {near}, {x}')}, {t} {one}, {t} {zero}")
        moved = w.op(f"{mnemonic} {t} {near}, {excess}")
        near = w.call(f"llvm.copysign.{end}", t, (t, moved), (t, x))
    small = w.op(f"fcmp olt {t} {size}, {large}")
    return w.op(f"select {mask} {small}, {t} {near}, {t} {x}")


def compare(w: Writer, operation: Operation) -> str:
    """A comparison that is false on NaN, but for ne."""
    a, t, x, y = _parts(w, operation)
    predicate = str(operation.attributes[0])
    if a.dtype.is_float:
        return w.op(f"fcmp {_FLOAT_PREDICATES[predicate]} {t} {x}, {y}")
    sign = "" if predicate in ("eq", "ne") else "s" if a.dtype.kind == "int" else "u"
    return w.op(f"icmp {sign}{predicate} {t} {x}, {y}")


def select(w: Writer, operation: Operation) -> str:
    """A choice by lanes, or of whole vectors."""
    condition, a, b = operation.operands
    if a.lanes > 1 and a.dtype.is_float and a.dtype.bits >= 32 and w.target.triple.startswith("wasm"):
        # LLVM 22 takes a choice by le or ge for pmin or pmax, which choose the other of two zeros; not so with bits
        t, bits = register_type(a.dtype, a.lanes), vector(f"i{a.dtype.bits}", a.lanes)
        x, y = (w.op(f"bitcast {t} {w.name(v)} to {bits}") for v in (a, b))
        return w.op(f"bitcast {bits} {w.op(f'select {w.typed(condition)}, {bits} {x}, {bits} {y}')} to {t}")
    return w.op(f"select {w.typed(condition)}, {w.typed(a)}, {w.typed(b)}")


def multiply_high(w: Writer, operation: Operation) -> str:
    """Of u64 from products of halves, since not every target multiplies to 128 bits."""
    a, t, x, y = _parts(w, operation)
    wide = vector("i64", a.lanes)
    half = all_lanes("i64", "32", a.lanes)
    if a.dtype.bits == 32:
        product = w.op(f"mul {wide} {w.op(f'zext {t} {x} to {wide}')}, {w.op(f'zext {t} {y} to {wide}')}")
        return w.op(f"trunc {wide} {w.op(f'lshr {wide} {product}, {half}')} to {t}")
    low = all_lanes("i64", str((1 << 32) - 1), a.lanes)
    x0, y0 = w.op(f"and {t} {x}, {low}"), w.op(f"and {t} {y}, {low}")
    x1, y1 = w.op(f"lshr {t} {x}, {half}"), w.op(f"lshr {t} {y}, {half}")
    lower = w.op(f"lshr {t} {w.op(f'mul {t} {x0}, {y0}')}, {half}")
    middle = w.op(f"add {t} {w.op(f'mul {t} {x1}, {y0}')}, {lower}")
    other = w.op(f"add {t} {w.op(f'mul {t} {x0}, {y1}')}, {w.op(f'and {t} {middle}, {low}')}")
    upper = w.op(f"add {t} {w.op(f'mul {t} {x1}, {y1}')}, {w.op(f'lshr {t} {middle}, {half}')}")
    return w.op(f"add {t} {upper}, {w.op(f'lshr {t} {other}, {half}')}")


def splat(w: Writer, operation: Operation) -> str:
    """A scalar in every lane."""
    (a,) = operation.operands
    return w.splat(register_type(a.dtype, 1), w.name(a), operation.results[0].lanes)


def extract(w: Writer, operation: Operation) -> str:
    """One lane."""
    return w.op(f"extractelement {w.typed(operation.operands[0])}, i64 {operation.attributes[0]}")


def insert(w: Writer, operation: Operation) -> str:
    """One lane replaced."""
    into, value = operation.operands
    return w.op(f"insertelement {w.typed(into)}, {w.typed(value)}, i64 {operation.attributes[0]}")


def lane_indices(w: Writer, operation: Operation) -> str:
    """A literal vector 0, 1, 2, ..."""
    (result,) = operation.results
    element = register_type(result.dtype, 1)
    return "<" + ", ".join([f"{element} {lane}" for lane in range(result.lanes)]) + ">"


def shuffle(w: Writer, operation: Operation) -> str:
    """Lanes of two vectors at constant positions."""
    a, b = operation.operands
    mask = operation.attributes
    positions = ", ".join([f"i32 {m}" for m in mask])
    return w.op(f"shufflevector {w.typed(a)}, {w.typed(b)}, <{len(mask)} x i32> <{positions}>")


def reduce(w: Writer, operation: Operation) -> str:
    """Of floats the upper half onto the lower half, until one lane is left; of integers the order is LLVM's."""
    (a,) = operation.operands
    name = str(operation.attributes[0])
    element, x, lanes = register_type(a.dtype, 1), w.name(a), a.lanes
    if not a.dtype.is_float:
        sign = "s" if a.dtype.kind == "int" else "u"
        short = _BITWISE.get(name, sign + name[:3] if name in ("minimum", "maximum") else name)
        return w.call(f"llvm.vector.reduce.{short}.{suffix(a.dtype, lanes)}", element, (vector(element, lanes), x))
    while lanes > 1:
        whole, lanes = vector(element, lanes), lanes // 2
        if lanes == 1:
            low, high = w.op(f"extractelement {whole} {x}, i64 0"), w.op(f"extractelement {whole} {x}, i64 1")
        else:
            positions = [", ".join([f"i32 {m}" for m in range(start, start + lanes)]) for start in (0, lanes)]
            low, high = (w.op(f"shufflevector {whole} {x}, {whole} poison, <{lanes} x i32> <{p}>") for p in positions)
        t = vector(element, lanes)
        if name in ("minimum", "maximum"):
            x = _extremum(w, name, a, t, low, high)
        else:
            x = w.op(f"f{name} {t} {low}, {high}")
    return x


Emitter = Callable[[Writer, Operation], str]
ARITHMETIC: Final[Mapping[str, Emitter]] = MappingProxyType(
    {
        "add": binary,
        "sub": binary,
        "mul": binary,
        "div": divide,
        "rem": divide,
        "floor_divide": divide,
        "modulo": divide,
        "minimum": extremum,
        "maximum": extremum,
        "fma": fused,
        "multiply_add": fused,
        "neg": unary,
        "abs": unary,
        "sqrt": unary,
        "count_leading_zeros": unary,
        "population_count": unary,
        "floor": rounding,
        "ceil": rounding,
        "trunc": rounding,
        "round_even": rounding,
        "compare": compare,
        "select": select,
        "bit_and": bitwise,
        "bit_or": bitwise,
        "bit_xor": bitwise,
        "bit_not": bit_not,
        "shift_left": shift,
        "shift_right": shift,
        "multiply_high": multiply_high,
        "splat": splat,
        "extract": extract,
        "insert": insert,
        "lane_indices": lane_indices,
        "shuffle": shuffle,
        "reduce": reduce,
    }
)
