"""Compiled functions: what they key on, what state is in them, and that nothing is compiled twice."""

import math
from typing import Any

import numpy as np
import pytest

import tgc
from tgc import nn, optim
from tgc.errors import TraceError, UserError
from tgc.frontend.export import module_of
from tgc.frontend.signature import covers, parse_spec


def ones(*shape: int) -> tgc.Tensor:
    return tgc.tensor(np.ones(shape, np.float32))


def test_structures_of_arguments_and_results_are_kept() -> None:
    @tgc.jit
    def f(pair: Any, *, scale: tgc.Tensor) -> Any:
        return {"sum": pair[0] + pair[1]["b"], "rest": [scale, None, "text"]}

    result = f((ones(2), {"b": ones(2)}), scale=tgc.tensor(3.0))
    assert result["sum"].tolist() == [2.0, 2.0]
    assert float(result["rest"][0]) == 3.0
    assert result["rest"][1:] == [None, "text"]


def test_a_second_size_becomes_a_name_once() -> None:
    f = tgc.jit(lambda x: x.sum(0) / x.shape[1])
    for n in (4, 5, 6, 7):
        assert f(ones(n, 2)).tolist() == [n / 2, n / 2]
    ((signature, cause),) = f.specialisations
    assert signature == "(f32[d0, 2])"
    assert cause == "a second size (argument 0, dimension 0: 4, then 5)"


def test_sizes_that_change_alike_share_a_name_until_they_do_not() -> None:
    f = tgc.jit(lambda x, y: x.sum() + y.sum())
    for n, m in [(3, 3), (4, 4)]:
        assert float(f(ones(n), ones(m))) == n + m
    assert f.specialisations[0][0] == "(f32[d0], f32[d0])"
    for n, m in [(5, 6), (6, 5), (8, 8)]:
        assert float(f(ones(n), ones(m))) == n + m
    assert [signature for signature, _ in f.specialisations] == ["(f32[d0], f32[d1])"]


def test_a_size_of_one_broadcasts_and_is_compiled_by_itself() -> None:
    f = tgc.jit(lambda x, y: x + y)
    shapes = [((3,), (3,)), ((4,), (4,)), ((5,), (1,)), ((1,), (6,)), ((5,), (5,))]
    for a, b in shapes:
        assert f(ones(*a), ones(*b)).shape == np.broadcast_shapes(a, b)
    assert len(f.specialisations) == 3


def test_python_code_that_needs_a_size_compiles_each_size() -> None:
    f = tgc.jit(lambda x: sum(x[i] * i for i in range(x.shape[0])))
    assert [float(f(ones(n))) for n in (3, 4, 5)] == [3.0, 6.0, 10.0]
    assert len(f.specialisations) == 3
    assert "cannot be a symbol" in f.specialisations[0][1]


def test_other_arguments_are_compiled_in_by_type_and_value() -> None:
    f = tgc.jit(lambda x, n: x * n)
    assert f(ones(1), 2).tolist() == [2.0]
    assert f(ones(1), 2.0).tolist() == [2.0]
    assert f(ones(1), True).tolist() == [1.0]
    assert math.copysign(1, float(f(ones(1), -0.0)[0])) == -1.0
    assert math.copysign(1, float(f(ones(1), 0.0)[0])) == 1.0
    assert len(f.specialisations) == 5
    with pytest.raises(TraceError, match="hashable"):
        f(ones(1), {1})


def test_settings_of_modules_are_keys_and_come_back() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten())
    f = tgc.jit(model)
    x = ones(4, 8)
    assert 0.0 in np.unique(f(x).numpy())
    model.eval()
    assert f(x).tolist() == x.tolist()
    model.train()
    assert 0.0 in np.unique(f(x).numpy())
    assert len(f.specialisations) == 2
    assert f.specialisations[0][1] == "Sequential: training changed"


