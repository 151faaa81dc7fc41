"""Reading text by position: tokens, numbers, names and strings, and errors that show where.

Space and comments (``//`` to the end of the line) separate tokens and mean nothing else.
"""

from __future__ import annotations

import json
import re

from tgc.errors import ParseError

LONGEST_TEXT = 1 << 26
_SHOWN = 60
_SPACE = re.compile(r"(?:\s+|//[^\n]*)*")
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9_.$-]+")
_INTEGER = re.compile(r"-?[0-9]+")
_MOST_DIGITS = 100


def is_name(text: str) -> bool:
    """Whether ``text`` stands after ``@`` without quotes."""
    return _NAME.fullmatch(text) is not None


def quoted(text: str) -> str:
    """``text`` between quotes, in ASCII, as JSON writes it."""
    return json.dumps(text)


class Scanner:
    """A position in ``text`` that moves over tokens. Every failure is a :class:`ParseError` that shows the place.

    >>> scan = Scanner("x = 3 // the rest")
    >>> scan.word("a name"), scan.take("="), scan.integer("a number"), scan.at_end()
    ('x', True, 3, True)
    """

    def __init__(self, text: str, source: str = "<text>") -> None:
        if len(text) > LONGEST_TEXT:
            raise ParseError(f"{source}: the text is longer than {LONGEST_TEXT} characters")
        self.text = text
        self.source = source
        self.position = 0
        self.skip()

    def skip(self) -> None:
        """Go to the next token."""
        match = _SPACE.match(self.text, self.position)
        if match:
            self.position = match.end()

    def at_end(self) -> bool:
        return self.position == len(self.text)

    def peek(self, token: str) -> bool:
        return self.text.startswith(token, self.position)

    def take(self, token: str) -> bool:
        """Whether ``token`` is next, which is then passed."""
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        self.skip()
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"expected {token!r}")

    def keyword(self, word: str) -> bool:
        """Whether the word ``word`` is next, which is then passed."""
        match = _WORD.match(self.text, self.position)
        return match is not None and match.group() == word and self.match(_WORD) is not None

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What ``pattern`` matches here, which is then passed."""
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()
            self.skip()
        return match

    def demand(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        """As :meth:`match`, where nothing else may follow."""
        match = self.match(pattern)
        if match is None:
            raise self.error(f"expected {expected}")
        return match

    def word(self, expected: str) -> str:
        """An identifier."""
        return self.demand(_WORD, expected).group()

    def name(self, expected: str) -> str:
        """What follows ``@``: a name or a string."""
        return self.string() if self.peek('"') else self.demand(_NAME, expected).group()

    def string(self) -> str:
        start = self.position
        match = self.demand(_STRING, "a string")
        if "\\" not in match.group(1) and match.group(1).isprintable():
            return match.group(1)
        try:
            return str(json.loads(match.group()))
        except ValueError:
            raise self.error("malformed string", at=start) from None

    def integer(self, expected: str) -> int:
        start = self.position
        text = self.demand(_INTEGER, expected).group()
        if len(text) > _MOST_DIGITS:
            raise self.error(f"a number has more than {_MOST_DIGITS} digits", at=start)
        return int(text)

    def error(self, message: str, *, at: int | None = None) -> ParseError:
        """The error that shows the current position, or ``at``."""
        position = self.position if at is None else at
        return ParseError(f"{message}\n{self.excerpt(position)}")

    def excerpt(self, position: int) -> str:
        """Source, line and column of ``position``, and the line with a caret under it."""
        start = self.text.rfind("\n", 0, position) + 1
        end = self.text.find("\n", position)
        line = self.text[start : end if end >= 0 else len(self.text)]
        column = position - start
        number = str(self.text.count("\n", 0, position) + 1)
        first = max(0, column - _SHOWN)
        shown = "".join(c if c.isprintable() else " " for c in line[first : column + _SHOWN])
        head = f"  --> {self.source}:{number}:{column + 1}"
        return f"{head}\n{number} | {shown}\n{' ' * len(number)} | {' ' * (column - first)}^"
