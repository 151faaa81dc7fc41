"""Tensors: values, lazily computed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from tgc.dtypes import DType, f32, i64
from tgc.errors import DTypeError, MissingAttribute, ShapeError, TraceError, UserError
from tgc.frontend.base import BaseTensor, MutableTensor
from tgc.frontend.trace import FunctionTrace, Region, Trace, copied, here, no_grad, type_of
from tgc.frontend.windows import Windows
from tgc.ir.graph import Array, Value

__all__ = ["Tensor", "Variable", "no_grad", "tensor"]


class Tensor(Windows):
    """An n-dimensional array whose values are computed when somebody looks.

    Operations record a graph; ``numpy()``, ``float()``, ``print`` and the like compile and run it. Tensors are values:
    they never change and never share memory with anything else.

    >>> import tgc
    >>> x = tgc.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> (x + 1).numpy()
    array([[2., 3.],
           [4., 5.]], dtype=float32)
    """

    __slots__ = ()

    grad: Tensor | None

    @classmethod
    def _recorded(cls, trace: Trace, value: Value, requires_grad: bool) -> Self:
        # what is computed from a parameter is a tensor, not a parameter
        return super(Tensor, Tensor)._recorded(trace, value, requires_grad)  # type: ignore[return-value]

    if not TYPE_CHECKING:  # a type checker shall go on telling of names that are not there

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            raise MissingAttribute(f"a tensor has no {name!r}", hint=_instead(name), location=here())

    def numpy(self) -> Array:
        """The values, as a NumPy array of one's own."""
        return copied(self.array)

    def item(self) -> bool | int | float:
        """The only value, as a Python number."""
        return self.array.item()  # type: ignore[no-any-return]

    def detach(self) -> Tensor:
        """The same values, not connected to what they were computed from."""
        with no_grad():
            return self.emit(lambda builder, x: x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __len__(self) -> int:
        if not self.shape or not isinstance(self.shape[0], int):
            if not self.shape:
                raise UserError(f"a scalar ({self.type}) has no length", hint="x[None] has one", location=here())
            raise TraceError(
                f"the length of {self.type} is a symbol, which Python cannot count to",
                hint="work on the whole tensor, or go along the axis with tgc.scan or tgc.vmap",
                location=here(),
            )
        return self.shape[0]

    def __repr__(self) -> str:
        if not self.is_concrete and isinstance(self._epoch, (FunctionTrace, Region)):
            return f"tensor({self.type}, traced)"
        values = np.array2string(self.array, separator=", ", prefix="tensor(")
        return f"tensor({values}, dtype={self.dtype.name})"

    def __format__(self, specification: str) -> str:
        return format(self.item() if specification and self.shape == () else str(self), specification)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.array.tolist()


def _instead(name: str) -> str | None:
    """What somebody who wrote ``x.name`` may have looked for."""
    if name in ("cuda", "cpu", "to", "device"):
        return "leave it out: tgc compiles for the processor that it runs on; x.astype(dtype) changes the dtype"
    if name.endswith("_"):
        return "a tensor is a value: nothing changes it in place; give the result a name, as in x = x + y"
    close = difflib.get_close_matches(name, [known for known in dir(Tensor) if not known.startswith("_")], 3)
    return "did you mean " + " or ".join(close) + "?" if close else None


class Variable(MutableTensor, Tensor):
    """A tensor that can be assigned: state of modules and optimisers.

    >>> import numpy as np
    >>> import tgc
    >>> count = tgc.Variable(np.zeros((), np.int64))
    >>> count.assign(count + 1)
    >>> int(count)
    1
    """

    __slots__ = ()

    def _in_place(self, other: Any) -> NoReturn:
        raise UserError(
            "state is not changed in place by operators",
            hint="use variable.assign(value), or tgc.assign_all for several",
            location=here(),
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = _in_place
    __iand__ = __ior__ = __ixor__ = __ilshift__ = __irshift__ = __imatmul__ = _in_place


def tensor(data: Any, *, dtype: DType | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of ``data``: a number, nested sequences, or a NumPy array.

    Python floats become f32, integers i64; an array keeps its dtype. Raises DTypeError for data of other dtypes,
    ShapeError for ragged lists.

    >>> import tgc
    >>> tgc.tensor([1, 2]).dtype
    tgc.i64
    """
    if isinstance(data, BaseTensor):
        data = data.array
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError(
            "lists of different lengths cannot become a tensor",
            hint="make them equally long, for example by padding",
            location=here(),
        ) from None
    given = type_of(data if isinstance(data, np.ndarray) else array).dtype
    if dtype is None:
        dtype = given if isinstance(data, (np.ndarray, np.generic)) else _default(given)
    if requires_grad and not dtype.is_float:
        raise DTypeError(f"a tensor of {dtype} has no gradient", hint="pass dtype=tgc.f32", location=here())
    return Tensor(np.array(array, dtype=dtype.numpy, order="C"), requires_grad=requires_grad)


def _default(given: DType) -> DType:
    return i64 if given.is_integer else f32 if given.is_float else given
