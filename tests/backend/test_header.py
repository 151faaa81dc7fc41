"""Headers: what a C programmer reads, whatever the names and texts of the model."""

import numpy as np
import pytest

from tgc import dtypes
from tgc.backend.c_library import Library, LibraryFunction, StateVariable, c_names
from tgc.backend.header import header_text
from tgc.ir.dims import symbol
from tgc.kernels.program import Constraint, Program, ProgramValue
from tgc.target import AVX2, WASM, Target

N = symbol("n")


def library(target: Target = AVX2) -> Library:
    inputs = (
        ProgramValue("int", dtypes.bf16, (N, 2)),
        ProgramValue("0.w/x", dtypes.bool_, ()),
        ProgramValue("n", dtypes.i64, (N,)),
    )
    outputs = (ProgramValue("int", dtypes.f16, (2 * N + 1,)), ProgramValue("workspace", dtypes.u8, (3,)))
    program = Program("f", inputs, outputs, symbols=("n",), constraints=(Constraint(N, "<=", 4, "n */ is small"),))
    state = (StateVariable("layer.weight", np.zeros((3, 2), np.float32)), StateVariable("step", np.zeros((), np.int64)))
    return Library("m", (LibraryFunction("f", program, "e", doc="Evil */ int x; /*"),), state, (), target)


def test_parameters_are_identifiers_that_do_not_clash() -> None:
    names = c_names(library().functions[0].program)
    assert names == {
        "s.n": "n",
        "i.int": "int_",
        "i.0.w/x": "_0_w_x",
        "i.n": "n_",
        "o.int": "int__",
        "o.workspace": "workspace_",
    }
    first = "int32_t m_f(const uint16_t *int_, const uint8_t *_0_w_x, const int64_t *n_, uint16_t *int__,\n"
    assert first + "        uint8_t *workspace_, int64_t n, void *workspace);\n" in header_text(library())


def test_shapes_and_meanings_of_elements_are_stated() -> None:
    text = header_text(library())
    assert " *     int_: input, bf16[n, 2] as their 16 bits\n" in text
    assert " *     _0_w_x: input, bool[], each 0 or 1\n" in text
    assert " *     int__: output, f16[2*n+1] as their 16 bits\n" in text


def test_the_state_block_is_laid_out_with_aligned_arrays() -> None:
    text = header_text(library())
    assert " *     layer.weight: float32[3, 2] at 64\n *     step: int64[] at 128\n *" in text.replace(
        "128 */", "128\n *"
    )
    assert library().state_size == 192


def test_texts_cannot_end_a_comment() -> None:
    text = header_text(library())
    assert "*/ int x" not in text
    assert "M_F_64 = 64, /* f: n * / is small */" in text
    assert text.count("/*") == text.count("*/") + 1  # the one that the doc opens


@pytest.mark.parametrize(("target", "there"), [(AVX2, True), (WASM, False)])
def test_only_targets_with_threads_have_a_pool(target: Target, there: bool) -> None:
    assert ("m_pool_create" in header_text(library(target))) is there
