"""tgc: each workload as a user writes it, under `tgc.jit`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tgc
from benchmarks.models import MODELS, black_scholes, train_step
from benchmarks.processes import python_seconds
from benchmarks.workload import Array, Contestant, Inputs, Workload
from tgc import nn, optim
from tgc.frontend.jit import jit
from tgc.frontend.tensor import Tensor

functional = nn.functional


def outputs(result: Any) -> list[Array]:
    """The result's arrays."""
    return [part.numpy() for part in (result if isinstance(result, tuple) else (result,))]


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    return (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)


def convolution(x: Tensor, w: Tensor, **options: Any) -> Tensor:
    return (functional.conv1d if x.ndim == 3 else functional.conv2d)(x, w, **options)


def convolution_transpose(x: Tensor, w: Tensor, **options: Any) -> Tensor:
    return functional.conv_transpose2d(x, w, **options)


def convolution_input_gradient(g: Tensor, x: Tensor, w: Tensor, **options: Any) -> Any:
    _, pullback = tgc.vjp(lambda x: functional.conv2d(x, w, **options), x)
    return pullback(g)[0]


def convolution_filter_gradient(g: Tensor, x: Tensor, w: Tensor, **options: Any) -> Any:
    _, pullback = tgc.vjp(lambda w: functional.conv2d(x, w, **options), w)
    return pullback(g)[0]


def chain(x: Tensor, *, nodes: int) -> Tensor:
    """A graph of about so many operations: maps, with a sum over rows now and then."""
    for index in range(nodes // 5):
        x = (x * 0.9 + 0.1 * (index % 7 - 3)).tanh()
        x = x - 0.5 * x.mean(-1, keepdims=True)
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
    "gelu_gate": lambda x, g, b: (x * g + b).gelu() * x.sigmoid(),
    "black_scholes": black_scholes,
    "sum": lambda x, *, axis: x.sum(axis),
    "argmax": lambda x, *, axis: x.argmax(axis),
    "cumsum": lambda x, *, axis: x.cumsum(axis),
    "transpose": lambda x, *, axes: x.permute(*axes),
    "concat": lambda x, y, *, axis: x.apply("concatenate", y, attributes={"axis": axis}),
    "gather": lambda x, index: x[index],
    "scatter_add": lambda x, index, updates: x.at[index].add(updates),
    "sort": lambda x: x.apply("sort", attributes={"axis": 0, "descending": False}),
    "attention": functional.scaled_dot_product_attention,
    "chain": chain,
}


def function(workload: Workload, inputs: Inputs, *, types: tuple[str, ...]) -> Callable[..., Any]:
    """What a user would write for the row, compiled where the row says so."""
    if workload.model is None:
        return jit(partial(FUNCTIONS[workload.function], **workload.options))
    model = MODELS[workload.model](nn)
    model.load_state_dict(inputs.weights)
    if workload.function == "infer":
        return jit(model)
    opt = optim.Adam(model.parameters(), lr=1e-3)
    step = train_step(nn, model, opt, workload.options["loss"])
    if workload.function == "train_eagerly":
        # looking at the loss is what runs a step that is not compiled as one
        return lambda x, y: float(step(x, y))
    return jit(step, *types)


def contestant(workload: Workload, inputs: Inputs, *, types: tuple[str, ...]) -> Contestant:
    """The row with dimensions fixed, or open where ``types`` says so."""
    if workload.function == "import_time":
        return Contestant(lambda: python_seconds("from tgc import nn, optim, jit"), measures_itself=True)
    tensors = [tgc.tensor(array) for array in inputs.arrays.values()]
    run = partial(function(workload, inputs, types=types), *tensors)
    return Contestant(run) if workload.function == "train_eagerly" else Contestant(run, outputs)


def build(workload: Workload, inputs: Inputs) -> Contestant:
    """The row's contestant."""
    return contestant(workload, inputs, types=workload.symbolic)
