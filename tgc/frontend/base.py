"""The core of a tensor: an array, or a node in a trace whose array is not known yet."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from passes.autodiff import vjp
from tgc.dtypes import DType
from tgc.errors import TraceError, UserError
from tgc.frontend.trace import (
    Epoch,
    FunctionTrace,
    Trace,
    copied,
    current,
    evaluate,
    evaluate_pending,
    function_trace,
    gradients_enabled,
    leaked,
    type_of,
)
from tgc.ir.dims import Dim
from tgc.ir.graph import EMPTY, Array, Attributes, Value
from tgc.ir.types import TensorType
from tgc.location import user_site


class BaseTensor:
    """What all tensors are: concrete (an array) or recorded (a value of a trace), with an optional gradient.

    A tensor that was recorded with ``requires_grad`` keeps its value after evaluation, so that ``backward`` finds its way.
    """

    __slots__ = ("__weakref__", "_array", "_epoch", "_type", "_value", "grad", "requires_grad", "version")

    is_mutable = False
    grad: Self | None

    def __init__(self, array: Array, *, requires_grad: bool = False) -> None:
        self._array: Array | None = array
        self._type = type_of(array)
        self._epoch: Trace | None = None
        self._value: Value | None = None
        self.requires_grad = requires_grad
        self.grad = None
        self.version = 0

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
        tensor.version = 0
        if isinstance(trace, Epoch):
            trace.pending.append(weakref.ref(tensor))
        return tensor

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

    @property
    def recorded(self) -> Value:
        """The value in the trace that the tensor was recorded in."""
        if self._value is None:
            raise TraceError("the tensor is not part of a graph")
        return self._value

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
        site = user_site()
        return TraceError(
            f"the value of a traced tensor ({self._type}) was asked for while its function is being recorded",
            hint="use tgc.where, cond or while_loop for decisions that depend on values; return the tensor to look at it",
            location=site.resolve() if site else None,
        )

    def settle(self, array: Array) -> None:
        """Gives a recorded tensor its array. Its history stays if ``backward`` may need it."""
        self._array = array
        if not self.requires_grad:
            self._value = self._epoch = None

    def value_in(self, trace: Trace) -> Value:
        """The value that stands for the tensor in ``trace``."""
        if self._epoch is trace and self._value is not None and not (self._array is not None and trace.closed):
            return self._value
        if self._array is None and isinstance(self._epoch, FunctionTrace):
            raise leaked(f"a tensor {self._type}") if self._epoch.closed else self._not_known()
        return trace.leaf(self)

    def apply(self, op: str, *others: BaseTensor, attributes: Attributes = EMPTY) -> Self:
        """The single result of ``op`` on this tensor and others of its dtype."""
        return self.apply_all(op, *others, attributes=attributes)[0]

    def apply_all(self, op: str, *others: BaseTensor, attributes: Attributes = EMPTY) -> tuple[Self, ...]:
        """All results of ``op``."""
        trace = current()
        operands = (self, *others)
        values = [t.value_in(trace) for t in operands]
        gradient = gradients_enabled() and any(t.requires_grad for t in operands)
        return tuple(self._wrap(trace, v, gradient) for v in trace.record(op, values, attributes))

    def _wrap(self, trace: Trace, value: Value, requires_grad: bool) -> Self:
        raise NotImplementedError

    def backward(self, gradient: Self | None = None) -> None:
        """Adds to ``grad`` of every leaf that requires it the derivative of this tensor, which must have rank 0.

        ``gradient``: the cotangent to begin with, for tensors of other shapes. Raises :class:`UserError` for a tensor that
        depends on nothing that requires a gradient.
        """
        if not self.requires_grad or self._value is None:
            raise UserError(
                "backward() on a tensor that depends on no parameter",
                hint="compute it from a module's parameters, or from tensors made with requires_grad=True",
            )
        if gradient is None and self.shape != ():
            raise UserError(
                f"backward() needs a scalar, not {self._type}",
                hint="take .sum() or .mean() first, or pass gradient=",
            )
        trace = self._epoch
        if trace is None:
            raise TraceError("the tensor is not part of a graph")
        self._backward_in(trace, gradient)

    def _backward_in(self, trace: Trace, gradient: Self | None) -> None:
        active = current()
        builder = trace.builder
        builder.place = user_site()
        out = self.recorded
        leaves = trainable(trace)
        if trace is active:
            seed = builder.full(1, out.shape, out.dtype) if gradient is None else gradient.value_in(trace)
            gradients = vjp(builder, (out,), [v for _, v in leaves], (seed,))
            for (leaf, _), value in zip(leaves, gradients, strict=True):
                if value is not None:
                    leaf._accumulate(self._wrap(trace, value, False))
            return
        self._backward_later(trace, leaves, gradient)

    def _backward_later(self, trace: Trace, leaves: Sequence[tuple[Any, Value]], gradient: Self | None) -> None:
        """The graph was evaluated already: its forward part is recorded again in the current trace."""
        if not isinstance(trace, Epoch):
            raise leaked("this tensor")
        active = current()
        stale = [leaf for leaf, version in zip(trace.leaves, trace.versions, strict=True) if leaf.version != version]
        if stale:
            raise UserError(
                "a parameter was changed between computing the loss and backward()",
                hint="call backward() before the optimiser's step",
            )
        builder = active.builder
        replacements = {trace.leaf(t): t.value_in(active) for t in list(trace.leaves)}
        out = active.substitute((self.recorded,), replacements)[0]
        seed = builder.full(1, out.shape, out.dtype) if gradient is None else gradient.value_in(active)
        gradients = vjp(builder, (out,), [replacements[v] for _, v in leaves], (seed,))
        for (leaf, _), value in zip(leaves, gradients, strict=True):
            if value is not None:
                leaf._accumulate(self._wrap(active, value, False))

    def _accumulate(self, gradient: Self) -> None:
        if self._value is not None and self._array is not None:
            # an evaluated intermediate: the rest of the way lies in its own epoch
            self._backward_in(self._epoch, gradient)  # type: ignore[arg-type]
            return
        have = self.grad
        if have is None:
            self.grad = gradient
            return
        if isinstance(gradient._epoch, FunctionTrace) and have._epoch is not gradient._epoch:
            raise TraceError(
                "backward() in a compiled function would add to a gradient from outside of it",
                hint="call zero_grad() first, inside of the function",
            )
        self.grad = have.apply("add", gradient)


def trainable(trace: Trace) -> list[tuple[Any, Value]]:
    """The leaves of a trace that require gradients, with their values."""
    if isinstance(trace, Epoch):
        return [(t, trace.leaf(t)) for t in trace.leaves if t.requires_grad]
    if isinstance(trace, FunctionTrace):
        return [(t, trace._leaves[id(t)]) for t in (*trace.state, *trace.constants) if t.requires_grad]
    return []


class MutableTensor(BaseTensor):
    """State: a tensor whose array changes by :meth:`assign` and by compiled functions that assign it."""

    __slots__ = ()

    is_mutable = True

    def assign(self, value: BaseTensor) -> None:
        """Gives the state another value of the same dtype and shape."""
        assign_all([(self, value)])

    def replace(self, array: Array) -> None:
        """Copies an array of the same type into the state. Its own array stays the same object, always."""
        if type_of(array) != self._type:
            raise UserError(f"a state of type {self._type} cannot become {type_of(array)}")
        evaluate_pending()
        np.copyto(self.array, array)
        self.version += 1


def assign_all(pairs: Sequence[tuple[MutableTensor, BaseTensor]]) -> None:
    """Assigns several states at once: outside of ``jit`` everything live is evaluated, once."""
    for target, value in pairs:
        if target.type != value.type:
            raise UserError(f"a state of type {target.type} cannot be assigned {value.type}")
    trace = function_trace()
    if trace is not None:
        values = [value.value_in(trace) for _, value in pairs]
        for (target, _), new in zip(pairs, values, strict=True):
            trace.assign(target, new)
        return
    evaluate_pending()
    arrays = [copied(value.array) if value.is_mutable else value.array for _, value in pairs]
    for (target, _), array in zip(pairs, arrays, strict=True):
        target.replace(array)
