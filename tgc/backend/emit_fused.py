"""LLVM IR for a * b + c with one rounding, on CPUs that have no instruction for it."""

from __future__ import annotations

from tgc.backend.llvm_text import Writer, all_lanes, literal, vector
from tgc.dtypes import DType, f64

_SPLITTER = 2.0**27 + 1.0
_LEAST, _MOST = 2.0**-450, 2.0**450


def fused_by_parts(w: Writer, dtype: DType, lanes: int, operands: tuple[str, str, str]) -> str:
    """Correctly rounded in f32. In f64 too, unless a factor leaves 2**±450 or c leaves 2**±900: then rounded twice."""
    parts = _Parts(w, lanes)
    if dtype is f64:
        return parts.double(*operands)
    t = vector("float", lanes)
    x, y, z = (w.op(f"fpext {t} {v} to {parts.type}") for v in operands)
    # the product is exact in f64, and a sum that is rounded to odd can be rounded once more
    return w.op(f"fptrunc {parts.type} {parts.odd_sum(parts.binary('fmul', x, y), z)} to {t}")


class _Parts:
    """Error-free transformations of f64."""

    def __init__(self, writer: Writer, lanes: int) -> None:
        self.writer = writer
        self.lanes = lanes
        self.type = vector("double", lanes)

    def binary(self, mnemonic: str, x: str, y: str) -> str:
        return self.writer.op(f"{mnemonic} {self.type} {x}, {y}")

    def two_sum(self, x: str, y: str) -> tuple[str, str]:
        """x + y rounded, and its error (Knuth, The Art of Computer Programming 2, 4.2.2)."""
        total = self.binary("fadd", x, y)
        from_y = self.binary("fsub", total, x)
        from_x = self.binary("fsub", total, from_y)
        return total, self.binary("fadd", self.binary("fsub", x, from_x), self.binary("fsub", y, from_y))

    def halves(self, x: str) -> tuple[str, str]:
        """x as a sum of two numbers of 26 bits (Veltkamp)."""
        scaled = self.binary("fmul", x, literal(_SPLITTER, f64, self.lanes))
        high = self.binary("fsub", scaled, self.binary("fsub", scaled, x))
        return high, self.binary("fsub", x, high)

    def two_product(self, x: str, y: str) -> tuple[str, str]:
        """x * y rounded, and its error (Dekker, A floating-point technique for extending the available precision)."""
        product = self.binary("fmul", x, y)
        (x1, x0), (y1, y0) = self.halves(x), self.halves(y)
        error = self.binary("fsub", product, self.binary("fmul", x1, y1))
        error = self.binary("fsub", error, self.binary("fmul", x0, y1))
        error = self.binary("fsub", error, self.binary("fmul", x1, y0))
        return product, self.binary("fsub", self.binary("fmul", x0, y0), error)

    def odd_sum(self, x: str, y: str) -> str:
        """x + y, where it is inexact with an odd last bit."""
        w, lanes = self.writer, self.lanes
        i, mask = vector("i64", lanes), vector("i1", lanes)
        zero, one, minus_one = (all_lanes("i64", number, lanes) for number in ("0", "1", "-1"))
        total, error = self.two_sum(x, y)
        bits = w.op(f"bitcast {self.type} {total} to {i}")
        inexact = w.op(f"fcmp one {self.type} {error}, {literal(0.0, f64, lanes)}")
        even = w.op(f"icmp eq {i} {w.op(f'and {i} {bits}, {one}')}, {zero}")
        adjust = w.op(f"and {mask} {inexact}, {even}")
        # away from zero where the error has the sign of the sum, else towards it
        signs = w.op(f"xor {i} {w.op(f'bitcast {self.type} {error} to {i}')}, {bits}")
        step = w.op(f"select {mask} {w.op(f'icmp slt {i} {signs}, {zero}')}, {i} {minus_one}, {i} {one}")
        step = w.op(f"select {mask} {adjust}, {i} {step}, {i} {zero}")
        return w.op(f"bitcast {i} {w.op(f'add {i} {bits}, {step}')} to {self.type}")

    def inside(self, x: str, least: float, most: float) -> str:
        """Whether the magnitude of x lies between two bounds."""
        w, lanes = self.writer, self.lanes
        name = f"llvm.fabs.{'f64' if lanes == 1 else f'v{lanes}f64'}"
        size = w.call(name, self.type, (self.type, x))
        large = w.op(f"fcmp oge {self.type} {size}, {literal(least, f64, lanes)}")
        small = w.op(f"fcmp ole {self.type} {size}, {literal(most, f64, lanes)}")
        return w.op(f"and {vector('i1', lanes)} {large}, {small}")

    def double(self, x: str, y: str, z: str) -> str:
        """Boldo and Melquiond, Emulation of a FMA and correctly rounded sums, where nothing leaves the normal range."""
        w, mask = self.writer, vector("i1", self.lanes)
        high, low = self.two_product(x, y)
        sum_high, sum_low = self.two_sum(z, low)
        total, rest = self.two_sum(high, sum_high)
        exact = self.binary("fadd", total, self.odd_sum(sum_low, rest))
        twice = self.binary("fadd", high, z)
        factors = w.op(f"and {mask} {self.inside(x, _LEAST, _MOST)}, {self.inside(y, _LEAST, _MOST)}")
        safe = w.op(f"and {mask} {factors}, {self.inside(z, _LEAST * _LEAST, _MOST * _MOST)}")
        return w.op(f"select {mask} {safe}, {self.type} {exact}, {self.type} {twice}")
