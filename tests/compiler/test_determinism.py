"""The same bits on any number of threads, in process and from files, and the same files from any process."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tgc
from passes.pipeline import PIPELINES
from tests.compiler.models import SUBJECTS, Array, bits, fresh
from tgc.compiler import Options
from tgc.inspect.limits import on_threads

ROOT = Path(__file__).parents[2]
STEPS = 100


def trained(name: str, count: int) -> dict[str, Array]:
    """Everything that a hundred steps and a prediction give, on so many threads."""
    subject = fresh(name)
    x, y = SUBJECTS[name].batch(32)
    step, predict = tgc.jit(subject.train_step), tgc.jit(subject.predict)
    with on_threads(count):
        losses = np.array([step(x, y).numpy() for _ in range(STEPS)])
        return {"losses": losses, "prediction": predict(x).numpy(), **subject.state()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_training_gives_the_same_bits_on_any_number_of_threads(name: str) -> None:
    one = trained(name, 1)
    assert one["losses"][-1] < one["losses"][0]
    for count in (2, 3, 8):
        for key, value in trained(name, count).items():
            np.testing.assert_array_equal(bits(value), bits(one[key]), err_msg=f"{key} on {count} threads")


def call_shared(path: Path, name: str, state: ctypes.Array, inputs: list[Array], output: Array, batch: int) -> None:
    """Calls NAME_FUNCTION of a shared library as a C program does."""
    library = ctypes.CDLL(str(path))
    workspace_bytes = library[f"{name}_workspace"]
    workspace_bytes.restype = ctypes.c_int64
    needed = workspace_bytes(ctypes.c_int64(batch), ctypes.c_int32(1))
    raw = np.zeros(needed + 64, np.uint8)
    start = raw.ctypes.data + -raw.ctypes.data % 64
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*inputs, output)]
    assert library[name](state, *pointers, ctypes.c_int64(batch), ctypes.c_void_p(start)) == 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_without_fusion_the_bits_are_the_same(name: str, tmp_path: Path) -> None:
    """A kernel for each operation, or as few as may be."""
    found = []
    for pipeline in (PIPELINES["O3"].replace("fusion", "fusion{max-ops=0}"), "O3"):
        subject, spec = fresh(name), SUBJECTS[name].spec
        functions = [tgc.export(spec)(subject.predict), tgc.export(spec, "i64[batch]")(subject.train_step)]
        folder = tmp_path / pipeline
        library = tgc.compile(functions, folder, name="net", emit=["object"], options=Options(pipeline=pipeline))
        assert library is not None
        x, y = SUBJECTS[name].batch(32)
        losses = np.array([library.train_step(x, y) for _ in range(STEPS)])
        found.append({"losses": losses, "prediction": library.predict(x), **library.state()})
    for key, value in found[1].items():
        np.testing.assert_array_equal(bits(value), bits(found[0][key]), err_msg=key)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_process_an_object_and_a_shared_library_give_the_same_bits(name: str, tmp_path: Path) -> None:
    subject, spec = fresh(name), SUBJECTS[name].spec
    predict = tgc.export(spec)(subject.predict)
    step = tgc.export(spec, "i64[batch]")(subject.train_step)
    loaded = tgc.compile([predict, step], tmp_path / "net")
    assert loaded is not None
    path = next((tmp_path / "net").glob("*.so"), None)
    x, y = SUBJECTS[name].batch(32)
    losses = [bits(step(x, y).numpy()) for _ in range(STEPS)]
    assert [bits(loaded.train_step(x, y)) for _ in range(STEPS)] == losses
    np.testing.assert_array_equal(bits(loaded.predict(x)), bits(predict(x).numpy()))
    if path is None:
        return  # nothing here can link
    library = ctypes.CDLL(str(path))
    library.net_state_size.restype = ctypes.c_int64
    size = library.net_state_size()
    raw = np.zeros(size + 64, np.uint8)
    state = ctypes.c_void_p(raw.ctypes.data + -raw.ctypes.data % 64)
    assert library.net_init(state, ctypes.c_int64(size)) == 0
    for loss in losses:
        output = np.zeros((), np.float32)
        call_shared(path, "net_train_step", state, [x, y], output, 32)
        assert bits(output) == loss
    probabilities = np.zeros((32, 10), np.float32)
    call_shared(path, "net_predict", state, [x], probabilities, 32)
    np.testing.assert_array_equal(bits(probabilities), bits(predict(x).numpy()))


SCRIPT = """
import sys
from pathlib import Path
import tgc
from tests.compiler.models import SUBJECTS, fresh
for name in ("mlp", "transformer"):
    subject, spec = fresh(name), SUBJECTS[name].spec
    functions = [tgc.export(spec)(subject.predict), tgc.export(spec, "i64[batch]")(subject.train_step)]
    tgc.compile(functions, Path(sys.argv[1]) / name)
"""


def test_files_do_not_depend_on_the_process_or_the_folder(tmp_path: Path) -> None:
    """Hashes of strings differ, and so do the places of objects in memory and the caches."""
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / ("folder" * int(seed))
        environment = os.environ | {"PYTHONHASHSEED": seed, "TGC_CACHE_DIR": str(tmp_path / f"cache{seed}")}
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert files[0].keys() == files[1].keys()
    assert files[0]
    for path, content in files[0].items():
        assert files[1][path] == content, path
