"""torch.compile: the functions, models and optimiser of the eager peer, through TorchInductor."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from benchmarks.peers import torch_eager
from benchmarks.workload import Contestant, Inputs, Workload


def compiled_step(model: torch.nn.Module, loss_name: str) -> Callable[..., Any]:
    """A training step whose loss and whose update are compiled; `backward` comes with the loss."""
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = getattr(functional, loss_name)
    forward = torch.compile(lambda x, y: loss_function(model(x), y))
    update = torch.compile(opt.step)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        opt.zero_grad()
        loss: torch.Tensor = forward(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        update()
        return loss

    return step


def build(workload: Workload, inputs: Inputs) -> Contestant:
    """The row's contestant."""
    if workload.model is None:
        function = torch_eager.FUNCTIONS[workload.function]
        run = torch_eager.without_gradients(torch.compile(partial(function, **workload.options)))
    elif workload.function == "infer":
        run = torch_eager.without_gradients(torch.compile(torch_eager.network(workload, inputs)))
    else:
        run = compiled_step(torch_eager.network(workload, inputs), workload.options["loss"])
    return Contestant(partial(run, *torch_eager.arguments(inputs)), torch_eager.outputs)
