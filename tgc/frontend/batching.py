"""Batching of functions: ``vmap``. It composes with derivatives, with control flow and with jit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from passes.vmap import batch
from tgc.errors import ShapeError, TraceError, UserError
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.region import Recorded, as_tensor, place, record, wrapped
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.frontend.tree import flatten, unflatten
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Value, topological
from tgc.ir.types import TensorType
from tgc.location import user_site
from tgc.ops.rules import provably_different


def vmap(function: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """The function of many examples at once, given that of one.

    ``in_axes``: along which axis of the arguments the examples lie; None for arguments that all share. One for all, or
    a tuple with one for each argument, each of which may be a tree like the argument. ``out_axes``: where the axis of
    the examples is in the results, one for all or a tree. Keyword arguments are mapped along axis 0. Random numbers
    drawn inside are the same for every example. Raises :class:`ShapeError` if the examples are not equally many.

    >>> import tgc
    >>> dot = tgc.vmap(lambda a, b: (a * b).sum(), in_axes=(0, None))
    >>> dot(tgc.tensor([[1.0, 2.0], [3.0, 4.0]]), tgc.tensor([1.0, 10.0])).numpy()
    array([21., 43.], dtype=float32)
    """

    @functools.wraps(function, updated=())
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, below = flatten((args, kwargs))
        axes = _axes(in_axes, args, kwargs)
        tensors = {
            i: as_tensor(leaf, "a batched argument")
            for i, (leaf, axis) in enumerate(zip(leaves, axes, strict=True))
            if axis is not None
        }
        places = {i: _batch_axis(t, axes[i]) for i, t in tensors.items()}
        size = _batch_size([(t, places[i]) for i, t in tensors.items()])
        types = {i: _example(t.type, places[i]) for i, t in tensors.items()}
        recorded = record(function, below, [tensors.get(i, leaf) for i, leaf in enumerate(leaves)], types)
        trace = recorded.region.parent
        builder = trace.builder
        builder.place = user_site()
        for key, (state, _) in recorded.region.states.items():
            if key in recorded.region.assigned:
                _require_unbatched(recorded, [recorded.region.assigned[key]], f"a state {state.type} is assigned")
        inner, outer = recorded.values(), _out_axes(out_axes, recorded)
        names = [trace.placeholder(TensorType(v.dtype, (size, *v.shape))) for v in recorded.placeholders]
        wide = batch(builder, inner, recorded.placeholders, names, size)
        values = []
        for value, widened, axis in zip(inner, wide, outer, strict=True):
            if axis is None:
                _require_unbatched(recorded, [value], "out_axes is None for a result")
            values.append(value if axis is None else _moved_axis(builder, widened, 0, axis))
        arguments = {
            name: _moved_axis(builder, t.value_in(trace), places[i], 0)
            for name, (i, t) in zip(names, tensors.items(), strict=True)
        }
        found = place(recorded, values, arguments)
        return recorded.rebuilt(wrapped(trace, found, [t.requires_grad for t in recorded.tensors]))

    return mapped


def _spread(axes: Any, tree: Any, what: str) -> list[int | None]:
    """One entry of ``axes`` for each leaf of ``tree``; an entry stands for everything below its place."""
    if axes is None or isinstance(axes, int):
        return [axes] * len(flatten(tree)[0])
    pairs: list[tuple[Any, Any]] | None = None
    if isinstance(axes, dict) and isinstance(tree, dict) and axes.keys() == tree.keys():
        pairs = [(axes[key], tree[key]) for key in sorted(tree)]
    elif isinstance(axes, (tuple, list)) and isinstance(tree, (tuple, list)) and len(axes) == len(tree):
        pairs = list(zip(axes, tree, strict=True))
    if pairs is None:
        raise UserError(
            f"{what}={axes!r} does not fit a {type(tree).__name__}"
            + (f" of {len(tree)}" if isinstance(tree, (tuple, list, dict)) else ""),
            hint="give one axis for all, or a tree like that which it describes",
            location=here(),
        )
    return [axis for below, part in pairs for axis in _spread(below, part, what)]


def _axes(in_axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int | None]:
    return _spread(in_axes, args, "in_axes") + _spread(0, kwargs, "in_axes")


def _out_axes(out_axes: Any, recorded: Recorded) -> list[int | None]:
    """One entry for each result that is a tensor."""
    axes = _spread(out_axes, unflatten(recorded.structure, recorded.leaves), "out_axes")
    return [axis for axis, leaf in zip(axes, recorded.leaves, strict=True) if isinstance(leaf, Tensor)]


def _batch_axis(x: Tensor, axis: int | None) -> int:
    if x.ndim == 0:
        raise ShapeError(
            f"vmap along axis {axis} of a tensor of rank 0 ({x.type})",
            hint="give None in in_axes for what all examples share",
            location=here(),
        )
    return normal_axis(axis or 0, x.ndim)


def _batch_size(batched: Sequence[tuple[Tensor, int]]) -> Dim:
    if not batched:
        raise UserError("vmap without a batched argument", hint="one entry of in_axes must be an axis", location=here())
    first, place = batched[0]
    size = first.shape[place]
    for x, axis in batched[1:]:
        if provably_different(size, x.shape[axis]):
            one, other = f"axis {place} of {first.type}", f"axis {axis} of {x.type}"
            raise ShapeError(
                f"vmap over {size} examples ({one}) and {x.shape[axis]} ({other})",
                hint="in_axes=None for an argument passes it to every example as it is",
                location=here(),
            )
    return size


def _example(type: TensorType, axis: int) -> TensorType:
    return TensorType(type.dtype, (*type.shape[:axis], *type.shape[axis + 1 :]))


def _moved_axis(builder: Builder, x: Value, source: int, target: int) -> Value:
    rank = len(x.shape)
    order = [i for i in range(rank) if i != source]
    order.insert(normal_axis(target, rank), source)
    return builder.transpose(x, order)


def _require_unbatched(recorded: Recorded, values: Sequence[Value], what: str) -> None:
    nodes = {name.node for name in recorded.placeholders}
    if any(node in nodes for node in topological(values)):
        raise TraceError(
            f"{what} that is another one for every example",
            hint="return it from the function, along an axis",
            location=here(),
        )
