"""Recording: which graph an operation goes to, and what its leaves are.

Outside of ``jit`` operations go to the thread's :class:`Epoch`: a graph that grows until somebody looks at a value;
then everything live in it is computed together and a new epoch begins. Inside of ``jit`` and ``export`` they go to a
:class:`FunctionTrace`, whose leaves are arguments, state and constants.
"""

from __future__ import annotations

import itertools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from passes.base import substitute
from tgc.dtypes import from_numpy
from tgc.errors import DTypeError, TraceError
from tgc.frontend.session import Session
from tgc.ir.builder import Builder
from tgc.ir.graph import EMPTY, Array, Attributes, Value, literal, parameter, state
from tgc.ir.types import TensorType
from tgc.location import Location, user_site
from tgc.ops import OPS

if TYPE_CHECKING:
    from tgc.frontend.base import BaseTensor

_SERIALS = itertools.count()
_PLACEHOLDERS = 1 << 40  # parameters from this index on stand for values that are not known yet


class Leaf(Protocol):
    """What can be a leaf of a graph: something with an array."""

    @property
    def type(self) -> TensorType: ...
    @property
    def array(self) -> Array: ...


class Trace(ABC):
    """A graph under construction. Subclasses say what a concrete tensor is in it."""

    def __init__(self) -> None:
        self.builder = Builder(OPS)
        self.closed = False
        self._placeholders = 0

    @abstractmethod
    def leaf(self, tensor: BaseTensor) -> Value:
        """The value that stands for a tensor from outside."""

    def placeholder(self, type: TensorType) -> Value:
        """A parameter that :meth:`substitute` will replace: a function is traced on it before its argument is known."""
        self._placeholders += 1
        return parameter(_PLACEHOLDERS + self._placeholders, type)

    def substitute(self, results: Sequence[Value], replacements: dict[Value, Value]) -> tuple[Value, ...]:
        """``results`` with values replaced."""
        return substitute(self.builder, results, replacements)

    def record(self, op: str, operands: Sequence[Value], attributes: Attributes = EMPTY) -> tuple[Value, ...]:
        """The results of an op, located at the innermost line of the user's code."""
        self.builder.place = user_site()
        return self.builder.results(op, *operands, attributes=attributes)


class Epoch(Trace):
    """The lazy graph of a thread, between two evaluations. Leaves are numbered by first use.

    ``serial`` grows: what an epoch's leaves were computed from lies in epochs before it. An epoch of more than ``most``
    tensors is evaluated although nobody looks, so that a loop cannot make a graph without end.
    """

    most = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[BaseTensor] = []
        self.versions: list[int] = []
        self.pending: list[weakref.ref[BaseTensor]] = []
        self.serial = next(_SERIALS)
        self.assigned: dict[int, BaseTensor] = {}
        self._numbers: dict[int, Value] = {}

    def leaf(self, tensor: BaseTensor) -> Value:
        known = self._numbers.get(id(tensor))
        if known is not None:
            return known
        value = parameter(len(self.leaves), tensor.type)
        self.leaves.append(tensor)
        self.versions.append(tensor.version)
        self._numbers[id(tensor)] = value
        return value

    def live(self) -> list[BaseTensor]:
        """The tensors that somebody still holds and that have no array yet, and state that was assigned."""
        found = (reference() for reference in self.pending)
        return [t for t in found if t is not None and not t.is_concrete] + list(self.assigned.values())


