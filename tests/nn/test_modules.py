"""Modules: what they hold, by which names, and that it travels."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tgc
from tgc import nn
from tgc.dtypes import f32
from tgc.errors import UserError
from tgc.frontend.initial import Initial
from tgc.ir.types import TensorType


class Block(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(2, 3)
        self.rest = [nn.Linear(3, 3, bias=False), {"norm": nn.BatchNorm1d(3)}]
        self.scale = nn.Parameter([1.0])
        self.shared = self.first
        self.width = 3

    def forward(self, x: tgc.Tensor) -> tgc.Tensor:
        return self.rest[0](self.first(x)) * self.scale  # type: ignore[operator, no-any-return]


NAMES = [
    "first.bias",
    "first.weight",
    "rest.0.weight",
    *(f"rest.1.norm.{n}" for n in ("bias", "num_batches_tracked", "running_mean", "running_var", "weight")),
    "scale",
]


def test_state_is_found_once_in_attributes_lists_and_dictionaries() -> None:
    block = Block()
    assert sorted(block.state_dict()) == NAMES
    assert len(block.parameters()) == 6
    assert len(block.buffers()) == 3
    assert [type(m).__name__ for m in block.modules()][:2] == ["Block", "Linear"]


def test_containers_name_their_modules_by_number() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.ModuleList([nn.Linear(1, 1)]))
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.0.bias", "2.0.weight"]
    assert isinstance(model[1], nn.ReLU)
    assert len(model) == 3
    named = nn.Sequential({"a": nn.Linear(2, 3), "b": nn.ReLU()})
    assert sorted(named.state_dict()) == ["a.bias", "a.weight"]
    assert named(tgc.tensor([[1.0, 2.0]])).shape == (1, 3)


def test_state_travels_through_safetensors(tmp_path: Path) -> None:
    source, target = Block(), Block()
    source.save(tmp_path / "block.safetensors")
    assert sorted(load_file(tmp_path / "block.safetensors")) == NAMES
    array = target.first.weight.array
    target.load(tmp_path / "block.safetensors")
    assert target.first.weight.array is array
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name], value, strict=True)


def test_state_that_does_not_fit_changes_nothing() -> None:
    block = Block()
    before = block.state_dict()
    for wrong, message in [
        ({"scale": np.zeros(1, np.float32)}, "missing"),
        ({**before, "extra": np.zeros(1)}, "unknown: extra"),
        ({**before, "scale": np.zeros(2, np.float32)}, "scale has type"),
        ({**before, "scale": np.zeros(1, np.int64)}, "scale has type"),
    ]:
        with pytest.raises(UserError, match=message):
            block.load_state_dict(wrong)
    for name, value in block.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    block.load_state_dict({"scale": np.full(1, 5, np.float32), "extra": np.zeros(1)}, strict=False)
    assert block.scale.tolist() == [5.0]


def test_training_mode_reaches_every_module() -> None:
    block = Block()
    assert all(m.training for m in block.modules())
    block.eval()
    assert not any(m.training for m in block.modules())
    assert block.train() is block


def test_settings_tell_attributes_apart_not_values_of_state() -> None:
    block = Block()
    before = block.settings()
    block.scale.assign(block.scale * 2)
    assert block.settings() == before
    block.width = 4
    assert block.settings() != before
    block.width = 3
    assert block.settings() == before
    block.scale = nn.Parameter([1.0])
    assert block.settings() != before


def test_initial_values_follow_the_seed() -> None:
    def weights() -> list[float]:
        tgc.manual_seed(9)
        return nn.Linear(3, 3).weight.numpy().ravel().tolist()

    assert weights() == weights()
    assert nn.Linear(3, 3).weight.numpy().ravel().tolist() != weights()


def test_copies_share_nothing() -> None:
    block = Block()
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert other.shared is other.first
        block.scale.assign(block.scale + 1)
        assert other.scale.tolist() != block.scale.tolist()
        other(tgc.tensor([[1.0, 2.0]])).sum().backward()
        assert other.scale.grad is not None
    assert block.scale.grad is None


def test_operators_do_not_change_state_in_place() -> None:
    w = nn.Parameter([1.0])
    with pytest.raises(UserError, match="in place"):
        w -= 0.5


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(UserError, match=r"Empty has no forward\(\)"):
        type("Empty", (nn.Module,), {})()(1)


def test_weights_that_are_loaded_are_never_drawn() -> None:
    weight = nn.Parameter(Initial(TensorType(f32, (2,)), lambda: pytest.fail("drawn")))
    holder = nn.Module()
    holder.weight = weight
    holder.load_state_dict({"weight": np.ones(2, np.float32)})
    np.testing.assert_array_equal(weight.numpy(), np.ones(2))


def test_first_values_do_not_depend_on_who_looks_first() -> None:
    tgc.manual_seed(3)
    a, b = nn.Linear(3, 5), nn.Linear(5, 4)
    tgc.manual_seed(3)
    first = nn.Linear(3, 5).weight.numpy()
    second = nn.Linear(5, 4).weight.numpy()
    tgc.manual_seed(4)
    np.testing.assert_array_equal(b.weight.numpy(), second)
    np.testing.assert_array_equal(a.weight.numpy(), first)


def test_threads_that_look_first_together_find_one_array() -> None:
    both = threading.Barrier(2)

    def make() -> np.ndarray:
        both.wait(60)
        return np.zeros(2, np.float32)

    weight = nn.Parameter(Initial(TensorType(f32, (2,)), make))
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(lambda: weight.array) for _ in range(2))
        assert first.result() is second.result() is weight.array
