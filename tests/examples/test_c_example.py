"""The C program of the examples: built against the object and the shared library, it computes the bits of Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc.backend.host import host_target
from tgc.backend.threads import num_threads, set_num_threads

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = [name for name in ("cc",) if shutil.which(name)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled by the command line."""
    folder = tmp_path_factory.mktemp("build")
    command = [sys.executable, "-m", "tgc", "compile", str(ROOT / "examples" / "digits.py"), "-o", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((32, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 32)


def test_loaded_functions_train_and_predict_like_those_in_process(
    build: Path, data: tuple[np.ndarray, np.ndarray]
) -> None:
    library = tgc.load(build)
    images, labels = data
    losses = [float(library.train_step(images, labels)) for _ in range(10)]
    assert losses[-1] < losses[0]
    # one thread or many: the same bits
    before = num_threads()
    trained = library.predict(images)
    library.reset()
    try:
        set_num_threads(1 if before > 1 else 2)
        assert [float(library.train_step(images, labels)) for _ in range(10)] == losses
        np.testing.assert_array_equal(library.predict(images), trained)
    finally:
        set_num_threads(before)


if COMPILERS:

    @pytest.mark.parametrize("linked", ["digits.o", "libdigits.so"])
    def test_the_c_program_trains_and_predicts_with_the_bits_of_python(
        linked: str, build: Path, tmp_path: Path, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = data
        images.tofile(tmp_path / "images.bin")
        labels.tofile(tmp_path / "labels.bin")
        program = str(tmp_path / "digits")
        source = str(ROOT / "examples" / "digits.c")
        warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(
            [COMPILERS[0], *warnings, source, "-I", str(build), str(build / linked), "-pthread", "-o", program],
            check=True,
        )
        files = [str(tmp_path / name) for name in ("images.bin", "labels.bin", "probabilities.bin")]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(build)}
        done = subprocess.run([program, *files], check=True, capture_output=True, text=True, env=environment)
        library = tgc.load(build)
        losses = [float(library.train_step(images, labels)) for _ in range(10)]
        assert done.stdout.splitlines() == [f"step {i:2}  loss {loss:.4f}" for i, loss in enumerate(losses, start=1)]
        found = np.fromfile(files[2], np.float32).reshape(32, 10)
        assert found.tobytes() == library.predict(images).tobytes()


# valgrind knows no AVX-512, so the program is compiled for a CPU without
if COMPILERS and host_target().triple.startswith("x86_64"):
    CHECKERS: list[tuple[list[str], list[str]]] = [
        (["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], []),
        *([([], ["valgrind", "-q", "--leak-check=full", "--error-exitcode=9"])] if shutil.which("valgrind") else []),
    ]

    @pytest.fixture(scope="module")
    def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The example, compiled for any CPU with AVX2."""
        folder = tmp_path_factory.mktemp("plain")
        source = str(ROOT / "examples" / "digits.py")
        command = [sys.executable, "-m", "tgc", "compile", source, "-o", str(folder), "--cpu", "x86-64-v3"]
        subprocess.run([*command, "--name", "digits"], cwd=ROOT, check=True, capture_output=True)
        return folder

    @pytest.mark.parametrize(("flags", "checker"), CHECKERS)
    def test_the_c_program_makes_no_wrong_access(
        flags: list[str], checker: list[str], plain: Path, tmp_path: Path, data: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Sanitizers see what C code and the memory functions do, valgrind also what the kernels do."""
        for name, array in zip(("images.bin", "labels.bin"), data, strict=True):
            array.tofile(tmp_path / name)
        program = str(tmp_path / "digits")
        source, image = str(ROOT / "examples" / "digits.c"), str(plain / "digits.o")
        subprocess.run(["cc", "-g", *flags, source, "-I", str(plain), image, "-pthread", "-o", program], check=True)
        files = [str(tmp_path / name) for name in ("images.bin", "labels.bin", "probabilities.bin")]
        done = subprocess.run([*checker, program, *files], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
