"""Numbers that are not finite: the op that made the first of them is named, with its line, and state is kept."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc import nn, optim

HERE = Path(__file__).name


def failure(call: Callable[[], object], *, infinities: bool = True) -> str:
    with tgc.debug_nans(infinities=infinities), pytest.raises(FloatingPointError) as caught:
        call()
    assert isinstance(caught.value, tgc.NonFiniteError)
    return str(caught.value)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_op_that_is_not_finite_is_named_with_its_line(compiled: bool) -> None:
    def f(x: tgc.Tensor) -> tgc.Tensor:
        y = (x - 1).log()
        return (y - y).exp().sum()

    g = tgc.jit(f) if compiled else f
    text = failure(lambda: g(tgc.tensor([3.0, 1.0])).numpy())
    assert text.startswith("log made an infinity: element [1] is -inf, of 0.0\n")
    assert f"{HERE}:" in text
    assert "| " + "        y = (x - 1).log()" in text
    assert np.isfinite(float(g(tgc.tensor([3.0, 2.0]))))


def test_what_is_not_finite_on_the_way_to_finite_results_is_no_error() -> None:
    mask = tgc.tensor(np.array([[0, -np.inf], [0, 0]], np.float32))
    with tgc.debug_nans():
        assert np.isfinite((tgc.tensor([[1.0, 2.0], [3.0, 4.0]]) + mask).softmax(-1).numpy()).all()


def test_a_nan_of_infinite_operands_is_named_if_nothing_else_is() -> None:
    mask = tgc.tensor(np.full((1, 2), -np.inf, np.float32))
    assert failure(lambda: (tgc.tensor([[1.0, 2.0]]) + mask).softmax(-1).numpy()).startswith("softmax made a NaN")


def test_inputs_that_are_not_finite_to_begin_with_are_named() -> None:
    f = tgc.jit(lambda x: x + 1)
    assert "x holds a NaN to begin with, at [0]" in failure(lambda: f(tgc.tensor([float("nan")])))


def test_infinities_can_be_let_be() -> None:
    f = tgc.jit(lambda x: x.exp())
    with tgc.debug_nans(infinities=False):
        assert f(tgc.tensor([1e9])).numpy() == np.inf
    assert "exp made an infinity: element [0] is inf, of 1e+09" in failure(lambda: f(tgc.tensor([1e9])))


def test_state_is_what_it_was_before_the_step_that_broke_it() -> None:
    w = nn.Parameter(np.array([1.0, 0.0], np.float32))
    optimiser = optim.SGD([w], lr=0.1)

    @tgc.jit
    def step(x: tgc.Tensor) -> tgc.Tensor:
        optimiser.zero_grad()
        loss = (w * x).sqrt().sum()
        loss.backward()
        optimiser.step()
        return loss

    text = failure(lambda: step(tgc.tensor([1.0, 1.0])))
    assert "loss = (w * x).sqrt().sum()" in text
    np.testing.assert_array_equal(w.numpy(), [1.0, 0.0])
    step(tgc.tensor([1.0, 1.0]))
    assert not np.isfinite(w.numpy()).all()


def test_ops_inside_of_loops_are_named() -> None:
    def body(carry: tgc.Tensor, x: tgc.Tensor) -> tuple[tgc.Tensor, tgc.Tensor]:
        return carry / x, carry

    f = tgc.jit(lambda rows: tgc.scan(body, tgc.tensor(1.0), rows)[0])
    text = failure(lambda: f(tgc.tensor([2.0, 0.0, 1.0])))
    assert text.startswith("div made an infinity: it is inf, of 0.5 and 0.0")
    assert "return carry / x, carry" in text


def test_the_environment_guards_a_whole_process() -> None:
    program = "import tgc; tgc.tensor([0.0]).log().numpy()"
    environment = {**os.environ, "TGC_DEBUG_NANS": "1"}
    root = Path(tgc.__file__).parents[1]
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "NonFiniteError: log made an infinity" in result.stderr
