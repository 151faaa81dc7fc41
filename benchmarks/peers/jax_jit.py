"""JAX under `jax.jit`, with the optimiser's state donated."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.peers.jax_models import LOSSES, NETWORKS, attention, layer_norm
from benchmarks.workload import Array, Contestant, Inputs, Workload

Parameters = dict[str, Any]
DIMENSIONS = {3: ("NCH", "OIH", "NCH"), 4: ("NCHW", "OIHW", "NCHW")}


def outputs(result: Any) -> list[Array]:
    """The result's arrays."""
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def matmul(a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)


def convolution(x: Any, w: Any, *, stride: int, padding: int, dilation: int, groups: int) -> Any:
    spatial = x.ndim - 2
    return lax.conv_general_dilated(
        x,
        w,
        (stride,) * spatial,
        [(padding, padding)] * spatial,
        rhs_dilation=(dilation,) * spatial,
        dimension_numbers=DIMENSIONS[x.ndim],
        feature_group_count=groups,
    )


def convolution_transpose(x: Any, w: Any, *, stride: int, padding: int) -> Any:
    edge = w.shape[2] - 1 - padding
    return lax.conv_general_dilated(
        x,
        jnp.flip(w, (2, 3)).swapaxes(0, 1),
        (1, 1),
        [(edge, edge)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=DIMENSIONS[4],
    )


def black_scholes(spot: Any, strike: Any, time: Any) -> tuple[Any, Any]:
    """Prices of calls and puts (Black & Scholes 1973) at a rate of 2 % and a volatility of 30 %."""
    deviation = 0.3 * jnp.sqrt(time)
    d1 = (jnp.log(spot / strike) + (0.02 + 0.5 * 0.3**2) * time) / deviation
    d2 = d1 - deviation
    discounted = strike * jnp.exp(-0.02 * time)
    upper, lower = 0.5 + 0.5 * lax.erf(d1 * 0.5**0.5), 0.5 + 0.5 * lax.erf(d2 * 0.5**0.5)
    call = spot * upper - discounted * lower
    return call, call - spot + discounted


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "matmul": matmul,
    "convolution": convolution,
    "convolution_transpose": convolution_transpose,
    "convolution_input_gradient": lambda g, x, w, **o: jax.vjp(lambda x: convolution(x, w, **o), x)[1](g)[0],
    "convolution_filter_gradient": lambda g, x, w, **o: jax.vjp(lambda w: convolution(x, w, **o), w)[1](g)[0],
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "layer_norm": layer_norm,
    "rms_norm": lambda x, weight: x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * weight,
    "gelu_gate": lambda x, g, b: jax.nn.gelu(x * g + b, approximate=False) * jax.nn.sigmoid(x),
    "black_scholes": black_scholes,
    "sum": lambda x, *, axis: x.sum(axis),
    "argmax": lambda x, *, axis: x.argmax(axis),
    "cumsum": lambda x, *, axis: x.cumsum(axis),
    "transpose": lambda x, *, axes: x.transpose(axes),
    "concat": lambda x, y, *, axis: jnp.concatenate((x, y), axis),
    "gather": lambda x, index: x[index],
    "scatter_add": lambda x, index, updates: x.at[index].add(updates),
    "sort": jnp.sort,
    "attention": attention,
}


def adam(
    parameters: Parameters, gradients: Parameters, moments: tuple[Parameters, Parameters, Any]
) -> tuple[Parameters, tuple[Parameters, Parameters, Any]]:
    """Adam (Kingma & Ba, arXiv 1412.6980) as torch computes it."""
    first, second, count = moments[0], moments[1], moments[2] + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
    size, root = 1e-3 / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
    updated = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + 1e-8), parameters, first, second)
    return updated, (first, second, count)


class TrainStep:
    """A model's parameters and their moments, and the compiled step that replaces them."""

    def __init__(self, workload: Workload, inputs: Inputs) -> None:
        network, loss = NETWORKS[workload.model or ""], LOSSES[workload.options["loss"]]

        def step(parameters: Parameters, moments: Any, x: Any, y: Any) -> Any:
            found, gradients = jax.value_and_grad(lambda p: loss(network(p, x), y))(parameters)
            return found, *adam(parameters, gradients, moments)

        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.parameters = {name: jnp.array(array) for name, array in inputs.weights.items()}
        zeros = partial(jax.tree.map, jnp.zeros_like)
        self.moments = (zeros(self.parameters), zeros(self.parameters), jnp.zeros(()))

    def __call__(self, x: Any, y: Any) -> Any:
        """One step; the loss."""
        loss, self.parameters, self.moments = self.step(self.parameters, self.moments, x, y)
        return jax.block_until_ready((loss, self.parameters))[0]


def build(workload: Workload, inputs: Inputs) -> Contestant:
    """The row's contestant."""
    jax.config.update("jax_enable_x64", workload.peak_share < 1)
    arguments = [jnp.asarray(array) for array in inputs.arrays.values()]
    if workload.function == "train":
        return Contestant(partial(TrainStep(workload, inputs), *arguments), outputs)
    if workload.model is None:
        function = jax.jit(partial(FUNCTIONS[workload.function], **workload.options))
    else:
        parameters = {name: jnp.asarray(array) for name, array in inputs.weights.items()}
        function = partial(jax.jit(NETWORKS[workload.model]), parameters)
    return Contestant(lambda: jax.block_until_ready(function(*arguments)), outputs)
