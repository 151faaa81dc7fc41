"""Products of tensors: einsum of two operands, and the matrix product that is made of it."""

from __future__ import annotations

import string
from typing import Any, Self

import numpy as np

from tgc.errors import DTypeError, ShapeError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.reductions import Reductions
from tgc.frontend.trace import here
from tgc.ir.dims import Dim
from tgc.ops.rules import provably_different


class Products(Reductions):
    """Contractions."""

    __slots__ = ()

    def contract(self, other: Any, spec: str) -> Self:
        """The einsum of two tensors, such as ``"mk,kn->mn"``, after promotion to a common dtype.

        >>> import tgc
        >>> tgc.tensor([1.0, 2.0]).contract(tgc.tensor([3.0, 4.0]), "i,i->").item()
        11.0
        """
        dtype = common_dtype([self, other])
        if not isinstance(other, Products):
            raise DTypeError(f"a product needs two tensors, not {self.type} and {other!r}", location=here())
        return self.cast_to(dtype).apply("contract", other.cast_to(dtype), attributes={"spec": spec})

    def matmul(self, other: Any) -> Self:
        """The matrix product by the Array API's rules: 1-D operands are vectors, leading axes batches that broadcast.

        Raises :class:`tgc.errors.ShapeError` where the sizes do not fit.
        """
        if not isinstance(other, Products):
            what = "a NumPy array" if isinstance(other, np.ndarray) else f"a {type(other).__name__}"
            raise UserError(
                f"the matrix product of {self.type} with {what}", hint="wrap it: tgc.tensor(...)", location=here()
            )
        return self._product(other)  # type: ignore[arg-type]

    def __matmul__(self, other: Any) -> Self:
        return self.matmul(other)

    def __rmatmul__(self, other: Any) -> Self:
        raise UserError(
            f"the matrix product of a {type(other).__name__} with {self.type}",
            hint="wrap it: tgc.tensor(...)",
            location=here(),
        )

    def _product(self, other: Self) -> Self:
        a, b = self, other
        rank_a, rank_b = a.ndim, b.ndim
        inner = b.shape[max(0, rank_b - 2)] if rank_b else 1
        if not rank_a or not rank_b or provably_different(a.shape[-1], inner):
            raise ShapeError(
                f"the matrix product of {a.type} and {b.type}",
                hint="the last axis of the first must be as long as the second to last of the second",
                location=here(),
            )
        # a batch axis of size 1 is dropped instead of repeated: the other operand alone has its letter
        batch = max(rank_a, rank_b, 2) - 2
        kept_a, kept_b, letters = self._batches(a.shape[:-2], b.shape[:-2], batch, other)
        k, m, n = (string.ascii_letters[batch + i] for i in range(3))
        rows, columns = (m if rank_a > 1 else ""), (n if rank_b > 1 else "")
        spec_a = "".join(letters[i] for i in kept_a) + rows + k
        spec_b = "".join(letters[i] for i in kept_b) + k + columns
        left = a.reshape([a.shape[i - batch + rank_a - 2] for i in kept_a] + list(a.shape[-2:]))
        right = b.reshape([b.shape[i - batch + rank_b - 2] for i in kept_b] + list(b.shape[-2:]))
        return left.contract(right, f"{spec_a},{spec_b}->{letters}{rows}{columns}")

    def _batches(
        self, a: tuple[Dim, ...], b: tuple[Dim, ...], count: int, other: Self
    ) -> tuple[list[int], list[int], str]:
        """The batch axes that each operand keeps, and a letter for every one of ``count``."""
        sizes_a: tuple[Dim, ...] = (1,) * (count - len(a)) + a
        sizes_b: tuple[Dim, ...] = (1,) * (count - len(b)) + b
        kept_a, kept_b = [], []
        for i, (x, y) in enumerate(zip(sizes_a, sizes_b, strict=True)):
            one_a, one_b = isinstance(x, int) and x == 1, isinstance(y, int) and y == 1
            if not one_a and not one_b and provably_different(x, y):
                raise ShapeError(
                    f"the matrix product of {self.type} and {other.type}: {x} against {y} among the batch axes",
                    hint="sizes must be equal, or one of them 1",
                    location=here(),
                )
            if i >= count - len(a) and (not one_a or one_b):
                kept_a.append(i)
            if i >= count - len(b) and (not one_b or one_a):
                kept_b.append(i)
        return kept_a, kept_b, string.ascii_letters[:count]
