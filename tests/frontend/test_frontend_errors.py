"""What the front end says about mistakes: the message, the user's line with a caret, and a hint."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc import nn
from tgc.errors import TgcError

PROGRAMS: dict[str, tuple[str, str]] = {
    "truth of a traced value": (
        """
        @tgc.jit
        def f(x):
            if x.sum() > 0:
                return x
            return -x
        f(x)
        """,
        """
        the truth of a traced tensor (bool[]) is not known while its function is being recorded
          --> FILE:3:8
        3 |     if x.sum() > 0:
          |        ^^^^^^^^^^^
        help: use tgc.where(condition, a, b), tgc.cond or tgc.while_loop instead of Python's if and while
        """,
    ),
    "value of a traced tensor": (
        """
        tgc.jit(lambda x: float(x.sum()))(x)
        """,
        """
        the value of a traced tensor (f32[]) was asked for while its function is being recorded
          --> FILE:1:19
        1 | tgc.jit(lambda x: float(x.sum()))(x)
          |                   ^^^^^^^^^^^^^^
        help: use tgc.where, cond or while_loop for decisions on values; return the tensor to look at it
        """,
    ),
    "leaked tensor": (
        """
        kept = []
        tgc.jit(lambda x: kept.append(x * 2))(x)
        kept[0].numpy()
        """,
        """
        this tensor was computed inside of a compiled function and ended with it
          --> FILE:3:1
        3 | kept[0].numpy()
          | ^^^^^^^^^^^^^^^
        help: return the tensor (or gradient) from the function, or assign it to a parameter or buffer
        """,
    ),
    "gradient after jit": (
        """
        tgc.jit(lambda: (w * w).sum().backward())()
        w.grad.tolist()
        """,
        """
        this tensor was computed inside of a compiled function and ended with it
          --> FILE:2:1
        2 | w.grad.tolist()
          | ^^^^^^^^^^^^^^^
        help: return the tensor (or gradient) from the function, or assign it to a parameter or buffer
        """,
    ),
    "assigning an element": (
        """
        x[0] = 1.0
        """,
        """
        a tensor is a value: its elements cannot be assigned
          --> FILE:1:1
        1 | x[0] = 1.0
          | ^^^^
        help: x = x.at[index].set(value) gives another tensor (also .add, .multiply, .max and .min)
        """,
    ),
    "shapes of a product": (
        """
        y = x @ tgc.tensor([1.0, 2.0, 3.0])
        """,
        """
        the matrix product of f32[2, 2] and f32[3]
          --> FILE:1:5
        1 | y = x @ tgc.tensor([1.0, 2.0, 3.0])
          |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: the last axis of the first must be as long as the second to last of the second
        """,
    ),
    "shapes of a sum": (
        """
        y = x + tgc.tensor([1.0, 2.0, 3.0])
        """,
        """
        add: shapes [2, 2] and [3] do not broadcast: 2 against 3 in dimension -1
          --> FILE:1:5
        1 | y = x + tgc.tensor([1.0, 2.0, 3.0])
          |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: sizes must be equal, or one of them 1
        """,
    ),
    "numpy": (
        """
        y = np.ones(2) + x
        """,
        """
        a NumPy array beside a tensor
          --> FILE:1:5
        1 | y = np.ones(2) + x
          |     ^^^^^^^^^^^^^^
        help: wrap it first: tgc.tensor(array)
        """,
    ),
    "backward of a vector": (
        """
        (w * 2).backward()
        """,
        """
        backward() needs a scalar, not f32[2]
          --> FILE:1:1
        1 | (w * 2).backward()
          | ^^^^^^^^^^^^^^^^^^
        help: take .sum() or .mean() first, or pass gradient=
        """,
    ),
    "a layer's input": (
        """
        nn.Linear(3, 4)(x)
        """,
        """
        linear of f32[2, 2] with a weight of f32[4, 3]
          --> FILE:1:1
        1 | nn.Linear(3, 4)(x)
          | ^^^^^^^^^^^^^^^^^^
        help: the last axis of the input must have size 3
        """,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_message_shows_the_users_line(name: str, tmp_path: Path) -> None:
    program, expected = (textwrap.dedent(text).strip("\n") for text in PROGRAMS[name])
    file = tmp_path / "program.py"
    file.write_text(program + "\n")
    given = {"tgc": tgc, "nn": nn, "np": np, "x": tgc.tensor([[1.0, 2.0], [3.0, 4.0]]), "w": nn.Parameter([1.0, 2.0])}
    with pytest.raises(TgcError) as caught:
        exec(compile(program, str(file), "exec"), given)
    assert str(caught.value).replace(str(file), "FILE") == expected
