"""The table of math functions, by the names that ``ScalarBuilder.math`` takes.

Each is a function of a scalar builder and its arguments, branch-free, for f32 and f64 and any number of lanes.
Special values are those of C99, Annex F.

>>> import numpy as np
>>> from tgc.kernels.numpy_scalar import NumpyScalarBuilder
>>> print(MATH["exp"](NumpyScalarBuilder(), np.float32([0.0, 1.0, -np.inf])))
[1.        2.7182817 0.       ]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from tgc.ir.opdef import Scalar, ScalarBuilder
from tgc.kernels import vector_math_bits as bits
from tgc.kernels import vector_math_error as error
from tgc.kernels import vector_math_exponential as exponential
from tgc.kernels import vector_math_inverse_trigonometric as inverse
from tgc.kernels import vector_math_logarithmic as logarithmic
from tgc.kernels import vector_math_power as power
from tgc.kernels import vector_math_remainder as remainder
from tgc.kernels import vector_math_trigonometric as trigonometric
from tgc.kernels.scalar_term import Term

MathFunction: TypeAlias = Callable[..., Scalar]


def _on_terms(formula: Callable[..., Term]) -> MathFunction:
    """A formula in terms as a function of a builder and its values."""

    def function(builder: ScalarBuilder, *arguments: Scalar) -> Scalar:
        return formula(*(Term(builder, x) for x in arguments)).value

    function.__name__, function.__doc__ = formula.__name__, formula.__doc__
    return function


MATH: Mapping[str, MathFunction] = MappingProxyType(
    {
        "exp": _on_terms(exponential.exponential),
        "exp2": _on_terms(exponential.exponential_base_2),
        "expm1": _on_terms(exponential.exponential_minus_one),
        "sinh": _on_terms(exponential.hyperbolic_sine),
        "cosh": _on_terms(exponential.hyperbolic_cosine),
        "tanh": _on_terms(exponential.hyperbolic_tangent),
        "sigmoid": _on_terms(exponential.sigmoid),
        "log": _on_terms(logarithmic.logarithm),
        "log2": _on_terms(logarithmic.logarithm_base_2),
        "log10": _on_terms(logarithmic.logarithm_base_10),
        "log1p": _on_terms(logarithmic.logarithm_one_plus),
        "logaddexp": _on_terms(logarithmic.logaddexp),
        "asinh": _on_terms(logarithmic.inverse_hyperbolic_sine),
        "acosh": _on_terms(logarithmic.inverse_hyperbolic_cosine),
        "atanh": _on_terms(logarithmic.inverse_hyperbolic_tangent),
        "sin": _on_terms(trigonometric.sine),
        "cos": _on_terms(trigonometric.cosine),
        "tan": _on_terms(trigonometric.tangent),
        "asin": _on_terms(inverse.arc_sine),
        "acos": _on_terms(inverse.arc_cosine),
        "atan": _on_terms(inverse.arc_tangent),
        "atan2": _on_terms(inverse.arc_tangent_2),
        "pow": _on_terms(power.power),
        "hypot": _on_terms(power.hypotenuse),
        "cbrt": _on_terms(power.cube_root),
        "rsqrt": _on_terms(power.reciprocal_square_root),
        "fmod": _on_terms(remainder.truncated_remainder),
        "remainder": _on_terms(remainder.floored_remainder),
        "floor_divide": _on_terms(remainder.floored_quotient),
        "copysign": _on_terms(bits.copy_sign),
        "signbit": _on_terms(bits.sign_bit),
        "nextafter": _on_terms(bits.next_after),
        "erfc": _on_terms(error.complementary_error_function),
        "erf": _on_terms(error.error_function),
    }
)

# bounds on the errors in units in the last place, where hardware has fma; elsewhere one more (those of logaddexp are
# units of the largest of the result and both arguments). Measured by benchmarks/accuracy.py, and rounded up.
ULP: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("fmod", "remainder", "floor_divide", "copysign", "signbit", "nextafter"), 0.0),
        "rsqrt": 0.6,
        **dict.fromkeys(("asin", "acos", "cbrt", "sigmoid", "sinh"), 0.8),
        **dict.fromkeys(("exp", "exp2", "sin", "cos", "tan", "atan", "cosh"), 0.9),
        **dict.fromkeys(("expm1", "log", "log2", "log10", "log1p", "tanh", "asinh", "acosh", "atanh"), 1.0),
        **dict.fromkeys(("erf", "erfc", "pow", "hypot"), 1.0),
        **dict.fromkeys(("atan2", "logaddexp"), 2.0),
    }
)
