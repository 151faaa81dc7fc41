"""The C functions of a library, as text of LLVM IR around the entries, and the weights in the object.

Every function checks all of its arguments before it writes anything. Nothing is allocated, and nothing is called but
memory functions, and pthreads by the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tgc.backend.abi import ALIGNMENT, CALL_TYPE, EXECUTOR_TYPE, MESSAGES, Status
from tgc.backend.c_library import (
    DIGEST_BYTES,
    STATE_HEADER,
    Library,
    LibraryConstant,
    LibraryFunction,
    StateVariable,
    c_names,
    exported_names,
)
from tgc.backend.cpu_check import baseline_attributes, cpu_check_text
from tgc.backend.pool_text import pool_text
from tgc.backend.run_text import run_text
from tgc.errors import CompilerBug
from tgc.kernels.program import ProgramValue

__all__ = [
    "Library",
    "LibraryConstant",
    "LibraryFunction",
    "StateVariable",
    "embed",
    "exported_names",
    "library_text",
]


def library_text(library: Library) -> str:
    """LLVM IR of a library's C functions, the thread pool and the launch loop: all but kernels and entries."""
    parts = [run_text(), cpu_check_text(library.target)]
    if library.has_pool:
        parts.append(pool_text(library.target.triple, prefix=library.name))
    parts += [_weights_text(library), _init_text(library), _messages_text(library)]
    parts += [text for function in library.functions for text in _function_texts(library, function)]
    return "".join(parts)


def embed(image: bytes, library: Library) -> bytes:
    """The object with the weights in their place, whatever its format: the place is marked by their digest.

    They do not go through LLVM IR, which is slow for megabytes.
    """
    weights = library.weights
    at = image.find(weights[:DIGEST_BYTES])
    blank = bytes(len(weights) - DIGEST_BYTES)
    if at < 0 or image[at + DIGEST_BYTES : at + len(weights)] != blank:
        raise CompilerBug("the object has no room for the weights", stage="embedding")
    return image[:at] + weights + image[at + len(weights) :]


