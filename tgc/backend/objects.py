"""What an object file needs from outside: its undefined symbols, for ELF and WebAssembly.

The bytes may come from a cache on disk: every offset is checked before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tgc.errors import ParseError, UnsupportedError

_SHT_SYMTAB, _SHN_UNDEF = 2, 0
_WASM_IMPORTS = 2


def undefined_symbols(image: bytes) -> frozenset[str]:
    """The names that a linker must find elsewhere.

    Raises :class:`ParseError` for a malformed object, :class:`UnsupportedError` for another format.
    """
    return _symbols(image, defined=False)


def defined_symbols(image: bytes) -> frozenset[str]:
    """The names that an ELF object defines; of WebAssembly none are told."""
    return _symbols(image, defined=True)


def _symbols(image: bytes, *, defined: bool) -> frozenset[str]:
    try:
        if image.startswith(b"\x7fELF"):
            return frozenset(name for name, here in _elf_symbols(image) if here is defined)
        if image.startswith(b"\0asm"):
            return frozenset(() if defined else _wasm_imports(image))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ParseError(f"the object file is damaged: {error}") from None
    raise UnsupportedError("the object file is neither ELF nor WebAssembly")


def architecture(image: bytes) -> str | None:
    """The architecture as a target triple begins, or None if it is not known.

    >>> architecture(b"\\0asm")
    'wasm32'
    """
    if image.startswith(b"\0asm"):
        return "wasm32"
    if not image.startswith(b"\x7fELF") or len(image) < 20:
        return None
    machine = int.from_bytes(image[18:20], "little")
    return {62: "x86_64", 183: "aarch64", 243: "riscv64"}.get(machine)


def _slice(image: bytes, start: int, size: int) -> bytes:
    if start < 0 or size < 0 or start + size > len(image):
        raise ParseError(f"the object file is damaged: {size} bytes at {start} of {len(image)}")
    return image[start : start + size]


def _elf_symbols(image: bytes) -> Iterator[tuple[str, bool]]:
    """(name, whether it is defined) of each named symbol of a little-endian ELF file of 32 or 64 bits."""
    if _slice(image, 0, 6)[5] != 1:
        raise UnsupportedError("the object file is big-endian")
    wide = image[4] == 2
    if wide:
        (sections,) = struct.unpack("<Q", _slice(image, 40, 8))
        entry, number = struct.unpack("<HH", _slice(image, 58, 4))
    else:
        (sections,) = struct.unpack("<I", _slice(image, 32, 4))
        entry, number = struct.unpack("<HH", _slice(image, 46, 4))
    layout = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    if entry < layout.size:
        raise ParseError("the object file is damaged: its section headers are too small")
    headers = [layout.unpack(_slice(image, sections + index * entry, layout.size)) for index in range(number)]
    for _, kind, _, _, start, size, link, _, _, _ in headers:
        if kind != _SHT_SYMTAB:
            continue
        strings = _slice(image, headers[link][4], headers[link][5])
        symbol = struct.Struct("<IBBHQQ" if wide else "<IIIBBH")
        table = _slice(image, start, size - size % symbol.size)
        for fields in symbol.iter_unpack(table):
            name, section = fields[0], fields[3] if wide else fields[5]
            if name:
                end = strings.index(b"\0", name) if name < len(strings) and 0 in strings[name:] else -1
                if end < 0:
                    raise ParseError("the object file is damaged: a symbol's name lies outside of its table")
                yield strings[name:end].decode(), section != _SHN_UNDEF


def _wasm_imports(image: bytes) -> Iterator[str]:
    """The functions that a WebAssembly object imports."""
    position = 8
    while position < len(image):
        kind = image[position]
        size, position = _number(image, position + 1)
        if kind == _WASM_IMPORTS:
            yield from _imported_functions(_slice(image, position, size))
        position += size


def _imported_functions(section: bytes) -> Iterator[str]:
    count, position = _number(section, 0)
    for _ in range(count):
        size, position = _number(section, position)
        position += size
        size, position = _number(section, position)
        name = _slice(section, position, size).decode()
        kind = section[position + size]
        position += size + 1
        if kind == 0:
            yield name
            _, position = _number(section, position)
        elif kind == 3:
            position += 2
        else:
            # a table has a type before its limits; limits have a maximum if the flag says so
            position += kind == 1
            flags, position = _number(section, position)
            for _ in range(1 + (flags & 1)):
                _, position = _number(section, position)


def _number(image: bytes, position: int) -> tuple[int, int]:
    """An unsigned LEB128 number and where it ends."""
    value = shift = 0
    while True:
        byte = image[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ParseError("the object file is damaged: a number is too long")
