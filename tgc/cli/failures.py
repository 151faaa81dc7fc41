"""What the command line says when something goes wrong, and what it leaves for whoever repairs it."""

from __future__ import annotations

import platform
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final

import llvmlite

from tgc.errors import CompilerBug, TgcError, UserError
from tgc.location import Location, Site
from tgc.version import VERSION

USER: Final = 1
BUG: Final = 70

_HOUSE: Final = tuple(str(Path(__file__).parents[2] / package / "") for package in ("tgc", "passes"))


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Turns an exception that the user's own code raises inside into a :class:`UserError` that shows the line."""
    try:
        yield
    except TgcError:
        raise
    except SystemExit as error:
        raise UserError(f"{what} ends the process with {error.code!r}", hint="guard it with __main__") from None
    except Exception as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        if not frames or frames[-1][0].f_code.co_filename.startswith(_HOUSE):
            raise CompilerBug(f"{type(error).__name__}: {error}", stage=what) from error
        message = f"{what} raised {type(error).__name__}: {error}"
        raise UserError(message, location=_place(error.__traceback__)) from None


def _place(trace: TracebackType | None) -> Location | None:
    """The innermost line outside of tgc and of installed packages, else the innermost outside of tgc."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((*_HOUSE, "<frozen")):
            site = Site(code, trace.tb_lasti)
            if found is None or "site-packages" not in code.co_filename:
                found = site
        trace = trace.tb_next
    return found.resolve() if found else None


def report_bug(error: Exception, command: str) -> str:
    """Writes a file that reproduces the fault, as far as it is known, and gives what to tell the user."""
    graph = error.ir if isinstance(error, CompilerBug) else ""
    about = [
        f"tgc {VERSION}, llvmlite {llvmlite.__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: {command}",
        "the module below is what was given to the stage that failed; tgc opt, compile and verify take this file",
        "",
        *"".join(traceback.format_exception(error)).splitlines(),
    ]
    text = "".join(f"// {line}".rstrip() + "\n" for line in about) + (f"\n{graph}\n" if graph else "")
    name = f"tgc-bug-{sha256(f'{error}{graph}'.encode()).hexdigest()[:12]}.tgc"
    path = Path(name)
    try:
        path.write_text(text, encoding="utf8")
    except OSError:
        path = Path(tempfile.gettempdir()) / name
        path.write_text(text, encoding="utf8")
    said = "\n".join(str(error).splitlines()[:6]) or type(error).__name__
    return f"this is a fault of tgc itself: {said}\nhelp: {path} reproduces it; please report it with that file"
