"""``tgc.compile`` and ``tgc.export`` from Python: functions over common state become one library."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import tgc
from passes.base import Pass
from tgc import nn, optim
from tgc.artifacts import EMISSIONS
from tgc.compiler import Options
from tgc.errors import UserError
from tgc.frontend.export import module_of
from tgc.location import Site

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_pass.py"


def network() -> tuple[nn.Module, list[object]]:
    """A model with the functions that train and use it, where one goes through a helper."""
    tgc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    opt = optim.Adam(model.parameters(), lr=1e-2)

    def forward(x: tgc.Tensor) -> tgc.Tensor:
        return model(x)

    @tgc.export("f32[batch, 4]")
    def predict(x: tgc.Tensor) -> tgc.Tensor:
        """Probabilities."""
        return forward(x).softmax(-1)

    @tgc.export("f32[batch, 4]", "i64[batch]")
    def train_step(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        opt.step()
        return loss

    return model, [predict, train_step]


def test_a_library_trains_like_the_process(tmp_path: Path, rng: np.random.Generator) -> None:
    model, functions = network()
    predict, train_step = functions
    library = tgc.compile(functions, tmp_path, name="net", emit=["object"])
    x, y = rng.standard_normal((6, 4)).astype(np.float32), rng.integers(0, 3, 6)
    for _ in range(3):
        assert library.train_step(x, y).tobytes() == train_step(tgc.tensor(x), tgc.tensor(y)).numpy().tobytes()
        assert library.predict(x).tobytes() == predict(tgc.tensor(x)).numpy().tobytes()
    state = library.state()
    for name, value in model.state_dict().items():
        assert state[name].tobytes() == value.tobytes()
    assert library.predict.__doc__ == "Probabilities."


def test_state_is_named_after_the_modules_that_hold_it() -> None:
    _, functions = network()
    names = list(module_of(functions, "net").state)
    assert {"0.weight", "0.bias", "2.weight", "2.bias"} < set(names)
    assert all(not name.startswith("state") for name in names)


def test_objects_of_the_same_names_are_told_apart() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)

    @tgc.export("f32[2]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return second(first(x))

    assert list(module_of([f], "net").state) == ["weight", "bias", "second.weight", "second.bias"]


def test_weights_are_those_of_the_moment(tmp_path: Path) -> None:
    scale = tgc.Variable(np.array([2.0], np.float32))

    @tgc.export("f32[1]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return x * scale

    x = np.ones(1, np.float32)
    first = tgc.compile(f, tmp_path / "first", emit=["object"])
    scale.assign(scale + 1)
    second = tgc.compile(f, tmp_path / "second", emit=["object"])
    assert (float(first.f(x)[0]), float(second.f(x)[0])) == (2, 3)


def test_constants_that_functions_share_are_kept_once() -> None:
    table = tgc.tensor(np.arange(1000, dtype=np.float32))

    @tgc.export("f32[1000]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return x + table

    @tgc.export("f32[1000]")
    def g(x: tgc.Tensor) -> tgc.Tensor:
        return x * table

    assert len(module_of([f, g], "net").constants) == 1


def test_a_pass_of_ones_own_goes_into_the_pipeline(tmp_path: Path) -> None:
    """The example's pass, from Python; the command line's tests have it from there."""
    small_powers: type[Pass] = runpy.run_path(str(EXAMPLE))["SmallPowers"]

    @tgc.export("f32[n]")
    def cube(x: tgc.Tensor) -> tgc.Tensor:
        return x**3.0

    options = Options(passes=(small_powers(),))
    library = tgc.compile(cube, tmp_path, name="powers", options=options, emit=["graph", "object"])
    assert "pow(" in (tmp_path / "powers.tgc").read_text()
    assert "pow(" not in (tmp_path / "powers.optimised.tgc").read_text()
    assert library.cube(np.array([2, -3], np.float32)).tolist() == [8, -27]


def test_what_is_written_can_be_chosen(tmp_path: Path) -> None:
    @tgc.export("f32[n]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return x + x

    assert tgc.compile(f, tmp_path / "texts", name="net", emit=["header", "kernel"]) is None
    assert sorted(path.name for path in (tmp_path / "texts").iterdir()) == ["net.h", "net.kernel"]
    with pytest.raises(UserError, match=f"choose from {', '.join(EMISSIONS)}"):
        tgc.compile(f, tmp_path, name="net", emit=["wheel"])


def test_a_function_without_types_is_refused(tmp_path: Path) -> None:
    double = tgc.jit(lambda x: x + x)
    with pytest.raises(UserError, match="has no specification of its arguments"):
        tgc.compile(double, tmp_path)


def test_a_specification_has_a_type_for_each_argument() -> None:
    def f(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        return x + y

    for mark in (tgc.export("f32[n]"), lambda function: module_of([tgc.jit(function, "f32[n]")], "net")):
        with pytest.raises(UserError, match=r"f does not take the arguments .* \(f32\[n\]\): missing"):
            mark(f)


def test_a_dimension_must_be_told_by_some_argument(tmp_path: Path) -> None:
    @tgc.export("f32[2*n + 1]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return x + x

    with pytest.raises(UserError, match="f: the sizes of its arguments do not tell what n is"):
        tgc.compile(f, tmp_path)


def test_names_that_are_no_c_are_refused(tmp_path: Path) -> None:
    @tgc.export("f32[n]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return x + x

    for name in ("two words", "1st", "int"):
        with pytest.raises(UserError, match="cannot be the name of a C function"):
            tgc.compile(f, tmp_path, name=name)
    with pytest.raises(UserError, match="several functions are called f"):
        tgc.compile([f, f], tmp_path, name="net")


def test_an_operation_of_several_functions_knows_all_their_lines() -> None:
    @tgc.export("f32[n]")
    def first(x: tgc.Tensor) -> tgc.Tensor:
        return x.exp()

    @tgc.export("f32[n]")
    def second(x: tgc.Tensor) -> tgc.Tensor:
        return x.exp() + 1

    module = module_of([first, second], "net")
    (result,) = module.functions[0].results
    lines = [place.resolve().line if isinstance(place, Site) else place.line for place in module.locations[result.node]]
    start = first.function.__code__.co_firstlineno
    assert lines == [start + 2, start + 6]
