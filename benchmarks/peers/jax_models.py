"""The models of `benchmarks.models` for JAX: functions of parameters by the names that the modules give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.models import RESNET_STAGES

Parameters = Mapping[str, Any]


def linear(p: Parameters, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def conv2d(x: Any, w: Any, *, stride: int = 1, padding: int = 1) -> Any:
    edges = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, w, (stride, stride), edges, dimension_numbers=("NCHW", "OIHW", "NCHW"))


def max_pool(x: Any, window: int, stride: int, padding: int = 0) -> Any:
    edges = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, window, window), (1, 1, stride, stride), edges)


def layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + 1e-5) * weight + bias


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bhld,bhsd->bhls", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhls,bhsd->bhld", jax.nn.softmax(scores, -1), v)


def cnn(p: Parameters, x: Any) -> Any:
    for name in ("conv1", "conv2"):
        x = jax.nn.relu(conv2d(x, p[f"{name}.weight"]) + p[f"{name}.bias"][:, None, None])
        x = max_pool(x, 2, 2)
    return linear(p, "fc", x.reshape(x.shape[0], -1))


def mlp(p: Parameters, x: Any) -> Any:
    for index in (0, 2, 4):
        x = linear(p, str(index), x)
        x = jax.nn.relu(x) if index < 4 else x
    return x


def transformer(p: Parameters, x: Any) -> Any:
    batch, length, width = x.shape
    normalised = layer_norm(x, p["norm1.weight"], p["norm1.bias"])
    q, k, v = linear(p, "qkv", normalised).reshape(batch, length, 3, 4, 64).transpose(2, 0, 3, 1, 4)
    x = x + linear(p, "out", attention(q, k, v).transpose(0, 2, 1, 3).reshape(batch, length, width))
    up = linear(p, "up", layer_norm(x, p["norm2.weight"], p["norm2.bias"]))
    return x + linear(p, "down", jax.nn.gelu(up, approximate=False))


def lstm(p: Parameters, x: Any) -> Any:
    bias = p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]
    # what does not depend on the state is one product, outside the loop
    given = x.swapaxes(0, 1) @ p["lstm.weight_ih_l0"].T + bias

    def step(state: tuple[Any, Any], gates: Any) -> tuple[tuple[Any, Any], None]:
        h, c = state
        i, f, g, o = jnp.split(gates + h @ p["lstm.weight_hh_l0"].T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((x.shape[0], p["lstm.weight_hh_l0"].shape[1]))
    (h, _), _ = lax.scan(step, (zeros, zeros), given)
    return linear(p, "fc", h)


def resnet50(p: Parameters, x: Any) -> Any:
    def normalised(name: str, x: Any, stride: int = 1) -> Any:
        w = p[f"{name}.0.weight"]
        scale = p[f"{name}.1.weight"] * lax.rsqrt(p[f"{name}.1.running_var"] + 1e-5)
        shift = p[f"{name}.1.bias"] - p[f"{name}.1.running_mean"] * scale
        found = conv2d(x, w, stride=stride, padding=w.shape[2] // 2)
        return found * scale[:, None, None] + shift[:, None, None]

    x = max_pool(jax.nn.relu(normalised("stem", x, 2)), 3, 2, 1)
    index = 0
    for stage, (_, count) in enumerate(RESNET_STAGES):
        for position in range(count):
            name, stride = f"blocks.{index}", 2 if stage and not position else 1
            y = jax.nn.relu(normalised(f"{name}.reduce", x))
            y = normalised(f"{name}.expand", jax.nn.relu(normalised(f"{name}.spatial", y, stride)))
            x = jax.nn.relu(y + (normalised(f"{name}.shortcut", x, stride) if not position else x))
            index += 1
    return linear(p, "fc", x.mean((2, 3)))


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


NETWORKS: Mapping[str, Callable[[Parameters, Any], Any]] = {
    "cnn": cnn,
    "mlp": mlp,
    "transformer": transformer,
    "lstm": lstm,
    "resnet50": resnet50,
}
LOSSES: Mapping[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": cross_entropy,
    "mse_loss": lambda found, wanted: jnp.mean((found - wanted) ** 2),
}
