"""The core of a tensor: an array, or a node in a trace whose array is not known yet."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from tgc.dtypes import DType
from tgc.errors import TraceError, UserError
from tgc.frontend.initial import Initial
from tgc.frontend.reverse import backward_from
from tgc.frontend.trace import (
    Epoch,
    FunctionTrace,
    Region,
    Trace,
    copied,
    current,
    evaluate,
    evaluate_pending,
    gradients_enabled,
    here,
    leaked,
    recording,
    type_of,
)
from tgc.ir.dims import Dim
from tgc.ir.graph import EMPTY, Array, Attributes, Value
from tgc.ir.types import TensorType
from tgc.location import user_site


class BaseTensor:
    """What all tensors are: concrete (an array) or recorded (a value of a trace), with an optional gradient.

    A tensor that was recorded with ``requires_grad`` keeps its value after evaluation, so that ``backward`` finds its
    way.
    """

    __slots__ = ("__weakref__", "_array", "_epoch", "_type", "_value", "grad", "requires_grad", "spent")

    is_mutable = False
    grad: Any  # a tensor of the same kind, or None

    def __init__(self, array: Array | Initial, *, requires_grad: bool = False) -> None:
        self._array: Array | None = None if isinstance(array, Initial) else array
        self._type = array.type if isinstance(array, Initial) else type_of(array)
        self._epoch: Trace | None = None
        self._value: Value | None = None
        self.requires_grad = requires_grad
        self.grad = None
        self.spent = False

    @classmethod
    def _recorded(cls, trace: Trace, value: Value, requires_grad: bool) -> Self:
        """A tensor for a value of ``trace``."""
        tensor = cls.__new__(cls)
        tensor._array = None
        tensor._type = value.type
        tensor._epoch = trace
        tensor._value = value
        tensor.requires_grad = requires_grad
        tensor.grad = None
        tensor.spent = False
        if isinstance(trace, Epoch):
            trace.pending.append(weakref.ref(tensor))
            if len(trace.pending) > trace.most:
                evaluate(trace)
        return tensor

    @classmethod
    def of(cls, array: Array, type: TensorType) -> Self:
        """A tensor of an array that nobody else holds and whose type is known to be ``type``."""
        tensor = cls.__new__(cls)
        tensor._array = array
        tensor._type = type
        tensor._epoch = None
        tensor._value = None
        tensor.requires_grad = False
        tensor.grad = None
        tensor.spent = False
        return tensor

    @property
    def version(self) -> int:
        """How often the values have changed."""
        return 0

    @property
    def type(self) -> TensorType:
        """dtype and shape."""
        return self._type

    @property
    def dtype(self) -> DType:
        """The data type of the elements."""
        return self._type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The sizes; in a traced function some may be symbolic."""
        return self._type.shape

    @property
    def ndim(self) -> int:
        """How many dimensions there are."""
        return len(self._type.shape)

    @property
    def size(self) -> Dim:
        """How many elements there are."""
        return self._type.size

    @property
    def is_concrete(self) -> bool:
        """Whether the array is known."""
        return self._array is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.array, self.requires_grad)

    def recorded_in(self, trace: Trace) -> bool:
        """Whether the tensor was computed in ``trace``."""
        return self._epoch is trace

    @property
    def recorded(self) -> Value:
        """The value in the trace that the tensor was recorded in."""
        if self._value is None:
            raise TraceError("the tensor is not part of a graph")
        return self._value

    @property
    def origin(self) -> tuple[Trace, Value] | None:
        """Where an intermediate that was evaluated comes from, if ``backward`` can go on there."""
        if self._array is None or self._epoch is None or self._value is None:
            return None
        return self._epoch, self._value

    @property
    def array(self) -> Array:
        """The tensor's own array, evaluated if need be; not to be written to."""
        if self._array is None:
            trace = self._epoch
            if isinstance(trace, Epoch):
                evaluate(trace)
            if self._array is None:
                raise self._not_known()
        return self._array

    def _not_known(self) -> TraceError:
        if self._epoch is not None and self._epoch.closed:
            return leaked("this tensor")
        return TraceError(
            f"the value of a traced tensor ({self._type}) was asked for while its function is being recorded",
            hint="use tgc.where, cond or while_loop for decisions on values; return the tensor to look at it",
            location=here(),
        )

    def settle(self, array: Array) -> None:
        """Gives a recorded tensor its array. Its history stays if ``backward`` may need it."""
        self._array = array
        if self.spent or not self.requires_grad:
            self.forget()

    def forget(self) -> None:
        """Is no part of a graph any more."""
        self._value = self._epoch = None

    def value_in(self, trace: Trace) -> Value:
        """The value that stands for the tensor in ``trace``."""
        if self._epoch is trace and self._value is not None and (self._array is None or not trace.closed):
            return self._value
        if isinstance(trace, Region):
            return trace.leaf(self)
        if self._array is None and isinstance(self._epoch, (FunctionTrace, Region)):
            raise leaked(f"a tensor {self._type}") if self._epoch.closed else self._not_known()
        return trace.leaf(self)

    def apply(self, op: str, *others: BaseTensor, attributes: Attributes = EMPTY) -> Self:
        """The single result of ``op`` on this tensor and others of its dtype."""
        return self.apply_all(op, *others, attributes=attributes)[0]

    def apply_all(self, op: str, *others: BaseTensor, attributes: Attributes = EMPTY) -> tuple[Self, ...]:
        """All results of ``op``."""
        trace = current()
        operands: tuple[BaseTensor, ...] = (self, *others)
        values = [t.value_in(trace) for t in operands]
        gradient = any(t.requires_grad for t in operands)
        return tuple(self._wrap(trace, v, gradient) for v in trace.record(op, values, attributes))

    def emit(self, make: Callable[..., Value], *others: BaseTensor) -> Self:
        """The tensor of the nodes that ``make(builder, value of this, values of others…)`` makes."""
        trace = current()
        operands: tuple[BaseTensor, ...] = (self, *others)
        values = [t.value_in(trace) for t in operands]
        builder = trace.builder
        builder.place = user_site()
        gradient = any(t.requires_grad for t in operands)
        return self._wrap(trace, make(builder, *values), gradient)

    @classmethod
    def _wrap(cls, trace: Trace, value: Value, requires_grad: bool) -> Self:
        """As :meth:`_recorded`; in a block of ``no_grad`` what would require a gradient is a constant."""
        requires_grad = requires_grad and value.dtype.is_float
        if requires_grad and not gradients_enabled():
            value, requires_grad = constant_of(trace, value), False
        return cls._recorded(trace, value, requires_grad)

    def backward(self, gradient: Self | None = None, *, retain_graph: bool = False) -> None:
        """Adds to ``grad`` of every leaf that requires it the derivative of this tensor, which must have rank 0.

        ``gradient``: the cotangent to begin with, for tensors of other shapes. ``retain_graph``: whether ``backward``
        will be called on this tensor again. Raises :class:`UserError` for a tensor that depends on nothing that
        requires a gradient.
        """
        if not self.requires_grad:
            raise UserError(
                "backward() on a tensor that depends on no parameter",
                hint="compute it from a module's parameters, or from tensors made with requires_grad=True",
                location=here(),
            )
        if gradient is None and self.shape != ():
            raise UserError(
                f"backward() needs a scalar, not {self._type}",
                hint="take .sum() or .mean() first, or pass gradient=",
                location=here(),
            )
        if gradient is not None and gradient.type != self._type:
            raise UserError(f"a tensor {self._type} takes no gradient {gradient.type}", location=here())
        active = current()
        active.builder.place = user_site()
        seed = active.builder.full(1, self.shape, self.dtype) if gradient is None else gradient.value_in(active)
        if self.is_mutable or (self._value is None and not self.spent):
            self.accumulate(active, seed)
            return
        if self.spent or self._value is None or self._epoch is None:
            raise UserError(
                "backward() a second time",
                hint="pass retain_graph=True to the first one, or compute the tensor again",
                location=here(),
            )
        self.spent = not retain_graph
        history, value = self._epoch, self._value
        if self._array is not None and self.spent:
            self.forget()
        backward_from(active, history, value, seed)

    def accumulate(self, trace: Trace, derivative: Value) -> None:
        """Adds a derivative, recorded in ``trace``, to ``grad``."""
        gradient = self._wrap(trace, derivative, False)
        have = self.grad
        if have is None:
            self.grad = gradient
            return
        if have._epoch is not trace and any(isinstance(t, FunctionTrace) for t in (trace, have._epoch)):
            raise TraceError(
                "backward() would add to a gradient from the other side of a compiled function's border",
                hint="call zero_grad() before backward(), on the same side",
                location=here(),
            )
        self.grad = have.apply("add", gradient)


