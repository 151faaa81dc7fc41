"""Dimensions to LLVM IR: straight-line 64-bit integer code, each expression computed once."""

from __future__ import annotations

from collections.abc import Mapping

from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, Expr, bounds
from tgc.ir.polynomial import Atom

_LARGEST = 1 << 62


def _wrapped(number: int) -> str:
    """What 64 bits keep of a number."""
    return str((number + (1 << 63)) % (1 << 64) - (1 << 63))


class DimWriter:
    """Writes code that computes dimensions into ``lines``.

    ``values`` maps symbols to operands. With ``checked``, every step sets the i1 operand ``overflow`` when it leaves
    the range ±2**62 or divides by a number that is not positive; the results are then meaningless, but nothing traps.
    """

    def __init__(self, values: Mapping[str, str], *, checked: bool, prefix: str = "d") -> None:
        self.lines: list[str] = []
        self.overflow = "false"
        self._values = dict(values)
        self._known: dict[Dim, str] = {}
        self._checked = checked
        self._prefix = prefix
        self._count = 0

    def emit(self, instruction: str) -> str:
        """Writes an instruction; its result."""
        self._count += 1
        name = f"%{self._prefix}{self._count}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def operand(self, d: Dim) -> str:
        """The operand that holds ``d``: a literal, a symbol's operand or the result of new code."""
        if isinstance(d, int):
            return self._literal(d)
        found = self._known.get(d)
        if found is None:
            found = self._known[d] = self._sum(d)
        return found

    def _literal(self, number: int) -> str:
        """A number as it stands; one beyond ±2**62 counts as an overflow."""
        if self._checked and abs(number) > _LARGEST:
            self.flag("true")
        return _wrapped(number)

    def bind(self, symbol: str, operand: str) -> None:
        """Lets ``symbol`` stand for ``operand`` in what is written from now on."""
        self._values[symbol] = operand

    def flag(self, condition: str) -> None:
        """Sets ``overflow`` when the i1 operand ``condition`` is true."""
        self.overflow = condition if self.overflow == "false" else self.emit(f"or i1 {self.overflow}, {condition}")

    def _sum(self, d: Expr) -> str:
        total = ""
        for monomial, coefficient in d.terms:
            term = ""
            for atom in monomial:
                term = self._multiply(term, self._atom(atom)) if term else self._atom(atom)
            term = self._scale(term, coefficient) if term else self._literal(coefficient)
            total = self._add(total, term) if total else term
        return total

    def _add(self, a: str, b: str) -> str:
        result = self.emit(f"add i64 {a}, {b}")
        self._check_range(result, _LARGEST)
        return result

    def _check_range(self, operand: str, limit: int) -> None:
        """Sums of two numbers within ±2**62 do not wrap, nor products with a factor within ±``limit``."""
        if self._checked:
            shifted = self.emit(f"add i64 {operand}, {limit}")
            self.flag(self.emit(f"icmp ugt i64 {shifted}, {2 * limit}"))

    def _scale(self, a: str, coefficient: int) -> str:
        if coefficient == 1:
            return a
        self._check_range(a, _LARGEST // abs(coefficient))
        return self.emit(f"mul i64 {a}, {_wrapped(coefficient)}")

    def _multiply(self, a: str, b: str) -> str:
        result = self.emit(f"mul i64 {a}, {b}")
        if self._checked:
            # |x| < 2**(64 - zeros), so the product is below 2**62. The intrinsic that tells of overflow itself calls a
            # library function on 32-bit targets.
            zeros = self.emit(f"add i64 {self._leading_zeros(a)}, {self._leading_zeros(b)}")
            self.flag(self.emit(f"icmp ult i64 {zeros}, 66"))
        return result

    def _leading_zeros(self, operand: str) -> str:
        sign = self.emit(f"ashr i64 {operand}, 63")
        magnitude = self.emit(f"xor i64 {operand}, {sign}")
        return self.emit(f"call i64 @llvm.ctlz.i64(i64 {magnitude}, i1 false)")

    def _atom(self, atom: Atom) -> str:
        if atom.op == "symbol":
            try:
                return self._values[atom]
            except KeyError:
                raise CompilerBug(f"the dimension {atom!s} has no value", stage="entry") from None
        known = self._known.get(key := Expr((((atom,), 1),)))
        if known is None:
            args = [self.operand(arg) for arg in atom.args]
            known = self._extreme(atom.op, args) if atom.op in ("max", "min") else self._divide(atom, *args)
            self._known[key] = known
        return known

    def _extreme(self, op: str, args: list[str]) -> str:
        result = args[0]
        for other in args[1:]:
            better = self.emit(f"icmp {'sgt' if op == 'max' else 'slt'} i64 {result}, {other}")
            result = self.emit(f"select i1 {better}, i64 {result}, i64 {other}")
        return result

    def _divide(self, atom: Atom, dividend: str, divisor: str) -> str:
        if self._checked and not divisor.isdigit():
            wrong = self.emit(f"icmp slt i64 {divisor}, 1")
            self.flag(wrong)
            divisor = self.emit(f"select i1 {wrong}, i64 1, i64 {divisor}")
        low = bounds(atom.args[0], {})[0]
        if low is not None and low >= 0:
            return self.emit(f"{'udiv' if atom.op == '//' else 'urem'} i64 {dividend}, {divisor}")
        quotient = self.emit(f"sdiv i64 {dividend}, {divisor}")
        multiple = self.emit(f"mul i64 {quotient}, {divisor}")
        over = self.emit(f"icmp sgt i64 {multiple}, {dividend}")
        down = self.emit(f"sext i1 {over} to i64")
        floor = self.emit(f"add i64 {quotient}, {down}")
        if atom.op == "//":
            return floor
        below = self.emit(f"mul i64 {floor}, {divisor}")
        return self.emit(f"sub i64 {dividend}, {below}")
