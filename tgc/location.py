"""Where in the user's code a node comes from.

Recording costs one frame lookup: a location keeps the code object and the offset of the instruction,
and finds file, line and column only when it is shown.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
from dataclasses import dataclass
from itertools import islice
from types import CodeType

_HOUSE = tuple(
    os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), package, "")
    for package in ("tgc", "passes")
)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a source file: 1-based ``line`` and ``column``, ``end_column`` exclusive; 0 where unknown.

    >>> str(Location("digits.py", 9, 13))
    '"digits.py":9:13'
    """

    file: str
    line: int
    column: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        escaped = self.file.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}":{self.line}:{self.column}'

    def excerpt(self) -> str:
        """The line of source with a caret under the expression, as far as the file can be read."""
        head = f"  --> {self.file}:{self.line}" + (f":{self.column}" if self.column else "")
        # locations come from IR text too: what is no regular file might never end
        readable = self.file in linecache.cache or os.path.isfile(self.file)
        text = linecache.getline(self.file, self.line).rstrip() if readable else ""
        if not text:
            return head
        number = str(self.line)
        lines = [head, f"{number} | {text}"]
        if self.column:
            end = self.end_column if self.end_column > self.column else self.column + 1
            end = min(end, len(text) + 1)
            lines.append(" " * len(number) + " | " + " " * (self.column - 1) + "^" * max(1, end - self.column))
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Site:
    """An unresolved location: a code object and the offset of its current instruction."""

    code: CodeType
    offset: int

    def resolve(self) -> Location:
        return _resolve(self.code, self.offset)


@functools.lru_cache(maxsize=4096)
def _resolve(code: CodeType, offset: int) -> Location:
    position = next(islice(code.co_positions(), offset // 2, None), (None, None, None, None))
    line, end_line, column, end_column = position
    if line is None:
        return Location(code.co_filename, code.co_firstlineno)
    source = linecache.getline(code.co_filename, line)

    def characters(byte_column: int | None) -> int:
        # co_positions counts UTF-8 bytes
        if byte_column is None:
            return 0
        return len(source.encode()[:byte_column].decode(errors="ignore")) + 1

    return Location(code.co_filename, line, characters(column), characters(end_column) if end_line == line else 0)


def user_site() -> Site | None:
    """The innermost frame of the caller's stack that is not tgc's own code."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_HOUSE):
            return Site(frame.f_code, frame.f_lasti)
        frame = frame.f_back  # type: ignore[assignment]
    return None
