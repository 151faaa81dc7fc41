"""Initial values that are computed when somebody looks at them: weights that are loaded from a file are never drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tgc.ir.graph import Array
from tgc.ir.types import TensorType


@dataclass(frozen=True, eq=False)
class Initial:
    """An array of a known type, and how to make it, the same whenever that is."""

    type: TensorType
    make: Callable[[], Array]
    _made: dict[str, Array] = field(default_factory=dict)

    @property
    def array(self) -> Array:
        """The array, one and the same however many threads ask at once."""
        if "array" not in self._made:
            # not locked: a child that is forked meanwhile would wait for ever
            self._made.setdefault("array", self.make())
        return self._made["array"]