def constant_of(trace: Trace, value: Value) -> Value:
    """The same float, through which no derivative goes: to reinterpret bits is no differentiable operation."""
    return trace.builder.op("bitcast", value, attributes={"dtype": value.dtype})


def _rebuilt(kind: type[BaseTensor], array: Array, requires_grad: bool) -> BaseTensor:
    """A copy of a tensor, which is what copying and pickling make."""
    made = kind.__new__(kind)
    base = MutableTensor if issubclass(kind, MutableTensor) else BaseTensor
    base.__init__(made, copied(array), requires_grad=requires_grad)
    return made


class Writes:
    """How often a piece of state was written by one writer: a compiled function counts once for all that it assigns."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class MutableTensor(BaseTensor):
    """State: a tensor whose array changes by :meth:`assign` and by compiled functions that assign it.

    The array stays the same object, once somebody has asked for it. A value that was assigned by :func:`assign_soon`
    and is not computed yet is kept as the tensor's value in the lazy graph.
    """

    __slots__ = ("_initial", "_writes")

    is_mutable = True

    def __init__(self, array: Array | Initial, *, requires_grad: bool = False) -> None:
        super().__init__(array, requires_grad=requires_grad)
        self._initial = array if isinstance(array, Initial) else None
        self._writes = [Writes()]

    @property
    def version(self) -> int:
        """How often the values have changed."""
        return sum(writes.count for writes in self._writes)

    def written_by(self, writes: Writes) -> None:
        """From now on ``writes`` counts changes too, without telling the tensor."""
        self._writes.append(writes)

    @property
    def array(self) -> Array:
        """The state's own array, up to date."""
        self.commit()
        return self._begun() if self._array is None else self._array

    def _begun(self) -> Array:
        """The array, made from its initial values if nobody has looked before."""
        initial = self._initial
        if self._array is None:
            if initial is None:
                raise TraceError("a state without an array")
            self._array = initial.array
        self._initial = None
        return self._array

    def commit(self) -> None:
        """Computes a value that was assigned soon."""
        if isinstance(self._epoch, Epoch):
            evaluate(self._epoch)

    def settle(self, array: Array) -> None:
        """Takes over a value that was assigned soon."""
        np.copyto(self.array, array)
        self._writes[0].count += 1

    def assign(self, value: BaseTensor) -> None:
        """Gives the state another value of the same dtype and shape."""
        assign_all([(self, value)])

    def replace(self, array: Array) -> None:
        """Copies an array of the same type into the state."""
        if type_of(array) != self._type:
            raise UserError(f"a state of type {self._type} cannot become {type_of(array)}", location=here())
        evaluate_pending()
        if self._array is None:
            self._array, self._initial = np.empty(array.shape, self.dtype.numpy), None
        np.copyto(self.array, array)
        self._writes[0].count += 1


