"""``tgc run``: a function of compiled files on arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from tgc.backend.threads import set_num_threads
from tgc.cli.arguments import example
from tgc.errors import UserError
from tgc.ir.graph import Array
from tgc.kernels.program import ProgramValue
from tgc.loading import LoadedFunction, load, results_of


@click.command(
    "run",
    epilog=example(
        "tgc run build/digits predict x=image.npy",
        "tgc run build/digits predict x=image.npy -o probabilities.npy",
        "tgc run build/net scale x=[1.0,2.5] factor=3",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("function")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write results: .npy for one, .npz for several.")
@click.option("--threads", type=click.IntRange(1, 1024), help="How many threads to use. Default: one per processor.")
def run_command(
    folder: Path, function: str, arguments: tuple[str, ...], output: Path | None, threads: int | None
) -> None:
    """Run FUNCTION of the compiled files in FOLDER. The object file itself is run: no linker is needed.

    A value is a NumPy file, or numbers as JSON. State begins as it was when compiled.
    """
    if threads is not None:
        set_num_threads(threads)
    library = load(folder)
    found = library.functions.get(function)
    if found is None:
        raise UserError(f"{folder} has no function {function!r}", hint="it has " + ", ".join(library.functions))
    results = results_of(found(*_arrays(found, arguments)))
    named = {value.name: array for value, array in zip(found.program.outputs, results, strict=True)}
    if output is not None:
        _write(output, named)
        return
    for value, array in zip(found.program.outputs, results, strict=True):
        shape = ", ".join(map(str, array.shape))
        click.echo(f"{value.name}: {value.dtype.name}[{shape}]")
        click.echo(np.array2string(array.astype(np.float32) if array.dtype.kind == "V" else array, threshold=1000))


def _arrays(function: LoadedFunction, arguments: tuple[str, ...]) -> list[Array]:
    """The function's inputs in order, from ``name=value``."""
    inputs = {value.name: value for value in function.program.inputs}
    given: dict[str, str] = {}
    usage = " ".join(f"{value.name}=..." for value in inputs.values())
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name not in inputs or name in given:
            raise UserError(
                f"{argument!r} is no argument of {function.program.name}, or a second time one", hint=f"give {usage}"
            )
        given[name] = text
    missing = [name for name in inputs if name not in given]
    if missing:
        raise UserError(f"{function.program.name} needs {', '.join(missing)} as well", hint=f"give {usage}")
    return [_array(given[name], value) for name, value in inputs.items()]


def _array(text: str, value: ProgramValue) -> Array:
    """A NumPy file's array, or the numbers that ``text`` lists, in the dtype of the input."""
    if not text.endswith(".npy"):
        return _numbers(text, value)
    try:
        array: Array = np.load(text, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{text} cannot be read: {error}") from None
    dtype = value.dtype.numpy
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        # NumPy writes bf16 as bytes without a name
        array = array.view(dtype)
    if array.dtype != dtype:
        raise UserError(
            f"{text} holds {array.dtype}{list(array.shape)}, but {value} is expected for {value.name}",
            hint=f"save array.astype(numpy.{dtype.name})",
        )
    return array


def _numbers(text: str, value: ProgramValue) -> Array:
    try:
        numbers: Any = json.loads(text)
        array = np.array(numbers)
        if array.dtype.kind not in "bif":
            raise ValueError("no numbers")
        found = array.astype(value.dtype.numpy)
        if value.dtype.kind != "float" and not np.array_equal(found, array):
            raise ValueError(f"not all of {value.dtype.name}")
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{value.name}={text} is neither a NumPy file nor numbers: {error}",
            hint=f"give {value.name}=array.npy, or {value} as JSON",
        ) from None
    return found


def _write(output: Path, results: dict[str, Array]) -> None:
    if output.suffix != ".npz" and len(results) != 1:
        raise UserError(f"there are {len(results)} results", hint="write them to a .npz file")
    try:
        with output.open("wb") as file:
            if output.suffix == ".npz":
                np.savez(file, allow_pickle=False, **results)
            else:
                np.save(file, next(iter(results.values())))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
