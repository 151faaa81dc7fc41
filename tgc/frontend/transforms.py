"""Derivatives and checkpoints of functions. They compose with each other, with vmap, with jit and with lazy tensors.

Each records its function on placeholders, transforms what was recorded, and puts it into the graph around it. What the
function takes from outside of its arguments is constant for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from passes.autodiff import jvp as graph_jvp
from passes.autodiff import vjp as graph_vjp
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.frontend.base import BaseTensor
from tgc.frontend.region import Recorded, as_tensor, assign, close, moved, place, record, wrapped
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import Trace, current, here
from tgc.frontend.tree import Structure, flatten, unflatten
from tgc.ir.builder import Builder
from tgc.ir.graph import Value
from tgc.ir.types import TensorType
from tgc.location import user_site
from tgc.ops.rules import provably_different


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The function that gives ``(function(…), gradient)``.

    ``function`` must give a float of rank 0; with ``has_aux``, a pair of that and anything else, which is handed on.
    The gradient is with respect to the positional arguments ``argnums``: of the structure of that argument, or a tuple
    of such if ``argnums`` is a sequence. Raises :class:`DTypeError` for arguments that are no floats and for results
    that are none, :class:`ShapeError` for results that are not of rank 0.

    >>> import tgc
    >>> value, gradient = tgc.value_and_grad(lambda x: (x * x).sum())(tgc.tensor([1.0, 2.0]))
    >>> float(value), gradient.numpy()
    (5.0, array([2., 4.], dtype=float32))
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function, updated=())
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        chosen = _chosen(args, numbers)
        primals, below = flatten([args[i] for i in chosen])
        tensors = [_float(as_tensor(leaf, "an argument to be differentiated")) for leaf in primals]

        def partial(*differentiated: Any) -> Any:
            given = list(args)
            for i, new in zip(chosen, differentiated, strict=True):
                given[i] = new
            return function(*given, **kwargs)

        recorded = _recorded(partial, below, tensors)
        loss = _loss(recorded, has_aux)
        trace = recorded.region.parent
        builder = trace.builder
        builder.place = user_site()
        one = builder.full(1, (), loss.dtype)
        found = graph_vjp(builder, [loss.recorded], recorded.placeholders, [one])
        gradients = _or_zeros(builder, found, tensors)
        values = place(recorded, [*recorded.values(), *gradients], _arguments(recorded, tensors))
        count = len(values) - len(gradients)
        flags = _flags(recorded, tensors)
        results = wrapped(trace, values[:count], flags)
        tree = unflatten(below, wrapped(trace, values[count:], [any(flags)] * len(gradients)))
        value = recorded.rebuilt(results)
        return value, tree[0] if isinstance(argnums, int) else tuple(tree)

    return differentiated


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a function as a function; see :func:`value_and_grad`. With ``has_aux`` it gives (gradient, aux).

    >>> import tgc
    >>> cube = lambda x: x * x * x
    >>> float(tgc.grad(cube)(tgc.tensor(2.0))), float(tgc.grad(tgc.grad(cube))(tgc.tensor(2.0)))
    (12.0, 12.0)
    """
    both = value_and_grad(function, argnums, has_aux=has_aux)

    @functools.wraps(function, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """``function(*primals)``, and its pullback: cotangents of the results -> cotangents of the primals, as a tuple.

    Integers among the primals get zeros. The pullback may be called any number of times.

    >>> import tgc
    >>> y, pullback = tgc.vjp(lambda a, b: a * b, tgc.tensor([1.0, 2.0]), tgc.tensor([3.0, 4.0]))
    >>> pullback(tgc.tensor([1.0, 1.0]))[0].numpy()
    array([3., 4.], dtype=float32)
    """
    leaves, below = flatten(list(primals))
    tensors = [as_tensor(leaf, "a primal") for leaf in leaves]
    recorded = _recorded(function, below, tensors)
    trace = recorded.region.parent
    builder = trace.builder
    builder.place = user_site()
    names = [_cotangent_name(trace, v) for v in recorded.values()]
    found = graph_vjp(builder, recorded.values(), recorded.placeholders, names)
    gradients = _or_zeros(builder, found, tensors)
    values = place(recorded, [*recorded.values(), *gradients], _arguments(recorded, tensors))
    flags = _flags(recorded, tensors)
    results = wrapped(trace, values[: len(names)], flags)
    pullback = _Pullback(trace, tuple(names), values[len(names) :], recorded, below, any(flags))
    return recorded.rebuilt(results), pullback


def _cotangent_name(trace: Trace, value: Value) -> Value | None:
    """A placeholder for the cotangent of a value, if it can have one."""
    return trace.placeholder(value.type) if value.dtype.is_float else None


@dataclass(frozen=True)
class _Pullback:
    """The reverse half of a function: ``gradients`` of ``trace``, in which ``names`` stand for the cotangents."""

    trace: Trace
    names: tuple[Value | None, ...]
    gradients: tuple[Value, ...]
    recorded: Recorded
    below: Structure
    requires_grad: bool

    def __call__(self, cotangents: Any) -> tuple[Any, ...]:
        leaves, structure = flatten(cotangents)
        if structure != self.recorded.structure:
            raise UserError("the cotangents are not of the structure of the function's results", location=here())
        given = [c for c, r in zip(leaves, self.recorded.leaves, strict=True) if isinstance(r, Tensor)]
        tensors = [
            None if name is None else _fitting(c, name.type, "a cotangent")
            for c, name in zip(given, self.names, strict=True)
        ]
        active = current()
        replacements = {
            name: t.value_in(active)
            for name, t in zip(self.names, tensors, strict=True)
            if name is not None and t is not None
        }
        values = moved(active, self.trace, self.gradients)
        active.builder.place = None
        found = active.substitute(values, replacements)
        flag = self.requires_grad or any(t is not None and t.requires_grad for t in tensors)
        return tuple(unflatten(self.below, wrapped(active, found, [flag] * len(found))))


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``function(*primals)`` and its derivative in the direction ``tangents``, which has the structure of ``primals``.

    Tangents of integers are ignored, and integer results have zeros for tangents.

    >>> import tgc
    >>> y, dy = tgc.jvp(lambda x: x * x, (tgc.tensor(3.0),), (tgc.tensor(1.0),))
    >>> float(y), float(dy)
    (9.0, 6.0)
    """
    leaves, below = flatten(list(primals))
    directions, shape = flatten(list(tangents))
    if shape != below:
        raise UserError("the tangents are not of the structure of the primals", location=here())
    tensors = [as_tensor(leaf, "a primal") for leaf in leaves]
    given = [
        _fitting(d, t.type, "a tangent") if t.dtype.is_float else None for d, t in zip(directions, tensors, strict=True)
    ]
    recorded = _recorded(function, below, tensors)
    trace = recorded.region.parent
    builder = trace.builder
    builder.place = user_site()
    names = [None if t is None else trace.placeholder(t.type) for t in given]
    found = graph_jvp(builder, recorded.values(), recorded.placeholders, names)
    derivatives = _or_zeros(builder, found, recorded.tensors)
    replacements = _arguments(recorded, tensors)
    for name, tangent in zip(names, given, strict=True):
        if name is not None and tangent is not None:
            replacements[name] = tangent.value_in(trace)
    values = place(recorded, [*recorded.values(), *derivatives], replacements)
    count = len(derivatives)
    flags = _flags(recorded, tensors)
    flag = any(flags) or any(t is not None and t.requires_grad for t in given)
    results = wrapped(trace, values[:count], flags)
    slopes = wrapped(trace, values[count:], [flag] * count)
    return recorded.rebuilt(results), recorded.rebuilt(slopes)


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, of which reverse mode keeps the arguments alone and computes the rest again when it needs it.

    >>> import tgc
    >>> f = tgc.checkpoint(lambda x: x.exp().sin())
    >>> bool(tgc.grad(f)(tgc.tensor(1.0)) == tgc.grad(lambda x: x.exp().sin())(tgc.tensor(1.0)))
    True
    """

    @functools.wraps(function, updated=())
    def kept(*args: Any, **kwargs: Any) -> Any:
        leaves, below = flatten((args, kwargs))
        tensors = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        recorded = record(function, below, leaves, {i: t.type for i, t in tensors.items()})
        region, trace = recorded.region, recorded.region.parent
        states = [t for key, (t, _) in region.states.items() if key in region.assigned]
        results = [*recorded.values(), *(region.assigned[id(t)] for t in states)]
        closed = close([region], [recorded.placeholders], [results])
        trace.builder.place = user_site()
        operands = [*(t.value_in(trace) for t in tensors.values()), *closed.captures]
        found = trace.builder.results("checkpoint", *operands, regions=closed.graphs)
        count = len(recorded.tensors)
        assign(trace, states, found[count:])
        return recorded.rebuilt(wrapped(trace, found[:count], [t.requires_grad for t in recorded.tensors]))

    return kept


# -- arguments ---------------------------------------------------------------------------------------------------


def _recorded(function: Callable[..., Any], below: Structure, tensors: Sequence[Tensor]) -> Recorded:
    """The function on placeholders for all its arguments; ``below`` is the structure of the list of them."""
    return record(
        lambda arguments: function(*arguments),
        ("tuple", tuple, (("tuple", tuple, (below,)), ("dict", (), ()))),
        tensors,
        {i: t.type for i, t in enumerate(tensors)},
        differentiable=True,
    )


def _flags(recorded: Recorded, arguments: Sequence[Tensor]) -> list[bool]:
    """Which results depend on something outside that requires a gradient."""
    outside = recorded.region.requires_grad or any(t.requires_grad for t in arguments)
    return [outside and t.requires_grad for t in recorded.tensors]


def _arguments(recorded: Recorded, tensors: Sequence[Tensor]) -> dict[Value, Value]:
    trace = recorded.region.parent
    return {name: t.value_in(trace) for name, t in zip(recorded.placeholders, tensors, strict=True)}


def _chosen(args: Sequence[Any], numbers: Sequence[int]) -> list[int]:
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise UserError(
                f"argnums={number} for a call with {len(args)} positional arguments",
                hint="pass the arguments to be differentiated by position",
                location=here(),
            )
    return [number % len(args) for number in numbers]


def _float(x: Tensor) -> Tensor:
    if not x.dtype.is_float:
        raise DTypeError(
            f"a gradient with respect to {x.type}", hint="differentiate with respect to floats", location=here()
        )
    return x


def _loss(recorded: Recorded, has_aux: bool) -> Tensor:
    """The result that is differentiated."""
    value = recorded.rebuilt(recorded.tensors)
    if has_aux and not (isinstance(value, tuple) and len(value) == 2):
        raise UserError("with has_aux the function must give a pair (value, aux)", location=here())
    loss = value[0] if has_aux else value
    if not isinstance(loss, BaseTensor):
        raise UserError(
            f"a function to be differentiated gave a {type(loss).__name__}, not a tensor",
            hint="with has_aux=True it may give a pair (value, aux)" if isinstance(loss, tuple) else None,
            location=here(),
        )
    if not loss.dtype.is_float:
        raise DTypeError(f"a function to be differentiated gave {loss.type}, not a float", location=here())
    if loss.shape != ():
        raise ShapeError(
            f"a function to be differentiated gave {loss.type}, not a tensor of rank 0",
            hint="take .sum() or .mean(), or use tgc.vjp",
            location=here(),
        )
    return loss  # type: ignore[return-value]


def _fitting(leaf: Any, type: TensorType, what: str) -> Tensor:
    """A cotangent or tangent of that type; numbers and arrays take its dtype."""
    x = as_tensor(leaf, what)
    if x is not leaf:
        x = x.astype(type.dtype)
    if x.dtype is not type.dtype:
        raise DTypeError(f"{what} {x.type} for a value {type}", location=here())
    if x.ndim != type.rank or any(map(provably_different, x.shape, type.shape)):
        raise ShapeError(f"{what} {x.type} for a value {type}", location=here())
    return x


def _or_zeros(builder: Builder, found: Sequence[Value | None], like: Sequence[Tensor]) -> list[Value]:
    return [builder.full(0, t.shape, t.dtype) if value is None else value for value, t in zip(found, like, strict=True)]
