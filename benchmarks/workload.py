"""What a row is: inputs and weights, the same for every contestant, and the work that is counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Workload:
    """A row of the table.

    ``function`` names what each peer looks up among its own functions or models, with ``options``. ``flops`` and
    ``moved`` (bytes, each input and output once) are what the machine's limits are compared with. ``model`` names the
    model of `benchmarks.models` whose weights all contestants begin with. Results must agree within ``tolerance`` of
    the largest magnitude of each. ``symbolic`` gives the types of the arguments where tgc leaves dimensions open.
    ``peers`` are those that it makes sense to ask, all if it is empty.
    """

    name: str
    function: str
    arrays: Callable[[np.random.Generator], Arrays] = lambda rng: {}
    options: Mapping[str, Any] = field(default_factory=dict)
    flops: float | None = None
    moved: float | None = None
    model: str | None = None
    tolerance: float = 1e-4
    symbolic: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    memory: bool = False
    peak_share: float = 1.0  # of the peak in f32: what the row's data type can reach


@dataclass(frozen=True)
class Inputs:
    """A row's arguments and its model's first weights."""

    arrays: Arrays
    weights: Arrays


@dataclass(frozen=True)
class Contestant:
    """What a peer made of a workload: `run` is timed; `outputs` turns its result into arrays, outside the timing.

    A contestant that measures itself, once per call, in processes of its own, returns seconds from `run` and says so by
    `measures_itself`.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], list[Array]] = lambda result: [np.asarray(result)]
    measures_itself: bool = False


def uniform(rng: np.random.Generator, *shape: int, fan_in: int = 1) -> Array:
    """f32 values of a scale that keeps activations near one."""
    bound = (3 / fan_in) ** 0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def made(**shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    """Uniform f32 arrays of these shapes."""
    return lambda rng: {name: uniform(rng, *shape) for name, shape in shapes.items()}


def f32_bytes(*shapes: tuple[int, ...]) -> float:
    """The bytes of f32 arrays of these shapes."""
    return float(sum(4 * np.prod(shape) for shape in shapes))
