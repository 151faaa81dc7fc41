"""Types, attributes and the elements of constants, read from text: the leaves of :mod:`tgc.ir.parser`."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType

import numpy as np

from tgc.dtypes import DTYPES
from tgc.errors import ParseError, UserError
from tgc.ir.dims import Dim, parse_dim, parse_dims
from tgc.ir.graph import Array, Attribute, Constant
from tgc.ir.lexer import Scanner
from tgc.ir.printer import RESERVED
from tgc.ir.types import Layout, TensorType

_DEEPEST = 32
_WORDS: Mapping[str, bool | None] = MappingProxyType({"true": True, "false": False, "none": None})
_TYPE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\[([^\[\]\n]*)\](\{[0-9][^{}\n]*\})?")
_LAYOUT = re.compile(r"\{([0-9,]+)(?:; tiles ([0-9:,]+))?(?:; margins ([0-9:,]+))?\}")
_PAIR = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+(?:e[+-]?[0-9]+)?|e[+-]?[0-9]+)(?=\s*[],}])")
_INTEGER = re.compile(r"-?[0-9]+(?=\s*[],}])")
_WORD = re.compile(r"-?([A-Za-z_][A-Za-z0-9_]*)")
_DELIMITER = re.compile(r"[(),\]}\n\"]")
_NAN = re.compile(r"nan:0x([0-9a-f]{16})")


def parse_type(text: str) -> TensorType:
    """The type that ``text`` states; :class:`ParseError` if it states none.

    >>> parse_type("f32[batch, 2*h+1]{1,0}").layout
    Layout(order=(1, 0), tiles=(), margins=())
    """
    match = _TYPE.fullmatch(text.strip())
    if match is None:
        raise ParseError(f"{text[:200]!r} is no type", hint="a type is written as f32[batch, 3, 224, 224]")
    return _type(*match.groups())


@lru_cache(maxsize=4096)
def _type(dtype: str, shape: str, layout: str | None) -> TensorType:
    if dtype not in DTYPES:
        raise ParseError(f"there is no dtype {dtype[:100]!r}", hint="the dtypes are " + ", ".join(DTYPES))
    sizes = parse_dims(shape)
    if any(isinstance(d, int) and d < 0 for d in sizes):
        raise ParseError(f"a dimension of [{shape}] is negative")
    return TensorType(DTYPES[dtype], sizes, None if layout is None else _layout(layout, len(sizes)))


def _layout(text: str, rank: int) -> Layout:
    match = _LAYOUT.fullmatch(text)
    if match is None:
        raise ParseError(f"malformed layout {text[:200]!r}")
    order = tuple(int(part) if len(part) < 9 else rank for part in match[1].split(",") if part)
    tiles, margins = _pairs(match[2]), _pairs(match[3])
    if sorted(order) != list(range(rank)):
        raise ParseError(f"the layout {text[:200]!r} does not order {rank} dimensions")
    if any(d >= rank or size < 1 for d, size in tiles) or len(margins) not in (0, rank):
        raise ParseError(f"the tiles or margins of the layout {text[:200]!r} do not fit {rank} dimensions")
    return Layout(order, tiles, margins)


def _pairs(text: str | None) -> tuple[tuple[int, int], ...]:
    if text is None:
        return ()
    found = []
    for part in text.split(","):
        match = _PAIR.fullmatch(part)
        if match is None:
            raise ParseError(f"malformed pair {part[:100]!r} in a layout")
        found.append((int(match[1]), int(match[2])))
    return tuple(found)


class LiteralParser:
    """Reads types, dimensions, attributes and elements from ``scan``; nesting beyond a fixed depth is an error."""

    def __init__(self, scan: Scanner) -> None:
        self.scan = scan
        self.depth = 0

    def nest(self, step: int) -> None:
        self.depth += step
        if self.depth > _DEEPEST:
            raise self.scan.error(f"more than {_DEEPEST} levels of nesting")

    def typed(self) -> TensorType:
        self.scan.expect(":")
        return self.tensor_type()

    def tensor_type(self) -> TensorType:
        start = self.scan.position
        match = self.scan.demand(_TYPE, "a type such as f32[2, 3]")
        try:
            return _type(*match.groups())
        except UserError as error:
            raise self.scan.error(error.message, at=start) from None

    def dimension(self, text: str, start: int) -> Dim:
        try:
            return parse_dim(text)
        except UserError as error:
            raise self.scan.error(error.message, at=start) from None

    def attribute(self) -> Attribute:
        scan = self.scan
        if scan.peek('"'):
            return scan.string()
        if scan.peek("["):
            return self.sequence()
        word = _WORD.match(scan.text, scan.position)
        if word and word[1] in RESERVED:
            return self.reserved(word)
        number = scan.match(_FLOAT)
        if number:
            return float(number.group())
        if _INTEGER.match(scan.text, scan.position):
            return scan.integer("a number")
        start = scan.position
        return self.dimension(self.until_delimiter(), start)

    def sequence(self) -> Attribute:
        self.nest(1)
        self.scan.expect("[")
        items: list[Attribute] = []
        while not self.scan.take("]"):
            if items:
                self.scan.expect(",")
            items.append(self.attribute())
        self.nest(-1)
        return tuple(items)

    def reserved(self, word: re.Match[str]) -> Attribute:
        name = word[1]
        if name in DTYPES and _TYPE.match(self.scan.text, self.scan.position):
            return self.tensor_type()
        if name == "nan" and (match := self.scan.match(_NAN)):
            return float(struct.unpack(">d", bytes.fromhex(match[1]))[0])
        if word.group() != name and name != "inf":
            raise self.scan.error(f"expected a value, not -{name}")
        self.scan.match(_WORD)
        if name in DTYPES:
            return DTYPES[name]
        if name in ("nan", "inf"):
            return float(word.group())
        return _WORDS[name]

    def until_delimiter(self) -> str:
        """The text up to the comma or bracket that ends it, which is not inside parentheses."""
        start = self.scan.position
        depth = 0
        for match in _DELIMITER.finditer(self.scan.text, start):
            depth += {"(": 1, ")": -1}.get(match.group(), 0)
            if depth < 0 or match.group() in ']}\n"' or (match.group() == "," and depth == 0):
                self.scan.position = match.start()
                self.scan.skip()
                return self.scan.text[start : match.start()]
        raise self.scan.error("expected a value")

    def contents(self, of: TensorType) -> Constant | None:
        """The data of a constant; None if the text has none."""
        start = self.scan.position
        if self.scan.take("{"):
            if not self.scan.keyword("digest"):
                raise self.scan.error("expected 'digest'")
            self.scan.expect("=")
            digest = self.scan.string()
            self.scan.expect("}")
            return Constant(of, digest)
        if not self.scan.take("="):
            return None
        try:
            if self.scan.peek('"'):
                array = np.frombuffer(bytes.fromhex(self.scan.string()), of.dtype.numpy)
            else:
                array = _array(self.attribute(), of)
        except (ValueError, OverflowError) as error:
            raise self.scan.error(f"these are no elements of {of}: {error}", at=start) from None
        shape = tuple(d for d in of.shape if isinstance(d, int))
        if len(shape) != of.rank or array.size != prod(shape):
            raise self.scan.error(f"{array.size} elements do not fill {of}", at=start)
        return Constant.of(array.reshape(shape), of)


def _array(values: Attribute, of: TensorType) -> Array:
    """The flat array of the listed numbers; ValueError or OverflowError if they are no numbers of the type."""
    accepted = {"bool": bool, "float": float}.get(of.dtype.kind, int)
    if not isinstance(values, tuple):
        raise ValueError("expected a list")
    wrong = [v for v in values if type(v) is not accepted]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no {accepted.__name__}")
    with np.errstate(all="ignore"):
        return np.array(values, of.dtype.numpy)
