"""What ``tgc explain`` tells, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from tgc.backend.codegen import assembly
from tgc.backend.emit import emit_module
from tgc.compiler import Compiled
from tgc.inspect.limits import Limits
from tgc.inspect.memory import TensorReport
from tgc.ir.dims import Dim
from tgc.kernels.printer import print_kernel
from tgc.kernels.program import Program

# directives of assembly that say nothing of what a kernel does
_DIRECTIVES = (".cfi_", ".file", ".globl", ".ident", ".p2align", ".section", ".size", ".text", ".type")


@dataclass(frozen=True)
class OperationReport:
    """An operation of a kernel: its name, the type of its result, and the source lines that it comes from."""

    op: str
    type: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.op} ({' '.join(self.lines)})" if self.lines else self.op


@dataclass(frozen=True)
class KernelReport:
    """A kernel, or the few that run one after the other for one fused region.

    ``id`` tells it apart within its function. ``flops`` and ``bytes`` are of one run, if each array is touched once;
    it runs ``times`` times. ``nanoseconds`` and ``seconds`` are of all of its runs in a call, on one thread: guessed by
    the compiler, to see whether threads are worth it, and measured. What leaves loops, or is done once, counts so.
    """

    id: str
    names: tuple[str, ...]
    kind: str
    operations: tuple[OperationReport, ...]
    flops: Dim
    bytes: Dim
    times: Dim = 1
    nanoseconds: Dim = 0
    seconds: float | None = None


@dataclass(frozen=True)
class EdgeReport:
    """A value that one kernel makes and another one reads, with the rules that kept them apart.

    ``source`` and ``target`` are ids of kernels, or name what comes from outside, ``"input x"``, ``"state w"`` or
    ``"constant c"``, and what goes there, ``"output y"`` or ``"assign w"``.
    """

    source: str
    target: str
    type: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusalReport:
    """Two operations in different kernels though one uses the other's result, and why. ``kernels``: their ids."""

    producer: OperationReport
    consumer: OperationReport
    reason: str
    kernels: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class RuleReport:
    """A rewrite rule that was applied ``count`` times to what these source lines made, by the pass ``by``."""

    by: str
    rule: str
    because: str
    lines: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class SpecialisationReport:
    """A compiled form of a jitted function: for arguments of which types, and why it was compiled."""

    function: str
    signature: str
    cause: str


@dataclass(frozen=True)
class FunctionReport:
    """A function: ``program`` tells its arrays, ``workspace`` the bytes that a call on one thread needs.

    ``tensors``: what the workspace is made of, then what is constant and state, the largest first. ``sizes``: of the
    symbolic dimensions, where a number is wanted.
    """

    name: str
    program: Program
    kernels: tuple[KernelReport, ...]
    edges: tuple[EdgeReport, ...]
    refusals: tuple[RefusalReport, ...]
    workspace: Dim
    tensors: tuple[TensorReport, ...]
    sizes: Mapping[str, int]

    @property
    def flops(self) -> Dim:
        """Arithmetic operations of a call."""
        return total((k.flops * k.times) for k in self.kernels)

    @property
    def bytes(self) -> Dim:
        """Bytes that the kernels of a call read and write."""
        return total((k.bytes * k.times) for k in self.kernels)

    @property
    def nanoseconds(self) -> Dim:
        """The compiler's guess of a call's time on one core."""
        return total(k.nanoseconds for k in self.kernels)

    @property
    def seconds(self) -> float | None:
        """The measured times of the kernels of a call, together."""
        found = [k.seconds for k in self.kernels if k.seconds is not None]
        return sum(found) if found else None


@dataclass(frozen=True)
class Code:
    """A kernel as kernel IR and as assembly."""

    kernel: str
    assembly: str


@dataclass(frozen=True)
class Findings:
    """What became of a program. ``limits``: what this machine does at most on one thread, if times were measured."""

    functions: tuple[FunctionReport, ...]
    rules: tuple[RuleReport, ...]
    specialisations: tuple[SpecialisationReport, ...]
    limits: Limits | None
    compiled: Compiled = field(repr=False, compare=False)

    @property
    def machine(self) -> str:
        """What the code is for."""
        target = self.compiled.target
        return f"{target.triple}, {target.cpu}"

    @cached_property
    def code(self) -> Mapping[str, Code]:
        """The text of each kernel, by its name."""
        target = self.compiled.target
        return MappingProxyType(
            {
                kernel.name: Code(print_kernel(kernel), _readable(assembly(emit_module([kernel], target), target)))
                for kernel in self.compiled.kernels
            }
        )


def _readable(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith(_DIRECTIVES))
    return "\n".join(lines).strip()


def total(terms: Iterable[Dim]) -> Dim:
    """The sum of expressions."""
    found: Dim = 0
    for term in terms:
        found = found + term
    return found
