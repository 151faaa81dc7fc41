"""LLVM IR for conversions: every input is defined, and 16-bit floats need no library."""

from __future__ import annotations

from typing import Final

from tgc.backend.llvm_text import Writer, all_lanes, literal, register_type, suffix, vector
from tgc.dtypes import DType, f32, f64, i32
from tgc.kernels.ir import Operation

_LEAST_F16: Final = 0x38800000  # 2^-14, the least normal f16, as f32
_BEYOND_F16: Final = 0x47800000  # 2^16


def convert(w: Writer, operation: Operation) -> str:
    """From any dtype to any other."""
    (a,) = operation.operands
    return converted(w, w.name(a), a.dtype, operation.results[0].dtype, a.lanes)


def bitcast(w: Writer, operation: Operation) -> str:
    """The same bits in other types."""
    (a,), (result,) = operation.operands, operation.results
    source, target = register_type(a.dtype, a.lanes), register_type(result.dtype, result.lanes)
    return w.name(a) if source == target else w.op(f"bitcast {source} {w.name(a)} to {target}")


def converted(w: Writer, x: str, source: DType, target: DType, lanes: int) -> str:
    """``x`` of ``source`` in ``target``."""
    if source is target:
        return x
    s, t = register_type(source, lanes), register_type(target, lanes)
    if source.is_float and source.bits == 16:
        return converted(w, _widen(w, x, source, lanes), f32, target, lanes)
    if target.is_float and target.bits == 16:
        if source is f64:
            return _narrow(w, _round_to_odd(w, x, lanes), target, lanes)
        return _narrow(w, converted(w, x, source, f32, lanes), target, lanes)
    if target.kind == "bool":
        return w.op(
            f"fcmp une {s} {x}, {literal(0.0, source, lanes)}"
            if source.is_float
            else f"icmp ne {s} {x}, {literal(0, source, lanes)}"
        )
    if source.is_float:
        if target.is_float:
            return w.op(f"{'fpext' if target.bits > source.bits else 'fptrunc'} {s} {x} to {t}")
        return _to_integer(w, x, source, target, lanes)
    unsigned = source.kind != "int"
    if target.is_float:
        return w.op(f"{'u' if unsigned else 's'}itofp {s} {x} to {t}")
    bits = 1 if source.kind == "bool" else source.bits
    if bits == target.bits:
        return x
    return w.op(f"{'trunc' if bits > target.bits else 'zext' if unsigned else 'sext'} {s} {x} to {t}")


def _to_integer(w: Writer, x: str, source: DType, target: DType, lanes: int) -> str:
    """Truncation that saturates and takes NaN to 0.

    Out of range LLVM's conversion is poison, so the operand is brought into range first. Narrow integers go through
    i32, where the bounds are exact.
    """
    s, mask = register_type(source, lanes), vector("i1", lanes)
    signed = target.kind == "int"
    low = -(2 ** (target.bits - 1)) if signed else 0
    high = 2 ** (target.bits - (1 if signed else 0)) - 1
    via = target if target.bits >= 32 else i32
    exact = target.bits < (24 if source is f32 else 53)
    # the greatest float that the conversion takes
    top = float(high) if exact else float(high + 1) * (1 - 2.0 ** -(24 if source is f32 else 53))
    zero = literal(0.0, source, lanes)
    known = w.op(f"select {mask} {w.op(f'fcmp ord {s} {x}, {zero}')}, {s} {x}, {s} {zero}")
    floor, ceiling = literal(float(low), source, lanes), literal(top, source, lanes)
    clamped = w.op(f"select {mask} {w.op(f'fcmp olt {s} {known}, {floor}')}, {s} {floor}, {s} {known}")
    above = w.op(f"fcmp ogt {s} {clamped}, {ceiling}")
    clamped = w.op(f"select {mask} {above}, {s} {ceiling}, {s} {clamped}")
    v = register_type(via, lanes)
    mnemonic = "fptosi" if signed or via is i32 else "fptoui"
    whole = w.op(f"{mnemonic} {s} {clamped} to {v}")
    if via is not target:
        return w.op(f"trunc {v} {whole} to {register_type(target, lanes)}")
    return whole if exact else w.op(f"select {mask} {above}, {v} {literal(high, target, lanes)}, {v} {whole}")


def _round_to_odd(w: Writer, x: str, lanes: int) -> str:
    """f64 to f32 with the last bit set where it is inexact, so that a second rounding is as good as one."""
    d, s, i, mask = vector("double", lanes), vector("float", lanes), vector("i32", lanes), vector("i1", lanes)
    near = w.op(f"fptrunc {d} {x} to {s}")
    back = w.op(f"fpext {s} {near} to {d}")
    bits = w.op(f"bitcast {s} {near} to {i}")
    size = w.call(f"llvm.fabs.{suffix(f64, lanes)}", d, (d, x))
    reached = w.call(f"llvm.fabs.{suffix(f64, lanes)}", d, (d, back))
    one, zero = all_lanes("i32", "1", lanes), all_lanes("i32", "0", lanes)
    up = w.op(f"fcmp ogt {d} {reached}, {size}")
    truncated = w.op(f"sub {i} {bits}, {w.op(f'zext {mask} {up} to {i}')}")
    inexact = w.op(f"fcmp one {d} {reached}, {size}")
    odd = w.op(f"or {i} {truncated}, {w.op(f'select {mask} {inexact}, {i} {one}, {i} {zero}')}")
    return w.op(f"bitcast {i} {odd} to {s}")


