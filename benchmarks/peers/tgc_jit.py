"""tgc: each workload as a user writes it, under `tgc.jit`."""

import tempfile
from collections.abc import Mapping

import tgc
from benchmarks.processes import python_seconds
from benchmarks.workloads import Array, Builder, Contestant, Workload
from tgc import nn, optim

Tensor = tgc.Tensor


def tensors(workload: Workload) -> dict[str, Tensor]:
    return {name: tgc.tensor(array) for name, array in workload.arrays.items()}


def outputs(result: Tensor) -> list[Array]:
    return [result.numpy()]


class Net(nn.Module):
    """The two-layer convolutional network for 28 x 28 images."""

    def __init__(self) -> None:
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2)
        return self.fc(x.flatten(1))


def network(weights: Mapping[str, Array]) -> Net:
    """The network with these weights."""
    model = Net()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


def gemm(workload: Workload) -> Contestant:
    t = tensors(workload)
    product = tgc.jit(lambda a, b: a @ b)
    return Contestant(lambda: product(t["a"], t["b"]), outputs)


def conv(workload: Workload) -> Contestant:
    t = tensors(workload)
    function = tgc.jit(lambda x, w: nn.functional.conv2d(x, w, padding=1))
    return Contestant(lambda: function(t["x"], t["w"]), outputs)


def softmax(workload: Workload) -> Contestant:
    t = tensors(workload)
    function = tgc.jit(lambda x: x.softmax(-1))
    return Contestant(lambda: function(t["x"]), outputs)


def cnn_train_step(workload: Workload) -> Contestant:
    t = tensors(workload)
    model = network(workload.arrays)
    opt = optim.Adam(model.parameters(), lr=1e-3)

    @tgc.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return Contestant(lambda: step(t["x"], t["y"]), outputs)


def mlp_call(workload: Workload) -> Contestant:
    t = tensors(workload)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    for index in range(3):
        layer = model[2 * index]
        layer.load_state_dict({name: workload.arrays[f"{index}.{name}"] for name in ("weight", "bias")})
    call = tgc.jit(model)
    x = t["x"]
    return Contestant(lambda: call(x), outputs)


FIRST_STEP_SETUP = """
from benchmarks.peers.tgc_jit import cnn_train_step
from benchmarks.workloads import workloads
row = workloads()["cnn-train-step"]
"""
FIRST_STEP = "contestant = cnn_train_step(row); contestant.outputs(contestant.run())"


def first_step_seconds(cache: str) -> float:
    return python_seconds(FIRST_STEP, setup=FIRST_STEP_SETUP, environment={"TGC_CACHE_DIR": cache})


def compile_cold(workload: Workload) -> Contestant:
    def run() -> float:
        with tempfile.TemporaryDirectory() as cache:
            return first_step_seconds(cache)

    return Contestant(run, measures_itself=True)


def compile_warm(workload: Workload) -> Contestant:
    cache = tempfile.TemporaryDirectory()

    def run() -> float:
        return first_step_seconds(cache.name)

    run()
    return Contestant(run, measures_itself=True)


def import_time(workload: Workload) -> Contestant:
    return Contestant(lambda: python_seconds("from tgc import nn, optim, jit"), measures_itself=True)


BUILDERS: Mapping[str, Builder] = {
    "gemm-1024": gemm,
    "conv3x3-64-56": conv,
    "softmax-512x1024": softmax,
    "cnn-train-step": cnn_train_step,
    "mlp-call-1": mlp_call,
    "cnn-compile-cold": compile_cold,
    "cnn-compile-warm": compile_warm,
    "import": import_time,
}
