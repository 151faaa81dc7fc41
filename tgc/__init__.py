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
    **dict.fromkeys(("TgcError", "UserError", "NonFiniteError", "CompilerBug"), "tgc.errors"),
    # tensors
    **dict.fromkeys(("Tensor", "Variable", "tensor", "no_grad"), "tgc.frontend.tensor"),
    "assign_all": "tgc.frontend.base",
    "manual_seed": "tgc.frontend.random",
    # compiled functions
    **dict.fromkeys(("jit", "export"), "tgc.frontend.jit"),
    **dict.fromkeys(("compile", "load"), "tgc.frontend.export"),
    "Options": "tgc.compiler",
    "explain": "tgc.inspect.explain",
    "debug_nans": "tgc.frontend.nonfinite",
    **dict.fromkeys(("num_threads", "set_num_threads"), "tgc.backend.threads"),
    # transformations of functions
    **dict.fromkeys(
        ("grad", "value_and_grad", "vjp", "jvp", "checkpoint"),
        "tgc.frontend.transforms",
    ),
    "vmap": "tgc.frontend.batching",
    # control flow
    **dict.fromkeys(("cond", "while_loop", "scan", "fori_loop"), "tgc.frontend.control"),
    # the functions of the Array API standard, and a few more
    **dict.fromkeys(
        (
            "asarray from_dlpack arange linspace full zeros ones empty full_like zeros_like ones_like empty_like "
            "eye tril triu meshgrid"
        ).split(),
        "tgc.frontend.functions.creation",
    ),
    **dict.fromkeys(
        "astype can_cast result_type isdtype finfo iinfo FloatInfo IntegerInfo".split(),
        "tgc.frontend.functions.data_types",
    ),
    **dict.fromkeys(
        (
            "abs negative sign square acos acosh asin asinh atan atanh cos cosh erf erfc exp exp2 expm1 log log1p "
            "log2 log10 reciprocal rsqrt sigmoid sin sinh sqrt tan tanh ceil floor round trunc bitwise_invert "
            "conj imag isfinite isinf isnan logical_not positive real signbit"
        ).split(),
        "tgc.frontend.functions.unary",
    ),
    **dict.fromkeys(
        (
            "add subtract multiply maximum minimum floor_divide remainder bitwise_and bitwise_or bitwise_xor "
            "bitwise_left_shift bitwise_right_shift equal not_equal less less_equal greater greater_equal atan2 "
            "copysign divide hypot logaddexp nextafter logical_and logical_or logical_xor pow"
        ).split(),
        "tgc.frontend.functions.binary",
    ),
    **dict.fromkeys(
        (
            "broadcast_to broadcast_arrays concat stack unstack expand_dims squeeze flip permute_dims moveaxis "
            "reshape roll tile repeat"
        ).split(),
        "tgc.frontend.functions.manipulation",
    ),
    **dict.fromkeys(
        "sum prod max min mean var std all any count_nonzero cumulative_sum cumulative_prod diff".split(),
        "tgc.frontend.functions.statistical",
    ),
    **dict.fromkeys(
        (
            "argmax argmin where clip sort argsort searchsorted take take_along_axis nonzero unique_all "
            "unique_counts unique_inverse unique_values"
        ).split(),
        "tgc.frontend.functions.searching",
    ),
    **dict.fromkeys(("dynamic_slice", "dynamic_update_slice"), "tgc.frontend.functions.slices"),
    **dict.fromkeys("matmul matrix_transpose tensordot vecdot einsum".split(), "tgc.frontend.functions.products"),
}
_PACKAGES: Mapping[str, str] = {
    "nn": "tgc.nn",
    "optim": "tgc.optim",
    "data": "tgc.data",
    "random": "tgc.frontend.random",
    "inspect": "tgc.inspect",
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
