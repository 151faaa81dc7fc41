"""``tgc verify``: whether compiled code does what a program means."""

from __future__ import annotations

import click

from tgc.cli.arguments import dim_option, example, level_option, make_options
from tgc.cli.sources import load_source
from tgc.inspect.memory import table
from tgc.inspect.verify import SIZE, Check, verify_module
from tgc.specialise import dimensions


@click.command(
    "verify",
    epilog=example(
        "tgc verify digits.py:predict",
        "tgc verify digits.py --dim batch=32 -O1 --seed 3",
        "tgc verify net.tgc --passes my_pass.py:MyPass",
    ),
)
@click.argument("source")
@dim_option
@level_option
@click.option("--passes", metavar="PIPELINE", help="Passes before those of -O, or up to memory-plan instead of them.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random inputs.")
def verify_command(source: str, dims: tuple[str, ...], level: str, passes: str | None, seed: int) -> None:
    """Compare what becomes of SOURCE with what it means, by an interpreter that computes each operation in f64: after
    each pass, op by op, kernel by kernel, and as a whole. Inputs are random.

    Tells how far each is off where it comes nearest to its tolerance, which follows from the bounds of the operations:
    in terms of it, and in units in the last place, of which there are many where a sum comes out near zero. The first
    pass, op or kernel that leaves its tolerance is named, and a small file written that shows it.
    """
    loaded = load_source(source, dims)
    options = make_options(level, passes, None)
    checks: list[Check] = []
    try:
        verify_module(loaded.module, options, seed=seed, found=checks.append)
    finally:
        rows = [("ULP off", "of tolerance", "function", "stage", "what", "source")]
        rows += [(f"{c.ulp:.3g}", f"{c.share:.1%}", c.function, c.stage, c.name, " ".join(c.lines)) for c in checks]
        click.echo("\n".join(table(rows)))
    sizes = ", ".join(f"{name} = {SIZE}" for name in sorted(dimensions(loaded.module)))
    click.echo(f"all of it is as it should be{f', for {sizes}' if sizes else ''}")
