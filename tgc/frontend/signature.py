"""Signatures of compiled functions: types with names for sizes, written by the user or found from several calls."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tgc.dtypes import named
from tgc.errors import ParseError, UserError
from tgc.frontend.trace import here
from tgc.ir.dims import Dim, parse_dim, symbol
from tgc.ir.types import TensorType


def parse_spec(text: str) -> TensorType:
    """The type that a specification such as ``"f32[batch, 1, 28, 28]"`` names. Raises ParseError.

    >>> print(parse_spec("f32[batch, 1, 28, 28]"))
    f32[batch, 1, 28, 28]
    """
    head, bracket, rest = text.partition("[")
    if not bracket or not rest.rstrip().endswith("]"):
        raise ParseError(f"{text!r} is no tensor type", hint='write it as "f32[batch, 784]"')
    inner = rest.rstrip()[:-1].strip()
    return TensorType(named(head.strip()), [parse_dim(part) for part in inner.split(",")] if inner else [])


def parse_specs(texts: Sequence[object]) -> list[TensorType]:
    """The types of a decorator's arguments, errors located at the user's line."""
    try:
        if not all(isinstance(text, str) for text in texts):
            raise UserError(
                "the specification of an argument must be a string",
                hint='write @tgc.export("f32[batch, 784]"), one type for each argument, or @tgc.export() for none',
            )
        return [parse_spec(str(text)) for text in texts]
    except UserError as error:
        raise type(error)(error.message, hint=error.hint, location=here()) from None


def mismatch(pattern: Sequence[TensorType], types: Sequence[TensorType], names: Sequence[str]) -> str:
    """What to do about arguments that ``pattern`` does not cover: the first of them that does not fit, and why."""
    if len(pattern) != len(types):
        return f"pass {len(pattern)} tensor(s), not {len(types)}"
    sizes: dict[Dim, tuple[Dim, str]] = {}
    names = names or [f"argument {i}" for i in range(len(types))]
    for name, wanted, given in zip(names, pattern, types, strict=True):
        if wanted.dtype is not given.dtype:
            return f"{name} has dtype {given.dtype}, not {wanted.dtype}: use .astype(tgc.{wanted.dtype})"
        if len(wanted.shape) != len(given.shape):
            return f"{name} has {len(given.shape)} dimensions, not {len(wanted.shape)}"
        for axis, (p, d) in enumerate(zip(wanted.shape, given.shape, strict=True)):
            size, where = (p, "") if isinstance(p, int) else sizes.setdefault(p, (d, f", as {name} has it for {p}"))
            if size != d:
                return f"axis {axis} of {name} has size {d}, not {size}{where}"
    return "pass tensors that fit the specification"


def check_arguments(function: Callable[..., Any], specs: Sequence[TensorType]) -> None:
    """Raises :class:`UserError` unless ``function`` takes as many arguments as there are ``specs``."""
    try:
        inspect.signature(function).bind(*specs)
    except ValueError:
        pass  # some callables do not tell
    except TypeError as error:
        given = ", ".join(map(str, specs)) or "none"
        raise UserError(
            f"{function.__name__} does not take the arguments that its specification lists ({given}): {error}",
            hint="give one type for each argument",
            location=here(),
        ) from None


def covers(pattern: Sequence[TensorType], types: Sequence[TensorType], *, ones: bool) -> bool:
    """Whether arguments of ``types`` may be given where ``pattern`` is wanted; a name has one size throughout.

    ``ones``: whether a name can stand for 1, which otherwise is a size of its own, since it broadcasts.

    >>> covers([parse_spec("f32[n, 2]")], [parse_spec("f32[7, 2]")], ones=False)
    True
    >>> covers([parse_spec("f32[n, n]")], [parse_spec("f32[7, 2]")], ones=False)
    False
    """
    sizes: dict[Dim, Dim] = {}
    for wanted, given in zip(pattern, types, strict=True):
        if wanted.dtype is not given.dtype or len(wanted.shape) != len(given.shape):
            return False
        for p, d in zip(wanted.shape, given.shape, strict=True):
            if isinstance(p, int):
                if p != d:
                    return False
            elif (d == 1 and not ones) or sizes.setdefault(p, d) != d:
                return False
    return True


def generalised(pattern: Sequence[TensorType], types: Sequence[TensorType]) -> tuple[Sequence[TensorType], str] | None:
    """The pattern with a name wherever a second size came, and why; None if the types differ in more than sizes.

    Dimensions that changed alike get the same name. A size of 1 broadcasts and so never becomes a name.
    """
    names: dict[tuple[Dim, Dim], Dim] = {}
    taken: set[Dim] = {d for t in pattern for d in t.shape}
    changed: list[str] = []
    result = []
    for i, (old, new) in enumerate(zip(pattern, types, strict=True)):
        if old.dtype is not new.dtype or len(old.shape) != len(new.shape):
            return None
        shape: list[Dim] = []
        for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=True)):
            if a == b:
                shape.append(a)
                continue
            if a == 1 or b == 1:
                return None
            if (a, b) not in names:
                fresh = isinstance(a, int) or any(known is a for known in names.values())
                names[a, b] = next(d for d in map(_named, itertools.count()) if d not in taken) if fresh else a
                taken.add(names[a, b])
                if fresh:
                    changed.append(f"argument {i}, dimension {axis}: {a}, then {b}")
            shape.append(names[a, b])
        result.append(TensorType(old.dtype, shape))
    return result, "a second size (" + "; ".join(changed) + ")"


def _named(number: int) -> Dim:
    return symbol(f"d{number}")
