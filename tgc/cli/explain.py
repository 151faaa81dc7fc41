"""``tgc explain``: what became of each operation, as text, as data, or as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from tgc.cli.arguments import dim_option, example, level_option, make_options, parse_target, target_options
from tgc.cli.sources import called_function, jitted_functions, load_source
from tgc.errors import UserError
from tgc.inspect.explain import explain, specialisations_of
from tgc.storage import write_atomically


@click.command(
    "explain",
    epilog=example(
        "tgc explain digits.py:predict",
        "tgc explain digits.py --dim batch=32 --run",
        "tgc explain digits.py --format html -o digits.html",
        "tgc explain net.tgc -O1 --target aarch64-linux-gnu --format json",
    ),
)
@click.argument("source")
@dim_option
@target_options
@level_option
@click.option("--passes", metavar="PIPELINE", help="Passes before those of -O, or up to memory-plan instead of them.")
@click.option("--run", is_flag=True, help="Time each kernel on random inputs, beside what this machine does at most.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html"]),
    default="text",
    show_default=True,
    help="What to give.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it. Default: stdout.")
def explain_command(
    source: str,
    dims: tuple[str, ...],
    target: str | None,
    cpu: str | None,
    features: str,
    level: str,
    passes: str | None,
    run: bool,
    form: str,
    output: Path | None,
) -> None:
    """Tell what became of each operation of SOURCE: in which kernel it is and from which line it comes, arithmetic,
    bytes and time of every kernel, what takes memory, which rules were applied, and for operations in different
    kernels, why they are. As html it is one page with the graph drawn, and the code of every kernel.
    """
    options = make_options(level, passes, parse_target(target, cpu, features))
    if run and options.target is not None:
        raise UserError("kernels for another machine cannot be timed here", hint="leave out --run or --target")
    jitted = called_function(source)
    found = explain(load_source(source, dims).module if jitted is None else jitted, options=options, run=run)
    found = replace(found, specialisations=specialisations_of(jitted_functions(source)))
    text = {"text": found.text, "json": found.json, "html": found.html}[form]()
    if output is None:
        click.echo(text)
        return
    try:
        write_atomically(output, f"{text}\n".encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