class FunctionTrace(Trace):
    """The graph of a function that is compiled once: ``arguments`` are its parameters.

    Mutable tensors become state in the order of first use, other tensors constants.
    """

    def __init__(self, arguments: Sequence[TensorType]) -> None:
        super().__init__()
        self.parameters = tuple(parameter(i, type) for i, type in enumerate(arguments))
        self.state: list[BaseTensor] = []
        self.constants: list[BaseTensor] = []
        self.assigned: dict[int, Value] = {}
        self.touched: dict[int, Any] = {}
        # what to do when the function was recorded: settings that it changed become what they were
        self.undo: dict[tuple[int, str], Callable[[], None]] = {}
        self._leaves: dict[int, Value] = {}
        # placeholders for values that trainable states were assigned and then read, and these values, in this order
        self._later: dict[Value, Value] = {}
        self._names: dict[int, Value] = {}

    def leaf(self, tensor: BaseTensor) -> Value:
        key = id(tensor)
        assigned = self.assigned.get(key)
        if assigned is not None:
            return self._named(tensor, assigned) if tensor.requires_grad else assigned
        known = self._leaves.get(key)
        if known is not None:
            return known
        if tensor.is_mutable:
            value = state(f"s{len(self.state)}", tensor.type)
            self.state.append(tensor)
        else:
            tensor.array  # noqa: B018 - evaluates it
            value = literal(f"c{len(self.constants)}", tensor.type)
            self.constants.append(tensor)
        self._leaves[key] = value
        return value

    def assign(self, tensor: BaseTensor, value: Value) -> None:
        """From here on the state has another value; the caller's tensor changes when the compiled function has run."""
        self.leaf(tensor)
        self.assigned[id(tensor)] = value
        self._names.pop(id(tensor), None)

    def _named(self, tensor: BaseTensor, value: Value) -> Value:
        """A parameter that was updated is a leaf again: what it was computed from is no part of its gradient."""
        name = self._names.get(id(tensor))
        if name is None:
            name = self._names[id(tensor)] = self.placeholder(tensor.type)
            self._later[name] = value
        return name

    def resolved(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The values as the function gives them, when it is recorded to the end."""
        self.builder.place = None
        known: dict[Value, Value] = {}
        for name, value in self._later.items():
            (known[name],) = self.substitute([value], known)
        return self.substitute(values, known) if known else tuple(values)

    def outside(self) -> list[tuple[BaseTensor, Value]]:
        """State and constants with their values on entry, and trainable state with the value that it has now."""
        updated = [(t, self._names[id(t)]) for t in self.state if id(t) in self._names]
        return updated + [(t, self._leaves[id(t)]) for t in (*self.state, *self.constants)]

    def assignments(self) -> tuple[tuple[int, Value], ...]:
        """(number of the state, new value), where it differs from the old one."""
        found = ((i, self.assigned.get(id(t))) for i, t in enumerate(self.state))
        return tuple((i, v) for i, v in found if v is not None and v != self._leaves[id(self.state[i])])


class Region(Trace):
    """The graph of a function that becomes part of the graph around it: what is differentiated, batched or repeated.

    Its leaves are values of ``parent``. ``captured`` holds those that it took from there, ``states`` by identity each
    state that it used with the placeholder that stands for what the state holds on entry, ``assigned`` new values.
    """

    def __init__(self, parent: Trace) -> None:
        super().__init__()
        self.builder = parent.builder
        self.parent = parent
        self.captured: dict[Value, None] = {}
        self.states: dict[int, tuple[BaseTensor, Value]] = {}
        self.assigned: dict[int, Value] = {}
        self.requires_grad = False

    def placeholder(self, type: TensorType) -> Value:
        return self.parent.placeholder(type)

    def on_entry(self, tensor: BaseTensor) -> Value:
        """What stands for the value that a state has before the region runs."""
        known = self.states.get(id(tensor))
        if known is None:
            known = self.states[id(tensor)] = (tensor, self.placeholder(tensor.type))
        return known[1]

    def leaf(self, tensor: BaseTensor) -> Value:
        self.requires_grad = self.requires_grad or tensor.requires_grad
        if tensor.is_mutable:
            assigned = self.assigned.get(id(tensor))
            return self.on_entry(tensor) if assigned is None else assigned
        value = tensor.value_in(self.parent)
        self.captured[value] = None
        return value

    def assign(self, tensor: BaseTensor, value: Value) -> None:
        """From here on the state has another value; what becomes of it outside is up to whoever made the region."""
        self.on_entry(tensor)
        self.assigned[id(tensor)] = value

    def within(self, trace: Trace) -> bool:
        """Whether values of ``trace`` can be used here: it is this region or one around it."""
        around: Trace = self
        while around is not trace and isinstance(around, Region):
            around = around.parent
        return around is trace


class Settings:
    """Counts changes to the attributes of modules and optimisers: while ``ticks`` stands still, none has changed."""

    __slots__ = ("ticks",)

    def __init__(self) -> None:
        self.ticks = 0


SETTINGS = Settings()
_SESSION = Session()
_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
active: Final = _CURRENT.get
"""The trace that operations go to, if there is one already."""
_GRADIENTS: ContextVar[bool] = ContextVar("gradients", default=True)


def current() -> Trace:
    """The trace that operations are recorded in."""
    trace = _CURRENT.get()
    if trace is None or trace.closed:
        trace = Epoch()
        _CURRENT.set(trace)
    return trace


def function_trace() -> FunctionTrace | None:
    """The trace of the enclosing ``jit`` or ``export``, if there is one."""
    trace = _CURRENT.get()
    while isinstance(trace, Region):
        trace = trace.parent
    return trace if isinstance(trace, FunctionTrace) else None


def recording() -> FunctionTrace | Region | None:
    """The graph of the enclosing function, of which no value is known yet; None outside of all functions."""
    trace = _CURRENT.get()
    return trace if isinstance(trace, (FunctionTrace, Region)) else None


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Records in ``trace``; at the end the trace is closed and its tensors cannot be used any more."""
    token = _CURRENT.set(trace)
    try:
        yield trace
    finally:
        trace.closed = True
        _CURRENT.reset(token)
        if isinstance(trace, FunctionTrace):
            for undo in trace.undo.values():
                undo()


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing computed in the block takes part in ``backward``.

    >>> import tgc
    >>> w = tgc.nn.Parameter([1.0])
    >>> with tgc.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """
    token = _GRADIENTS.set(False)
    try:
        yield
    finally:
        _GRADIENTS.reset(token)


@contextmanager
def enable_grad() -> Iterator[None]:
    """Undoes an enclosing :func:`no_grad` in the block."""
    token = _GRADIENTS.set(True)
    try:
        yield
    finally:
        _GRADIENTS.reset(token)


def gradients_enabled() -> bool:
    """Whether operations are recorded for ``backward``."""
    return _GRADIENTS.get()


def evaluate(epoch: Epoch) -> None:
    """Computes every live tensor of the epoch and ends it."""
    live = epoch.live()
    if _CURRENT.get() is epoch:
        _CURRENT.set(None)
    epoch.closed = True
    if not live:
        return
    values = [tensor.recorded for tensor in live]
    for tensor in epoch.assigned.values():
        tensor.forget()
    epoch.assigned = {}
    places: dict[Value, int] = {}
    for value in values:
        places.setdefault(value, len(places))
    arrays = _SESSION.evaluate(tuple(places), epoch)
    for tensor, value in zip(live, values, strict=True):
        tensor.settle(arrays[places[value]])


def evaluate_pending() -> None:
    """Computes whatever is recorded and live in the current thread, if it is not inside of a compiled function."""
    trace = _CURRENT.get()
    if isinstance(trace, Epoch):
        evaluate(trace)


def commit_assigned() -> None:
    """Computes what is recorded if state waits for it."""
    trace = _CURRENT.get()
    if isinstance(trace, Epoch) and trace.assigned:
        evaluate(trace)


def type_of(array: Array) -> TensorType:
    """The type of a NumPy array; DTypeError for a dtype that tgc does not have, and for a masked array."""
    try:
        if isinstance(array, np.ma.MaskedArray):
            raise DTypeError("a masked array cannot become a tensor", hint="fill it first: array.filled(0)")
        return TensorType(from_numpy(array.dtype), array.shape)
    except DTypeError as error:
        raise DTypeError(error.message, hint=error.hint, location=here()) from None


def copied(array: Array) -> Array:
    """A row-major copy that nobody else holds."""
    return np.array(array, order="C", copy=True)


def here() -> Location | None:
    """The innermost line of the user's code, for an error's message."""
    site = user_site()
    return site.resolve() if site else None


def lazy_compilations() -> int:
    """How many lazy graphs this process has compiled so far; a loop's steps after the first add none."""
    return _SESSION.compilations


def leaked(what: str) -> TraceError:
    """The error for a tensor that outlived the function in which it was recorded."""
    return TraceError(
        f"{what} was computed inside of a compiled function and ended with it",
        hint="return the tensor (or gradient) from the function, or assign it to a parameter or buffer",
        location=here(),
    )
