"""What a process remembers of lazy graphs: those that it has compiled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tgc.compiler import compile_function
from tgc.executable import CompiledFunction
from tgc.frontend import nonfinite
from tgc.ir.graph import Array, Function, Graph, Value, parameter, topological

if TYPE_CHECKING:
    from tgc.frontend.trace import Epoch


class Session:
    """What a process remembers between evaluations: compiled graphs by their results, bounded in number."""

    most = 1024

    def __init__(self) -> None:
        self.compilations = 0
        self._compiled: dict[tuple[Value, ...], tuple[CompiledFunction, tuple[int, ...]]] = {}
        self._lock = threading.Lock()

    def evaluate(self, outputs: tuple[Value, ...], epoch: Epoch) -> Sequence[Array]:
        """The arrays of ``outputs``, computed by one native call."""
        found = self._compiled.get(outputs)
        if found is None:
            found = self._compile(outputs, epoch)
            self._remember(outputs, found)
        compiled, used = found
        results = compiled.run([epoch.leaves[i].array for i in used])
        if nonfinite.wanted():
            graph = Graph(tuple(parameter(i, leaf.type) for i, leaf in enumerate(epoch.leaves)), outputs)
            leaves = [leaf.array for leaf in epoch.leaves]
            nonfinite.check(Function("lazy", graph), results, leaves, {}, {}, epoch.builder.locations)
        return results

    def _compile(self, outputs: tuple[Value, ...], epoch: Epoch) -> tuple[CompiledFunction, tuple[int, ...]]:
        """The native code, and which leaves it takes. Leaves that nothing needs do not make a graph another one."""
        used = sorted(int(n.attributes["index"]) for n in topological(outputs) if n.op == "parameter")  # type: ignore[arg-type]
        parameters = tuple(parameter(i, epoch.leaves[number].type) for i, number in enumerate(used))
        if used != list(range(len(used))):
            old = [parameter(number, epoch.leaves[number].type) for number in used]
            outputs = epoch.substitute(outputs, dict(zip(old, parameters, strict=True)))
            known = self._compiled.get(outputs)
            if known is not None and known[1] == tuple(range(len(used))):
                return known[0], tuple(used)
        self.compilations += 1
        function = Function("lazy", Graph(parameters, outputs), constraints=tuple(epoch.builder.constraints))
        compiled = compile_function(function, locations=epoch.builder.locations)
        self._remember(outputs, (compiled, tuple(range(len(used)))))
        return compiled, tuple(used)

    def _remember(self, outputs: tuple[Value, ...], found: tuple[CompiledFunction, tuple[int, ...]]) -> None:
        with self._lock:
            while len(self._compiled) >= self.most:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[outputs] = found
