"""Small models of every kind, each with a step of training and inputs: what whole-model tests run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tgc
from tgc import nn, optim
from tgc.nn import functional

Array = NDArray[Any]


class Mlp(nn.Module):
    def __init__(self) -> None:
        self.first, self.second = nn.Linear(64, 256), nn.Linear(256, 10)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x).relu())


class Cnn(nn.Module):
    def __init__(self) -> None:
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x: Any) -> Any:
        x = self.conv1(x).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2)
        return self.fc(x.flatten(1))


class LstmClassifier(nn.Module):
    def __init__(self) -> None:
        self.lstm, self.fc = nn.LSTM(16, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        _, (hidden, _) = self.lstm(x)
        return self.fc(hidden[0])


class Transformer(nn.Module):
    """One layer with its norms in front, and a classifier of the mean."""

    def __init__(self) -> None:
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.up, self.down, self.fc = nn.Linear(64, 128), nn.Linear(128, 64), nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.fc(x.mean(1))


@dataclass(frozen=True)
class Subject:
    """A model, ``spec`` and shape of one sample of its input."""

    make: Callable[[], nn.Module]
    sample: tuple[int, ...]

    @property
    def spec(self) -> str:
        return f"f32[batch, {', '.join(map(str, self.sample))}]"

    def batch(self, size: int) -> tuple[Array, Array]:
        rng = np.random.default_rng([size, *self.sample])
        x = rng.standard_normal((size, *self.sample)).astype(np.float32)
        return x, rng.integers(0, 10, size)


SUBJECTS: Mapping[str, Subject] = {
    "mlp": Subject(Mlp, (64,)),
    "cnn": Subject(Cnn, (1, 8, 8)),
    "lstm": Subject(LstmClassifier, (12, 16)),
    "transformer": Subject(Transformer, (16, 64)),
}


@dataclass(frozen=True)
class Trained:
    """A model with its functions, fresh from the seed."""

    model: nn.Module
    optimiser: optim.Adam
    predict: Callable[..., Any]
    train_step: Callable[..., Any]

    def state(self) -> dict[str, Array]:
        own = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return own | {f"optimiser.{k}": v for k, v in self.optimiser.state_dict().items()}


def fresh(name: str) -> Trained:
    """The model as the seed makes it."""
    tgc.manual_seed(0)
    model = SUBJECTS[name].make()
    opt = optim.Adam(model.parameters(), lr=1e-3)

    def predict(x: Any) -> Any:
        return model(x).softmax(-1)

    def train_step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return Trained(model, opt, predict, train_step)


def bits(array: Array) -> Array:
    """The bits of a float array, so that comparisons are exact."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def widen(model: nn.Module) -> nn.Module:
    """The model with its parameters in f64."""
    for module in model.modules():
        for key, value in list(vars(module).items()):
            if isinstance(value, nn.Parameter):
                setattr(module, key, nn.Parameter(value.numpy().astype(np.float64)))
    return model
