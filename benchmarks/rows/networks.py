"""Whole models: inference, training steps as one call, define-by-run, and what compiling costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks import models
from benchmarks.workload import Arrays, Workload, made, uniform


def labelled(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    """Inputs of that shape and a label of 10 for each."""
    return lambda rng: {"x": uniform(rng, *shape), "y": rng.integers(0, 10, shape[0])}


def cnn_step(batch: int, *, name: str = "train-cnn") -> Workload:
    """A training step of the convolutional network."""
    return Workload(
        name,
        "train",
        labelled(batch, 1, 28, 28),
        {"loss": "cross_entropy"},
        flops=models.cnn_step_flops(batch),
        model="cnn",
        memory=True,
    )


def training() -> list[Workload]:
    """Training steps with fixed sizes."""
    return [
        cnn_step(32),
        Workload(
            "train-mlp",
            "train",
            labelled(32, 64),
            {"loss": "cross_entropy"},
            flops=models.mlp_step_flops(32),
            model="mlp",
        ),
        Workload(
            "train-transformer",
            "train",
            made(x=(8, 128, 256), y=(8, 128, 256)),
            {"loss": "mse_loss"},
            flops=models.transformer_step_flops(8, 128),
            model="transformer",
            memory=True,
        ),
        Workload(
            "train-lstm",
            "train",
            labelled(32, 28, 64),
            {"loss": "cross_entropy"},
            flops=models.lstm_step_flops(32, 28),
            model="lstm",
        ),
    ]


SYMBOLIC = {
    "train-cnn": ("f32[batch, 1, 28, 28]", "i64[batch]"),
    "train-mlp": ("f32[batch, 64]", "i64[batch]"),
    "train-transformer": ("f32[batch, 128, 256]", "f32[batch, 128, 256]"),
    "train-lstm": ("f32[batch, 28, 64]", "i64[batch]"),
}


def rows() -> list[Workload]:
    """Every row of this file."""
    steps = training()
    return [
        *(
            Workload(f"mlp-batch{n}", "infer", made(x=(n, 64)), flops=models.mlp_flops(n), model="mlp")
            for n in (1, 256)
        ),
        *(
            Workload(
                f"resnet50-batch{n}",
                "infer",
                made(x=(n, 3, 224, 224)),
                flops=models.resnet_flops(n),
                model="resnet50",
                tolerance=1e-3,
            )
            for n in (1, 16)
        ),
        *steps,
        *(
            replace(s, name=f"{s.name}-symbolic", symbolic=SYMBOLIC[s.name], peers=("tgc-static",), memory=False)
            for s in steps
        ),
        replace(steps[0], name="define-by-run-cnn", function="train_eagerly", peers=("torch",), memory=False),
        Workload("import", "import_time", peers=("torch",)),
    ]


def growth() -> list[Workload]:
    """Larger and larger batches, and longer and longer graphs, of which the time to compile counts."""
    return [
        *(cnn_step(n, name=f"growth-cnn-{n}") for n in (1, 4, 16, 64, 256, 1024)),
        *(
            Workload(f"growth-nodes-{n}", "chain", made(x=(16, 64)), {"nodes": n}, peers=("torch",), tolerance=1e-3)
            for n in (100, 1000, 10_000)
        ),
    ]
