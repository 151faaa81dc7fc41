"""``backward``: the reverse walk through the lazy graphs that a value was computed in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from passes.autodiff import vjp
from tgc.errors import TraceError, UserError
from tgc.frontend.trace import Epoch, FunctionTrace, Trace, here, leaked
from tgc.ir.graph import Value, topological

if TYPE_CHECKING:
    from tgc.frontend.base import BaseTensor


def backward_from(active: Trace, trace: Trace, value: Value, seed: Value) -> None:
    """The reverse walk from ``value`` of ``trace``, recorded in ``active``.

    An intermediate that was evaluated is a leaf of the epochs after it; these are differentiated first, so that each
    epoch is walked once, however often the next ones use it.
    """
    waiting: dict[Trace, dict[Value, Value]] = {trace: {value: seed}}
    gradients: dict[int, tuple[BaseTensor, Value]] = {}
    while waiting:
        latest = max(waiting, key=lambda t: t.serial if isinstance(t, Epoch) else math.inf)
        for leaf, derivative in _walk(active, latest, waiting.pop(latest)):
            origin = leaf.origin
            if origin is not None:
                history, original = origin
                sums = waiting.setdefault(history, {})
                have = sums.get(original)
                sums[original] = derivative if have is None else active.builder.add(have, derivative)
                continue
            known = gradients.get(id(leaf))
            gradients[id(leaf)] = (leaf, derivative if known is None else active.builder.add(known[1], derivative))
    for leaf, derivative in gradients.values():
        leaf.accumulate(active, derivative)


def _walk(active: Trace, trace: Trace, cotangents: dict[Value, Value]) -> Iterator[tuple[BaseTensor, Value]]:
    """(leaf, its derivative) for those leaves of ``trace`` that require gradients."""
    outputs, leaves = tuple(cotangents), _trainable(trace)
    values = [value for _, value in leaves]
    if trace is not active:
        # the graph was evaluated already: what the gradient needs of its forward part is recorded again
        if not isinstance(trace, Epoch):
            raise leaked("this tensor")
        needed = {node for node in topological(outputs) if node.op == "parameter"}
        replacements: dict[Value, Value] = {}
        for tensor, version in zip(trace.leaves, trace.versions, strict=True):
            value = trace.leaf(tensor)
            if value.node in needed:
                if tensor.version != version:
                    raise UserError(
                        "a parameter was changed between computing the loss and backward()",
                        hint="call backward() before the optimiser's step",
                        location=here(),
                    )
                replacements[value] = tensor.value_in(active)
        leaves = [(tensor, replacements[value]) for tensor, value in leaves if value in replacements]
        outputs = active.substitute(outputs, replacements)
        values = [value for _, value in leaves]
    found = vjp(active.builder, outputs, values, tuple(cotangents.values()))
    for (leaf, _), derivative in zip(leaves, found, strict=True):
        if derivative is not None:
            yield leaf, derivative


def _trainable(trace: Trace) -> list[tuple[BaseTensor, Value]]:
    """The leaves of a trace that require gradients, with their values."""
    if isinstance(trace, Epoch):
        return [(t, trace.leaf(t)) for t in trace.leaves if t.requires_grad]
    if isinstance(trace, FunctionTrace):
        return [(t, v) for t, v in trace.outside() if t.requires_grad]
    raise TraceError(
        "backward() inside of a function that is differentiated, batched or repeated",
        hint="use tgc.grad there, or call backward() on what comes out of it",
        location=here(),
    )
