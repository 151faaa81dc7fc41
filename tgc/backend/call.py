"""Compiled programs as Python callables: natively where every array is as the program wants it, in Python otherwise."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from tgc.backend.abi import ALIGNMENT, CALL_FIELDS, MESSAGES, Status
from tgc.backend.call_text import ALIGNED, C_CONTIGUOUS, WRITEABLE, Argument, Description, Result
from tgc.backend.threads import Runtime, process_runtime
from tgc.dtypes import DType, u8
from tgc.errors import AllocationError, CompilerBug, DTypeError, ShapeError, UserError
from tgc.ir.dims import Expr, evaluate, symbols
from tgc.kernels.program import Program, ProgramValue

Array: TypeAlias = npt.NDArray[Any]

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_CHECK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_WORKSPACE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32)
_THREADS_OFFSET: Final = 2 * ctypes.sizeof(ctypes.c_void_p)


class _Call(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in CALL_FIELDS)


class _MethodDefinition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL: Final = 0x80


@functools.lru_cache(maxsize=1)
def _python() -> Mapping[str, Any]:
    """The functions of CPython that make a builtin, with types of their own."""
    capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    builtin = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return MappingProxyType(
        {
            "capsule": capsule(("PyCapsule_New", ctypes.pythonapi)),
            "builtin": builtin(("PyCFunction_NewEx", ctypes.pythonapi)),
        }
    )


class NativeFunction:
    """A compiled program that takes arrays.

    ``call(*inputs, *state)`` returns fresh arrays: one, or a tuple of them if the program has none or several outputs;
    state is updated in place. Arrays that have exactly the dtype, are C-contiguous and aligned go straight to native
    code; other inputs are brought into that form first. Raises :class:`DTypeError`, :class:`ShapeError` or
    :class:`UserError` before anything is written. Dimensions follow from the arrays' shapes.

    ``address`` gives the addresses of :func:`~tgc.backend.entry.entry_symbols` of ``symbol``; ``constants``: arrays in
    the order of the program; ``keepalive``: whatever owns the code. Several Python threads may call at once.
    """

    def __init__(
        self,
        program: Program,
        *,
        address: Callable[[str], int],
        symbol: str,
        constants: Sequence[Array] = (),
        keepalive: object = None,
    ) -> None:
        self.program = program
        self._binder = _Binder(program, address, symbol, constants, keepalive)
        self.call: Callable[..., Any] = self._binder.callable(None)

    def bind(self, state: Sequence[Array]) -> Callable[..., Any]:
        """A callable that takes the inputs only; it updates ``state``, whose arrays must have the form exactly."""
        return self._binder.callable(tuple(state))


class _Binder:
    """Addresses and tables of one program, from which callables are made; does not refer back to them."""

    def __init__(
        self,
        program: Program,
        address: Callable[[str], int],
        symbol: str,
        constants: Sequence[Array],
        keepalive: object,
    ) -> None:
        self.program = program
        self.address = {part: address(f"{symbol}_{part}") for part in ("check", "workspace", "shapes", "cost")}
        self.entry = address(symbol)
        self.keepalive = keepalive
        self.runtime: Runtime = process_runtime()
        self.constants = tuple(_exact(a, v) for a, v in zip(constants, program.constants, strict=True))
        self.constant_table = _pointers(self.constants)

    def callable(self, state: tuple[Array, ...] | None) -> Callable[..., Any]:
        slow = _SlowCall(self, state)
        if state is not None:
            slow.check_state()
        wanted = (*self.program.inputs, *(self.program.state if state is None else ()))
        plain = all(isinstance(d, int) or str(d) in self.program.symbols for v in wanted for d in v.shape)
        if not self.runtime.call or not plain:
            return slow
        return self._builtin(slow, wanted, state)

    def _builtin(
        self, slow: _SlowCall, wanted: tuple[ProgramValue, ...], state: tuple[Array, ...] | None
    ) -> Callable[..., Any]:
        program = self.program
        places = {name: -1 - index for index, name in enumerate(program.symbols)}
        empty: Callable[..., Any] = np.empty
        if any(isinstance(v.bytes, int) and self.runtime.results.worthwhile(v.bytes) for v in program.outputs):
            empty = self.runtime.results.empty
        kept: list[object] = [slow, empty]
        arguments = (Argument * len(wanted))()
        for index, (argument, value) in enumerate(zip(arguments, wanted, strict=True)):
            extents = (ctypes.c_int64 * len(value.shape))(
                *(d if isinstance(d, int) else places[str(d)] for d in value.shape)
            )
            flags = C_CONTIGUOUS | ALIGNED | (WRITEABLE if index >= len(program.inputs) else 0)
            argument.dtype, argument.rank, argument.flags = id(value.dtype.numpy), len(value.shape), flags
            argument.extents = ctypes.addressof(extents)
            kept += [extents, value.dtype.numpy]
        results = (Result * len(program.outputs))()
        symbolic = False
        for result, value in zip(results, program.outputs, strict=True):
            result.dtype, result.rank = id(value.dtype.numpy), len(value.shape)
            if any(isinstance(d, Expr) for d in value.shape):
                symbolic = True
            else:
                result.shape = id(value.shape)
            kept += [value.shape, value.dtype.numpy]
        description = Description(
            entry=self.entry,
            check=self.address["check"],
            workspace=self.address["workspace"],
            shapes=self.address["shapes"] if symbolic else 0,
            cost=self.address["cost"],
            arguments=ctypes.addressof(arguments),
            outputs=ctypes.addressof(results),
            bound_state=0 if state is None else ctypes.addressof(slow.state_table),
            constants=ctypes.addressof(self.constant_table),
            executor_cell=self.runtime.executor_cell,
            slots=self.runtime.slots,
            array_type=id(np.ndarray),
            slow=id(slow),
            empty=id(empty),
            inputs=len(program.inputs),
            states=0 if state is not None else len(program.state),
            results=len(program.outputs),
            symbols=len(program.symbols),
            extents=sum(len(value.shape) for value in program.outputs),
        )
        method = _MethodDefinition(program.name.encode(), self.runtime.call, _FASTCALL, None)
        kept += [arguments, results, description, method]
        python = _python()
        capsule = python["capsule"](ctypes.addressof(description), None, None)
        made: Callable[..., Any] = python["builtin"](ctypes.addressof(method), (capsule, *kept), None)
        return made


class _SlowCall:
    """The same call in Python: takes arrays that are not quite right, or says in full what is wrong with them."""

    def __init__(self, binder: _Binder, state: tuple[Array, ...] | None) -> None:
        self.binder = binder
        self.state = state
        self.state_table = _pointers(state or ())

    def __call__(self, *arrays: Any) -> Any:
        program = self.binder.program
        states = program.state if self.state is None else ()
        if len(arrays) != len(program.inputs) + len(states):
            names = ", ".join(value.name for value in (*program.inputs, *states))
            raise UserError(
                f"{program.name} takes {len(program.inputs) + len(states)} arrays, not {len(arrays)}",
                hint=f"they are {names}" if names else None,
            )
        inputs = [_input(a, v) for a, v in zip(arrays[: len(program.inputs)], program.inputs, strict=True)]
        given = arrays[len(program.inputs) :] if self.state is None else self.state
        state = [_exact(a, v, writeable=True) for a, v in zip(given, program.state, strict=True)]
        return self._run(inputs, state, self._dims(inputs, state))

    def check_state(self) -> None:
        """Raises unless the bound state has the form that native code takes."""
        program = self.binder.program
        if len(self.state or ()) != len(program.state):
            raise UserError(f"{program.name} has {len(program.state)} state arrays, not {len(self.state or ())}")
        for array, value in zip(self.state or (), program.state, strict=True):
            _exact(array, value, writeable=True)
            if any(isinstance(d, Expr) for d in value.shape):
                raise UserError(f"state {value.name} has a symbolic shape", hint="pass the state with each call")

    def _dims(self, inputs: Sequence[Array], state: Sequence[Array]) -> dict[str, int]:
        program = self.binder.program
        pairs = [*zip(program.inputs, inputs, strict=True), *zip(program.state, state, strict=True)]
        env: dict[str, int] = {}
        origin: dict[str, str] = {}
        for value, array in pairs:
            for axis, (d, extent) in enumerate(zip(value.shape, array.shape, strict=True)):
                if isinstance(d, Expr) and (name := str(d)) in symbols(d) and name not in env:
                    env[name] = extent
                    origin[name] = f"dimension {axis} of {value.name}"
        for value, array in pairs:
            for axis, (d, extent) in enumerate(zip(value.shape, array.shape, strict=True)):
                expected = evaluate(d, env)
                if expected != extent:
                    known = f" = {expected}, from {origin[str(d)]}" if str(d) in origin else f" = {expected}"
                    raise ShapeError(
                        f"{program.name} takes {value}; dimension {axis} of what was given is {extent}, "
                        f"not {d}{known if isinstance(d, Expr) else ''}",
                        hint=f"it was given {value.dtype}{list(array.shape)}",
                    )
        for constraint in program.constraints:
            left, right = evaluate(constraint.left, env), evaluate(constraint.right, env)
            if left != right if constraint.relation == "==" else left > right:
                raise ShapeError(f"{program.name}: {constraint.message}", hint=f"{constraint}, but {_sizes(env)}")
        for value in program.outputs:
            shape = [evaluate(d, env) for d in value.shape]
            if min(shape, default=0) < 0:
                raise ShapeError(f"{program.name}: the result {value} would have the shape {shape}")
        return env

    def _run(self, inputs: Sequence[Array], state: Sequence[Array], env: Mapping[str, int]) -> Any:
        binder, program = self.binder, self.binder.program
        dims = (ctypes.c_int64 * max(1, len(program.symbols)))(*(env[name] for name in program.symbols))
        status = _CHECK(binder.address["check"])(ctypes.addressof(dims))
        if status < 0:
            raise ShapeError(f"{program.name}: {MESSAGES[Status(-status)]}", hint=_sizes(env))
        executor = binder.runtime.executor
        threads = ctypes.c_int32.from_address(executor + _THREADS_OFFSET).value if executor else 1
        size = _WORKSPACE(binder.address["workspace"])(ctypes.addressof(dims), threads)
        if status:
            raise CompilerBug(f"{program.name} refused {dict(env)} ({status})", stage="call")
        if size < 0:
            message = MESSAGES[Status.TOO_LARGE]
            raise ShapeError(f"{program.name}: {message}", hint=_sizes(env))
        for_sizes = f" for {_sizes(env)}" if env else ""
        outputs = [
            _allocated([evaluate(d, env) for d in v.shape], v.dtype, f"{program.name}: the result {v}{for_sizes}")
            for v in program.outputs
        ]
        memory = _allocated([size + ALIGNMENT], u8, f"{program.name}: the workspace{for_sizes}")
        tables = [_pointers(arrays) for arrays in (inputs, outputs, state)]
        call = _Call(
            inputs=ctypes.addressof(tables[0]),
            outputs=ctypes.addressof(tables[1]),
            state=ctypes.addressof(tables[2]),
            constants=ctypes.addressof(binder.constant_table),
            dims=ctypes.addressof(dims),
            workspace=-(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT,
            executor=executor,
        )
        status = _ENTRY(binder.entry)(ctypes.addressof(call))
        if status:
            raise CompilerBug(f"{program.name}: {MESSAGES[Status(status)]}", stage="call")
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _sizes(env: Mapping[str, int]) -> str | None:
    return ", ".join(f"{name} = {size}" for name, size in env.items()) or None


def _allocated(shape: Sequence[int], dtype: DType, what: str) -> Array:
    try:
        return np.empty(shape, dtype.numpy)
    except (MemoryError, ValueError):
        size = prod(shape) * dtype.itemsize
        raise AllocationError(
            f"{what} needs {size} bytes ({size / 2**30:.3g} GiB), which cannot be had",
            hint="take smaller sizes, for example a smaller batch; `tgc explain` tells which tensors need most",
        ) from None


def _pointers(arrays: Sequence[Array]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))


def _describe(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"{array.dtype}{list(array.shape)}"
    return f"a {type(array).__name__}"


def _same_dtype(given: np.dtype[Any], dtype: DType) -> bool:
    return given == dtype.numpy or (dtype.name == "bf16" and given == np.uint16)


def _input(given: object, value: ProgramValue) -> Array:
    """``given`` as a contiguous array of the value's dtype; lists and the like are not converted."""
    array = np.asarray(given) if hasattr(given, "__array__") or hasattr(given, "__array_interface__") else given
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"input {value} was given {_describe(given)}", hint="pass a NumPy array")
    native = array.dtype.newbyteorder("=")
    if not _same_dtype(native, value.dtype):
        raise DTypeError(
            f"input {value} was given {_describe(array)}", hint=f"convert it with .astype({value.dtype.numpy.name!r})"
        )
    if array.ndim != len(value.shape):
        raise ShapeError(f"input {value} was given {_describe(array)}: {array.ndim} dimensions, not {len(value.shape)}")
    return np.require(array, dtype=native, requirements=["C", "A"])


def _exact(array: Array, value: ProgramValue, *, writeable: bool = False) -> Array:
    """``array`` itself, which native code keeps or writes to."""
    kind = "state" if writeable else "constant"
    if not isinstance(array, np.ndarray) or not _same_dtype(array.dtype, value.dtype):
        raise DTypeError(f"{kind} {value} was given {_describe(array)}")
    if array.ndim != len(value.shape):
        raise ShapeError(f"{kind} {value} was given {_describe(array)}")
    for d, extent in zip(value.shape, array.shape, strict=True):
        if isinstance(d, int) and d != extent:
            raise ShapeError(f"{kind} {value} was given {_describe(array)}")
    flags = array.flags
    if not flags.c_contiguous or not flags.aligned or (writeable and not flags.writeable):
        raise UserError(
            f"{kind} {value} is not a contiguous{', writeable' if writeable else ''} array",
            hint="make it one with np.ascontiguousarray(...).copy()",
        )
    return array
