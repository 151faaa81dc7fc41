"""Kernel IR to LLVM IR: functions, loops and branches.

A kernel becomes ``void NAME(ptr buffers, ptr dims, i64 begin, i64 end, ptr scratch)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tgc.backend import conversions
from tgc.backend.abi import OUT_OF_BOUNDS
from tgc.backend.capabilities import capabilities
from tgc.backend.codegen import data_layout
from tgc.backend.dims_text import DimWriter
from tgc.backend.emit_arithmetic import ARITHMETIC
from tgc.backend.emit_memory import MEMORY, Emitter
from tgc.backend.llvm_text import Writer, literal, register_type
from tgc.errors import CompilerBug
from tgc.kernels.ir import Block, Kernel, Operation, Value
from tgc.target import Target

# the first violation is kept: {kernel + 1, buffer, offset, size}
_REPORT: Final = f"""\
@{OUT_OF_BOUNDS} = global [4 x i64] zeroinitializer, align 8
define internal void @tgc_out_of_bounds(i64 %kernel, i64 %buffer, i64 %offset, i64 %size) {{
  %number = add i64 %kernel, 1
  %seen = cmpxchg ptr @{OUT_OF_BOUNDS}, i64 0, i64 %number seq_cst seq_cst
  %first = extractvalue {{ i64, i1 }} %seen, 1
  br i1 %first, label %record, label %done
record:
  store i64 %buffer, ptr getelementptr (i8, ptr @{OUT_OF_BOUNDS}, i64 8)
  store i64 %offset, ptr getelementptr (i8, ptr @{OUT_OF_BOUNDS}, i64 16)
  store i64 %size, ptr getelementptr (i8, ptr @{OUT_OF_BOUNDS}, i64 24)
  br label %done
done:
  ret void
}}
"""


def emit_module(kernels: Sequence[Kernel], target: Target, debug: bool = False, *, internal: bool = False) -> str:
    """LLVM IR of a module with one function for each kernel.

    With ``debug`` each access is checked against its buffer's size; a violation is recorded in a global of four i64,
    ``OUT_OF_BOUNDS``: the kernel's number plus one, the buffer's, the offset and the size; and the kernel returns.
    With ``internal`` kernels can be called within the module only, as in an object that others link.
    """
    lines = [f'target datalayout = "{data_layout(target)}"', f'target triple = "{target.triple}"']
    if debug:
        lines.append(_REPORT)
    metadata: list[str] = []
    for number, kernel in enumerate(kernels):
        writer = Writer(kernel, target, capabilities(target))
        _alias_scopes(writer, metadata)
        writer.checks = str(number) if debug else None
        _function(writer, "internal " if internal else "")
        lines += writer.lines
    lines += metadata
    width = target.vector_bits
    # spilled vectors that lie across cache lines halved the speed in every other process: callers align stacks to 16
    widths = f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}"'
    lines.append(f'attributes #0 = {{ nounwind "stackrealign" {widths} }}')
    return "\n".join(lines) + "\n"


def _function(w: Writer, linkage: str) -> None:
    kernel = w.kernel
    parameters = "ptr %buffers, ptr %dims, i64 %begin, i64 %end, ptr noalias %scratch"
    w.lines.append(f"define {linkage}void @{kernel.name}({parameters}) #0 {{")
    w.lines.append("entry:")
    start = len(w.lines)
    for number, buffer in enumerate(kernel.buffers):
        slot = w.op(f"getelementptr ptr, ptr %buffers, i64 {number}")
        w.pointers[buffer] = w.op(f"load ptr, ptr {slot}")
    for operation in kernel.prelude.operations:
        _operation(w, operation)
    _sizes(w)
    w.names[kernel.iteration.number] = "%i"
    w.do(f"br i1 {w.op('icmp slt i64 %begin, %end')}, label %body, label %done")
    w.label("body")
    w.do("")
    phi = len(w.lines) - 1
    _block(w, kernel.body)
    w.do("%following = add i64 %i, 1")
    w.lines[phi] = f"  %i = phi i64 [ %begin, %entry ], [ %following, %{w.block} ]"
    w.do(f"br i1 {w.op('icmp slt i64 %following, %end')}, label %body, label %done")
    w.label("done")
    w.do("ret void")
    w.lines.append("}")
    if w.tail_bytes:
        w.lines.insert(start, f"  %tail = alloca [{w.tail_bytes} x i8], align 64")


def _alias_scopes(w: Writer, metadata: list[str]) -> None:
    """Tell LLVM which buffers cannot overlap: scratch with anything, the others only if the kernel says so."""
    kernel = w.kernel
    groups = [[b] for b in kernel.buffers] if kernel.noalias else [list(kernel.buffers)]
    groups += [[b] for b in kernel.scratch]
    if len(groups) < 2:
        return
    domain = len(metadata)
    scopes = range(domain + 1, domain + 1 + len(groups))
    metadata.append(f"!{domain} = distinct !{{!{domain}}}")
    metadata += [f"!{scope} = distinct !{{!{scope}, !{domain}}}" for scope in scopes]
    for scope, group in zip(scopes, groups, strict=True):
        own = len(metadata)
        others = ", ".join([f"!{other}" for other in scopes if other != scope])
        metadata += [f"!{own} = !{{!{scope}}}", f"!{own + 1} = !{{{others}}}"]
        w.metadata.update(dict.fromkeys(group, f", !alias.scope !{own}, !noalias !{own + 1}"))


def _sizes(w: Writer) -> None:
    """Where scratch buffers begin, and for debug emission how large all buffers are."""
    kernel = w.kernel
    if not kernel.scratch and w.checks is None:
        return
    dims = DimWriter({name: _symbol(w, name) for name in kernel.symbols}, checked=False)
    offsets = [dims.operand(kernel.scratch_offset(buffer)) for buffer in kernel.scratch]
    if w.checks is not None:
        w.sizes.update({buffer: dims.operand(buffer.size) for buffer in kernel.buffers + kernel.scratch})
    w.lines += dims.lines
    for buffer, offset in zip(kernel.scratch, offsets, strict=True):
        w.pointers[buffer] = w.op(f"getelementptr i8, ptr %scratch, i64 {offset}")


def _symbol(w: Writer, name: str) -> str:
    slot = w.op(f"getelementptr i64, ptr %dims, i64 {w.kernel.symbols.index(name)}")
    return w.op(f"load i64, ptr {slot}")


def _block(w: Writer, block: Block) -> None:
    outer = w.addresses, w.masks
    w.addresses, w.masks = dict(w.addresses), dict(w.masks)
    for operation in block.operations:
        _operation(w, operation)
    w.addresses, w.masks = outer


def _operation(w: Writer, operation: Operation) -> None:
    name = operation.name
    if name == "constant":
        (result,) = operation.results
        value = operation.attributes[0]
        if not isinstance(value, (bool, int, float)):
            raise CompilerBug(f"{value!r} is no literal", stage="emission")
        w.names[result.number] = literal(value, result.dtype, result.lanes)
        return
    emitter = EMITTERS.get(name)
    if emitter is None:
        raise CompilerBug(f"there is no instruction {name!r}", stage="emission")
    if not operation.blocks:
        w.weigh(operation.results or operation.operands[1:2])
        text = emitter(w, operation)
        for result in operation.results:
            w.names[result.number] = text
        return
    emitter(w, operation)


def _symbol_operation(w: Writer, operation: Operation) -> str:
    return _symbol(w, str(operation.attributes[0]))


def _for(w: Writer, operation: Operation) -> str:
    """Tested at the end, with a guard in front unless the first round is certain."""
    low, high, step, *initial = operation.operands
    (block,) = operation.blocks
    body, after, before = w.fresh("loop"), w.fresh("after"), w.block
    certain = low.constant is not None and high.constant is not None and low.constant < high.constant
    if certain:
        w.do(f"br label %{body}")
    else:
        w.do(f"br i1 {w.op(f'icmp slt i64 {w.name(low)}, {w.name(high)}')}, label %{body}, label %{after}")
    w.label(body)
    first = len(w.lines)
    for argument in block.arguments:
        w.names[argument.number] = f"%{w.fresh('v')}"
        w.do("")
    _block(w, block)
    index = block.arguments[0]
    following = w.op(f"add i64 {w.name(index)}, {w.name(step)}")
    latch = w.block
    incoming = [following, *(w.name(v) for v in block.yields)]
    for position, (argument, entering, again) in enumerate(
        zip(block.arguments, (low, *initial), incoming, strict=True)
    ):
        t = register_type(argument.dtype, argument.lanes)
        w.lines[first + position] = (
            f"  {w.name(argument)} = phi {t} [ {w.name(entering)}, %{before} ], [ {again}, %{latch} ]"
        )
    w.do(f"br i1 {w.op(f'icmp slt i64 {following}, {w.name(high)}')}, label %{body}, label %{after}")
    w.label(after)
    for result, entering, again in zip(operation.results, initial, incoming[1:], strict=True):
        if certain:
            w.names[result.number] = again
        else:
            sources = f"[ {w.name(entering)}, %{before} ], [ {again}, %{latch} ]"
            w.names[result.number] = w.op(f"phi {register_type(result.dtype, result.lanes)} {sources}")
    return ""


def _while(w: Writer, operation: Operation) -> str:
    test, body = operation.blocks
    head, inside, after, before = w.fresh("while"), w.fresh("do"), w.fresh("after"), w.block
    w.do(f"br label %{head}")
    w.label(head)
    first = len(w.lines)
    for argument in test.arguments:
        w.names[argument.number] = f"%{w.fresh('v')}"
        w.do("")
    outer = w.addresses, w.masks
    w.addresses, w.masks = dict(w.addresses), dict(w.masks)
    for inner in test.operations:
        _operation(w, inner)
    w.do(f"br i1 {w.name(test.yields[0])}, label %{inside}, label %{after}")
    w.label(inside)
    _block(w, body)
    w.addresses, w.masks = outer
    for position, (argument, entering, again) in enumerate(
        zip(test.arguments, operation.operands, body.yields, strict=True)
    ):
        t = register_type(argument.dtype, argument.lanes)
        w.lines[first + position] = (
            f"  {w.name(argument)} = phi {t} [ {w.name(entering)}, %{before} ], [ {w.name(again)}, %{w.block} ]"
        )
    w.do(f"br label %{head}")
    w.label(after)
    for result, argument in zip(operation.results, test.arguments, strict=True):
        w.names[result.number] = w.name(argument)
    return ""


def _if(w: Writer, operation: Operation) -> str:
    ends: list[tuple[str, tuple[Value, ...]]] = []
    then, otherwise, after = w.fresh("then"), w.fresh("else"), w.fresh("after")
    alternative = otherwise if operation.blocks[1].operations or operation.results else after
    w.do(f"br i1 {w.name(operation.operands[0])}, label %{then}, label %{alternative}")
    for label, block in zip((then, otherwise), operation.blocks, strict=True):
        if label == otherwise and alternative == after:
            continue
        w.label(label)
        _block(w, block)
        ends.append((w.block, block.yields))
        w.do(f"br label %{after}")
    w.label(after)
    for position, result in enumerate(operation.results):
        sources = ", ".join([f"[ {w.name(yields[position])}, %{end} ]" for end, yields in ends])
        w.names[result.number] = w.op(f"phi {register_type(result.dtype, result.lanes)} {sources}")
    return ""


EMITTERS: Final[Mapping[str, Emitter]] = MappingProxyType(
    {
        **ARITHMETIC,
        **MEMORY,
        "convert": conversions.convert,
        "bitcast": conversions.bitcast,
        "symbol": _symbol_operation,
        "for": _for,
        "while": _while,
        "if": _if,
    }
)