def _checked(pairs: Sequence[tuple[MutableTensor, BaseTensor]]) -> None:
    for target, value in pairs:
        if target.type != value.type:
            raise UserError(f"a state of type {target.type} cannot be assigned {value.type}", location=here())


def assign_all(pairs: Sequence[tuple[MutableTensor, BaseTensor]]) -> None:
    """Assigns several states at once: outside of ``jit`` everything live is evaluated, once."""
    _checked(pairs)
    trace = recording()
    if trace is not None:
        _assign_traced(trace, pairs)
        return
    evaluate_pending()
    arrays = [copied(value.array) if value.is_mutable else value.array for _, value in pairs]
    for (target, _), array in zip(pairs, arrays, strict=True):
        target.replace(array)


def assign_soon(pairs: Sequence[tuple[MutableTensor, BaseTensor]]) -> None:
    """Assigns states when the lazy graph is evaluated next; everything recorded from here on sees the new values."""
    _checked(pairs)
    trace = current()
    if isinstance(trace, (FunctionTrace, Region)):
        _assign_traced(trace, pairs)
    elif isinstance(trace, Epoch):
        values = [value.value_in(trace) for _, value in pairs]
        for (target, _), new in zip(pairs, values, strict=True):
            if not target.recorded_in(trace):
                target.commit()
            trace.leaf(target)
            target._epoch, target._value = trace, new
            trace.assigned[id(target)] = target


def _assign_traced(trace: FunctionTrace | Region, pairs: Sequence[tuple[MutableTensor, BaseTensor]]) -> None:
    values = [value.value_in(trace) for _, value in pairs]
    for (target, _), new in zip(pairs, values, strict=True):
        trace.assign(target, new)
