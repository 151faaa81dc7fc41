"""Compiled functions in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tgc.backend.call import NativeFunction
from tgc.ir.graph import Array
from tgc.kernels.program import Program


@dataclass(frozen=True)
class CompiledFunction:
    """One native function: arrays in, fresh arrays out, state updated in place.

    ``arity``: how many inputs it takes.
    """

    program: Program
    native: NativeFunction

    @property
    def arity(self) -> int:
        return len(self.program.inputs)

    def run(self, inputs: Sequence[Array], state: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The results for ``inputs``; ``state`` arrays are updated in place."""
        results = self.native.call(*inputs, *state)
        return (results,) if isinstance(results, np.ndarray) else tuple(results)

    def bind(self, state: Sequence[Array]) -> Callable[..., Any]:
        """A callable on the inputs alone, for state that stays where it is; one result comes as an array."""
        return self.native.bind(state)