def _bytes(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


def _weights_text(library: Library) -> str:
    size = len(library.weights) - DIGEST_BYTES
    kind = f"<{{ [{DIGEST_BYTES} x i8], [{size} x i8] }}>"
    marker = f'[{DIGEST_BYTES} x i8] c"{_bytes(library.weights[:DIGEST_BYTES])}"'
    value = f"<{{ {marker}, [{size} x i8] zeroinitializer }}>"
    # Initialised from outside: no load may be folded to the zeros that stand here for now.
    return f"@tgc_weights = internal externally_initialized constant {kind} {value}, align {ALIGNMENT}\n"


def _init_text(library: Library) -> str:
    size, name = library.state_size, library.name
    return f"""
define i64 @{name}_state_size() {{
  ret i64 {size}
}}
define i32 @{name}_init(ptr %state, i64 %size) noinline optnone "target-cpu"="" "target-features"="" {{
  %cpu = call i32 @tgc_check_cpu()
  %unable = icmp ne i32 %cpu, 0
  br i1 %unable, label %refuse, label %room
refuse:
  ret i32 %cpu
room:
  %short = icmp slt i64 %size, {size}
  br i1 %short, label %small, label %kind
small:
  ret i32 {int(Status.SIZE)}
kind:
  %empty = icmp eq i64 {size}, 0
  br i1 %empty, label %done, label %given
given:
  %null = icmp eq ptr %state, null
  br i1 %null, label %missing, label %place
missing:
  ret i32 {int(Status.NULL)}
place:
  %address = ptrtoint ptr %state to i64
  %low = and i64 %address, {ALIGNMENT - 1}
  %crooked = icmp ne i64 %low, 0
  br i1 %crooked, label %misaligned, label %copy
misaligned:
  ret i32 {int(Status.MISALIGNED)}
copy:
  %first = getelementptr i8, ptr @tgc_weights, i64 {STATE_HEADER}
  call void @llvm.memcpy.p0.p0.i64(ptr %state, ptr %first, i64 {size}, i1 false)
  br label %done
done:
  ret i32 0
}}
""".replace('"target-cpu"="" "target-features"="" ', baseline_attributes(library.target))


def _messages(library: Library) -> dict[int, str]:
    messages = {int(status): text for status, text in MESSAGES.items()}
    for function in library.functions:
        for code, constraint in enumerate(function.program.constraints, start=library.constraint_codes(function)):
            messages[code] = f"{function.name}: {constraint.message}"
    return messages


def _messages_text(library: Library) -> str:
    messages = _messages(library)
    lines, cases = [], []
    for code, message in {**messages, -1: "unknown error code"}.items():
        data = message.encode() + b"\0"
        label = "unknown" if code < 0 else str(code)
        lines.append(f'@tgc_message.{label} = private constant [{len(data)} x i8] c"{_bytes(data)}"')
    # A workspace function gives the code negated.
    lines.append(f"define ptr @{library.name}_error_message(i32 %code) {{")
    lines.append("  %negated = sub i32 0, %code")
    lines.append("  %negative = icmp slt i32 %code, 0")
    lines.append("  %number = select i1 %negative, i32 %negated, i32 %code")
    lines.append(
        f"  switch i32 %number, label %unknown [ {' '.join(f'i32 {code}, label %case.{code}' for code in messages)} ]"
    )
    cases = [f"case.{code}:\n  ret ptr @tgc_message.{code}" for code in messages]
    return "\n".join([*lines, *cases, "unknown:", "  ret ptr @tgc_message.unknown", "}", ""])


class _FunctionWriter:
    """Writes the C functions of one program."""

    def __init__(self, library: Library, function: LibraryFunction) -> None:
        self.library = library
        self.function = function
        self.program = function.program
        self.names = {key: f"p.{name}" for key, name in c_names(function.program).items()}
        self.lines: list[str] = []
        self.checks = 0

    def require(self, wrong: str, status: str) -> None:
        """Returns the i32 operand ``status`` if the i1 operand ``wrong`` is true."""
        self.checks += 1
        self.lines.append(f"  br i1 {wrong}, label %fail.{self.checks}, label %pass.{self.checks}")
        self.lines.append(f"fail.{self.checks}:\n  ret i32 {status}\npass.{self.checks}:")

    def pointer(self, name: str, alignment: int) -> None:
        """Checks a pointer parameter."""
        self.lines.append(f"  %null.{name} = icmp eq ptr %{name}, null")
        self.require(f"%null.{name}", str(int(Status.NULL)))
        if alignment > 1:
            self.lines.append(f"  %address.{name} = ptrtoint ptr %{name} to i64")
            self.lines.append(f"  %low.{name} = and i64 %address.{name}, {alignment - 1}")
            self.lines.append(f"  %crooked.{name} = icmp ne i64 %low.{name}, 0")
            self.require(f"%crooked.{name}", str(int(Status.MISALIGNED)))

    def table(self, field: int, operands: list[str]) -> None:
        """Fills an array of pointers and its field of the call."""
        self.lines.append(f"  %table.{field} = alloca [{max(1, len(operands))} x ptr]")
        for index, operand in enumerate(operands):
            self.lines.append(f"  %table.{field}.{index} = getelementptr ptr, ptr %table.{field}, i64 {index}")
            self.lines.append(f"  store ptr {operand}, ptr %table.{field}.{index}")
        self.field(field, f"%table.{field}")

    def field(self, field: int, operand: str) -> None:
        self.lines.append(f"  %field.{field} = getelementptr {CALL_TYPE}, ptr %call, i32 0, i32 {field}")
        self.lines.append(f"  store ptr {operand}, ptr %field.{field}")

    def dims(self) -> None:
        symbols = self.program.symbols
        self.lines.append(f"  %dims = alloca [{max(1, len(symbols))} x i64]")
        for index, symbol in enumerate(symbols):
            self.lines.append(f"  %dim.{index} = getelementptr i64, ptr %dims, i64 {index}")
            self.lines.append(f"  store i64 %{self.names[f's.{symbol}']}, ptr %dim.{index}")
        self.lines.append(f"  %checked = call i32 @{self.function.symbol}_check(ptr %dims)")
        self.lines.append("  %negated = sub i32 0, %checked")
        self.lines.append("  %negative = icmp slt i32 %checked, 0")
        first = self.library.constraint_codes(self.function)
        self.lines.append(f"  %constraint = add i32 %checked, {first - 1}")
        self.lines.append("  %reason = select i1 %negative, i32 %negated, i32 %constraint")
        self.lines.append("  %refused = icmp ne i32 %checked, 0")

    def parameters(self, *more: str) -> str:
        names, program = self.names, self.program
        own = ["ptr %state"] if program.state else []
        own += [f"ptr %{names[f'i.{v.name}']}" for v in program.inputs]
        own += [f"ptr %{names[f'o.{v.name}']}" for v in program.outputs]
        return ", ".join([*own, *self.dimensions(), *more])

    def dimensions(self) -> list[str]:
        return [f"i64 %{self.names[f's.{symbol}']}" for symbol in self.program.symbols]

    def parallel(self) -> str:
        """``int LIBRARY_NAME_parallel(..., void *workspace, const tgc_executor *executor)``."""
        library, program, names = self.library, self.program, self.names
        if program.state:
            self.pointer("state", ALIGNMENT)
            for word in range(0, DIGEST_BYTES, 8):
                expected = int.from_bytes(library.state_digest[word : word + 8], "little")
                self.lines.append(f"  %word.{word}.at = getelementptr i8, ptr %state, i64 {word}")
                self.lines.append(f"  %word.{word} = load i64, ptr %word.{word}.at")
                self.lines.append(f"  %strange.{word} = icmp ne i64 %word.{word}, {expected}")
                self.require(f"%strange.{word}", str(int(Status.STATE)))
        for space, values in (("i", program.inputs), ("o", program.outputs)):
            for value in values:
                self.pointer(names[f"{space}.{value.name}"], value.dtype.itemsize)
        self.dims()
        self.require("%refused", "%reason")
        self.lines.append("  %serial = icmp eq ptr %executor, null")
        self.lines.append("  br i1 %serial, label %size, label %threaded")
        self.lines.append("threaded:")
        self.lines.append(f"  %threads.at = getelementptr {EXECUTOR_TYPE}, ptr %executor, i32 0, i32 2")
        self.lines.append("  %threads.given = load i32, ptr %threads.at")
        self.lines.append("  br label %size")
        self.lines.append("size:")
        self.lines.append(f"  %threads = phi i32 [ 1, %pass.{self.checks} ], [ %threads.given, %threaded ]")
        self.lines.append(f"  %bytes = call i64 @{self.function.symbol}_workspace(ptr %dims, i32 %threads)")
        self.lines.append("  %impossible = icmp slt i64 %bytes, 0")
        self.lines.append("  %less = sub i64 0, %bytes")
        self.lines.append("  %cause = trunc i64 %less to i32")
        self.require("%impossible", "%cause")
        self.lines.append("  %needed = icmp ne i64 %bytes, 0")
        self.lines.append("  %absent = icmp eq ptr %workspace, null")
        self.lines.append("  %missing = and i1 %needed, %absent")
        self.require("%missing", str(int(Status.NULL)))
        self._fill()
        self.lines.append(f"  %status = call i32 @{self.function.symbol}(ptr %call)")
        self.lines.append("  ret i32 %status")
        head = f"define i32 @{library.name}_{self.function.name}_parallel"
        return self._text(head, self.parameters("ptr %workspace", "ptr %executor"))

    def _fill(self) -> None:
        library, program, names = self.library, self.program, self.names
        self.lines.append(f"  %call = alloca {CALL_TYPE}")
        self.table(0, [f"%{names[f'i.{value.name}']}" for value in program.inputs])
        self.table(1, [f"%{names[f'o.{value.name}']}" for value in program.outputs])
        sizes = {v.name: v.initial.nbytes for v in library.state}
        self.table(2, [self._within("%state", library.state_offsets, sizes, v) for v in program.state])
        sizes = {c.name: c.array.nbytes for c in library.constants}
        self.table(3, [self._within("@tgc_weights", library.weight_offsets, sizes, v) for v in program.constants])
        self.field(4, "%dims")
        self.lines.append("  %start = ptrtoint ptr %workspace to i64")
        self.lines.append("  %before = sub i64 0, %start")
        self.lines.append(f"  %gap = and i64 %before, {ALIGNMENT - 1}")
        self.lines.append("  %aligned = getelementptr i8, ptr %workspace, i64 %gap")
        self.field(5, "%aligned")
        self.field(6, "%executor")

    def _within(self, base: str, offsets: Mapping[str, int], sizes: Mapping[str, int], value: ProgramValue) -> str:
        """The operand of an array's address in a block."""
        if sizes.get(value.name) != value.bytes:
            message = f"{value} has {value.bytes} bytes, the library's {sizes.get(value.name)}"
            raise CompilerBug(f"{self.function.name}: {message}", stage="library")
        number = len(self.lines)
        self.lines.append(f"  %within.{number} = getelementptr i8, ptr {base}, i64 {offsets[value.name]}")
        return f"%within.{number}"

    def workspace(self) -> str:
        """``int64_t LIBRARY_NAME_workspace(dims..., int32_t threads)``; room to align what the caller gives."""
        self.lines = []
        self.dims()
        lines = self.lines
        lines.append("  br i1 %refused, label %refuse, label %size")
        lines.append("refuse:\n  %less = sub i32 0, %reason\n  %code = sext i32 %less to i64\n  ret i64 %code\nsize:")
        lines.append(f"  %bytes = call i64 @{self.function.symbol}_workspace(ptr %dims, i32 %threads)")
        lines.append("  %some = icmp sgt i64 %bytes, 0")
        lines.append(f"  %more = add i64 %bytes, {ALIGNMENT - 1}")
        lines.append("  %size.given = select i1 %some, i64 %more, i64 %bytes")
        lines.append("  ret i64 %size.given")
        head = f"define i64 @{self.library.name}_{self.function.name}_workspace"
        return self._text(head, ", ".join([*self.dimensions(), "i32 %threads"]))

    def serial(self) -> str:
        """``int LIBRARY_NAME(..., void *workspace)``."""
        name = f"{self.library.name}_{self.function.name}"
        parameters = self.parameters("ptr %workspace")
        self.lines = [f"  %status = call i32 @{name}_parallel({self.parameters('ptr %workspace', 'ptr null')})"]
        self.lines.append("  ret i32 %status")
        return self._text(f"define i32 @{name}", parameters)

    def _text(self, head: str, parameters: str) -> str:
        return "\n".join([f"{head}({parameters}) noinline optnone {{", *self.lines, "}", ""])


def _function_texts(library: Library, function: LibraryFunction) -> Iterator[str]:
    writer = _FunctionWriter(library, function)
    yield writer.parallel()
    yield writer.workspace()
    yield writer.serial()