def test_modes_that_a_function_sets_hold_until_it_ends() -> None:
    model = nn.Dropout(0.5)

    @tgc.jit
    def predict(x: tgc.Tensor) -> tgc.Tensor:
        model.eval()
        return model(x)

    @tgc.jit
    def train(x: tgc.Tensor) -> tgc.Tensor:
        model.train()
        return model(x)

    x = ones(64)
    for _ in range(3):
        assert predict(x).tolist() == x.tolist()
        assert 0.0 in train(x).tolist()
    assert model.training
    assert len(predict.specialisations) == len(train.specialisations) == 1


def test_state_is_shared_between_compiled_and_lazy_code() -> None:
    counter = tgc.Variable(np.zeros((), np.float32))

    @tgc.jit
    def tick(x: tgc.Tensor) -> tgc.Tensor:
        counter.assign(counter + x)
        return counter * 10

    later = counter * 1
    array = counter.array
    assert float(tick(tgc.tensor(2.0))) == 20.0
    assert float(tick(tgc.tensor(3.0))) == 50.0
    assert float(counter) == 5.0
    assert counter.array is array
    # what was recorded before sees the value of then
    assert float(later) == 0.0
    counter.assign(tgc.tensor(1.0))
    assert float(tick(tgc.tensor(1.0))) == 20.0
    assert len(tick.specialisations) == 1


def test_a_value_recorded_before_a_compiled_write_cannot_be_differentiated_wrongly() -> None:
    w = nn.Parameter([2.0])

    @tgc.jit
    def double() -> None:
        w.assign(w * 2)

    loss = (w * w).sum()
    loss.numpy()
    assert double() is None
    with pytest.raises(UserError, match="changed between"):
        loss.backward()


