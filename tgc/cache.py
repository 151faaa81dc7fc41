"""The cache of compiled code: an entry for each function, in the user's folder (:mod:`tgc.storage`).

An entry holds a function's signature as JSON, the constants that the passes computed, and its object files. Whatever
cannot be read, or is not what it says, counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from tgc.dtypes import from_numpy, named
from tgc.errors import TgcError
from tgc.ir.graph import Array, Module
from tgc.ir.printer import print_module
from tgc.kernels.program import Program
from tgc.signature import described, signature
from tgc.storage import COMPILER, SEPARATOR, Storage
from tgc.target import Target


def cache_key(module: Module, target: Target, *options: object) -> str:
    """The address of a module's code: everything that its bytes depend on, hashed.

    Locations are no part of it, and constants are by their digests.
    """
    parts = (COMPILER, repr(target), *map(repr, options), print_module(module, locations=False))
    return sha256(SEPARATOR.join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A compiled function: its signature (a program without steps), its object files, and computed constants."""

    program: Program
    images: tuple[bytes, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The entry as bytes: a header as JSON, then everything it counts."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.constants.items()}
        head = {
            "program": described(self.program),
            "images": [len(image) for image in self.images],
            "constants": [[n, from_numpy(a.dtype).name, list(self.constants[n].shape)] for n, a in arrays.items()],
        }
        text = json.dumps(head).encode()
        return b"".join((len(text).to_bytes(8, "little"), text, *self.images, *(a.tobytes() for a in arrays.values())))

    @staticmethod
    def decoded(data: bytes) -> Entry:
        """The inverse. Raises ValueError, KeyError, TypeError, RecursionError or :class:`TgcError` if malformed."""
        start = 8 + int.from_bytes(data[:8], "little")
        head: dict[str, Any] = json.loads(data[8:start])
        images = []
        for size in head["images"]:
            images.append(data[start : start + size])
            start += size
        constants = {}
        for name, dtype, shape in head["constants"]:
            kind = named(dtype).numpy
            count = int(np.prod(shape, dtype=np.int64))
            constants[str(name)] = np.frombuffer(data, kind, count, start).reshape(shape).copy()
            start += count * kind.itemsize
        if start != len(data):
            raise ValueError("the entry has another length than it says")
        return Entry(signature(head["program"]), tuple(images), constants)


@dataclass(frozen=True)
class Cache(Storage):
    """A storage of entries."""

    def get(self, key: str) -> Entry | None:
        """The function under ``key``, or None."""
        body = self.read(key)
        if body is None:
            return None
        try:
            return Entry.decoded(body)
        except (ValueError, KeyError, TypeError, RecursionError, TgcError):
            return None

    def put(self, key: str, entry: Entry) -> None:
        """Keeps a function."""
        self.write(key, entry.encoded())
