"""The cache of compiled code: files addressed by content, checksummed, written atomically, bounded in size.

An entry holds a function's signature as JSON, the constants that the passes computed, and its object files. Whatever
cannot be read, or is not what it says, counts as absent. The folder is ``TGC_CACHE_DIR``, or the platform's folder for
caches; it must belong to the user alone, since what lies in it is run. An unusable one means no cache.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import llvmlite
import numpy as np

from tgc.dtypes import from_numpy, named
from tgc.errors import TgcError
from tgc.ir.graph import Array, Module
from tgc.ir.printer import print_module
from tgc.kernels.program import Program
from tgc.signature import described, signature
from tgc.target import Target
from tgc.version import VERSION

_MAGIC = b"tgc-cache-2\n"
_DIGEST = 32
_LARGEST = 512 * 1024 * 1024
_SEPARATOR = "\0"


def _stamps(folder: str | Path) -> Iterator[tuple[str, int, int]]:
    """(name, size, time of the last change) of every Python file in a folder and below."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _stamps(entry.path)
        elif entry.name.endswith(".py"):
            status = entry.stat()
            yield entry.name, status.st_size, status.st_mtime_ns


def _compiler_fingerprint() -> str:
    root = Path(__file__).resolve().parents[1]
    stamps = [stamp for package in ("tgc", "passes") for stamp in _stamps(root / package)]
    parts = (VERSION, llvmlite.__version__, sys.version, repr(stamps))
    return sha256(_SEPARATOR.join(parts).encode()).hexdigest()


COMPILER: Final = _compiler_fingerprint()
"""What compiled code depends on besides its source: versions, and the compiler's own files, as they are when they are
imported, so that a process that runs on while they change does not vouch for the new ones."""


def cache_key(module: Module, target: Target, *options: object) -> str:
    """The address of a module's code: everything that its bytes depend on, hashed.

    Locations are no part of it, and constants are by their digests.
    """
    parts = (COMPILER, repr(target), *map(repr, options), print_module(module, locations=False))
    return sha256(_SEPARATOR.join(parts).encode()).hexdigest()


def default_folder() -> Path | None:
    """Where the cache lies; None if ``TGC_CACHE_DIR`` is empty, which turns it off."""
    given = os.environ.get("TGC_CACHE_DIR")
    if given is not None:
        return Path(given) if given else None
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tgc"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tgc" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tgc"


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
class Cache:
    """A folder of entries by key, of ``most_bytes`` together, give or take the latest; the oldest go first."""

    folder: Path
    most_bytes: int = 1 << 30

    @staticmethod
    def default() -> Cache | None:
        """The user's cache, or None if it is turned off."""
        try:
            folder = default_folder()
        except RuntimeError:
            return None
        return None if folder is None else Cache(folder)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _is_private(self) -> bool:
        """Whether nobody else can put files here."""
        status = self.folder.stat()
        return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)

    def read(self, key: str) -> bytes | None:
        """What was written under ``key``, or None."""
        path = self._path(key)
        try:
            if path.stat().st_size > _LARGEST or not self._is_private():
                return None
            data = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST
        body = data[start:]
        if data[: len(_MAGIC)] != _MAGIC or sha256(body).digest() != data[len(_MAGIC) : start]:
            return None
        return body

    def write(self, key: str, body: bytes) -> None:
        """Keeps ``body`` under ``key``; a folder that cannot be written to is left alone."""
        path = self._path(key)
        if len(body) > _LARGEST // 2:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(path, _MAGIC + sha256(body).digest() + body, mode=0o600)
            if int(key[:2], 16) % 16 == 0:
                self.trim()
        except OSError:
            return

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

    def trim(self) -> None:
        """Drops the oldest entries beyond ``most_bytes``; one in sixteen writes does it."""
        entries = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process trims as well
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> Path:
    """Writes a file whole or not at all, and gives its path."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
