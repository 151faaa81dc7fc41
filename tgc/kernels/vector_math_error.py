"""The error function and its complement."""

from __future__ import annotations

from tgc.kernels.scalar_term import Term, polynomial, where
from tgc.kernels.vector_math_exponential import exponential

# erf x / x - 1 in x² on |x| <= 1, error 2^-29.4 and 2^-56.0 of erf x
_ERF_SINGLE = (0.12837916612625122, -0.3761262595653534, 0.11283578723669052, -0.026853347197175026,
               0.005187162198126316, -0.0007997853099368513, 7.806903886375949e-05)  # fmt: skip
# -log(erfc x) on 1 <= x <= 4, error 2^-29.8 of erfc x where that is multiplied by it
_ERFC_LOGARITHM_SINGLE = (0.0003516009310260415, 1.1270482540130615, 0.6382126808166504, 0.10304807871580124,
                          -0.02181016094982624, 0.0029407443944364786, -0.000185682118171826)  # fmt: skip


def error_function(x: Term) -> Term:
    """erf x: an odd polynomial up to 1, beyond it 1 - e^(-P(|x|))."""
    magnitude = x.abs()
    near = x.multiply_add(polynomial(x * x, _ERF_SINGLE), x)
    far = 1.0 - exponential(-polynomial(magnitude.at_most(4.0), _ERFC_LOGARITHM_SINGLE))
    return where(magnitude < 1.0, near, far.with_sign(x))
