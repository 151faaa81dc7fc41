"""The cache of compiled code: files addressed by content, checksummed, written atomically, bounded in size.

An entry holds a function's signature as JSON and its object file. Whatever cannot be read, or is not what it says,
counts as absent. The folder is ``TGC_CACHE_DIR``, or the platform's folder for caches; an unusable one means no cache.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import llvmlite

import tgc
from passes.base import Pass
from tgc.errors import TgcError
from tgc.ir.graph import Module
from tgc.ir.printer import print_module
from tgc.kernels.program import Program
from tgc.signature import described, signature
from tgc.target import Target

_MAGIC = b"tgc-cache-1\n"
_DIGEST = 32
_LARGEST = 512 * 1024 * 1024


def cache_key(module: Module, target: Target, pipeline: str, passes: Sequence[Pass], debug: bool) -> str:
    """The address of a module's code: everything that its bytes depend on, hashed."""
    parts = (
        tgc.__version__,
        llvmlite.__version__,
        repr(target),
        pipeline,
        repr(passes),
        repr(debug),
        print_module(module, locations=False),
    )
    return sha256("\0".join(parts).encode()).hexdigest()


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
class Cache:
    """A folder of compiled functions."""

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

    def get(self, key: str) -> tuple[Program, bytes] | None:
        """The entry under ``key``, or None."""
        path = self._path(key)
        try:
            if path.stat().st_size > _LARGEST:
                return None
            data = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC)
        if data[:start] != _MAGIC or sha256(data[start + _DIGEST :]).digest() != data[start : start + _DIGEST]:
            return None
        body = data[start + _DIGEST :]
        size = int.from_bytes(body[:8], "little")
        if size > len(body) - 8:
            return None
        try:
            program = signature(json.loads(body[8 : 8 + size]))
        except (ValueError, KeyError, TypeError, TgcError, RecursionError):
            return None
        return program, body[8 + size :]

    def put(self, key: str, program: Program, image: bytes) -> None:
        """Stores an entry; a folder that cannot be written to is left alone."""
        head = json.dumps(described(program)).encode()
        body = len(head).to_bytes(8, "little") + head + image
        path = self._path(key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + sha256(body).digest() + body)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            self._trim()
        except OSError:
            return

    def _trim(self) -> None:
        """Drops the oldest entries beyond ``most_bytes``."""
        entries = []
        for path in self.folder.glob("??/*"):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
