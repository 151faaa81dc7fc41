"""Shared libraries from object files, with whatever linker there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tgc.backend.host import host_target
from tgc.errors import CompilerBug, TargetError
from tgc.target import Target

_TIMEOUT = 300


@dataclass(frozen=True)
class Linker:
    """A command that links; ``driver``: it is a C compiler, which passes options on."""

    command: tuple[str, ...]
    driver: bool

    def arguments(self, objects: Sequence[str], output: str, soname: str, script: str) -> list[str]:
        """The command line of a shared library that exports what the version script names."""
        options = [
            f"--version-script={script}",
            "--build-id=none",
            "--hash-style=gnu",
            "-z",
            "noexecstack",
            "-z",
            "relro",
        ]
        options += ["-z", "now", "-soname", soname]
        if self.driver:
            options = [word for option in options for word in ("-Xlinker", option)]
            options = ["-nostdlib", *options]
        return [*self.command, "-shared", *options, "-o", output, *objects]


def linkers(target: Target) -> Iterator[Linker]:
    """The linkers of this machine that take the target's objects, best first."""
    host = host_target()
    if target.triple.split("-")[0] == host.triple.split("-")[0]:
        for name in ("cc", "gcc", "clang"):
            if path := shutil.which(name):
                yield Linker((path,), driver=True)
        if path := shutil.which("ld"):
            yield Linker((path,), driver=False)
    if path := shutil.which("ld.lld"):
        yield Linker((path,), driver=False)
    if find_spec("ziglang") is not None:
        yield Linker((sys.executable, "-m", "ziglang", "ld.lld"), driver=False)


def shared(objects: Sequence[bytes], output: Path, *, soname: str, target: Target, exported: Iterable[str]) -> None:
    """Links ELF objects to a shared library that exports the names ``exported``; equal input gives equal bytes.

    The library names no other: memory functions and pthreads are those of the process that loads it. The file appears
    whole or not at all. Raises :class:`TargetError` if there is no linker for the target, or it is not ELF.
    """
    if any(word in target.triple for word in ("windows", "darwin", "macos", "wasm")):
        raise TargetError(
            f"shared libraries are linked for ELF targets only, not {target.triple}",
            hint="write the object, and link it with the target's own tools",
        )
    linker = next(linkers(target), None)
    if linker is None:
        raise TargetError(
            f"there is no linker for {target.triple}",
            hint="install a C compiler (cc), GNU ld or ld.lld, or pip install 'tgc[link]'; or write the object only",
        )
    with tempfile.TemporaryDirectory(prefix="tgc-link-") as folder:
        names = [f"{number}.o" for number in range(len(objects))]
        for name, image in zip(names, objects, strict=True):
            (Path(folder) / name).write_bytes(image)
        symbols = " ".join(f"{name};" for name in exported)
        (Path(folder) / "exported").write_text(f"{{ {'global: ' + symbols if symbols else ''} local: *; }};\n")
        command = linker.arguments(names, "linked.so", soname, "exported")
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            raise CompilerBug(f"{' '.join(command)}: {done.stderr.strip()}", stage="linking")
        _replace(output, (Path(folder) / "linked.so").read_bytes())


def _replace(output: Path, image: bytes) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(image)
        Path(name).chmod(0o755)
        Path(name).replace(output)
    except BaseException:
        Path(name).unlink()
        raise
