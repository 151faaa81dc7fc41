"""What optimisers share: parameters, a learning rate that is state, and one assignment of everything per step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tgc.errors import TraceError, UserError
from tgc.frontend.base import MutableTensor, assign_all
from tgc.frontend.initial import Initial
from tgc.frontend.jit import CompiledCallable, jit
from tgc.frontend.tensor import Tensor, Variable, tensor
from tgc.frontend.trace import SETTINGS, evaluate_pending, function_trace, here, no_grad, recording
from tgc.ir.graph import Array
from tgc.nn.module import Parameter

# what a step assigns
Update = tuple[MutableTensor, Tensor]


class Optimizer:
    """Base of optimisers. ``parameters``: parameters, or (name, parameter) pairs as ``named_parameters()`` gives them.

    ``lr`` is state of rank 0: ``opt.lr = 1e-4`` compiles nothing again. Subclasses keep one :class:`Variable` per
    parameter and quantity in :meth:`slots` and say in :meth:`updates` what a step assigns.
    """

    def __init__(self, parameters: Iterable[Parameter | tuple[str, Parameter]], lr: float) -> None:
        if not isinstance(parameters, Iterable) or isinstance(parameters, MutableTensor):
            raise UserError(
                f"an optimiser needs parameters, not a {type(parameters).__name__}",
                hint="pass model.parameters(), or a list of parameters",
                location=here(),
            )
        if not lr >= 0.0:
            raise UserError(f"the learning rate {lr}", hint="it is a number that is not negative", location=here())
        given = [item if isinstance(item, tuple) else ("", item) for item in parameters]
        if not given:
            raise UserError("an optimiser needs parameters", hint="pass model.parameters()", location=here())
        for _, parameter in given:
            if not isinstance(parameter, MutableTensor):
                raise UserError(
                    f"an optimiser needs parameters, not a {type(parameter).__name__}",
                    hint="pass model.parameters(), or a list of parameters",
                    location=here(),
                )
        self._names = tuple(name or str(i) for i, (name, _) in enumerate(given))
        self.parameters = tuple(parameter for _, parameter in given)
        self._lr = Variable(np.asarray(lr, np.float32))
        self._slots: dict[str, tuple[Variable, ...]] = {}
        self._compiled: CompiledCallable | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        SETTINGS.ticks += 1

    @property
    def lr(self) -> Variable:
        """The learning rate; assign a number to change it."""
        return self._lr

    @lr.setter
    def lr(self, value: float | Tensor) -> None:
        if isinstance(value, Tensor):
            self._lr.assign(value.astype(self._lr.dtype))
        elif recording() is not None:
            self._lr.assign(tensor(float(value)))
        else:
            self._lr.replace(np.asarray(value, np.float32))

    def slots(self, name: str) -> tuple[Variable, ...]:
        """The quantity ``name`` of each parameter, zeros at first."""
        found = self._slots.get(name)
        if found is None:
            found = tuple(Variable(Initial(p.type, partial(np.zeros, p.shape, p.dtype.numpy))) for p in self.parameters)
            self._slots[name] = found
        return found

    def scalars(self) -> Mapping[str, Variable]:
        """State that belongs to no parameter."""
        return {"lr": self._lr}

    def settings(self) -> object:
        """The hyperparameters that are compiled in, as one hashable value."""
        hidden = ("parameters", "_names", "_lr", "_slots", "_compiled")
        items = sorted((k, v) for k, v in self.__dict__.items() if k not in hidden)
        return tuple((k, v) for k, v in items if not isinstance(v, Variable))

    def updates(self, gradients: Sequence[Tensor | None]) -> list[Update]:
        """What a step assigns, given the gradient of each parameter."""
        raise UserError(f"{type(self).__name__} has no updates()")

    def step(self) -> None:
        """Moves every parameter that has a gradient. Outside of compiled functions it is one of its own.

        Raises :class:`UserError` if none has one: ``backward`` was not called, or not on what depends on them.
        """
        gradients = [p.grad for p in self.parameters]
        if all(g is None for g in gradients):
            raise UserError(
                "step() of an optimiser none of whose parameters has a gradient",
                hint="call loss.backward() first, on a loss that depends on these parameters",
                location=here(),
            )
        if recording() is None:
            if self._compiled is None:
                self._compiled = jit(self._assign)
            self._compiled(gradients)
            return
        trace = function_trace()
        if recording() is trace is not None and any(g is not None and not g.recorded_in(trace) for g in gradients):
            raise TraceError(
                "step() in a compiled function with gradients from outside of it",
                hint="call zero_grad() and backward() inside of the function too",
                location=here(),
            )
        self._assign(gradients)

    def _assign(self, gradients: Sequence[Tensor | None]) -> None:
        trace = function_trace()
        if trace is not None:
            trace.touched[id(self)] = self
        with no_grad():
            assign_all(self.updates(gradients))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def named_state(self) -> Iterator[tuple[str, Variable]]:
        """(name, tensor) of all state: "lr", "step", and "<parameter>.<quantity>"."""
        return self.named_after({})

    def named_after(self, names: Mapping[int, str]) -> Iterator[tuple[str, Variable]]:
        """As :meth:`named_state`, with parameters called ``names[id(parameter)]`` where that is known."""
        yield from self.scalars().items()
        for quantity, slots in self._slots.items():
            for parameter, own, slot in zip(self.parameters, self._names, slots, strict=True):
                yield f"{names.get(id(parameter), own)}.{quantity}", slot

    def state_dict(self) -> dict[str, Array]:
        """Copies of all state by name."""
        evaluate_pending()
        return {name: value.numpy() for name, value in self.named_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets all state from arrays by name. Raises :class:`UserError` for names and types that do not fit."""
        own = dict(self.named_state())
        if own.keys() != state.keys():
            odd = ", ".join(sorted(own.keys() ^ state.keys()))
            raise UserError(f"the state does not fit the optimiser: {odd}", location=here())
        for name, value in own.items():
            value.replace(np.asarray(state[name], value.dtype.numpy))
