"""Steps of growth that move elements: movement, indices, sorting, random bits."""

from __future__ import annotations

from tests.fuzz.grower import Grower
from tgc.dtypes import bool_, f32, i64, u32, u64
from tgc.errors import ShapeError
from tgc.ir import dims
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes

# -- movement ----------------------------------------------------------------------------------------------------


def reshape(g: Grower) -> None:
    x = g.pick()
    shape = list(x.shape)
    way = g.rng.random()
    if way < 0.4 and len(shape) >= 2:
        i = g.rng.randrange(len(shape) - 1)
        shape[i : i + 2] = [shape[i] * shape[i + 1]]
    elif way < 0.7:
        splits = [
            (i, k) for i, d in enumerate(shape) if isinstance(d, int) for k in (2, 3, 4, 8) if d > k and d % k == 0
        ]
        if not splits:
            raise ShapeError("nothing to split")
        i, k = g.rng.choice(splits)
        shape[i : i + 1] = g.rng.choice(([k, shape[i] // k], [shape[i] // k, k]))
    elif way < 0.85 and 1 in shape:
        shape.remove(1)
    elif len(shape) < 4:
        shape.insert(g.rng.randint(0, len(shape)), 1)
    else:
        shape = [dims.product(shape)]
    g.add("reshape", x, attributes={"shape": tuple(shape)})


def transpose(g: Grower) -> None:
    x = g.pick(rank=2)
    g.add("transpose", x, attributes={"permutation": tuple(g.rng.sample(range(len(x.shape)), len(x.shape)))})


def broadcast(g: Grower) -> None:
    x = g.pick()
    if len(x.shape) > 3:
        raise ShapeError("enough dimensions")
    shape = [g.dim() if d == 1 and g.rng.random() < 0.7 else d for d in x.shape]
    axes = list(range(len(shape)))
    if not shape or g.rng.random() < 0.6:
        at = g.rng.randint(0, len(shape))
        shape.insert(at, g.dim())
        axes = [a + (a >= at) for a in axes]
    g.add("broadcast", x, attributes={"shape": tuple(shape), "axes": tuple(axes)})


def reverse(g: Grower) -> None:
    x = g.pick(rank=1)
    axes = sorted(g.rng.sample(range(len(x.shape)), g.rng.randint(1, len(x.shape))))
    g.add("reverse", x, attributes={"axes": tuple(axes)})


def slice_(g: Grower) -> None:
    x = g.pick(rank=1)
    start, stop, step = [], [], []
    for d in x.shape:
        low = g.rng.choice((0, 0, 0, 1, 2))
        first: Dim = min(low, d) if isinstance(d, int) else dims.dim_min(low, d)
        last: Dim = d
        if g.rng.random() < 0.3 and isinstance(d, int) and isinstance(first, int):
            last = g.rng.randint(first, d)
        start.append(first)
        stop.append(last)
        step.append(g.rng.choice((1, 1, 1, 2, 3)))
    g.add("slice", x, attributes={"start": tuple(start), "stop": tuple(stop), "step": tuple(step)})


def pad(g: Grower) -> None:
    x = g.pick(rank=1)
    low, high, interior = (tuple(g.rng.choice((0, 0, 0, 1, 2)) for _ in x.shape) for _ in range(3))
    if g.rng.random() < 0.6:
        interior = (0,) * len(x.shape)
    g.add("pad", x, g.operand((), x.dtype), attributes={"low": low, "high": high, "interior": interior})


def concatenate(g: Grower) -> None:
    x = g.pick(rank=1)
    axis = g.rng.randrange(len(x.shape))
    parts = [x]
    for _ in range(g.rng.choice((1, 1, 2))):
        size = x.shape[axis] if g.rng.random() < 0.5 else g.dim()
        parts.append(g.operand((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype))
    g.rng.shuffle(parts)
    g.add("concatenate", *parts, attributes={"axis": axis})


# -- indices -----------------------------------------------------------------------------------------------------


def gather(g: Grower) -> None:
    x = g.pick(rank=1)
    axis = g.rng.randrange(len(x.shape))
    g.need_elements(x.shape[axis])
    if g.rng.random() < 0.5:
        indices = g.index(g.shape(g.rng.choice((0, 1, 1, 2))), x.shape[axis])
        g.add("gather", x, indices, attributes={"axis": axis})
    else:
        indices = g.index((*x.shape[:axis], g.dim(), *x.shape[axis + 1 :]), x.shape[axis])
        g.add("take_along_axis", x, indices, attributes={"axis": axis})


def scatter(g: Grower) -> None:
    x = g.pick(rank=1)
    axis = g.rng.randrange(len(x.shape))
    mode = "set" if x.dtype is bool_ else g.rng.choice(("set", "add", "max", "min"))
    attributes: Attributes = {"axis": axis, "mode": mode}
    if g.rng.random() < 0.5:
        indices = g.index(g.shape(g.rng.choice((0, 1, 1, 2))), x.shape[axis])
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        g.check(g.builder.full(0.0, shape, f32))
        g.add("scatter", x, indices, g.operand(shape, x.dtype), attributes=attributes)
    else:
        indices = g.index((*x.shape[:axis], g.dim(), *x.shape[axis + 1 :]), x.shape[axis])
        g.check(indices)
        g.add("scatter_along_axis", x, indices, g.operand(indices.shape, x.dtype), attributes=attributes)


def dynamic(g: Grower) -> None:
    x = g.pick(rank=1)
    sizes = tuple(g.rng.randint(1, d) if isinstance(d, int) and d and g.rng.random() < 0.7 else d for d in x.shape)
    starts = [g.operand((), i64) for _ in x.shape]
    if g.rng.random() < 0.5:
        g.add("dynamic_slice", x, *starts, attributes={"sizes": sizes})
    else:
        g.add("dynamic_update_slice", x, g.operand(sizes, x.dtype), *starts)


def sort(g: Grower) -> None:
    x = g.pick(kinds="float int uint", rank=1)
    if g.rng.random() < 0.2:
        entries = g.pick(kinds="float int uint", rank=1)
        line = g.keep(g.builder.reshape(entries, (dims.product(entries.shape),)))
        ordered = g.add("sort", line, attributes={"axis": 0, "descending": False})
        side = g.rng.choice(("left", "right"))
        g.add("searchsorted", ordered, g.operand(g.shape(), entries.dtype), attributes={"side": side})
        return
    attributes = {"axis": g.rng.randrange(len(x.shape)), "descending": g.rng.random() < 0.4}
    g.add(g.rng.choice(("sort", "argsort")), x, attributes=attributes)


def random_bits(g: Grower) -> None:
    bits = g.add("random_bits", g.operand((2,), u32), g.operand((), u64), attributes={"shape": g.shape()})
    if g.rng.random() < 0.6:
        scaled = g.builder.cast(g.builder.op("shift_right", bits, g.builder.full_like(bits, 8)), f32)
        g.keep(g.builder.mul(scaled, g.builder.constant(2.0**-24, f32)))
