"""What the front end says about the mistakes of new users: what was wrong, their line with a caret, and what to do.

`mistakes.txt` holds programs and the whole message that each must give.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc import nn, optim
from tgc.errors import TgcError

TEXT = Path(__file__).with_name("mistakes.txt").read_text(encoding="utf8")
SECTIONS = re.split(r"^=== (.*)\n", TEXT, flags=re.MULTILINE)[1:]
MISTAKES = dict(zip(SECTIONS[::2], SECTIONS[1::2], strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_the_message_shows_the_users_line_and_what_to_do(name: str, tmp_path: Path) -> None:
    program, expected = MISTAKES[name].split("\n---\n")
    file = tmp_path / "program.py"
    file.write_text(program + "\n")
    given = {
        "tgc": tgc,
        "nn": nn,
        "optim": optim,
        "np": np,
        "x": tgc.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "w": nn.Parameter([1.0, 2.0]),
    }
    with pytest.raises(TgcError) as caught:
        exec(compile(program, str(file), "exec"), given)
    assert str(caught.value).replace(str(file), "FILE") == expected.strip()
    assert "help: " in expected


def test_an_attribute_that_is_not_there_can_be_asked_for() -> None:
    x = tgc.tensor([1.0])
    assert not hasattr(x, "cuda")
    assert getattr(x, "soft_max", None) is None


@pytest.mark.parametrize("scalar", [np.float32(2), np.float64(2), np.int64(2), np.array(2.0)])
def test_numpy_scalars_on_the_left_are_scalars(scalar: np.generic) -> None:
    x = tgc.tensor([1.0, 4.0])
    assert (scalar * x).tolist() == [2.0, 8.0]
    assert (scalar - x).tolist() == [1.0, -2.0]
    assert (scalar < x).tolist() == [False, True]
    assert (scalar * x).dtype is tgc.f32
