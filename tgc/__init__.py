"""tgc: a tensor graph compiler. Models written in Python become native code, in process or as files.

Everything here is imported on first use (PEP 562): `import tgc` costs next to nothing, and the packages of the lower
floors, `passes` among them, can be imported on their own.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from tgc.version import VERSION

__version__ = VERSION

_EXPORTS: Mapping[str, str] = {
    # dtypes
    **dict.fromkeys(
        ("DType", "bool_", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bf16", "f16", "f32", "f64"),
        "tgc.dtypes",
    ),
    # errors
    **dict.fromkeys(("TgcError", "UserError", "CompilerBug"), "tgc.errors"),
    # tensors
    **dict.fromkeys(("Tensor", "Variable", "tensor", "no_grad"), "tgc.frontend.tensor"),
    "assign_all": "tgc.frontend.base",
    "manual_seed": "tgc.frontend.random",
    # compiled functions
    **dict.fromkeys(("jit", "export"), "tgc.frontend.jit"),
    **dict.fromkeys(("compile", "load"), "tgc.frontend.export"),
    # transformations of functions
    **dict.fromkeys(
        ("grad", "value_and_grad", "vjp", "jvp", "checkpoint"),
        "tgc.frontend.transforms",
    ),
    "vmap": "tgc.frontend.batching",
    # control flow
    **dict.fromkeys(("cond", "while_loop", "scan", "fori_loop"), "tgc.frontend.control"),
}
_PACKAGES: Mapping[str, str] = {
    "nn": "tgc.nn",
    "optim": "tgc.optim",
    "data": "tgc.data",
    "random": "tgc.frontend.random",
}

__all__ = ["__version__", *_EXPORTS, *_PACKAGES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(_PACKAGES[name])
    else:
        raise AttributeError(f"module 'tgc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
