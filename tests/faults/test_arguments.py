"""Arrays of every kind as arguments: the right answer, or an error that says what was expected."""

from collections.abc import Callable

import numpy as np
import pytest

import tgc
from tgc.errors import DTypeError, ShapeError, UserError

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same values one byte past an aligned address."""
    return np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda x: x,
    "column-major": np.asfortranarray,
    "transposed": lambda x: x.T,
    "every second": lambda x: x[:, ::2],
    "backwards": lambda x: x[::-1, ::-1],
    "one element repeated": lambda x: np.broadcast_to(x[0, 3], x.shape),
    "misaligned": misaligned,
    "read-only": read_only,
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[:, :0],
    "one row": lambda x: x[:1],
    "not finite": lambda x: np.where(x == 5, np.nan, np.where(x == 6, -np.inf, x)),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_form_are_taken(form: str) -> None:
    given = FORMS[form](X).astype(np.float32, copy=False)
    before = given.copy()

    @tgc.export("f32[n, m]")
    def exported(x: tgc.Tensor) -> tgc.Tensor:
        return x * 2 + 1

    for double in (exported, tgc.jit(lambda x: x * 2 + 1), lambda x: tgc.tensor(x) * 2 + 1):
        np.testing.assert_array_equal(double(given).numpy(), before * 2 + 1)
    np.testing.assert_array_equal(given, before)


def test_arrays_may_overlap() -> None:
    both = tgc.jit(lambda x, y: (x + y, x * y))
    for x, y in ((X[0], X[0]), (X[0], X[0][::-1]), (X.ravel()[:8], X.ravel()[4:])):
        total, product = both(x, y)
        np.testing.assert_array_equal(total.numpy(), x + y)
        np.testing.assert_array_equal(product.numpy(), x * y)


def test_state_given_as_an_argument_is_read_before_it_changes() -> None:
    w = tgc.nn.Parameter(np.ones(4, np.float32))
    twice = tgc.jit(lambda x: w.assign(w * 3 + x))
    twice(w)
    assert w.tolist() == [4.0] * 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X.astype(">f4"), "byte order"),
        (X.astype(np.longdouble), "no tgc dtype"),
        (X.astype(np.complex64), "no tgc dtype"),
        (np.zeros(3, "M8[s]"), "no tgc dtype"),
        (np.zeros(3, [("a", "f4")]), "no tgc dtype"),
        (np.array(["a"]), "no tgc dtype"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), "masked"),
    ],
)
def test_arrays_of_other_kinds_are_refused(array: np.ndarray, message: str) -> None:
    for use in (tgc.jit(lambda x: x + x), tgc.tensor):
        with pytest.raises(DTypeError, match=message):
            use(array)


def test_what_a_specification_does_not_cover_is_refused_before_anything_runs() -> None:
    total = tgc.nn.Buffer(np.zeros((), np.float32))

    @tgc.export("f32[n, 4]", "f32[n]")
    def count(x: tgc.Tensor, y: tgc.Tensor) -> None:
        total.assign(total + x.sum() + y.sum())

    for x, y in ((X, X), (X[0], X[:, 0]), (X, X[0]), (X.astype(np.float64), X[:, 0]), (X[:, :3], X[:, 0])):
        with pytest.raises(UserError, match=r"was called with"):
            count(x, y)
    assert float(total) == 0.0


SMALL = np.zeros(2**22, np.int8)


def outer(x: tgc.Tensor, y: tgc.Tensor, z: tgc.Tensor) -> tgc.Tensor:
    return x[:, None, None] * y[None, :, None] * z[None, None, :]


@pytest.mark.parametrize("last", [2**20, 2**22])
@pytest.mark.parametrize("function", [outer, lambda x, y, z: tgc.sort(outer(x, y, z), axis=0).sum()])
def test_sizes_that_64_bits_cannot_count_are_refused(function: Callable[..., tgc.Tensor], last: int) -> None:
    """2**64 and 2**66 bytes: modulo 2**64 they would be nothing."""
    symbolic = tgc.export("i8[n]", "i8[m]", "i8[k]")(function)
    for compiled in (tgc.jit(function), symbolic):
        with pytest.raises(ShapeError, match="need more bytes than 63 bits can count"):
            compiled(SMALL, SMALL, SMALL[:last])
