"""Every row, by name, and the suites."""

from collections.abc import Mapping

from benchmarks.rows import convolutions, elementwise, networks, products
from benchmarks.workload import Workload

WORKLOADS: Mapping[str, Workload] = {
    row.name: row
    for family in (
        products.rows(),
        convolutions.rows(),
        elementwise.rows(),
        networks.rows(),
        products.growth(),
        elementwise.growth(),
        networks.growth(),
    )
    for row in family
}

QUICK = (
    "gemm-1024",
    "conv3x3-64-56",
    "softmax",
    "layer-norm",
    "sum-axis0",
    "attention",
    "mlp-batch1",
    "train-cnn",
    "train-transformer",
)

SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": QUICK,
    "full": tuple(name for name in WORKLOADS if not name.startswith("growth-")),
    "growth": tuple(name for name in WORKLOADS if name.startswith("growth-")),
}
