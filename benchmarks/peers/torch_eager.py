"""PyTorch, eager, with its own defaults."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.models import MODELS, black_scholes, train_step
from benchmarks.processes import python_seconds
from benchmarks.workload import Array, Contestant, Inputs, Workload

Tensor = torch.Tensor


def outputs(result: Any) -> list[Array]:
    """The result's arrays."""
    parts = result if isinstance(result, tuple) else (result,)
    return [part.detach().numpy() if isinstance(part, Tensor) else part for part in parts]


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    return (a.transpose(-1, -2) if transpose_a else a) @ (b.transpose(-1, -2) if transpose_b else b)


def convolution(x: Tensor, w: Tensor, **options: int) -> Tensor:
    return (functional.conv1d if x.ndim == 3 else functional.conv2d)(x, w, **options)


def convolution_transpose(x: Tensor, w: Tensor, **options: int) -> Tensor:
    return functional.conv_transpose2d(x, w, **options)


def convolution_input_gradient(g: Tensor, x: Tensor, w: Tensor, **options: int) -> Tensor:
    return nn.grad.conv2d_input(x.shape, w, g, **options)


def convolution_filter_gradient(g: Tensor, x: Tensor, w: Tensor, **options: int) -> Tensor:
    return nn.grad.conv2d_weight(x, w.shape, g, **options)


def chain(x: Tensor, *, nodes: int) -> Tensor:
    """A graph of about so many operations: maps, with a sum over rows now and then."""
    for index in range(nodes // 5):
        x = (x * 0.9 + 0.1 * (index % 7 - 3)).tanh()
        x = x - 0.5 * x.mean(-1, keepdim=True)
    return x


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "matmul": matmul,
    "convolution": convolution,
    "convolution_transpose": convolution_transpose,
    "convolution_input_gradient": convolution_input_gradient,
    "convolution_filter_gradient": convolution_filter_gradient,
    "softmax": lambda x: x.softmax(-1),
    "layer_norm": lambda x, weight, bias: functional.layer_norm(x, (1024,), weight, bias),
    "rms_norm": lambda x, weight: functional.rms_norm(x, (1024,), weight, eps=1e-6),
    "gelu_gate": lambda x, g, b: functional.gelu(x * g + b) * x.sigmoid(),
    "black_scholes": black_scholes,
    "sum": lambda x, *, axis: x.sum() if axis is None else x.sum(axis),
    "argmax": lambda x, *, axis: x.argmax(axis),
    "cumsum": lambda x, *, axis: x.cumsum(axis),
    # a view would move nothing: everybody gives a row-major array
    "transpose": lambda x, *, axes: x.permute(*axes).contiguous(),
    "concat": lambda x, y, *, axis: torch.cat((x, y), axis),
    "gather": lambda x, index: x[index],
    "scatter_add": lambda x, index, updates: x.index_add(0, index, updates),
    "sort": lambda x: x.sort().values,
    "attention": functional.scaled_dot_product_attention,
    "chain": chain,
}


def arguments(inputs: Inputs) -> list[Tensor]:
    """The row's arrays as tensors."""
    return [torch.from_numpy(array.copy()) for array in inputs.arrays.values()]


def network(workload: Workload, inputs: Inputs) -> nn.Module:
    """The row's model with its first weights."""
    model: nn.Module = MODELS[workload.model or ""](nn)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in inputs.weights.items()})
    return model


def without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same in inference mode."""

    def run(*arguments: Tensor) -> Any:
        with torch.inference_mode():
            return function(*arguments)

    return run


def build(workload: Workload, inputs: Inputs) -> Contestant:
    """The row's contestant."""
    if workload.function == "import_time":
        return Contestant(lambda: python_seconds("from torch import nn, optim, jit"), measures_itself=True)
    if workload.model is None:
        run = without_gradients(partial(FUNCTIONS[workload.function], **workload.options))
    elif workload.function == "infer":
        run = without_gradients(network(workload, inputs))
    else:
        model = network(workload, inputs)
        opt = torch.optim.Adam(model.parameters(), lr=1e-3)
        run = train_step(nn, model, opt, workload.options["loss"])
    if workload.function == "train_eagerly":
        # as where tgc runs it: a step ends when its loss is known
        step, given = run, arguments(inputs)
        return Contestant(lambda: step(*given).item())
    return Contestant(partial(run, *arguments(inputs)), outputs)