def _widen(w: Writer, x: str, source: DType, lanes: int) -> str:
    """bf16 or f16 to f32, exactly."""
    h, i, s = vector("i16", lanes), vector("i32", lanes), vector("float", lanes)
    if source.name == "bf16":
        bits = w.op(f"shl {i} {w.op(f'zext {h} {x} to {i}')}, {all_lanes('i32', '16', lanes)}")
        return w.op(f"bitcast {i} {bits} to {s}")
    if w.capabilities.half:
        half = vector("half", lanes)
        return w.op(f"fpext {half} {w.op(f'bitcast {h} {x} to {half}')} to {s}")

    def number(value: int) -> str:
        return all_lanes("i32", str(value), lanes)

    wide = w.op(f"zext {h} {x} to {i}")
    size = w.op(f"and {i} {wide}, {number(0x7FFF)}")
    placed = w.op(f"shl {i} {size}, {number(13)}")
    # f32 has the exponent 112 higher; the product is exact for subnormals too
    scale = literal(2.0**112, f32, lanes)
    scaled = w.op(f"fmul {s} {w.op(f'bitcast {i} {placed} to {s}')}, {scale}")
    finite = w.op(f"bitcast {s} {scaled} to {i}")
    special = w.op(f"or {i} {placed}, {number(0x7F800000)}")
    is_special = w.op(f"icmp uge {i} {size}, {number(0x7C00)}")
    chosen = w.op(f"select {vector('i1', lanes)} {is_special}, {i} {special}, {i} {finite}")
    sign = w.op(f"shl {i} {w.op(f'and {i} {wide}, {number(0x8000)}')}, {number(16)}")
    return w.op(f"bitcast {i} {w.op(f'or {i} {chosen}, {sign}')} to {s}")


def _narrow(w: Writer, x: str, target: DType, lanes: int) -> str:
    """f32 to bf16 or f16, to nearest even; NaN stays a quiet NaN."""
    i, s, h, mask = vector("i32", lanes), vector("float", lanes), vector("i16", lanes), vector("i1", lanes)

    def number(value: int) -> str:
        return all_lanes("i32", str(value), lanes)

    if target.name == "f16" and w.capabilities.half:
        half = vector("half", lanes)
        return w.op(f"bitcast {half} {w.op(f'fptrunc {s} {x} to {half}')} to {h}")
    bits = w.op(f"bitcast {s} {x} to {i}")
    if target.name == "bf16":
        upper = w.op(f"lshr {i} {bits}, {number(16)}")
        odd = w.op(f"and {i} {upper}, {number(1)}")
        rounded = w.op(f"add {i} {w.op(f'add {i} {bits}, {number(0x7FFF)}')}, {odd}")
        rounded = w.op(f"lshr {i} {rounded}, {number(16)}")
        quiet = w.op(f"or {i} {upper}, {number(0x40)}")
        unordered = w.op(f"fcmp uno {s} {x}, {literal(0.0, f32, lanes)}")
        return w.op(f"trunc {i} {w.op(f'select {mask} {unordered}, {i} {quiet}, {i} {rounded}')} to {h}")
    size = w.op(f"and {i} {bits}, {number(0x7FFFFFFF)}")
    sign = w.op(f"lshr {i} {w.op(f'xor {i} {bits}, {size}')}, {number(16)}")
    # normal: round at bit 13 and move the exponent
    odd = w.op(f"and {i} {w.op(f'lshr {i} {size}, {number(13)}')}, {number(1)}")
    normal = w.op(f"add {i} {w.op(f'add {i} {size}, {number(0xFFF - (112 << 23))}')}, {odd}")
    normal = w.op(f"lshr {i} {normal}, {number(13)}")
    # subnormal: adding 1/2 aligns the last bits of f16 with those of f32, rounded by the addition
    aligned = w.op(f"fadd {s} {w.op(f'bitcast {i} {size} to {s}')}, {literal(0.5, f32, lanes)}")
    subnormal = w.op(f"sub {i} {w.op(f'bitcast {s} {aligned} to {i}')}, {number(0x3F000000)}")
    is_subnormal = w.op(f"icmp ult {i} {size}, {number(_LEAST_F16)}")
    finite = w.op(f"select {mask} {is_subnormal}, {i} {subnormal}, {i} {normal}")
    payload = w.op(f"and {i} {w.op(f'lshr {i} {size}, {number(13)}')}, {number(0x3FF)}")
    payload = w.op(f"or {i} {payload}, {number(0x7E00)}")
    is_nan = w.op(f"icmp ugt {i} {size}, {number(0x7F800000)}")
    special = w.op(f"select {mask} {is_nan}, {i} {payload}, {i} {number(0x7C00)}")
    is_special = w.op(f"icmp uge {i} {size}, {number(_BEYOND_F16)}")
    chosen = w.op(f"select {mask} {is_special}, {i} {special}, {i} {finite}")
    return w.op(f"trunc {i} {w.op(f'or {i} {chosen}, {sign}')} to {h}")
