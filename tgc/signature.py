"""Signatures of compiled functions as JSON: what a caller must know of a program, without its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgc.dtypes import named
from tgc.ir.dims import parse_dim
from tgc.kernels.program import Constraint, Program, ProgramValue

FORMAT = 3
"""The version of the manifest beside an object."""


def described(program: Program) -> dict[str, Any]:
    """Values that JSON can hold, from which :func:`signature` makes the program again, steps excepted."""

    def values(found: Sequence[ProgramValue]) -> list[list[Any]]:
        return [[v.name, v.dtype.name, [str(d) for d in v.shape]] for v in found]

    return {
        "name": program.name,
        "inputs": values(program.inputs),
        "outputs": values(program.outputs),
        "state": values(program.state),
        "constants": values(program.constants),
        "symbols": list(program.symbols),
        "constraints": [[str(c.left), c.relation, str(c.right), c.message] for c in program.constraints],
        "workspace": str(program.workspace),
        "setup": None if program.setup is None else described(program.setup),
    }


def signature(description: Mapping[str, Any]) -> Program:
    """The program, without steps. Raises KeyError, TypeError, ValueError or :class:`TgcError` if malformed."""

    def values(found: list[list[Any]]) -> tuple[ProgramValue, ...]:
        return tuple(ProgramValue(str(n), named(d), tuple(parse_dim(s) for s in shape)) for n, d, shape in found)

    constraints = tuple(
        Constraint(parse_dim(left), "<=" if relation == "<=" else "==", parse_dim(right), str(message))
        for left, relation, right, message in description["constraints"]
    )
    return Program(
        str(description["name"]),
        values(description["inputs"]),
        values(description["outputs"]),
        values(description["state"]),
        values(description["constants"]),
        tuple(map(str, description["symbols"])),
        constraints,
        (),
        parse_dim(description["workspace"]),
        None if description["setup"] is None else signature(description["setup"]),
    )
