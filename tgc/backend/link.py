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
from typing import Literal

from tgc.backend.host import host_target
from tgc.errors import CompilerBug, TargetError
from tgc.target import Target

_TIMEOUT = 300


@dataclass(frozen=True)
class Linker:
    """A command that links; ``kind``: a C compiler, which passes options on, an ELF linker, or one of WebAssembly."""

    command: tuple[str, ...]
    kind: Literal["cc", "ld", "wasm"]

    def arguments(self, objects: Sequence[str], output: str, soname: str, exported: Sequence[str]) -> list[str]:
        """The command line of a library that exports the names ``exported``, which are in the file ``exported`` too."""
        if self.kind == "wasm":
            names = [f"--export={name}" for name in (*exported, "__heap_base")]
            return [*self.command, "--no-entry", *names, "-o", output, *objects]
        options = ["--version-script=exported", "--build-id=none", "--hash-style=gnu"]
        options += ["-z", "noexecstack", "-z", "relro", "-z", "now", "-soname", soname]
        if self.kind == "cc":
            options = ["-nostdlib", *(word for option in options for word in ("-Xlinker", option))]
        return [*self.command, "-shared", *options, "-o", output, *objects]


def linkers(target: Target) -> Iterator[Linker]:
    """The linkers of this machine that take the target's objects, best first."""
    if target.triple.startswith("wasm"):
        if path := shutil.which("wasm-ld"):
            yield Linker((path,), "wasm")
        if find_spec("ziglang") is not None:
            yield Linker((sys.executable, "-m", "ziglang", "wasm-ld"), "wasm")
        return
    host = host_target()
    if target.triple.split("-")[0] == host.triple.split("-")[0]:
        for name in ("cc", "gcc", "clang"):
            if path := shutil.which(name):
                yield Linker((path,), "cc")
        if path := shutil.which("ld"):
            yield Linker((path,), "ld")
    if path := shutil.which("ld.lld"):
        yield Linker((path,), "ld")
    if find_spec("ziglang") is not None:
        yield Linker((sys.executable, "-m", "ziglang", "ld.lld"), "ld")


def shared(objects: Sequence[bytes], output: Path, *, soname: str, target: Target, exported: Iterable[str]) -> None:
    """Links objects to a shared library, or a WebAssembly module, that exports the names ``exported``.

    Equal input gives equal bytes. The library needs no other: memory functions and pthreads are those of the process
    that loads it; a module exports ``memory`` and ``__heap_base``, from where on memory is free. The file appears whole
    or not at all. Raises :class:`TargetError` if there is no linker for the target, or it is neither ELF nor wasm.
    """
    if any(word in target.triple for word in ("windows", "darwin", "macos")):
        raise TargetError(
            f"libraries are linked for ELF and WebAssembly only, not for {target.triple}",
            hint="write the object, and link it with the target's own tools",
        )
    linker = next(linkers(target), None)
    if linker is None:
        tools = "wasm-ld" if target.triple.startswith("wasm") else "a C compiler (cc), GNU ld or ld.lld"
        raise TargetError(
            f"there is no linker for {target.triple}",
            hint=f"install {tools}, or pip install 'tgc[link]'; or write the object only",
        )
    names = tuple(exported)
    with tempfile.TemporaryDirectory(prefix="tgc-link-") as folder:
        files = [f"{number}.o" for number in range(len(objects))]
        for name, image in zip(files, objects, strict=True):
            (Path(folder) / name).write_bytes(image)
        symbols = " ".join(f"{name};" for name in names)
        (Path(folder) / "exported").write_text(f"{{ {'global: ' + symbols if symbols else ''} local: *; }};\n")
        command = linker.arguments(files, "linked", soname, names)
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
        _replace(output, (Path(folder) / "linked").read_bytes())


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
