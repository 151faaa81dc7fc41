"""``tgc compile``: from source to files."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import click

from passes.instruments import Timing
from tgc.artifacts import EMISSIONS, compile_artifact, write
from tgc.cli.arguments import (
    check_names,
    dim_option,
    example,
    level_option,
    make_instruments,
    make_options,
    parse_size,
    parse_target,
    pass_options,
    show_times,
    target_options,
)
from tgc.cli.sources import load_source
from tgc.inspect.memory import check_workspace


@click.command(
    "compile",
    epilog=example(
        "tgc compile digits.py -o build/digits",
        "tgc compile digits.py:predict -o build/predict --dim batch=1..64",
        "tgc compile digits.py -o build/pi --target aarch64-linux-gnu --cpu cortex-a72 --emit object,header",
        "tgc compile net.tgc -o build/net --emit graph,kernel,llvm,asm -O2",
        "tgc compile digits.py -o build/small --dim batch=1 --max-workspace 64K",
        "tgc compile net.py -o build/net --passes my_pass.py:MyPass --print-ir-after-change",
    ),
)
@click.argument("source")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder for the files.")
@click.option("--name", help="Name of the library, with which its functions begin. Default: the file's.")
@click.option(
    "--emit",
    metavar="KINDS",
    help=f"What to write, of {','.join(EMISSIONS)}. Default: object,header, and shared where there is a linker.",
)
@target_options
@level_option
@dim_option
@pass_options
@click.option(
    "--max-workspace",
    "limit",
    metavar="SIZE",
    help="Fail if a function may need more workspace than this on one thread, such as 64K or 1.5M, and tell what for.",
)
@click.option("--threads/--no-threads", default=True, help="Whether the library offers a pool of threads.")
def compile_command(
    source: str,
    folder: Path,
    name: str | None,
    emit: str | None,
    target: str | None,
    cpu: str | None,
    features: str,
    level: str,
    dims: tuple[str, ...],
    passes: str | None,
    print_ir_after_all: bool,
    print_ir_after: tuple[str, ...],
    print_ir_after_change: bool,
    time_passes: bool,
    verify: bool,
    limit: str | None,
    threads: bool,
) -> None:
    """Compile SOURCE to a library: a Python file with functions marked @tgc.export, one of them (file.py:function), or
    graph IR as text (file.tgc).

    Writes an object file with the weights inside, a C header, a shared library and a .json file that tgc run and
    tgc.load read, and tells their paths.
    """
    most = None if limit is None else parse_size(limit)
    instruments = make_instruments(print_ir_after_all, print_ir_after, print_ir_after_change, verify)
    timing = Timing()
    options = make_options(level, passes, parse_target(target, cpu, features), [timing, *instruments])
    check_names(print_ir_after, options.passes_in_order())
    begin = perf_counter()
    loaded = load_source(source, dims, name)
    recorded = perf_counter()
    artifact = compile_artifact(loaded.module, loaded.name, options=options, docs=loaded.docs, threads=threads)
    lowered = perf_counter()
    if most is not None:
        check_workspace(artifact.compiled, most)
    written = write(artifact, folder, [kind.strip() for kind in emit.split(",")] if emit is not None else None)
    done = perf_counter()
    if time_passes:
        passes_alone = sum(seconds for _, seconds in timing.seconds)
        rest = [("recording", recorded - begin), ("kernels", lowered - recorded - passes_alone)]
        show_times(timing, [*rest, ("code and files", done - lowered)])
    for path in written:
        click.echo(path)
