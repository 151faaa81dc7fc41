"""Whole models compile for every architecture that is described, into objects that need only memory functions."""

import pytest

import tgc
from tgc import nn, optim
from tgc.backend.describe import describe_target
from tgc.backend.objects import architecture
from tgc.compiler import Options
from tgc.frontend.export import artifact_of

MACHINES = (
    ("x86_64-linux-gnu", "x86-64", "x86_64"),
    ("x86_64-linux-gnu", "x86-64-v3", "x86_64"),
    ("aarch64-linux-gnu", "cortex-a72", "aarch64"),
    ("riscv64-linux-gnu", None, "riscv64"),
    ("wasm32-unknown-unknown", None, "wasm32"),
)


@pytest.mark.parametrize(("triple", "cpu", "machine"), MACHINES)
def test_a_training_step_compiles_for_the_target(triple: str, cpu: str | None, machine: str) -> None:
    tgc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    opt = optim.Adam(model.parameters(), lr=1e-3)

    @tgc.export("f32[batch, 1, 4, 4]", "i64[batch]")
    def train_step(x: tgc.Tensor, y: tgc.Tensor) -> tgc.Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    artifact = artifact_of([train_step], "net", options=Options(target=describe_target(triple, cpu)))
    assert architecture(artifact.object) == machine


def test_features_are_added_to_those_of_the_architecture() -> None:
    assert describe_target("riscv64-linux-gnu", None, "+zba").features.startswith("+m,+a,+f,+d,+c,+v")
    assert describe_target("riscv64-linux-gnu", None, "+zba").features.endswith(",+zba")
