"""Every exception that tgc raises.

Two kinds: a :class:`UserError` says what was given, what was expected, where in the user's code and what to do
(exit code 1 from the command line); a :class:`CompilerBug` names the pass and carries the IR before it (exit code 70).
"""

from __future__ import annotations

from tgc.location import Location


class TgcError(Exception):
    """Base of all tgc exceptions."""


class UserError(TgcError):
    """A mistake in the user's program, arguments or files.

    ``message`` says what was given and expected, ``hint`` what to do, ``location`` where in the user's code.

    >>> print(UserError("shapes f32[2] and f32[3] do not broadcast", hint="make the sizes equal, or one of them 1"))
    shapes f32[2] and f32[3] do not broadcast
    help: make the sizes equal, or one of them 1
    """

    def __init__(self, message: str, *, hint: str | None = None, location: Location | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.location = location

    def __str__(self) -> str:
        parts = [self.message]
        if self.location is not None:
            parts.append(self.location.excerpt())
        if self.hint is not None:
            parts.append(f"help: {self.hint}")
        return "\n".join(parts)


class ShapeError(UserError):
    """Shapes that do not fit together."""


class DTypeError(UserError):
    """Data types that an operation does not take."""


class TraceError(UserError):
    """Python control flow or state used in a way that cannot be recorded in a graph."""


class MissingAttribute(UserError, AttributeError):
    """An attribute that tensors do not have."""


class AllocationError(UserError, MemoryError):
    """Results or workspace that need more memory than there is."""


class ParseError(UserError):
    """IR text, a type specification or a file that is malformed."""


class VerificationError(TgcError):
    """IR that breaks an invariant; the message names the invariant and the node."""


class TargetError(UserError):
    """A target, CPU or tool that is unknown or missing."""


class UnsupportedError(UserError):
    """Something that tgc does not do, said clearly instead of done wrongly."""


class NonFiniteError(UserError, FloatingPointError):
    """A NaN or an infinity that an op made, where :func:`tgc.debug_nans` looks for them."""


class CompilerBug(TgcError):
    """A fault of tgc itself. ``ir`` is the text that reproduces it, ``stage`` the pass or schedule that failed."""

    def __init__(self, message: str, *, stage: str, ir: str = "") -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.ir = ir
