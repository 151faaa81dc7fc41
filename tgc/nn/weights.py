"""Weights in safetensors files: every dtype of tgc, bf16 included, and nothing but tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from tgc.dtypes import DTYPES, bool_
from tgc.errors import ParseError, UserError
from tgc.ir.graph import Array

_DTYPES = MappingProxyType({"BOOL" if d is bool_ else d.name.upper(): d for d in DTYPES.values()})


def write_weights(path: str | Path, weights: Mapping[str, Array]) -> None:
    """Writes arrays to a safetensors file, row-major."""
    save_file({name: np.array(array, order="C", copy=None) for name, array in weights.items()}, Path(path))


def read_weights(path: str | Path) -> dict[str, Array]:
    """The arrays of a safetensors file by name.

    Raises :class:`UserError` for a file that cannot be read, :class:`ParseError` for one that is malformed or holds
    dtypes that tgc does not have.
    """
    try:
        found = deserialize(Path(path).read_bytes())  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except SafetensorError as error:
        raise ParseError(f"{path} is no safetensors file: {error}") from None
    arrays: dict[str, Array] = {}
    for name, entry in found:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ParseError(f"{path}: {name} has the dtype {entry['dtype']}, which tgc does not have")
        arrays[name] = np.frombuffer(entry["data"], dtype.numpy).reshape(entry["shape"])
    return arrays
