"""The C header of a library: C99, and C++ through ``extern "C"``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tgc.backend.abi import ALIGNMENT, MESSAGES, Status
from tgc.backend.c_library import Library, LibraryFunction, c_names
from tgc.kernels.program import ProgramValue

_C_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"bool": "uint8_t", "bf16": "uint16_t", "f16": "uint16_t", "f32": "float", "f64": "double"}
    | {f"i{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)}
    | {f"u{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)}
)
_REMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {"bool": ", each 0 or 1", "bf16": " as their 16 bits", "f16": " as their 16 bits"}
)
_WIDTH: Final = 96

_EXECUTOR: Final = """\
#ifndef TGC_EXECUTOR
#define TGC_EXECUTOR
/* Runs work on threads: a pool of this library, or your own.
 *
 * parallel_for calls task(closure, begin, end, thread) for ranges that together make up 0..count, on any threads
 * and in any order, and returns 0 when all calls are done; anything else makes the function fail. `thread` is
 * below `threads`, and two calls at the same time never have the same. Results do not depend on the ranges. */
typedef struct tgc_executor {
    int32_t (*parallel_for)(void *context, void (*task)(void *closure, int64_t begin, int64_t end, int32_t thread),
                            void *closure, int64_t count);
    void *context;
    int32_t threads;
} tgc_executor;
#endif
"""


def header_text(library: Library) -> str:
    """The header: every function with its arrays, their shapes and owners, threads and error codes."""
    guard = f"{library.name.upper()}_H"
    parts = [_comment(_introduction(library)), f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n"]
    parts += ['#ifdef __cplusplus\nextern "C" {\n#endif\n', _EXECUTOR, _codes(library), _common(library)]
    if library.has_pool:
        parts.append(_pool(library))
    parts += [_function(library, function) for function in library.functions]
    parts += ["#ifdef __cplusplus\n}\n#endif\n", f"#endif /* {guard} */\n"]
    return "\n".join(parts)


def _comment(lines: Sequence[str]) -> str:
    """A block comment; a line that begins with spaces is kept as it is."""
    wrapped: list[str] = []
    for line in lines:
        line = line.replace("*/", "* /")
        wrapped += [line] if not line or line.startswith(" ") else textwrap.wrap(line, _WIDTH, break_on_hyphens=False)
    return "/* " + "\n".join(f" * {line}".rstrip() if at else line for at, line in enumerate(wrapped)) + " */\n"


def _introduction(library: Library) -> list[str]:
    target = library.target
    lines = [
        f"{library.name}: compiled by tgc for {target.triple}, CPU {target.cpu}.",
        "",
        (
            "Arrays are row-major and without gaps, aligned to their elements, and yours: nothing is kept or freed,"
            " and inputs, outputs and workspace must not overlap. Every function returns 0 or an error code (see"
            " below), checks all its arguments before it writes anything, allocates nothing, and may be called by"
            " several threads at once as long as no two calls share an output, a workspace or, if they change it, the"
            " state."
        ),
        "",
        f"Call {library.name}_init before any other function: code for this CPU ends a program on a lesser one.",
    ]
    function = next(iter(library.functions), None)
    if function is None:
        return lines
    call = f"{library.name}_{function.name}"
    arguments = [name for name, _ in _parameters(function)]
    dims = [c_names(function.program)[f"s.{s}"] for s in function.program.symbols]
    lines += ["", "Example:"]
    if library.state:
        lines.append(f"    void *state = aligned_alloc({ALIGNMENT}, {library.name}_state_size());")
        lines.append(f"    int32_t error = {library.name}_init(state, {library.name}_state_size());")
    else:
        lines.append(f"    int32_t error = {library.name}_init(0, 0);")
    lines.append(f"    void *workspace = malloc({call}_workspace({', '.join([*dims, '1'])}));")
    lines.append(f"    if (!error) error = {call}({', '.join(arguments)});")
    lines.append(f"    if (error) puts({library.name}_error_message(error));")
    return lines


def _codes(library: Library) -> str:
    lines = ["Error codes. Functions that return a size return the negated code instead."]
    prefix = library.name.upper()
    rows = [f"    {prefix}_{status.name} = {status.value}, /* {text} */" for status, text in MESSAGES.items()]
    for function in library.functions:
        first = library.constraint_codes(function)
        for code, constraint in enumerate(function.program.constraints, start=first):
            text = f"{function.name}: {constraint.message}".replace("*/", "* /").replace("\n", " ")
            rows.append(f"    {prefix}_{function.name.upper()}_{code} = {code}, /* {text} */")
    return _comment(lines) + "enum {\n" + "\n".join(rows) + "\n};\n"


def _common(library: Library) -> str:
    name = library.name
    parts = []
    if library.state:
        about = [
            (
                f"The state is one block of memory, yours, of {name}_state_size() = {library.state_size} bytes,"
                f" aligned to {ALIGNMENT} bytes. It may be copied and saved as it is. Its arrays lie at these offsets"
                " in bytes:"
            ),
            *(
                f"    {variable.name}: {variable.initial.dtype.name}{list(variable.initial.shape)} at "
                f"{library.state_offsets[variable.name]}"
                for variable in library.state
            ),
        ]
    else:
        about = ["There is no state: the size is 0, and init takes null and 0."]
    parts.append(_comment(about) + f"int64_t {name}_state_size(void);\n")
    about = ["Checks that this CPU has all instructions that the library uses"]
    about[0] += ", and writes the initial state: size must be at least the state's." if library.state else "."
    parts.append(_comment(about) + f"int32_t {name}_init(void *state, int64_t size);\n")
    parts.append(_comment(["What an error code means, in English; never null."]))
    parts[-1] += f"const char *{name}_error_message(int32_t code);\n"
    return "\n".join(parts)


def _pool(library: Library) -> str:
    name = library.name
    about = [
        (
            f"A pool of threads in memory of yours, of {name}_pool_size(threads) bytes: pool_create starts threads - 1"
            " threads (the caller is one as well) and returns the executor, or null if it cannot. They sleep when"
            " there is nothing to do. pool_destroy ends them; then the memory is yours again. One pool may serve calls"
            " from several threads: one at a time gets the threads, others run alone."
        ),
    ]
    return _comment(about) + (
        f"int64_t {name}_pool_size(int32_t threads);\n"
        f"const tgc_executor *{name}_pool_create(void *memory, int32_t threads);\n"
        f"void {name}_pool_destroy(const tgc_executor *pool);\n"
    )


def _parameters(function: LibraryFunction) -> list[tuple[str, str]]:
    """(name, declaration) of each parameter of the plain form."""
    program, names = function.program, c_names(function.program)
    found = [("state", "void *state")] if program.state else []
    for space, const, values in (("i", "const ", program.inputs), ("o", "", program.outputs)):
        for value in values:
            name = names[f"{space}.{value.name}"]
            found.append((name, f"{const}{_C_TYPES[value.dtype.name]} *{name}"))
    found += [(names[f"s.{s}"], f"int64_t {names[f's.{s}']}") for s in program.symbols]
    return [*found, ("workspace", "void *workspace")]


def _value(value: ProgramValue, name: str, kind: str, renamed: Mapping[str, str]) -> str:
    dims = ", ".join(re.sub(r"[A-Za-z_]\w*", lambda m: renamed.get(m[0], m[0]), str(d)) for d in value.shape)
    remark = _REMARKS.get(value.dtype.name, "")
    return f"    {name}: {kind}, {value.dtype}[{dims}]{remark}"


def _function(library: Library, function: LibraryFunction) -> str:
    program, names = function.program, c_names(function.program)
    renamed = {s: names[f"s.{s}"] for s in program.symbols}
    call = f"{library.name}_{function.name}"
    about = [line.strip() for line in (function.doc.strip() or function.name).splitlines()] + [""]
    if program.state:
        changes = ", ".join(value.name for value in program.state)
        about.append(f"    state: set up by {library.name}_init; read and updated: {changes}")
    about += [_value(v, names[f"i.{v.name}"], "input", renamed) for v in program.inputs]
    about += [_value(v, names[f"o.{v.name}"], "output", renamed) for v in program.outputs]
    about += [f"    {renamed[s]}: a dimension, at least 0" for s in program.symbols]
    about.append(f"    workspace: at least {call}_workspace(...) bytes, any alignment; its content does not matter")
    for code, constraint in enumerate(program.constraints, start=library.constraint_codes(function)):
        about.append(f"Error {code} ({Status.CONSTRAINT.name.lower()}): {constraint.message}")
    about += [
        "",
        (
            f"{call}_parallel runs on an executor (null: on the calling thread alone); {call}_workspace gives the"
            " bytes of workspace for these dimensions and at most so many threads, 1 for the plain form."
        ),
    ]
    declarations = [declaration for _, declaration in _parameters(function)]
    dims = [f"int64_t {renamed[s]}" for s in program.symbols]
    return _comment(about) + "".join(
        (
            _prototype(f"int32_t {call}", declarations),
            _prototype(f"int32_t {call}_parallel", [*declarations, "const tgc_executor *executor"]),
            _prototype(f"int64_t {call}_workspace", [*dims, "int32_t threads"]),
        )
    )


def _prototype(head: str, parameters: Sequence[str]) -> str:
    """A declaration, broken between parameters only."""
    whole = ", ".join(parameter.replace(" ", "\0") for parameter in parameters)
    text = textwrap.fill(f"{head}({whole});", 110, subsequent_indent=" " * 8, break_long_words=False)
    return text.replace("\0", " ") + "\n"
