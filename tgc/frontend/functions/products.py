"""Products of tensors (Array API standard 2024.12, "Linear Algebra Functions"), and einsum of any number of them."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Callable, Sequence

from tgc.dtypes import i64
from tgc.errors import ShapeError, UserError
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.functions.common import operand
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Value
from tgc.ops.rules import provably_different


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product: 1-D operands are vectors, leading axes are batches and broadcast."""
    return operand(x1).matmul(operand(x2))


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged. Raises :class:`ShapeError` for rank below 2."""
    if operand(x).ndim < 2:
        raise ShapeError(f"the transpose of {x.type}", hint="matrices have two dimensions", location=here())
    return x.mT


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Products summed over pairs of axes: the last ``axes`` of ``x1`` with the first of ``x2``, or those listed.

    The result has the other axes of ``x1``, then those of ``x2``.

    >>> import tgc
    >>> tgc.tensordot(tgc.tensor([[1, 2]]), tgc.tensor([3, 4]), axes=1).numpy()
    array([11])
    """
    rank, other = operand(x1).ndim, operand(x2).ndim
    if isinstance(axes, int):
        if not 0 <= axes <= min(rank, other):
            raise ShapeError(f"tensordot over {axes} axes of {x1.type} and {x2.type}", location=here())
        first, second = list(range(rank - axes, rank)), list(range(axes))
    else:
        first, second = [normal_axis(a, rank) for a in axes[0]], [normal_axis(a, other) for a in axes[1]]
    if len(first) != len(second):
        raise ShapeError(f"tensordot over axes {axes}: as many of one as of the other", location=here())
    for a, b in zip(first, second, strict=True):
        if provably_different(x1.shape[a], x2.shape[b]):
            raise ShapeError(f"tensordot over axis {a} of {x1.type} and axis {b} of {x2.type}", location=here())
    left = list(string.ascii_letters[:rank])
    right = list(string.ascii_letters[rank : rank + other])
    for a, b in zip(first, second, strict=True):
        right[b] = left[a]
    kept = [c for i, c in enumerate(left) if i not in first] + [c for i, c in enumerate(right) if i not in second]
    return x1.contract(x2, f"{''.join(left)},{''.join(right)}->{''.join(kept)}")


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of products along ``axis``, which is counted from the end; the other axes broadcast.

    >>> import tgc
    >>> tgc.vecdot(tgc.tensor([[1, 2], [3, 4]]), tgc.tensor([1, 10])).numpy()
    array([21, 43])
    """
    a, b = operand(x1), operand(x2)
    if not (-min(a.ndim, b.ndim) <= axis < 0 or (a.ndim == b.ndim and 0 <= axis < a.ndim)):
        raise ShapeError(f"vecdot along axis {axis} of {a.type} and {b.type}", location=here())
    if provably_different(a.shape[axis], b.shape[axis]):
        raise ShapeError(f"vecdot along axis {axis} of {a.type} and {b.type}", hint="equal sizes", location=here())
    rows, columns = _last(a, axis).unsqueeze(-2), _last(b, axis).unsqueeze(-1)
    return rows.matmul(columns).squeeze((-1, -2))


def _last(x: Tensor, axis: int) -> Tensor:
    place = normal_axis(axis, x.ndim)
    return x.permute(*(i for i in range(x.ndim) if i != place), place)


def einsum(subscripts: str, /, *operands: Tensor) -> Tensor:
    """The sum of products that ``subscripts`` describe, such as ``"bij,bjk->bik"``.

    One letter for each axis, ``...`` for any number of axes that broadcast. Letters that are not after the arrow are
    summed; without an arrow, those that appear more than once. A letter twice in one operand takes its diagonal.
    Operands are multiplied two at a time, at each step those with the fewest products. Raises :class:`UserError` for
    subscripts that do not fit the operands, :class:`ShapeError` for sizes that do not fit each other.

    >>> import tgc
    >>> a = tgc.tensor([[1, 2], [3, 4]])
    >>> tgc.einsum("ij,jk,k->i", a, a, tgc.tensor([1, 1])).numpy(), tgc.einsum("ii->", a).item()
    (array([17, 37]), 5)
    """
    dtype = common_dtype([operand(x) for x in operands]) if operands else None
    inputs, output, batch = _parsed(subscripts, [x.ndim for x in operands])
    sizes: dict[str, Dim] = {}
    for letters, x in zip(inputs, operands, strict=True):
        for c, size in zip(letters, x.shape, strict=True):
            if size == 1 and c in batch:
                sizes.setdefault(c, size)
            elif provably_different(sizes.get(c, size), size) and not (sizes[c] == 1 and c in batch):
                raise ShapeError(
                    f"einsum {subscripts!r}: {c!r} is {sizes[c]} and {size}",
                    hint="a letter stands for one size in all operands",
                    location=here(),
                )
            else:
                sizes[c] = size
    terms = [
        _simplified(letters, x if dtype is None else x.astype(dtype), sizes)
        for letters, x in zip(inputs, operands, strict=True)
    ]
    while len(terms) > 1:
        first, second = _cheapest([letters for letters, _ in terms], sizes)
        (right, b), (left, a) = terms.pop(second), terms.pop(first)
        needed = set(output).union(*(letters for letters, _ in terms))
        kept = "".join(c for c in dict.fromkeys(left + right) if c in needed)
        if not terms:
            kept = "".join(c for c in output if c in kept)
        terms.append((kept, a.contract(b, f"{left},{right}->{kept}")))
    ((letters, x),) = terms
    summed = tuple(i for i, c in enumerate(letters) if c not in output)
    if summed:
        x, letters = x.apply("sum", attributes={"axes": summed}), "".join(c for c in letters if c in output)
    # an axis along which every operand has size 1 was dropped
    for c in output:
        if c not in letters:
            x, letters = x.unsqueeze(0), c + letters
    return x.permute(*(letters.index(c) for c in output)) if output else x


def _parsed(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str, str]:
    """The letters of each operand and of the result, and those among them that stand for the ellipsis."""
    text = subscripts.replace(" ", "")
    given, arrow, result = text.partition("->")
    terms = given.split(",")
    if len(terms) != len(ranks) or not ranks:
        raise UserError(f"einsum {subscripts!r} with {len(ranks)} operands", location=here())
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    for term, count in zip([*terms, result], [*counts, 0], strict=True):
        plain = term.replace("...", "", 1)
        if (plain and not (plain.isalpha() and plain.isascii())) or count < 0 or (count and "..." not in term):
            raise UserError(
                f"einsum {subscripts!r}: {term!r} does not describe its operand",
                hint="write one letter for each axis, and ... for leading ones",
                location=here(),
            )
    free = [c for c in string.ascii_letters if c not in text]
    batch = "".join(free[: max(counts)])
    inputs = [t.replace("...", batch[len(batch) - n :]) for t, n in zip(terms, counts, strict=True)]
    once = [c for c in sorted(set(given) - set(".,")) if given.count(c) == 1]
    output = (result if arrow else "..." + "".join(once)).replace("...", batch)
    unknown = [c for c in output if not any(c in letters for letters in inputs)]
    if unknown or len(set(output)) != len(output) or (batch and batch not in output):
        raise UserError(
            f"einsum {subscripts!r}: the result has letters twice, or that no operand has, or lacks ...",
            location=here(),
        )
    return inputs, output, batch


def _simplified(letters: str, x: Tensor, sizes: dict[str, Dim]) -> tuple[str, Tensor]:
    """An operand without the axes that it only has to broadcast, and with every letter once."""
    dropped = [i for i, c in enumerate(letters) if x.shape[i] == 1 and sizes[c] != 1]
    if dropped:
        x, letters = x.squeeze(dropped), "".join(c for i, c in enumerate(letters) if i not in dropped)
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            first, last = letters.index(c), letters.rindex(c)
            x = x.emit(_masked(first, last)).apply("sum", attributes={"axes": (last,)})
            letters = letters[:last] + letters[last + 1 :]
    return letters, x


def _masked(first: int, last: int) -> Callable[[Builder, Value], Value]:
    """Zeros but on the diagonal of two axes."""

    def make(builder: Builder, x: Value) -> Value:
        rows, columns = (
            builder.op("iota", attributes={"shape": x.shape, "axis": axis, "dtype": i64}) for axis in (first, last)
        )
        return builder.select(builder.op("eq", rows, columns), x, builder.full_like(x, 0))

    return make


def _cheapest(terms: Sequence[str], sizes: dict[str, Dim]) -> tuple[int, int]:
    """The two terms whose product takes the fewest multiplications; sizes that are not known count as 64."""

    def cost(pair: tuple[int, int]) -> int:
        letters = {*terms[pair[0]], *terms[pair[1]]}
        return math.prod(size if isinstance(size := sizes[c], int) else 64 for c in letters)

    return min(itertools.combinations(range(len(terms)), 2), key=cost)
