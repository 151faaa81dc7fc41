"""The command line: ``tgc compile``, ``opt``, ``run``, ``explain``, ``verify`` and ``bench``.

Exit codes: 0, 1 for a mistake of the user's, 2 for a command line that is none, 70 for a fault of tgc itself.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

import click

from tgc.cli.bench import bench_command
from tgc.cli.compile import compile_command
from tgc.cli.explain import explain_command
from tgc.cli.failures import BUG, USER, report_bug
from tgc.cli.opt import opt_command
from tgc.cli.run import run_command
from tgc.cli.verify import verify_command
from tgc.errors import UserError
from tgc.version import VERSION

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "--version", prog_name="tgc", message="%(prog)s %(version)s")
def commands() -> None:
    """Compile models written in Python to native code, as files that need neither Python nor a framework.

    \b
    tgc compile digits.py -o build/digits     every @tgc.export of the file: object, header, shared library
    tgc run build/digits predict x=image.npy  runs the object file, needs no linker
    tgc explain digits.py:predict             which operation became part of which kernel, and why not
    tgc verify digits.py:predict              whether compiled code does what the program means
    tgc opt --passes canonicalize,cse net.tgc graph IR in, graph IR out
    tgc bench digits.py --dim batch=32        how fast it is, and this machine
    """


for command in (compile_command, opt_command, run_command, explain_command, verify_command, bench_command):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, that of the process by default, and gives its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        commands.main(given, prog_name="tgc", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("aborted", err=True)
        return USER
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        return USER
    except BrokenPipeError:
        # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USER
    except Exception as error:  # noqa: BLE001 - whatever is left is a fault of tgc
        click.echo(report_bug(error, shlex.join(["tgc", *given])), err=True)
        return BUG
    return 0
