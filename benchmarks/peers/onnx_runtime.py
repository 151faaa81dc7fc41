"""onnxruntime on the eager torch peer's functions and models, exported to ONNX."""

import io
import os
import warnings
from functools import partial
from typing import Any

import onnxruntime
import torch

from benchmarks.peers import torch_eager
from benchmarks.workload import Contestant, Inputs, Workload


class AsModule(torch.nn.Module):
    """A function of tensors as a module, which is what can be exported."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: torch.Tensor) -> Any:
        """The function's result."""
        return self.function(*arguments)


def build(workload: Workload, inputs: Inputs) -> Contestant | None:
    """The row's contestant; none for training, which onnxruntime does not do."""
    if workload.function.startswith("train"):
        return None
    if workload.model is None:
        module: torch.nn.Module = AsModule(partial(torch_eager.FUNCTIONS[workload.function], **workload.options))
    else:
        module = torch_eager.network(workload, inputs)
    names, file = list(inputs.arrays), io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter speaks of its own age
        arguments = tuple(torch_eager.arguments(inputs))
        torch.onnx.export(module.eval(), arguments, file, input_names=names, dynamo=False, opset_version=20)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feeds = dict(inputs.arrays)
    return Contestant(lambda: session.run(None, feeds), list)
