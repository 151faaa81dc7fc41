"""A step of training compiled once for every batch: right for each size, as one that is compiled for that size alone.

In f64, where the bounds of whole models still say something. Both compiled forms are held to the interpreter's bounds;
their bits differ where a size that is known makes another order of summation the better one.
"""

import numpy as np
import pytest

import tgc
from tests.compiler.models import SUBJECTS, Array, fresh, widen
from tgc import optim
from tgc.compiler import Options, compile_function
from tgc.executable import CompiledFunction
from tgc.frontend.export import module_of
from tgc.ir.graph import Module
from tgc.nn import functional
from tgc.reference import Bounded, run_with_bounds


def step_of(name: str, batch: str) -> tuple[Module, CompiledFunction]:
    """A step of SGD with momentum, compiled for a batch of that size or name."""
    model = widen(fresh(name).model)
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train_step(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        opt.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    spec = SUBJECTS[name].spec.replace("f32", "f64").replace("batch", batch)
    module = module_of([tgc.export(spec, f"i64[{batch}]")(train_step)], "net")
    options = Options(cached=False)
    return module, compile_function(
        module.functions[0], state=module.state, constants=module.constants, options=options
    )


def initial(module: Module) -> dict[str, Array]:
    return {
        k: s.initial.data.copy()
        for k, s in module.state.items()
        if s.initial is not None and s.initial.data is not None
    }


def results(module: Module, compiled: CompiledFunction, inputs: list[Array]) -> dict[str, Array]:
    """The loss and the state after one step."""
    state = initial(module)
    (loss,) = compiled.run(inputs, [state[v.name] for v in compiled.program.state])
    return {"loss": loss, **state}


def assert_within(have: dict[str, Array], want: dict[str, Bounded]) -> None:
    for key, bounded in want.items():
        a, b = have[key], bounded.value
        with np.errstate(invalid="ignore"):
            near = (np.abs(a - b) <= bounded.error) | (np.isnan(a) & np.isnan(b))
        assert np.all(near), key


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("mlp", (0, 1, 7, 32, 257)), ("cnn", (0, 1, 7, 32)), ("lstm", (0, 1, 7, 32)), ("transformer", (0, 1, 7))],
)
def test_one_compilation_is_right_for_every_batch(name: str, sizes: tuple[int, ...]) -> None:
    module, symbolic = step_of(name, "batch")
    for size in sizes:
        x, y = SUBJECTS[name].batch(size)
        inputs = [x.astype(np.float64), y]
        state = initial(module)
        (loss,), after = run_with_bounds(module.functions[0], inputs, state=state, constants=module.constants)
        want = {"loss": loss, **after}
        if size:
            assert loss.error < 1e-6 * loss.value  # the bounds are worth something
        assert_within(results(module, symbolic, inputs), want)
        assert_within(results(*step_of(name, str(size)), inputs), want)


def test_one_compilation_is_reused_for_every_batch() -> None:
    subject = fresh("mlp")
    step = tgc.jit(subject.train_step)
    for size in (7, 32, 257, 8):
        step(*SUBJECTS["mlp"].batch(size))
    assert [signature for signature, _ in step.specialisations] == ["(f32[d0, 64], i64[d0])"]
