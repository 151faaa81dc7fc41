"""Finding the first NaN or infinity: results are looked at, and where one is not finite, the op that made it is sought.

Compiled code runs as ever. Only when a result is wrong is the function run again, op by op, by the interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tgc.dtypes import from_numpy
from tgc.errors import NonFiniteError
from tgc.ir.graph import Array, Function, Graph, Node, Place
from tgc.lazy import LazyModule
from tgc.location import Location, Site

if TYPE_CHECKING:
    import tgc.reference as reference
else:
    reference = LazyModule("tgc.reference")

Wanted: TypeAlias = Literal["", "nan", "nonfinite"]
_WANTED: ContextVar[Wanted] = ContextVar(
    "debug_nans", default="nonfinite" if os.environ.get("TGC_DEBUG_NANS", "0") not in ("", "0") else ""
)
_HINT = "keep its operands away from there: clip them, or add a small number"


@contextmanager
def debug_nans(*, infinities: bool = True) -> Iterator[None]:
    """In the block, a NaN or an infinity in a result or in updated state is an error that names the op that made it.

    The op is the first one that makes it of finite operands, and the error shows its line. State is as it was before
    the call. ``infinities=False`` looks for NaN alone. In a whole process, the environment's ``TGC_DEBUG_NANS=1`` does
    the same. Raises :class:`NonFiniteError`, which is a ``FloatingPointError``.

    >>> import tgc
    >>> with tgc.debug_nans():
    ...     (tgc.tensor([1.0, 0.0]).log() * 2).numpy()
    Traceback (most recent call last):
    ...
    tgc.errors.NonFiniteError: log made an infinity: element [1] is -inf, of 0.0
    ...
    """
    token = _WANTED.set("nonfinite" if infinities else "nan")
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted() -> Wanted:
    """What the surrounding :func:`debug_nans` looks for; the empty string outside of all."""
    return _WANTED.get()


def guarded(
    call: Callable[..., Any],
    function: Function,
    inputs: Sequence[Array],
    state: Sequence[Array],
    constants: Sequence[Array],
    locations: Mapping[Node, tuple[Place, ...]],
) -> Any:
    """What ``call`` gives for ``inputs``: compiled code of ``function`` over state ``s0``, … and constants ``c0``, ….

    Raises :class:`NonFiniteError` if that or assigned state is not finite; state is then what it was.
    """
    held = {f"s{i}": array for i, array in enumerate(state)}
    assigned = [name for name, _ in function.assigns]
    before = {**held, **{name: held[name].copy() for name in assigned}}
    results = call(*inputs)
    given = [results] if isinstance(results, np.ndarray) else list(results)
    outputs = [*given, *(held[name] for name in assigned)]
    try:
        check(function, outputs, inputs, before, {f"c{i}": array for i, array in enumerate(constants)}, locations)
    except NonFiniteError:
        for name in assigned:
            held[name][...] = before[name]
        raise
    return results


def check(
    function: Function,
    outputs: Sequence[Array],
    inputs: Sequence[Array],
    state: Mapping[str, Array],
    constants: Mapping[str, Array],
    locations: Mapping[Node, tuple[Place, ...]],
) -> None:
    """Raises :class:`NonFiniteError` if one of the function's outputs, results and then assigned state, is not finite.

    ``state`` is as it was before the call.
    """
    bad = [value for value, array in zip(function.outputs, outputs, strict=True) if _bad(array)]
    if not bad:
        return
    suspect = replace(function, graph=Graph(function.parameters, tuple(bad)), assigns=())
    search = _Search(locations)
    reference.run(suspect, inputs, state=state, constants=constants, around=search)
    if search.later is not None:
        raise search.later
    names = function.graph.names
    if len(names) != len(inputs):
        names = tuple(f"argument {i}" for i in range(len(inputs)))
    given = dict([*zip(names, inputs, strict=True), *state.items(), *constants.items()])
    for name, array in given.items():
        if _has_nan(array):
            raise NonFiniteError(f"{function.name}: {name} holds a NaN to begin with, at {list(_element(array)[0])}")
    if any(map(_infinite_or_nan, given.values())):
        return  # infinities that were given went through
    raise NonFiniteError(
        f"{function.name}: compiled code gives a number that is not finite, and the interpreter gives none",
        hint="an intermediate sum overflows, or tgc is at fault: tgc verify compares the two op by op",
    )


class _Search:
    """Looks at each op as it runs. Of finite operands, the first one ends the search; ``later``: the first at all."""

    def __init__(self, locations: Mapping[Node, tuple[Place, ...]]) -> None:
        self.locations = locations
        self.later: NonFiniteError | None = None

    def __call__(
        self, node: Node, operands: Sequence[Array], compute: Callable[[], Sequence[Array]]
    ) -> Sequence[Array]:
        results = compute()
        made = next((y for y in results if _bad(y)), None)
        if made is None or not operands:
            return results
        if not any(map(_infinite_or_nan, operands)):
            raise self._error(node, operands, made)
        if self.later is None and _has_nan(made) and not any(map(_has_nan, operands)):
            self.later = self._error(node, operands, made)
        return results

    def _error(self, node: Node, operands: Sequence[Array], made: Array) -> NonFiniteError:
        index, number = _element(made)
        what = "a NaN" if np.isnan(number) else "an infinity"
        where = f"element {list(index)} is {number}" if index else f"it is {number}"
        same = [x for x in operands if x.shape == made.shape]
        of = f", of {' and '.join(str(x[index]) for x in same)}" if len(same) == len(operands) else ""
        return NonFiniteError(f"{node.op} made {what}: {where}{of}", hint=_HINT, location=self._place(node))

    def _place(self, node: Node) -> Location | None:
        places = self.locations.get(node, ())
        return next((p.resolve() if isinstance(p, Site) else p for p in places), None)


def _bad(array: Array) -> bool:
    """Whether an array holds what is looked for."""
    return _has_nan(array) if wanted() == "nan" else _infinite_or_nan(array)


def _infinite_or_nan(array: Array) -> bool:
    return from_numpy(array.dtype).is_float and not bool(np.isfinite(array).all())


def _has_nan(array: Array) -> bool:
    return from_numpy(array.dtype).is_float and bool(np.isnan(array).any())


def _element(array: Array) -> tuple[tuple[int, ...], float]:
    """The first element that is not finite: NaN if there is one."""
    wrong = np.isnan(array) if _has_nan(array) else ~np.isfinite(array)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
    return index, float(array[index])
