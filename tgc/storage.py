"""A folder of files addressed by content, checksummed, written atomically and bounded in size: what caches lie in.

The folder is ``TGC_CACHE_DIR``, or the platform's folder for caches; it must belong to the user alone, since what lies
in it is run. An unusable one means no cache, and a file that is not what it says counts as absent.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import llvmlite

from tgc.version import VERSION

_MAGIC = b"tgc-cache-2\n"
_DIGEST = 32
_LARGEST = 512 * 1024 * 1024
SEPARATOR: Final = "\0"
"""Between the parts of what is hashed."""


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
    return sha256(SEPARATOR.join(parts).encode()).hexdigest()


COMPILER: Final = _compiler_fingerprint()
"""What compiled code depends on besides its source: versions, and the compiler's own files, as they are when they are
imported, so that a process that runs on while they change does not vouch for the new ones."""


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
class Storage:
    """A folder of entries by key, of ``most_bytes`` together, give or take the latest; the oldest go first."""

    folder: Path
    most_bytes: int = 1 << 30

    @classmethod
    def default(cls) -> Self | None:
        """The user's cache, or None if it is turned off."""
        try:
            folder = default_folder()
        except RuntimeError:
            return None
        return None if folder is None else cls(folder)

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
