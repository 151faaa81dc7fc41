"""What is measured: inputs, weights and the arithmetic of each row, the same for every contestant.

A peer is a module of `benchmarks.peers` whose `BUILDERS` maps a workload's name to a function that takes the workload
and gives what to time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """A row of the table. Contestants' results must agree within `tolerance` of the largest magnitude of each."""

    name: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    flops: float | None = None
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Contestant:
    """What a peer made of a workload: `run` is timed; `outputs` turns its result into arrays, outside the timing.

    A contestant that measures itself, once per call, in processes of its own, returns seconds from `run` and says so by
    `measures_itself`.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], list[Array]] = lambda result: [np.asarray(result)]
    measures_itself: bool = False


Builder = Callable[[Workload], Contestant]


def uniform(rng: np.random.Generator, *shape: int, fan_in: int = 1) -> Array:
    """f32 values of a scale that keeps activations near one."""
    bound = (3 / fan_in) ** 0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def cnn_weights(rng: np.random.Generator) -> dict[str, Array]:
    """The weights of the two-layer convolutional network for 28 x 28 images."""
    return {
        "conv1.weight": uniform(rng, 32, 1, 3, 3, fan_in=9),
        "conv1.bias": np.zeros(32, np.float32),
        "conv2.weight": uniform(rng, 64, 32, 3, 3, fan_in=288),
        "conv2.bias": np.zeros(64, np.float32),
        "fc.weight": uniform(rng, 10, 64 * 7 * 7, fan_in=64 * 7 * 7),
        "fc.bias": np.zeros(10, np.float32),
    }


def cnn_step_flops(batch: int) -> float:
    """Multiplications and additions of one training step: each contraction once forward, and twice backward.

    The first layer needs no gradient with respect to its input.
    """
    conv1 = 2 * 32 * 28 * 28 * 9
    conv2 = 2 * 64 * 14 * 14 * 9 * 32
    fc = 2 * 10 * 64 * 7 * 7
    return float(batch * (2 * conv1 + 3 * conv2 + 3 * fc))


def mlp_weights(rng: np.random.Generator, sizes: tuple[int, ...]) -> dict[str, Array]:
    """Weights and biases of a chain of linear layers."""
    weights = {}
    for index, (n, m) in enumerate(pairwise(sizes)):
        weights[f"{index}.weight"] = uniform(rng, m, n, fan_in=n)
        weights[f"{index}.bias"] = uniform(rng, m, fan_in=n)
    return weights


def workloads() -> dict[str, Workload]:
    """Every row, by name."""
    rng = np.random.default_rng(0)
    images = {"x": uniform(rng, 32, 1, 28, 28), "y": rng.integers(0, 10, 32)}
    mlp_sizes = (64, 128, 128, 10)
    rows = [
        Workload(
            "gemm-1024",
            {"a": uniform(rng, 1024, 1024), "b": uniform(rng, 1024, 1024)},
            flops=2 * 1024**3,
        ),
        Workload(
            "conv3x3-64-56",
            {"x": uniform(rng, 8, 64, 56, 56), "w": uniform(rng, 64, 64, 3, 3, fan_in=576)},
            flops=2 * 8 * 64 * 64 * 9 * 56 * 56,
        ),
        Workload("softmax-512x1024", {"x": uniform(rng, 512, 1024) * 4}),
        Workload("cnn-train-step", images | cnn_weights(rng), flops=cnn_step_flops(32)),
        Workload(
            "mlp-call-1",
            {"x": uniform(rng, 1, 64)} | mlp_weights(rng, mlp_sizes),
            flops=2 * sum(n * m for n, m in pairwise(mlp_sizes)),
        ),
        Workload("cnn-compile-cold"),
        Workload("cnn-compile-warm"),
        Workload("import"),
    ]
    return {row.name: row for row in rows}


SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("gemm-1024", "conv3x3-64-56", "softmax-512x1024", "cnn-train-step", "mlp-call-1"),
    "full": tuple(workloads()),
}
