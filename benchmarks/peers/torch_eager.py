"""PyTorch, eager, with its own defaults."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.processes import python_seconds
from benchmarks.workloads import Array, Builder, Contestant, Workload


def tensors(workload: Workload) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in workload.arrays.items()}


def outputs(result: torch.Tensor) -> list[Array]:
    return [result.detach().numpy()]


class Net(nn.Module):
    """The two-layer convolutional network for 28 x 28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc(x.flatten(1))


def network(weights: Mapping[str, Array]) -> Net:
    """The network with these weights."""
    model = Net()
    model.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in model.state_dict()})
    return model


def gemm(workload: Workload) -> Contestant:
    t = tensors(workload)
    return Contestant(lambda: t["a"] @ t["b"], outputs)


def conv(workload: Workload) -> Contestant:
    t = tensors(workload)
    return Contestant(lambda: F.conv2d(t["x"], t["w"], padding=1), outputs)


def softmax(workload: Workload) -> Contestant:
    t = tensors(workload)
    return Contestant(lambda: t["x"].softmax(-1), outputs)


def cnn_train_step(workload: Workload) -> Contestant:
    t = tensors(workload)
    model = network(workload.arrays)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(t["x"]), t["y"])
        loss.backward()
        optimizer.step()
        return loss

    return Contestant(step, outputs)


def mlp_call(workload: Workload) -> Contestant:
    t = tensors(workload)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for index, layer in enumerate(layers):
        layer.load_state_dict({name: t[f"{index}.{name}"] for name in ("weight", "bias")})
    x = t["x"]

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    return Contestant(call, outputs)


def import_time(workload: Workload) -> Contestant:
    return Contestant(lambda: python_seconds("from torch import nn, optim, jit"), measures_itself=True)


BUILDERS: Mapping[str, Builder] = {
    "gemm-1024": gemm,
    "conv3x3-64-56": conv,
    "softmax-512x1024": softmax,
    "cnn-train-step": cnn_train_step,
    "mlp-call-1": mlp_call,
    "import": import_time,
}
