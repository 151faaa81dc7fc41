"""The models of the table, written once for every framework whose modules are like PyTorch's: tgc and torch.

Each function takes the framework's `nn` and gives a module. What differs between the two are imports alone, so both
run the very same text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from benchmarks.workload import Arrays

MLP_SIZES = (64, 128, 128, 10)
RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # bottleneck width, blocks


def cnn(nn: Any) -> Any:
    """Two convolutions and a linear layer for 28 x 28 images."""
    functional = nn.functional

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
            self.fc = nn.Linear(64 * 7 * 7, 10)

        def forward(self, x: Any) -> Any:
            x = functional.max_pool2d(self.conv1(x).relu(), 2)
            x = functional.max_pool2d(self.conv2(x).relu(), 2)
            return self.fc(x.flatten(1))

    return Net()


def mlp(nn: Any) -> Any:
    """64-128-128-10 with relu."""
    layers: list[Any] = []
    for n, m in pairwise(MLP_SIZES):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def transformer(nn: Any) -> Any:
    """One layer with normalisation first: width 256, 4 heads, an MLP of 1024."""
    functional = nn.functional

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(256), nn.LayerNorm(256)
            self.qkv, self.out = nn.Linear(256, 768), nn.Linear(256, 256)
            self.up, self.down = nn.Linear(256, 1024), nn.Linear(1024, 256)

        def forward(self, x: Any) -> Any:
            batch, length, width = x.shape
            parts = self.qkv(self.norm1(x)).reshape(batch, length, 3, 4, 64).permute(2, 0, 3, 1, 4)
            heads = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            x = x + self.out(heads.permute(0, 2, 1, 3).reshape(batch, length, width))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    return Layer()


def lstm(nn: Any) -> Any:
    """LSTM 64 -> 128, and a linear layer on its last output."""

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.fc(self.lstm(x)[0][:, -1])

    return Net()


def resnet50(nn: Any) -> Any:
    """ResNet-50 (He et al., arXiv 1512.03385) with the stride in the 3 x 3 convolution, for inference."""
    functional = nn.functional

    def normalised(inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    class Bottleneck(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.reduce, self.spatial = normalised(inputs, width, 1), normalised(width, width, 3, stride)
            self.expand = normalised(width, 4 * width, 1)
            same = stride == 1 and inputs == 4 * width
            self.shortcut = nn.Identity() if same else normalised(inputs, 4 * width, 1, stride)

        def forward(self, x: Any) -> Any:
            found = self.expand(self.spatial(self.reduce(x).relu()).relu())
            return (found + self.shortcut(x)).relu()

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = normalised(3, 64, 7, 2)
            blocks, inputs = [], 64
            for stage, (width, count) in enumerate(RESNET_STAGES):
                for index in range(count):
                    blocks.append(Bottleneck(inputs, width, 2 if stage and not index else 1))
                    inputs = 4 * width
            self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inputs, 1000)

        def forward(self, x: Any) -> Any:
            x = functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
            return self.fc(self.blocks(x).mean((2, 3)))

    return Net().eval()


MODELS: Mapping[str, Callable[[Any], Any]] = {
    "cnn": cnn,
    "mlp": mlp,
    "transformer": transformer,
    "lstm": lstm,
    "resnet50": resnet50,
}


def black_scholes(spot: Any, strike: Any, time: Any) -> tuple[Any, Any]:
    """Prices of calls and puts (Black & Scholes 1973) at a rate of 2 % and a volatility of 30 %.

    For tensors whose functions are methods: tgc's and torch's.
    """
    deviation = 0.3 * time.sqrt()
    d1 = ((spot / strike).log() + (0.02 + 0.5 * 0.3**2) * time) / deviation
    d2 = d1 - deviation
    discounted = strike * (-0.02 * time).exp()
    upper, lower = 0.5 + 0.5 * (d1 * 0.5**0.5).erf(), 0.5 + 0.5 * (d2 * 0.5**0.5).erf()
    call = spot * upper - discounted * lower
    return call, call - spot + discounted


def first_weights(name: str) -> Arrays:
    """The weights that a model's every version begins with: what tgc's own initialisation gives."""
    import tgc
    from tgc import nn

    tgc.manual_seed(0)
    weights: Arrays = MODELS[name](nn).state_dict()
    return weights


def train_step(nn: Any, model: Any, opt: Any, loss_name: str) -> Callable[[Any, Any], Any]:
    """One step: forward, backward, the optimiser's update. ``loss_name`` is a function of `nn.functional`."""
    loss_function = getattr(nn.functional, loss_name)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return step


def cnn_step_flops(batch: int) -> float:
    """Multiplications and additions of one training step: each contraction once forward, and twice backward.

    The first layer needs no gradient with respect to its input.
    """
    conv1, conv2, fc = 2 * 32 * 28 * 28 * 9, 2 * 64 * 14 * 14 * 9 * 32, 2 * 10 * 64 * 7 * 7
    return float(batch * (2 * conv1 + 3 * conv2 + 3 * fc))


def mlp_flops(batch: int) -> float:
    """Multiplications and additions of one forward pass."""
    return float(2 * batch * sum(n * m for n, m in pairwise(MLP_SIZES)))


def mlp_step_flops(batch: int) -> float:
    """As :func:`cnn_step_flops`."""
    return 3 * mlp_flops(batch) - 2 * batch * MLP_SIZES[0] * MLP_SIZES[1]


def transformer_step_flops(batch: int, length: int) -> float:
    """As :func:`cnn_step_flops`; a normalisation comes first, so every product needs both gradients."""
    products = 4 * 256 * 256 + 2 * 256 * 1024 + 2 * length * 256
    return float(3 * 2 * batch * length * products)


def lstm_step_flops(batch: int, steps: int) -> float:
    """As :func:`cnn_step_flops`."""
    return float(2 * batch * (steps * 4 * 128 * (2 * 64 + 3 * 128) + 3 * 128 * 10))


def resnet_flops(batch: int) -> float:
    """Multiplications and additions of the convolutions and the last layer."""
    total, inputs, size = 112 * 112 * 64 * 3 * 49, 64, 56
    for stage, (width, count) in enumerate(RESNET_STAGES):
        for index in range(count):
            first = not index
            total += size * size * inputs * width
            size = size // 2 if stage and first else size
            total += size * size * (width * width * 9 + width * 4 * width)
            total += size * size * inputs * 4 * width if first else 0
            inputs = 4 * width
    return float(2 * batch * (total + inputs * 1000))
