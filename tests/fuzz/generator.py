"""Random functions over the op table, with the sizes to call them with. A seed gives the same function everywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from tests.fuzz import moves, regions, steps
from tests.fuzz.grower import LARGE, SMALL, Extent, Grower, Step
from tests.fuzz.subjects import SUBJECTS
from tgc.dtypes import bool_, f32
from tgc.errors import DTypeError, ShapeError, UnsupportedError
from tgc.ir import dims
from tgc.ir.graph import Array, Constant, Constraint, Function, Graph, Module, State, parameter, state
from tgc.ir.types import TensorType

# how often each step is taken
_WEIGHTS: dict[Step, int] = {
    steps.map_step: 10,
    steps.common_map: 10,
    steps.choose: 3,
    steps.compare: 2,
    steps.cast: 3,
    steps.barrier: 1,
    steps.dimension: 1,
    steps.reduce: 10,
    steps.arg: 2,
    steps.cumulative: 3,
    steps.contract: 7,
    steps.dense: 3,
    steps.convolution: 4,
    steps.window: 4,
    steps.composite: 6,
    moves.reshape: 4,
    moves.transpose: 4,
    moves.broadcast: 3,
    moves.reverse: 2,
    moves.slice_: 3,
    moves.pad: 3,
    moves.concatenate: 3,
    moves.gather: 3,
    moves.scatter: 3,
    moves.dynamic: 2,
    moves.sort: 2,
    moves.random_bits: 1,
    regions.cond: 1,
    regions.scan: 2,
    regions.while_: 1,
    regions.checkpoint: 1,
    regions.gradient: 4,
}


@dataclass(frozen=True)
class Sample:
    """A function, its state and constants, and the sizes of its symbols in each call."""

    seed: int
    function: Function
    state: dict[str, State]
    sizes: tuple[dict[str, int], ...]
    constants: dict[str, Constant] = field(default_factory=dict)

    @property
    def module(self) -> Module:
        return Module("fuzz", (self.function,), self.state, self.constants)

    def arrays(self, sizes: dict[str, int]) -> tuple[list[Array], dict[str, Array]]:
        """Inputs and state of these sizes: the same ones every time."""
        rng = np.random.default_rng([self.seed, *sizes.values()])
        # with infinities, what lies beyond the border of a gradient is 0 or nan, as it is computed
        special = not any(n.op == "convolution_input_gradient" for n in self.function.nodes())
        inputs = [draw(v.type, sizes, rng, special) for v in self.function.parameters]
        return inputs, {name: draw(s.type, sizes, rng, special) for name, s in self.state.items()}


def draw(type_: TensorType, sizes: dict[str, int], rng: np.random.Generator, special: bool) -> Array:
    """Small numbers, some of them equal; rarely, if ``special``, the values at which floats go wrong."""
    shape = tuple(dims.evaluate(d, sizes) for d in type_.shape)
    dtype = type_.dtype
    if dtype is bool_:
        return np.asarray(rng.integers(0, 2, shape).astype(np.bool_))
    if dtype.is_integer:
        low = -4 if dtype.kind == "int" else 0
        return np.asarray(rng.integers(low, 9, shape).astype(dtype.numpy))
    values = rng.uniform(-2, 2, shape) if rng.random() < 0.7 else np.round(rng.uniform(-3, 3, shape))
    values = np.asarray(values)
    if values.size and rng.random() < 0.08 and special:
        strange = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 6e4], values.shape)
        values = np.where(rng.random(values.shape) < 0.1, strange, values)
    return values.astype(dtype.numpy)


def sample(seed: int, *, length: int = 12, extent: Extent = SMALL) -> Sample:
    """The function of that seed, made of about ``length`` steps."""
    grower = _begun(random.Random(seed), extent)
    _grow(grower, _WEIGHTS, length)
    return finish(grower, seed)


def focused(seed: int) -> Sample:
    """The function of that seed with one or two products, folds or moves of the sizes that schedules are made for."""
    rng = random.Random(seed)
    grower = _begun(rng, LARGE)
    _grow(grower, SUBJECTS, rng.choice((1, 1, 2)))
    _grow(grower, _WEIGHTS, rng.choice((0, 1, 3, 5)))
    return finish(grower, seed)


def any_kind(seed: int) -> Sample:
    """Every other one many steps over small tensors, of the rest some over large ones, most focused."""
    if seed % 2 == 0:
        return sample(seed)
    return sample(seed, length=6, extent=LARGE) if seed % 8 == 1 else focused(seed)


def _begun(rng: random.Random, extent: Extent) -> Grower:
    symbols = rng.choice(((), (), ("n",), ("n", "m")))
    sizes = tuple({s: rng.choice(extent.symbolic) for s in symbols} for _ in range(3 if symbols else 1))
    grower = Grower(rng, sizes, extent)
    if symbols:
        # each symbol must be bound by what enters
        grower.parameters.append(parameter(0, TensorType(f32, tuple(map(dims.symbol, symbols)))))
        grower.keep(grower.parameters[0])
    return grower


def _grow(grower: Grower, weights: dict[Step, int], length: int) -> None:
    """Takes ``length`` steps; fewer where too many are impossible."""
    done = 0
    for _ in range(6 * length + 10):
        (step,) = grower.rng.choices(list(weights), list(weights.values()))
        try:
            step(grower)
            done += 1
        except (ShapeError, DTypeError, UnsupportedError):
            continue
        if done >= length:
            break


def holds(constraint: Constraint, sizes: dict[str, int]) -> bool:
    """Whether the sizes satisfy it."""
    return dims.evaluate(constraint.left, sizes) == dims.evaluate(constraint.right, sizes)


def finish(grower: Grower, seed: int) -> Sample:
    """The function: values that nothing uses are its results, some of which are assigned to state as well."""
    rng = grower.rng
    used = {v for value in grower.pool for v in value.node.operands}
    ends = [v for v in grower.pool if v not in used and v.node.op != "parameter"] or grower.pool[-1:]
    others = [v for v in grower.pool if v in used and v.node.op not in ("parameter", "constant")]
    ends += rng.sample(others, min(len(others), rng.choice((0, 0, 1, 2))))
    rng.shuffle(ends)
    assigns = []
    for name, held in grower.state.items():
        fitting = [v for v in grower.pool if v.type == held.type and v != state(name, held.type)]
        if fitting and rng.random() < 0.7:
            assigns.append((name, rng.choice(fitting)))
    read = {
        str(n.attributes["name"])
        for n in Function("f", Graph((), tuple(ends)), tuple(assigns)).nodes()
        if n.op == "state"
    }
    kept = {name: held for name, held in grower.state.items() if name in read or name in dict(assigns)}
    # the others are of values that were given up
    constraints = tuple(c for c in grower.builder.constraints if all(holds(c, sizes) for sizes in grower.sizes))
    function = Function("f", Graph(tuple(grower.parameters), tuple(ends)), tuple(assigns), constraints=constraints)
    values = np.random.default_rng([seed, 1])
    used_literals = {str(n.attributes["name"]) for n in function.nodes() if n.op == "literal"}
    constants = {
        name: Constant.of(draw(type_, {}, values, special=False), type_)
        for name, type_ in grower.literals.items()
        if name in used_literals
    }
    return Sample(seed, function, kept, grower.sizes, constants)
