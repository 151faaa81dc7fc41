"""What runs once: stages that leave loops, and the setup of a function, which keeps packed weights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc import nn, optim
from tgc.compiler import Options, compile_function, lower_module
from tgc.frontend.export import artifact_of
from tgc.frontend.jit import CompiledCallable
from tgc.ir.parser import parse_module
from tgc.kernels.program import Launch, Program, Repeat, Step, While, bodies, launches
from tgc.ops import OPS
from tgc.reference import run
from tgc.target import baseline

SCAN = """module @m {
  func @f(%h: f32[512, 512], %w: f32[512, 512]) -> (f32[512, 512]) {
    %0 = scan(%h, %w) {length = 4, carries = 1, sequences = 0} (
      ^(%i: i64[], %a: f32[512, 512], %b: f32[512, 512]) {
        %0 = contract(%a, %b) {spec = "ij,kj->ik"}
        return %0
    })
    return %0
  }
}"""
NESTED = """module @m {
  func @f(%h: f32[512, 512], %w: f32[512, 512]) -> (f32[512, 512]) {
    %0 = scan(%h, %w) {length = 2, carries = 1, sequences = 0} (
      ^(%i: i64[], %a: f32[512, 512], %b: f32[512, 512]) {
        %0 = scan(%a, %b) {length = 2, carries = 1, sequences = 0} (
          ^(%j: i64[], %c: f32[512, 512], %d: f32[512, 512]) {
            %0 = contract(%c, %d) {spec = "ij,kj->ik"}
            return %0
        })
        return %0
    })
    return %0
  }
}"""
WHILE = """module @m {
  func @f(%h: f32[512, 512], %w: f32[512, 512]) -> (f32[512, 512]) {
    %0 = constant() {value = 0, dtype = i64}
    %1:2 = while_loop(%h, %0, %w) {carries = 2} (
      ^(%a: f32[512, 512], %n: i64[], %b: f32[512, 512]) {
        %0 = constant() {value = 3, dtype = i64}
        %1 = lt(%n, %0)
        return %1
      }, ^(%a: f32[512, 512], %n: i64[], %b: f32[512, 512]) {
        %0 = contract(%a, %b) {spec = "ij,kj->ik"}
        %1 = constant() {value = 1, dtype = i64}
        %2 = add(%n, %1)
        return %0, %2
    })
    return %1#0
  }
}"""
CHANGING = """module @m {
  func @f(%h: f32[512, 512], %w: f32[512, 512]) -> (f32[512, 512]) {
    %0:2 = scan(%h, %w) {length = 4, carries = 2, sequences = 0} (
      ^(%i: i64[], %a: f32[512, 512], %b: f32[512, 512]) {
        %0 = contract(%a, %b) {spec = "ij,kj->ik"}
        %1 = neg(%b)
        return %0, %1
    })
    return %0#0
  }
}"""


def repeated(steps: tuple[Step, ...], loops: int = 0) -> Iterator[str]:
    """The kernels inside of loops."""
    for step in steps:
        if isinstance(step, Launch) and loops:
            yield step.kernel
        for body in bodies(step):
            yield from repeated(body, loops + isinstance(step, (Repeat, While)))


def packs(program: Program) -> list[str]:
    """The kernels that pack, in every call."""
    return [launch.kernel for launch in launches(program) if launch.kernel.endswith("_pack")]


def signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers so small that no sum of products of them is rounded."""
    return rng.integers(-1, 2, shape).astype(np.float32)


@pytest.mark.parametrize("text", [SCAN, NESTED, WHILE])
def test_what_a_loop_captures_is_packed_before_it(text: str, rng: np.random.Generator) -> None:
    module = parse_module(text, OPS)
    program = lower_module(module).programs["f"]
    assert len(packs(program)) == 1
    assert not [kernel for kernel in repeated(program.steps) if kernel.endswith("_pack")]
    inputs = [signs(rng, 512, 512), signs(rng, 512, 512)]
    (found,) = compile_function(module.functions[0], options=Options(cached=False, debug=True)).run(inputs)
    np.testing.assert_array_equal(found, run(module.functions[0], inputs)[0][0])


