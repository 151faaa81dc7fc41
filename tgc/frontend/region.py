"""Functions recorded on their own: on placeholders, to be transformed and put into the graph around them.

Placeholders are values of no other graph. That is what makes the derivative of a function at values which its body
could compute again the derivative with respect to its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from passes.base import uniform
from tgc.dtypes import DType
from tgc.errors import UserError
from tgc.frontend.arithmetic import SCALARS
from tgc.frontend.base import BaseTensor, MutableTensor, assign_soon
from tgc.frontend.tensor import Tensor, tensor
from tgc.frontend.trace import Epoch, Region, Trace, current, enable_grad, here, leaked, recording, tracing
from tgc.frontend.tree import Structure, flatten, unflatten
from tgc.ir.graph import Graph, Value, parameter, topological
from tgc.ir.types import TensorType
from tgc.location import user_site

LIKE_TENSORS = (BaseTensor, np.ndarray, *SCALARS)


def as_tensor(leaf: Any, what: str) -> Tensor:
    """A tensor itself, an array copied, a number as a tensor of the default dtype. Raises UserError for others."""
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(leaf, LIKE_TENSORS):
        # outside of functions a number is an input, so that another number does not make another graph
        trace, made = recording(), tensor(leaf)
        return made if trace is None or made.shape != () else constant(trace, leaf, made.dtype)
    raise UserError(
        f"{what} is a {type(leaf).__name__}, not a tensor",
        hint="pass tensors, arrays or numbers, or tuples, lists and dictionaries of them",
        location=here(),
    )


def constant(trace: Trace, number: Any, dtype: DType) -> Tensor:
    """A number as a tensor of ``trace``."""
    plain = number.item() if isinstance(number, (np.generic, np.ndarray)) else number
    return Tensor._recorded(trace, trace.builder.constant(plain, dtype), False)


@dataclass(frozen=True)
class Recorded:
    """A function that was run on placeholders: the leaves that it gave, and how they belong together."""

    region: Region
    placeholders: tuple[Value, ...]
    leaves: tuple[Any, ...]
    structure: Structure

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those leaves that are tensors."""
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def values(self) -> tuple[Value, ...]:
        """The values of :attr:`tensors`."""
        return tuple(t.value_in(self.region) for t in self.tensors)

    def rebuilt(self, tensors: Sequence[Any]) -> Any:
        """What the function gave, with others in place of its tensors."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return unflatten(self.structure, leaves)


def record(
    function: Callable[..., Any],
    structure: Structure,
    leaves: Sequence[Any],
    types: Mapping[int, TensorType],
    *,
    differentiable: bool = False,
) -> Recorded:
    """Runs ``function`` on the tree of ``leaves`` with a placeholder of type ``types[i]`` for each of these leaves.

    ``structure`` is that of (args, kwargs). Arrays among what the function gives become tensors. ``differentiable``:
    whether the derivative with respect to the placeholders will be taken, so that only a ``no_grad`` inside of the
    function makes constants.
    """
    region = Region(current())
    placeholders = {i: region.placeholder(type) for i, type in types.items()}
    given = list(leaves)
    for i, value in placeholders.items():
        flag = differentiable or (isinstance(leaves[i], BaseTensor) and leaves[i].requires_grad)
        given[i] = Tensor._recorded(region, value, flag and value.dtype.is_float)
    with tracing(region), enable_grad() if differentiable else nullcontext():
        args, kwargs = unflatten(structure, given)
        results, shape = flatten(function(*args, **kwargs))
        results = [tensor(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in results]
        # a result from outside is one of the region's values from here on
        inside = tuple(leaf.emit(_itself) if isinstance(leaf, Tensor) else leaf for leaf in results)
    return Recorded(region, tuple(placeholders.values()), inside, shape)


def _itself(_: object, value: Value) -> Value:
    return value


def place(recorded: Recorded, values: Sequence[Value], replacements: Mapping[Value, Value]) -> tuple[Value, ...]:
    """``values`` of the region as values of the graph around it, and what the function assigned assigned there."""
    region = recorded.region
    states = list(region.states.values())
    # what was captured is a value of that graph already
    known = dict(zip(region.captured, region.captured, strict=True))
    known.update(replacements)
    known.update((name, t.value_in(region.parent)) for t, name in states)
    assigned = [(t, region.assigned[key]) for key, (t, _) in region.states.items() if key in region.assigned]
    region.builder.place = None
    found = region.parent.substitute([*values, *(v for _, v in assigned)], known)
    assign(region.parent, [t for t, _ in assigned], found[len(values) :])
    return found[: len(values)]


def assign(trace: Trace, states: Sequence[BaseTensor], values: Sequence[Value]) -> None:
    """Assigns values of ``trace`` to states."""
    new = [Tensor._recorded(trace, value, False) for value in values]
    assign_soon([(t, v) for t, v in zip(states, new, strict=True) if isinstance(t, MutableTensor)])


def wrapped(trace: Trace, values: Sequence[Value], requires_grad: Sequence[bool]) -> list[Tensor]:
    """Tensors of values of ``trace``."""
    return [Tensor._wrap(trace, value, flag) for value, flag in zip(values, requires_grad, strict=True)]


@dataclass(frozen=True)
class Closed:
    """Regions of one op as closed graphs, and what the op takes after the operands that are the regions' own."""

    graphs: tuple[Graph, ...]
    captures: tuple[Value, ...]


