"""``tgc opt``: graph IR in, graph IR out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from passes.base import PassContext
from passes.instruments import Timing
from passes.pipeline import Pipeline
from tgc.cli.arguments import (
    check_names,
    example,
    make_instruments,
    parse_passes,
    parse_target,
    pass_options,
    show_times,
    target_options,
)
from tgc.cli.sources import read_module
from tgc.compiler import reproducible
from tgc.errors import UserError
from tgc.ir.printer import print_module
from tgc.ops import OPS
from tgc.storage import write_atomically


@click.command(
    "opt",
    epilog=example(
        "tgc opt --passes constant-folding,cse,fusion net.tgc",
        "tgc opt --passes my_pass.py:MyPass < net.tgc",
        "tgc opt --passes O2 --print-ir-after-all --verify net.tgc -o optimised.tgc",
    ),
)
@click.argument("file", default="-")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the graph. Default: stdout.")
@click.option("--locations", is_flag=True, help="Print where in the source each operation comes from.")
@target_options
@pass_options
def opt_command(
    file: str,
    output: Path | None,
    locations: bool,
    target: str | None,
    cpu: str | None,
    features: str,
    passes: str | None,
    print_ir_after_all: bool,
    print_ir_after: tuple[str, ...],
    print_ir_after_change: bool,
    time_passes: bool,
    verify: bool,
) -> None:
    """Run passes on graph IR, from FILE or stdin. Without --passes the text is checked and printed again."""
    text = _read(file)
    timing = Timing()
    instruments = make_instruments(print_ir_after_all, print_ir_after, print_ir_after_change, verify)
    module = read_module(text, "<stdin>" if file == "-" else file)
    pipeline = parse_passes(passes, module) if passes else Pipeline(())
    check_names(print_ir_after, pipeline)
    with reproducible(module, "passes"):
        context = PassContext(OPS, parse_target(target, cpu, features))
        optimised = pipeline.run(module, context, instruments=[timing, *instruments])
    result = print_module(optimised, locations=locations)
    if time_passes:
        show_times(timing)
    if output is None:
        click.echo(result)
        return
    try:
        write_atomically(output, f"{result}\n".encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