def test_what_a_loop_carries_is_packed_in_it(rng: np.random.Generator) -> None:
    module = parse_module(CHANGING, OPS)
    inputs = [signs(rng, 512, 512), signs(rng, 512, 512)]
    (found,) = compile_function(module.functions[0], options=Options(cached=False, debug=True)).run(inputs)
    np.testing.assert_array_equal(found, run(module.functions[0], inputs)[0][0])


def convolution() -> tuple[nn.Conv2d, tgc.Tensor]:
    tgc.manual_seed(0)
    return nn.Conv2d(8, 32, 3, padding=1), tgc.random.normal((4, 8, 12, 12))


def trained(model: nn.Module) -> Callable[[tgc.Tensor], tgc.Tensor]:
    """A training step as PyTorch has it: not compiled."""
    opt = optim.SGD(model.parameters(), lr=0.1)

    def step(x: tgc.Tensor) -> tgc.Tensor:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return step


def test_weights_that_a_function_only_reads_are_packed_when_they_change() -> None:
    model, x = convolution()
    predict = tgc.jit(model)
    step = trained(model)
    weights = model.state_dict()

    def fresh() -> bytes:
        return tgc.jit(model)(x).numpy().tobytes()

    seen = [predict(x).numpy().tobytes()]
    for change in (
        lambda: model.weight.assign(model.weight * 2),
        lambda: step(x),
        lambda: tgc.jit(step)(x),
        lambda: model.load_state_dict(weights),
    ):
        change()
        seen.append(predict(x).numpy().tobytes())
        assert seen[-1] == fresh()
    assert len(set(seen)) == 4, "the last change goes back to the first weights"
    assert seen[0] == seen[-1]


def test_frozen_weights_are_kept_packed_beside_those_that_are_trained() -> None:
    frozen, x = convolution()
    head = nn.Conv2d(32, 16, 3)
    opt = optim.SGD(head.parameters(), lr=0.1)

    @tgc.jit
    def step(x: tgc.Tensor) -> tgc.Tensor:
        opt.zero_grad()
        loss = head(frozen(x).detach()).square().mean()
        loss.backward()
        opt.step()
        return loss

    expected = head(frozen(x)).square().mean().numpy()
    assert step(x).numpy() == pytest.approx(expected, rel=1e-5)
    frozen.weight.assign(frozen.weight * 0)
    frozen.bias.assign(frozen.bias * 0)
    expected = head(frozen(x)).square().mean().numpy()
    assert step(x).numpy() == pytest.approx(expected, rel=1e-5)


def exported() -> tuple[nn.Conv2d, tgc.Tensor, CompiledCallable]:
    model, x = convolution()

    @tgc.export("f32[4, 8, 12, 12]")
    def predict(x: tgc.Tensor) -> tgc.Tensor:
        return model(x)

    return model, x, predict


def test_a_library_holds_constants_as_its_kernels_want_them(tmp_path: Path) -> None:
    model, x, predict = exported()
    artifact = artifact_of([predict], "net")
    assert not packs(artifact.compiled.programs["predict"])
    (packed,) = (c for c in artifact.library.constants if c.name != "bias")
    assert packed.array.size == model.weight.size
    assert "_pack" not in artifact.llvm.replace(packed.name, "")
    library = tgc.compile(predict, tmp_path)
    assert library.predict(x.numpy()).tobytes() == predict(x).numpy().tobytes()


def test_constants_for_another_machine_are_those_of_its_own_kernels() -> None:
    target = baseline("aarch64-unknown-linux-gnu")
    model, _, predict = exported()
    artifact = artifact_of([predict], "net", options=Options(target=target))
    (packed,) = (c for c in artifact.library.constants if c.name != "bias")
    np.testing.assert_array_equal(np.sort(packed.array, axis=None), np.sort(model.weight.numpy(), axis=None))


def test_state_that_another_function_assigns_is_not_kept(tmp_path: Path) -> None:
    model, x, predict = exported()

    @tgc.export("f32[4, 8, 12, 12]")
    def train(x: tgc.Tensor) -> tgc.Tensor:
        return trained(model)(x)

    library = tgc.compile([predict, train], tmp_path)
    first = library.predict(x.numpy())
    library.train(x.numpy())
    train(x)
    assert library.predict(x.numpy()).tobytes() == predict(x).numpy().tobytes() != first.tobytes()
