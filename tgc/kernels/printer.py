"""Kernels as text: what a person reads, and equal text means an equal kernel."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable

from tgc.kernels.ir import Attribute, Block, Buffer, Kernel, Operation, Value


def print_kernel(kernel: Kernel) -> str:
    """The text of a kernel; values are numbered in order of appearance.

    >>> from tgc.dtypes import f32
    >>> from tgc.kernels.builder import KernelBuilder
    >>> b = KernelBuilder("halve", count=8)
    >>> x = b.buffer("x", f32, 128, "readwrite")
    >>> offset = b.mul(b.iteration, 16)
    >>> b.store(x, offset, b.mul(b.load(x, offset, 16), 0.5))
    >>> print(print_kernel(b.finish()))
    kernel @halve(%x: f32[128] readwrite) parallel %i in 0..8 {
      %1 = mul %i, 16 : i64
      %2 = load %x[%1] : f32x16
      %3 = mul %2, 0.5 : f32x16
      store %x[%1], %3
    }
    """
    return "\n".join(_Printer(kernel).lines)


def digest(kernel: Kernel) -> str:
    """A name for what a kernel does: the hash of its text without its name."""
    text = print_kernel(kernel).removeprefix(f"kernel @{kernel.name}")
    return hashlib.sha256(text.encode()).hexdigest()


class _Printer:
    def __init__(self, kernel: Kernel) -> None:
        self.names: dict[int, str] = {}
        self.taken = {buffer.name for buffer in kernel.buffers + kernel.scratch}
        self.lines: list[str] = []
        head = f"kernel @{kernel.name}({', '.join(map(_declaration, kernel.buffers))})"
        if kernel.symbols:
            head += f" symbols({', '.join(kernel.symbols)})"
        if kernel.scratch:
            head += f" scratch({', '.join(map(_declaration, kernel.scratch))})"
        if kernel.noalias:
            head += " noalias"
        self.block(kernel.prelude, 1)
        if self.lines:
            self.lines = [f"{head} prelude {{", *self.lines]
            head = "}"
        self.lines.append(f"{head} parallel {self.define(kernel.iteration)} in 0..{kernel.count} {{")
        self.block(kernel.body, 1)
        self.lines.append("}")

    def define(self, value: Value) -> str:
        """A new name; only values with a name of their own count up a suffix."""
        if value.name is None:
            name = str(len(self.names) + (0 if self.names else 1))
            while name in self.taken:
                name += "_"
        else:
            name, number = value.name, 1
            while name in self.taken:
                name, number = f"{value.name}{number}", number + 1
        self.taken.add(name)
        self.names[value.number] = f"%{name}"
        return f"%{name}"

    def use(self, value: Value, *, typed: bool = False) -> str:
        operation = value.operation
        if operation is not None and operation.name == "constant":
            text = _literal(operation.attributes[0])
            return f"{text}: {value.type}" if typed else text
        return self.names.get(value.number, f"%?{value.number}")

    def uses(self, values: Iterable[Value]) -> str:
        return ", ".join([self.use(v) for v in values])

    def block(self, block: Block, depth: int) -> None:
        for operation in block.operations:
            if operation.name != "constant":
                self.operation(operation, depth)

    def operation(self, operation: Operation, depth: int) -> None:
        indent = "  " * depth
        if operation.blocks:
            self.structure(operation, depth)
            return
        text = self.memory(operation) if _has_buffer(operation) else None
        if text is None:
            # a literal's type is told only where no other operand shows it
            typed = all(v.constant is not None for v in operation.operands)
            operands = ", ".join([self.use(v, typed=typed) for v in operation.operands])
            text = " ".join(filter(None, [operation.name, *map(_attribute, operation.attributes), operands]))
        results = ", ".join([self.define(r) for r in operation.results])
        types = ", ".join([r.type for r in operation.results])
        self.lines.append(f"{indent}{results} = {text} : {types}" if results else f"{indent}{text}")

    def memory(self, operation: Operation) -> str:
        offset, *rest = operation.operands
        wide = offset.lanes != 1 or operation.name in ("gather", "scatter")
        text = f"{operation.name} %{operation.buffer.name}[{self.use(offset, typed=wide)}]"
        guard = operation.attributes[1]
        if isinstance(guard, str) and guard:
            *rest, limit = rest
            text += f" {guard} {self.use(limit)}"
        elif guard is True:
            text += " write"
        return f"{text}, {self.use(rest[0], typed=True)}" if rest else text

    def structure(self, operation: Operation, depth: int) -> None:
        indent = "  " * depth
        first = operation.blocks[0]
        carried: tuple[Value, ...] = ()
        initial: tuple[Value, ...] = ()
        if operation.name == "if":
            head = f"if {self.use(operation.operands[0])}"
        elif operation.name == "for":
            low, high, step, *initial_values = operation.operands
            index, *carried_values = first.arguments
            carried, initial = tuple(carried_values), tuple(initial_values)
            texts = self.use(low), self.use(high), self.use(step)
            head = f"for {self.define(index)} in {texts[0]}..{texts[1]} step {texts[2]}"
        else:
            head, carried, initial = "while", first.arguments, operation.operands
        if carried:
            pairs = [(self.use(v), self.define(a), a.type) for a, v in zip(carried, initial, strict=True)]
            head += " carry(" + ", ".join([f"{name} = {value} : {t}" for value, name, t in pairs]) + ")"
        at = len(self.lines)
        for number, block in enumerate(operation.blocks):
            if operation.name == "if" and number and not block.operations and not block.yields:
                continue
            if number:
                self.lines.append(f"{indent}}} {'else' if operation.name == 'if' else 'do'} {{")
            self.block(block, depth + 1)
            if block.yields:
                word = "condition" if operation.name == "while" and not number else "yield"
                self.lines.append(f"{indent}  {word} {self.uses(block.yields)}")
        self.lines.append(f"{indent}}}")
        results = ", ".join([self.define(r) for r in operation.results])
        types = ", ".join([r.type for r in operation.results])
        self.lines.insert(at, f"{indent}{results} = {head} : {types} {{" if results else f"{indent}{head} {{")


def _declaration(buffer: Buffer) -> str:
    access = "" if buffer.access == "scratch" else f" {buffer.access}"
    return f"%{buffer.name}: {buffer.dtype}[{buffer.size}]{access}"


def _has_buffer(operation: Operation) -> bool:
    return bool(operation.attributes) and isinstance(operation.attributes[0], Buffer)


def _literal(value: Attribute) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return f"nan(0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X})"
    return repr(value)


def _attribute(value: Attribute) -> str:
    return str(value) if isinstance(value, (str, int)) else repr(value)
