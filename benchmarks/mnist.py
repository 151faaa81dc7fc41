"""Trains the two-layer convolutional network on MNIST with tgc and torch, from the same weights on the same batches."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.models import cnn, first_weights, train_step
from benchmarks.workload import Array, Arrays
from tgc.data import batches, read_idx

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

Step = Callable[[Array, Array], float]
Predict = Callable[[Array], Array]


def load(directory: Path, part: str) -> tuple[Array, Array]:
    """Images as f32[n, 1, 28, 28] of mean 0 and deviation 1, and labels, of one part: `train` or `t10k`."""
    images = read_idx(directory / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(directory / f"{part}-labels-idx1-ubyte.gz")
    scaled = (images[:, None].astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)
    return scaled.astype(np.float32), labels.astype(np.int64)


def torch_run(weights: Arrays, learning_rate: float) -> tuple[Step, Predict]:
    """torch's training step and its prediction."""
    import torch

    model = cnn(torch.nn)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    step_tensors = train_step(torch.nn, model, torch.optim.Adam(model.parameters(), lr=learning_rate), "cross_entropy")

    def step(x: Array, y: Array) -> float:
        return float(step_tensors(torch.from_numpy(x), torch.from_numpy(y)).item())

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            found: Array = model(torch.from_numpy(x)).numpy()
            return found

    return step, predict


def tgc_run(weights: Arrays, learning_rate: float) -> tuple[Step, Predict]:
    """tgc's training step and its prediction, both under `tgc.jit`."""
    import tgc
    from tgc import nn, optim

    model = cnn(nn)
    model.load_state_dict(weights)
    step = tgc.jit(train_step(nn, model, optim.Adam(model.parameters(), lr=learning_rate), "cross_entropy"))
    predict = tgc.jit(model)
    return (
        lambda x, y: float(step(tgc.tensor(x), tgc.tensor(y))),
        lambda x: predict(tgc.tensor(x)).numpy(),
    )


RUNS = {"tgc": tgc_run, "torch": torch_run}


def accuracy(predict: Predict, x: Array, y: Array) -> float:
    """The share of images whose largest logit is at their label."""
    return float(np.mean(np.concatenate([predict(part).argmax(1) for (part,) in batches(x, size=500)]) == y))


def epochs(
    run: tuple[Step, Predict], train: tuple[Array, Array], test: tuple[Array, Array], *, count: int, name: str
) -> Iterator[tuple[float, float, float]]:
    """Mean loss, test accuracy and seconds of each epoch."""
    step, predict = run
    rng = np.random.default_rng(0)
    for epoch in range(count):
        start = time.perf_counter()
        cut = list(batches(*train, size=32, rng=rng, drop_last=True))
        losses = [step(x, y) for x, y in track(cut, description=f"{name}, epoch {epoch + 1}", transient=True)]
        seconds = time.perf_counter() - start
        yield float(np.mean(losses)), accuracy(predict, *test), seconds


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), default=DATA, show_default=True)
@click.option("--epochs", "count", default=3, show_default=True)
@click.option("--lr", "learning_rate", default=1e-3, show_default=True)
@click.option("--only", type=click.Choice(list(RUNS)), help="Trains with one of the two.")
def main(data: Path, count: int, learning_rate: float, only: str | None) -> None:
    """Prints loss, test accuracy and time of each epoch, side by side."""
    train, test = load(data, "train"), load(data, "t10k")
    weights = first_weights("cnn")
    names = [only] if only else list(RUNS)
    curves = [list(epochs(RUNS[name](weights, learning_rate), train, test, count=count, name=name)) for name in names]
    table = Table(title=f"MNIST, {len(train[0])} images, batches of 32")
    table.add_column("epoch")
    for name in names:
        for heading in (f"{name}: loss", "accuracy", "time"):
            table.add_column(heading, justify="right")
    for epoch, row in enumerate(zip(*curves, strict=True), start=1):
        table.add_row(
            str(epoch), *(cell for loss, hits, s in row for cell in (f"{loss:.5f}", f"{hits:.2%}", f"{s:.2f} s"))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