def test_a_whole_training_step_is_the_lazy_one() -> None:
    def train(*, compiled: bool) -> tuple[list[float], dict[str, Any]]:
        tgc.manual_seed(5)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3))
        opt = optim.AdamW(model.named_parameters(), lr=0.02)
        rng = np.random.default_rng(1)
        x, y = tgc.tensor(rng.normal(size=(16, 4)).astype(np.float32)), tgc.tensor(rng.integers(0, 3, 16))

        def step(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            return loss

        run = tgc.jit(step) if compiled else step
        losses = [float(run(x, y)) for _ in range(4)]
        opt.lr = 0.001
        losses.append(float(run(x, y)))
        if compiled:
            assert len(run.specialisations) == 1
        return losses, model.state_dict() | opt.state_dict()

    (lazy, a), (compiled, b) = train(compiled=False), train(compiled=True)
    assert lazy == compiled
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_gradients_do_not_cross_the_border_of_a_compiled_function() -> None:
    w = nn.Parameter([1.0])

    def backward() -> None:
        (w * 3).sum().backward()

    backward()
    with pytest.raises(TraceError, match="zero_grad"):
        tgc.jit(backward)()
    w.grad = None
    tgc.jit(backward)()
    with pytest.raises(TraceError, match="zero_grad"):
        backward()


def test_neither_arguments_nor_results_alias_state() -> None:
    w = tgc.Variable(np.ones(300, np.float32))

    @tgc.jit
    def step(x: tgc.Tensor) -> tuple[tgc.Tensor, tgc.Tensor]:
        w.assign(w.flip() * 2)
        w.assign(w + x)
        return w, x

    before = w.emit(lambda builder, x: x)
    after, given = step(w)
    assert set(after.tolist()) == {3.0}
    assert set(given.tolist()) == set(before.tolist()) == {1.0}
    w.assign(w * 0)
    assert set(after.tolist()) == {3.0}


def test_compiled_functions_call_each_other() -> None:
    inner = tgc.jit(lambda x: x * 2)
    outer = tgc.jit(lambda x: inner(x) + inner(x + 1))
    assert outer(ones(1)).tolist() == [6.0]
    assert not inner.specialisations


def test_specifications_say_beforehand_what_varies() -> None:
    f = tgc.jit(lambda x: x.sum(-1), "f32[n, 3]")
    assert f(ones(1, 3)).shape == (1,)
    assert f(ones(5, 3)).shape == (5,)
    assert f.specialisations == (("(f32[n, 3])", "specification"),)
    with pytest.raises(UserError, match=r"was called with \(f32\[5, 4\]\)"):
        f(ones(5, 4))


@pytest.mark.parametrize(
    ("pattern", "given", "fits"),
    [
        ("f32[n, n]", "f32[4, 4]", True),
        ("f32[n, n]", "f32[4, 5]", False),
        ("f32[n]", "f64[4]", False),
        ("f32[n]", "f32[1]", False),
        ("f32[3]", "f32[4]", False),
        ("f32[]", "f32[]", True),
    ],
)
def test_a_pattern_covers_the_types_it_was_compiled_for(pattern: str, given: str, fits: bool) -> None:
    assert covers([parse_spec(pattern)], [parse_spec(given)], ones=False) is fits


def test_numpy_arguments_are_tensors_and_results_are_their_own() -> None:
    f = tgc.jit(lambda x: (x, x + 1))
    array = np.zeros(2, np.float32)
    same, more = f(array)
    array[0] = 9
    assert same.tolist() == [0.0, 0.0]
    assert more.tolist() == [1.0, 1.0]


def test_captured_tensors_are_constants() -> None:
    table = tgc.tensor([1.0, 2.0, 3.0])
    f = tgc.jit(lambda i: table[i])
    assert float(f(tgc.tensor(2))) == 3.0
    assert float(f(tgc.tensor(-3))) == 1.0


def test_a_call_asks_modules_for_their_settings_only_after_a_change() -> None:
    calls = 0

    class Counting(nn.Sequential):
        def settings(self) -> object:
            nonlocal calls
            calls += 1
            return super().settings()

    model = Counting(*(nn.Linear(2, 2) for _ in range(20)))
    f = tgc.jit(model)
    x = ones(1, 2)
    f(x)
    f(x)
    before = calls
    for _ in range(10):
        f(x)
    assert calls == before
    nn.Linear(2, 2)
    f(x)
    f(x)
    assert calls == before + 1


def test_a_replaced_layer_is_noticed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    f = tgc.jit(model)
    assert f(ones(1, 2)).shape == (1, 3)
    setattr(model, "1", nn.Linear(2, 5))
    assert f(ones(1, 2)).shape == (1, 5)
    assert f.specialisations[0][1] == "Sequential: 1 changed"
    model[0].weight = nn.Parameter(np.zeros((2, 2), np.float32))
    model[0].bias = None
    assert f(ones(1, 2)).tolist() == model(ones(1, 2)).tolist()


def test_what_is_read_below_a_called_module_is_noticed_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(3, 2)

        def forward(self, x: tgc.Tensor) -> tgc.Tensor:
            return x @ self.table.weight.T

    model = Tied()
    f = tgc.jit(model)
    f(ones(1, 2))
    model.table.weight = nn.Parameter(np.zeros((4, 2), np.float32))
    assert f(ones(1, 2)).tolist() == [[0.0] * 4]


def test_methods_can_be_compiled() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @tgc.jit
        def forward(self, x: tgc.Tensor) -> tgc.Tensor:
            return x * self.factor

    two, three = Scaled(2.0), Scaled(3.0)
    assert two(ones(1)).tolist() == [2.0]
    assert three(ones(1)).tolist() == [3.0]
    two.factor = 5.0
    assert two(ones(1)).tolist() == [5.0]


def test_exported_state_has_the_names_of_what_holds_it() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @tgc.export("f32[n, 2]")
    def step(x: tgc.Tensor) -> None:
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()

    names = ["0.bias", "0.bias.momentum", "0.weight", "0.weight.momentum", "lr", "random.counter", "random.key"]
    assert sorted(module_of([step], "library").state) == names
