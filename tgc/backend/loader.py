"""Objects in memory without LLVM: relocatable ELF files of x86-64 are laid out, relocated and protected here.

To load LLVM takes longer than all else that a process does which finds its code in the cache. What tgc compiles has
relocations of three kinds; objects with anything else are left to LLVM's linker, which also says what is wrong with
them. The bytes may come from a cache on disk: every offset is checked before it is used.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tgc.errors import UnsupportedError

_HEADER: Final = struct.Struct("<4sBB10xHH20xQ10xHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QIIq")
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _UNWIND = 1, 2, 4, 8, 0x70000001
_WRITE, _ALLOCATE = 1, 2
_LOCAL, _GLOBAL = 0, 1
_UNDEFINED, _RESERVED = 0, 0xFF00
_ABSOLUTE, _RELATIVE, _CALL = 1, 2, 4
_MOST: Final = 1 << 30
# jmp *[rip]: code elsewhere may lie further away than a call reaches
_JUMP: Final = struct.Struct("<6sQ2x")


def place(images: Sequence[bytes], names: Sequence[str], addresses: Mapping[str, int]) -> Placed | None:
    """The code of objects that call one another; None where LLVM is needed for it, or to say what is wrong.

    ``names``: the symbols to look up; ``addresses``: where others are, besides those of this process.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or struct.calcsize("P") != 8:
        return None
    try:
        return Placed([_Object(image) for image in images], names, addresses)
    except (UnsupportedError, struct.error, IndexError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int

    @property
    def is_placed(self) -> bool:
        """Whether it is in memory when the code runs; nothing here unwinds stacks."""
        return bool(self.flags & _ALLOCATE) and self.kind != _UNWIND


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    binding: int
    section: int
    value: int


class _Object:
    """A relocatable file's sections and symbols."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        magic, wide, order, kind, machine, start, entry, count, _ = _HEADER.unpack_from(image)
        if (magic, wide, order, kind, machine, entry) != (b"\x7fELF", 2, 1, 1, 62, _SECTION.size):
            raise UnsupportedError("not a relocatable object of x86-64")
        table = self.part(start, count * entry)
        self.sections = [_Section(k, f, o, s, l, i, a) for _, k, f, _, o, s, l, i, a, _ in _SECTION.iter_unpack(table)]

    def part(self, offset: int, size: int) -> bytes:
        """A part of the file."""
        if offset + size > len(self.image):
            raise UnsupportedError("the file is shorter than it says")
        return self.image[offset : offset + size]

    def content(self, section: _Section) -> bytes:
        """What a section holds."""
        return self.part(section.offset, section.size)

    @cached_property
    def symbols(self) -> list[_Symbol]:
        """All symbols, by number."""
        (table,) = (s for s in self.sections if s.kind == _SYMTAB)
        strings = self.content(self.sections[table.link])
        return [
            _Symbol(strings[name : strings.index(b"\0", name)].decode(), info >> 4, section, value)
            for name, info, _, section, value, _ in _SYMBOL.iter_unpack(self.content(table))
        ]

    def relocations(self) -> Iterator[tuple[int, int, int, _Symbol, int]]:
        """(number of the section, offset in it, kind, symbol, addend) of each place that holds an address."""
        for section in self.sections:
            if section.kind == _RELA and self.sections[section.info].is_placed:
                for offset, kind, symbol, addend in _RELOCATION.iter_unpack(self.content(section)):
                    yield section.info, offset, kind, self.symbols[symbol], addend


class Placed:
    """Code in memory, for as long as this object lives. ``addresses``: where the wanted symbols are."""

    def __init__(self, objects: Sequence[_Object], names: Sequence[str], addresses: Mapping[str, int]) -> None:
        self._objects = objects
        self._offsets: dict[tuple[int, int], int] = {}
        self._outside = addresses
        wanted = {s.name for o in objects for s in o.symbols if s.section == _UNDEFINED and s.name}
        code = self._lay_out(0, writable=False)
        self._jumps = code
        page = mmap.PAGESIZE
        fixed = -(-(code + len(wanted) * _JUMP.size) // page) * page
        size = self._lay_out(fixed, writable=True)
        if size > _MOST:
            raise UnsupportedError("more than calls can reach across")
        self._memory = mmap.mmap(-1, max(size, page), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._defined = self._definitions()
        self._called: dict[str, int] = {}
        self._fill()
        self.addresses = {name: self._base + self._defined[name] for name in names if name in self._defined}
        if len(self.addresses) != len(names):
            raise UnsupportedError("a symbol is missing")
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        if protect(ctypes.c_void_p(self._base), ctypes.c_size_t(fixed), 5):  # to be read and executed
            raise UnsupportedError("memory cannot become code")

    def _lay_out(self, end: int, *, writable: bool) -> int:
        """Gives sections their offsets, from ``end`` on."""
        for number, each in enumerate(self._objects):
            for index, section in enumerate(each.sections):
                if section.is_placed and bool(section.flags & _WRITE) is writable:
                    step = max(section.alignment, 1)
                    if section.kind not in (_PROGBITS, _NOBITS) or mmap.PAGESIZE % step:
                        raise UnsupportedError("a section of another kind")
                    end = -(-end // step) * step
                    self._offsets[number, index] = end
                    end += section.size
        return end

    def _definitions(self) -> dict[str, int]:
        """The offset of each symbol that objects share."""
        found: dict[str, int] = {}
        for number, each in enumerate(self._objects):
            for symbol in each.symbols:
                if symbol.binding != _LOCAL and symbol.section != _UNDEFINED:
                    if symbol.binding != _GLOBAL or symbol.name in found:
                        raise UnsupportedError("a symbol of another kind, or twice")
                    found[symbol.name] = self._offset(number, symbol)
        return found

    def _offset(self, number: int, symbol: _Symbol) -> int:
        place = self._offsets.get((number, symbol.section))
        if place is None:
            raise UnsupportedError("a symbol outside of the sections")
        return place + symbol.value

    def _fill(self) -> None:
        for (number, index), offset in self._offsets.items():
            section = self._objects[number].sections[index]
            if section.kind == _PROGBITS:
                self._memory[offset : offset + section.size] = self._objects[number].content(section)
        for number, each in enumerate(self._objects):
            for index, offset, kind, symbol, addend in each.relocations():
                width = 8 if kind == _ABSOLUTE else 4
                if offset + width > each.sections[index].size:
                    raise UnsupportedError("a relocation outside of its section")
                place = self._offsets[number, index] + offset
                target = self._target(number, symbol, call=kind == _CALL) + addend
                if kind == _ABSOLUTE:
                    struct.pack_into("<Q", self._memory, place, self._base + target)
                elif kind in (_RELATIVE, _CALL):
                    struct.pack_into("<i", self._memory, place, target - place)
                else:
                    raise UnsupportedError(f"a relocation of kind {kind}")

    def _target(self, number: int, symbol: _Symbol, *, call: bool) -> int:
        """The offset of what a relocation refers to; calls of what lies outside go through a jump."""
        if symbol.section != _UNDEFINED:
            return self._offset(number, symbol)
        if symbol.name in self._defined:
            return self._defined[symbol.name]
        address = self._outside.get(symbol.name) or _in_process(symbol.name)
        if not call:
            return address - self._base
        if symbol.name not in self._called:
            offset = self._called[symbol.name] = self._jumps + len(self._called) * _JUMP.size
            _JUMP.pack_into(self._memory, offset, b"\xff\x25\0\0\0\0", address)
        return self._called[symbol.name]


def _in_process(name: str) -> int:
    for library in (ctypes.CDLL(None), ctypes.pythonapi):
        try:
            address = ctypes.cast(library[name], ctypes.c_void_p).value
        except AttributeError:
            continue
        if address is not None:
            return address
    raise UnsupportedError(f"there is no {name}")
