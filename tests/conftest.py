"""What every test runs under: a cache of its own, and inputs that are the same in every run."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# Examples are derandomised, so that a failure is the same for everybody, and not timed: the machine may be busy.
settings.register_profile("tgc", deadline=None, derandomize=True, print_blob=False, database=None)
settings.load_profile("tgc")


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Points tgc's compilation cache at a directory that only this test process uses."""
    before = os.environ.get("TGC_CACHE_DIR")
    os.environ["TGC_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TGC_CACHE_DIR"]
    else:
        os.environ["TGC_CACHE_DIR"] = before


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator seeded by the test's own name."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
