"""Convolutions, forward and their gradients."""

from __future__ import annotations

from math import prod

import numpy as np

from benchmarks.workload import Arrays, Workload, f32_bytes, uniform

# name: inputs, outputs, size
MAIN = {"64-56": (64, 64, 56), "256-14": (256, 256, 14), "512-7": (512, 512, 7)}


def convolution(
    name: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    function: str = "convolution",
) -> Workload:
    """A row of x [N, C, *] and w [O, C / groups, *]: forward, or a gradient of the same work."""
    sizes = tuple((n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x[2:], w[2:], strict=True))
    y = (x[0], w[0], *sizes)
    given = {
        "convolution": {"x": x, "w": w},
        "convolution_input_gradient": {"g": y, "x": x, "w": w},
        "convolution_filter_gradient": {"g": y, "x": x, "w": w},
    }[function]
    scales = {"x": 1, "w": prod(w[1:]), "g": 1}

    def arrays(rng: np.random.Generator) -> Arrays:
        return {key: uniform(rng, *shape, fan_in=scales[key]) for key, shape in given.items()}

    return Workload(
        name,
        function,
        arrays,
        {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        flops=2.0 * prod(y) * prod(w[1:]),
        moved=f32_bytes(x, w, y),
    )


def main_row(key: str, *, batch: int = 1, function: str = "convolution", prefix: str = "conv3x3") -> Workload:
    """One of the three 3 x 3 convolutions of the middle of a ResNet."""
    inputs, outputs, size = MAIN[key]
    suffix = f"-batch{batch}" if batch > 1 else ""
    x, w = (batch, inputs, size, size), (outputs, inputs, 3, 3)
    return convolution(f"{prefix}-{key}{suffix}", x, w, padding=1, function=function)


def transposed() -> Workload:
    """The usual doubling of a generator: 4 x 4, stride 2."""

    def arrays(rng: np.random.Generator) -> Arrays:
        return {"x": uniform(rng, 8, 64, 28, 28), "w": uniform(rng, 64, 32, 4, 4, fan_in=256)}

    return Workload(
        "conv-transpose-64-28",
        "convolution_transpose",
        arrays,
        {"stride": 2, "padding": 1},
        flops=2.0 * 8 * 64 * 28 * 28 * 32 * 16,
        moved=f32_bytes((8, 64, 28, 28), (64, 32, 4, 4), (8, 32, 56, 56)),
    )


def rows() -> list[Workload]:
    """Every convolution."""
    return [
        *(main_row(key) for key in MAIN),
        main_row("64-56", batch=32),
        convolution("conv1x1-256-56", (1, 64, 56, 56), (256, 64, 1, 1)),
        convolution("conv7x7-224", (1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),
        convolution("conv-depthwise-112", (1, 32, 112, 112), (32, 1, 3, 3), padding=1, groups=32),
        convolution("conv-1d", (8, 64, 1024), (128, 64, 5), padding=2),
        convolution("conv-dilated-28", (1, 128, 28, 28), (128, 128, 3, 3), padding=2, dilation=2),
        convolution("conv-grouped-28", (1, 128, 28, 28), (128, 32, 3, 3), padding=1, groups=4),
        transposed(),
        *(main_row(key, function="convolution_input_gradient", prefix="conv-input-gradient") for key in MAIN),
        *(main_row(key, function="convolution_filter_gradient", prefix="conv-filter-gradient") for key in MAIN),
    ]