def close(regions: Sequence[Region], own: Sequence[Sequence[Value]], results: Sequence[Sequence[Value]]) -> Closed:
    """Graphs of the regions of one op. They take the same captures, in the order of first use, after their ``own``.

    ``own[i]``: the placeholders that are region i's first parameters; those of equal place have equal types.
    """
    values: dict[Value, None] = {}
    states: dict[int, BaseTensor] = {}
    for region, first, found in zip(regions, own, results, strict=True):
        by_name = {name: t for t, name in region.states.values() if name not in first}
        for value in _taken(found, {*region.captured, *by_name}, first):
            state = by_name.get(value)
            if state is None:
                values[value] = None
            else:
                states[id(state)] = state
    graphs = []
    for region, first, found in zip(regions, own, results, strict=True):
        order = [*first, *values, *(region.on_entry(t) for t in states.values())]
        parameters = tuple(parameter(i, v.type) for i, v in enumerate(order))
        region.builder.place = None
        graphs.append(Graph(parameters, region.substitute(found, dict(zip(order, parameters, strict=True)))))
    outside = regions[0].parent
    return Closed(tuple(graphs), (*values, *(t.value_in(outside) for t in states.values())))


def _taken(results: Sequence[Value], outside: Collection[Value], own: Sequence[Value]) -> list[Value]:
    """The values of ``outside`` that ``results`` are computed from, but for constants, which are made again inside."""
    found: list[Value] = []
    seen = set(own)
    stack = list(reversed(results))
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in outside and uniform(value) is None:
            found.append(value)
        else:
            stack.extend(reversed(value.node.operands))
    return found


def moved(active: Trace, trace: Trace, values: Sequence[Value]) -> tuple[Value, ...]:
    """Values of ``trace`` as values of ``active``: where they are the same graph, or recorded again.

    Raises :class:`TraceError` for values of a function that has ended, and UserError where state has changed since.
    """
    if active is trace or (isinstance(active, Region) and active.within(trace)):
        return tuple(values)
    if not isinstance(trace, Epoch):
        raise leaked("the pullback")
    needed = {node for node in topological(values) if node.op == "parameter"}
    replacements: dict[Value, Value] = {}
    for leaf, version in zip(list(trace.leaves), list(trace.versions), strict=True):
        name = trace.leaf(leaf)
        if name.node in needed:
            if leaf.version != version:
                raise UserError("state was changed between vjp and the call of its pullback", location=here())
            replacements[name] = leaf.value_in(active)
    active.builder.place = user_site()
    return active.substitute(values, replacements)
