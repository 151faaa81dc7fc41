"""LSTM and GRU. Names, shapes and the order of the gates are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tgc.nn.functional as functional
import tgc.nn.initialise as initialise
from tgc.errors import ShapeError, UserError
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.nn.module import Module, Parameter


def _concatenated(parts: Sequence[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else parts[0].apply("concatenate", *parts[1:], attributes={"axis": axis})


class _Recurrent(Module):
    """What recurrent layers share: weight_ih_l0 [gates·H, I], weight_hh_l0 [gates·H, H], bias_ih_l0, bias_hh_l0, …"""

    gates: int
    states: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        if num_layers < 1:
            raise UserError(f"{num_layers} layers", location=here())
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        bound = 1 / math.sqrt(hidden_size)
        rows, width = self.gates * hidden_size, input_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                setattr(self, f"weight_ih_{suffix}", Parameter(initialise.uniform((rows, width), bound)))
                setattr(self, f"weight_hh_{suffix}", Parameter(initialise.uniform((rows, hidden_size), bound)))
                if bias:
                    setattr(self, f"bias_ih_{suffix}", Parameter(initialise.uniform((rows,), bound)))
                    setattr(self, f"bias_hh_{suffix}", Parameter(initialise.uniform((rows,), bound)))
            width = hidden_size * len(self._suffixes(layer))

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"l{layer}", f"l{layer}_reverse") if self.bidirectional else (f"l{layer}",)

    def _cell(self, x: Tensor, states: Sequence[Tensor], suffix: str, reverse: bool) -> tuple[Tensor, ...]:
        """[T, N, I] and the initial states -> all hidden states, then the final states."""
        raise UserError(f"{type(self).__name__} has no cell")

    def _biases(self, suffix: str, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.bias:
            return getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}")
        rows = self.gates * self.hidden_size
        zeros = x.emit(lambda builder, value: builder.full(0.0, (rows,), value.dtype))
        return zeros, zeros

    def _run(self, x: Tensor, initial: Sequence[Tensor] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The hidden states of the last layer, and the final states, each [layers·directions, N, H]."""
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__} of {x.type}", hint=f"inputs have size {self.input_size}", location=here()
            )
        sequence = x.unsqueeze(1) if x.ndim == 2 else x.swapaxes(0, 1) if self.batch_first else x
        batch, hidden = sequence.shape[1], self.hidden_size
        if initial is None:
            shape = (batch, hidden)
            zeros = sequence.emit(lambda builder, value: builder.full(0.0, shape, value.dtype))
        given = [state.unsqueeze(1) if x.ndim == 2 else state for state in initial or ()]
        finals: list[list[Tensor]] = [[] for _ in range(self.states)]
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                place = len(finals[0])
                states = [state[place] for state in given] if given else [zeros] * self.states
                output, *final = self._cell(sequence, states, suffix, direction == 1)
                outputs.append(output)
                for found, state in zip(finals, final, strict=True):
                    found.append(state.unsqueeze(0))
            sequence = _concatenated(outputs, 2)
            if self.dropout and layer < self.num_layers - 1:
                sequence = functional.dropout(sequence, self.dropout, training=self.training)
        ends = tuple(_concatenated(found, 0) for found in finals)
        if x.ndim == 2:
            return sequence.squeeze(1), tuple(end.squeeze(1) for end in ends)
        return sequence.swapaxes(0, 1) if self.batch_first else sequence, ends


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997): x -> (output, (h, c)).

    x [T, N, I], or [N, T, I] if ``batch_first``; output [T, N, H]; h and c [layers, N, H]; [T, I] without a batch.

    >>> import tgc
    >>> output, (h, c) = LSTM(2, 3)(tgc.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
    >>> output.shape, h.shape, c.shape
    ((2, 1, 3), (1, 1, 3), (1, 1, 3))
    """

    gates = 4
    states = 2

    def _cell(self, x: Tensor, states: Sequence[Tensor], suffix: str, reverse: bool) -> tuple[Tensor, ...]:
        w_input, w_hidden = getattr(self, f"weight_ih_{suffix}"), getattr(self, f"weight_hh_{suffix}")
        first, second = self._biases(suffix, x)
        return x.apply_all("lstm", *states, w_input, w_hidden, first + second, attributes={"reverse": reverse})

    def forward(self, x: Tensor, initial: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(x, (h, c) or None for zeros) -> (output, (h, c))."""
        output, (hidden, cell) = self._run(x, initial)
        return output, (hidden, cell)


class GRU(_Recurrent):
    """The gated recurrent unit (Cho et al., arXiv 1406.1078): x -> (output, h). Shapes as those of :class:`LSTM`."""

    gates = 3
    states = 1

    def _cell(self, x: Tensor, states: Sequence[Tensor], suffix: str, reverse: bool) -> tuple[Tensor, ...]:
        w_input, w_hidden = getattr(self, f"weight_ih_{suffix}"), getattr(self, f"weight_hh_{suffix}")
        operands = (*states, w_input, w_hidden, *self._biases(suffix, x))
        return x.apply_all("gru", *operands, attributes={"reverse": reverse})

    def forward(self, x: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x, h or None for zeros) -> (output, h)."""
        output, (hidden,) = self._run(x, None if initial is None else (initial,))
        return output, hidden
