"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import click

from passes.base import Pass, all_nodes
from passes.instruments import Dump, Instrument, Timing, Verify
from passes.pipeline import Pipeline, parse_pipeline
from tgc.backend.describe import describe_target
from tgc.cli.sources import import_file
from tgc.compiler import Options
from tgc.errors import UserError
from tgc.ir.graph import Module
from tgc.ir.kinds import OpKind
from tgc.ops import OPS
from tgc.target import Target

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([KMGkmg]?)(?:i?B)?")
Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--target``, ``--cpu`` and ``--features``."""
    for option in (
        click.option("--features", metavar="LIST", default="", help="CPU features besides the CPU's own: +avx2,-fma."),
        click.option("--cpu", metavar="NAME", help="CPU as LLVM calls it, or native. Default: any of the target."),
        click.option("--target", metavar="TRIPLE", help="Machine to compile for, such as aarch64-linux-gnu."),
    ):
        function = option(function)
    return function


def pass_options(function: Callable[..., None]) -> Callable[..., None]:
    """``--passes``, and what may look on while passes run."""
    for option in (
        click.option("--verify", is_flag=True, help="Verify the graph after every pass."),
        click.option("--time-passes", is_flag=True, help="Tell on stderr how long each pass took."),
        click.option("--print-ir-after-change", is_flag=True, help="Print the graph after passes that changed it."),
        click.option("--print-ir-after", metavar="PASS", multiple=True, help="Print the graph after this pass."),
        click.option("--print-ir-after-all", is_flag=True, help="Print the graph after every pass, on stderr."),
        click.option(
            "--passes",
            metavar="PIPELINE",
            help="Passes with options, one of your own as my_pass.py:MyPass: cse,my_pass.py:MyPass{largest=4}.",
        ),
    ):
        function = option(function)
    return function


dim_option: Final[Decorator] = click.option(
    "--dim",
    "dims",
    metavar="NAME=SIZE",
    multiple=True,
    help="Fix a dimension (batch=32), or check its range at entry (batch=1..64, batch=1..).",
)
level_option: Final[Decorator] = click.option(
    "-O",
    "level",
    type=click.Choice(["0", "1", "2", "3"]),
    default="3",
    show_default=True,
    help="How hard to try: -O0 to -O3.",
)


def parse_target(target: str | None, cpu: str | None, features: str) -> Target | None:
    """The machine that the options name; None for this one."""
    return describe_target(target, cpu, features) if target or cpu or features else None


def parse_size(text: str) -> int:
    """Bytes as people write them; K, M and G are powers of 1024.

    >>> parse_size("64K"), parse_size("1.5M"), parse_size("4096")
    (65536, 1572864, 4096)
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is no size", hint="write bytes, or thousands of them as 64K, 1.5M or 2G")
    number, unit = match.groups()
    return int(float(number) * 1024 ** " KMG".index(unit.upper() or " "))


def parse_passes(text: str, module: Module | None = None) -> Pipeline:
    """A pipeline for ``module``, whose passes may be the user's, written ``file.py:Class``.

    Raises :class:`UserError` for a file or class that is none.
    """
    return parse_pipeline(text, load=_users_pass, has=properties(module) if module else frozenset())


def properties(module: Module) -> frozenset[str]:
    """What passes may take for granted of a module, as pipelines call it."""
    ops = {node.op for node in all_nodes(v for f in module.functions for v in f.outputs)} - {"state", "literal"}
    known = {op: OPS[op].kind for op in ops if op in OPS}
    found = set() if OpKind.COMPOSITE in known.values() or "checkpoint" in known else {"primitive"}
    found |= {"fused"} if "fusion" in known else set()
    return frozenset(found)


def _users_pass(text: str) -> type[Pass]:
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {path}", hint="write a pass of your own as my_pass.py:MyPass")
    found = getattr(import_file(path), name, None)
    if not isinstance(found, type) or not issubclass(found, Pass):
        raise UserError(f"{path.name} has no pass {name}", hint="derive the class from passes.base.Pass")
    return found


def make_options(
    level: str, passes: str | None, target: Target | None, instruments: Sequence[Instrument] = ()
) -> Options:
    """Compile options. Passes up to the memory plan are the whole pipeline; others come before that of ``level``."""
    pipeline = parse_passes(passes).passes if passes else ()
    whole = any("planned" in p.ensures for p in pipeline)
    return Options("" if whole else f"O{level}", pipeline, target, instruments=tuple(instruments))


def make_instruments(
    print_ir_after_all: bool, print_ir_after: Sequence[str], print_ir_after_change: bool, verify: bool
) -> list[Instrument]:
    """What looks on while passes run, as the options ask for; it writes to stderr."""

    def write(text: str) -> None:
        click.echo(text, err=True)

    found: list[Instrument] = [Verify()] if verify else []
    if print_ir_after_all or print_ir_after_change:
        found.append(Dump(write, "all" if print_ir_after_all else "change"))
    elif print_ir_after:
        found.append(Dump(write, frozenset(print_ir_after)))
    return found


def check_names(names: Sequence[str], pipeline: Pipeline) -> None:
    """Raises :class:`UserError` for names of passes that do not run."""
    known = list(dict.fromkeys(p.name for p in pipeline.passes))
    for name in names:
        if name not in known:
            raise UserError(f"no pass {name!r} runs", hint=f"these do: {', '.join(known) or 'none'}")


def show_times(timing: Timing, rest: Sequence[tuple[str, float]] = ()) -> None:
    """The time of each pass, and of what came after them, on stderr."""
    rows = [f"{1000 * seconds:9.2f} ms  {name}" for name, seconds in rest]
    click.echo("\n".join([timing.table(), *rows]), err=True)


def example(*lines: str) -> str:
    """Examples for the end of a help text, as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
