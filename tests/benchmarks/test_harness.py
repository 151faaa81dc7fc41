"""The harness of the benchmarks: what it accepts, how it judges, and that every row can be run."""

import sys

import numpy as np
import pytest

from benchmarks import harness, models
from benchmarks.limits import Limits
from benchmarks.report import cells, headings, markdown, row
from benchmarks.workload import Contestant, Workload
from benchmarks.workloads import SUITES, WORKLOADS


def test_results_that_differ_or_are_nan_are_named():
    ones = [np.ones(3, np.float32)]
    assert harness.disagreement(ones, [np.ones(3, np.float32)], 1e-6) == ""
    assert "differs by" in harness.disagreement(ones, [np.array([1, 1, 1.1], np.float32)], 1e-2)
    assert "differs by nan" in harness.disagreement(ones, [np.full(3, np.nan, np.float32)], 1.0)
    assert "shapes" in harness.disagreement(ones, [np.ones(4, np.float32)], 1.0)


def test_a_contestant_that_disagrees_is_not_timed_and_one_that_fails_says_why(monkeypatch):
    def contestant(value):
        return lambda workload, inputs: Contestant(lambda: np.full(2, value))

    def failing(workload, inputs):
        raise ValueError("no such thing\nand more")

    modules = {"tgc": contestant(1.0), "right": contestant(1.0), "wrong": contestant(2.0), "failing": failing}
    for name, build in modules.items():
        module = type(sys)(f"peer_{name}")
        module.build = build
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(harness, "PEERS", {name: f"peer_{name}" for name in modules})
    measured = harness.time_row(Workload("row", "f"), list(modules), seconds=0.0, clock=harness.CLOCKS["wall"])
    assert measured["tgc"].seconds is not None
    assert measured["right"].seconds is not None
    assert measured["wrong"].seconds is None
    assert "differs by 1" in measured["wrong"].problem
    assert measured["failing"].problem == "ValueError: no such thing"


def test_a_process_that_ends_early_is_reported_for_its_peers():
    found = harness.in_process("gemm-256", ["nobody"], threads=1, seconds=0.0, clock="wall", mode="time", caches="")
    assert "KeyError" in found["nobody"].problem


def test_the_limit_is_the_slower_of_arithmetic_and_memory():
    limits = Limits(1, 1e9, ((1000, 1e9), (10_000, 1e8)))
    assert limits.seconds(2e9, 100) == 2.0
    assert limits.seconds(1.0, 5000) == 5000 / 1e8
    assert limits.bandwidth(10**9) == 1e8
    assert limits.seconds(None, None) is None


def test_a_row_compares_with_its_fastest_peer_and_shows_a_rival_of_its_own():
    measured = {
        "tgc": harness.Measurement(seconds=2.0, cold=0.5),
        "torch": harness.Measurement(seconds=3.0),
        "jax": harness.Measurement(problem="ImportError: jax"),
        "tgc-static": harness.Measurement(seconds=1.0),
    }
    limits = Limits(1, WORKLOADS["gemm-256"].flops or 0.0, ((1, 1e12),))
    found = row("gemm-256", measured, limits)
    assert found.ratio == 0.5
    assert found.fraction == 0.5
    assert found.problems == ["gemm-256: jax: ImportError: jax"]
    assert cells(found, ["tgc", "torch", "jax"])[1:5] == ["2 s", "3 s", "1 s (tgc-static)", "0.50"]
    lines = markdown([found], ["tgc", "torch", "jax"]).splitlines()
    assert {line.count("|") for line in lines} == {len(headings(["tgc", "torch", "jax"])) + 1}


def test_suites_name_rows_and_rows_make_arrays_of_the_sizes_they_count():
    assert all(name in WORKLOADS for suite in SUITES.values() for name in suite)
    for name in ("softmax", "gemm-256", "sum-axis0", "nchw-to-nhwc"):
        workload = WORKLOADS[name]
        arrays = workload.arrays(np.random.default_rng(0))
        assert sum(array.nbytes for array in arrays.values()) <= (workload.moved or 0.0)


@pytest.mark.parametrize("name", ["softmax", "gather-rows", "mlp-batch1", "train-mlp", "train-mlp-symbolic", "sum-all"])
def test_a_row_runs(name):
    workload = WORKLOADS[name]
    peers = ["tgc", *workload.peers]
    measured = harness.time_row(workload, peers, seconds=0.0, clock=harness.CLOCKS["cpu"])
    assert [m.problem for m in measured.values()] == ["" for _ in peers]
    assert all(m.seconds for m in measured.values())


def test_counted_work_is_that_of_the_papers():
    assert models.resnet_flops(1) == pytest.approx(2 * 4.09e9, rel=0.01)
    assert models.mlp_flops(1) == 2 * (64 * 128 + 128 * 128 + 128 * 10)
    assert models.cnn_step_flops(2) == 2 * models.cnn_step_flops(1)
