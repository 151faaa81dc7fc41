"""Steps of growth of the sizes that schedules are made for: products that pack, long folds, searches and moves.

What they read is as it is, computed on the way in, moved, or the same in every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tests.fuzz.grower import FLOATS, Grower, Step
from tgc.dtypes import DTYPES, DType, f32, i64
from tgc.errors import ShapeError
from tgc.ir import dims
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes, Graph, State, Value, parameter, state
from tgc.ir.types import TensorType
from tgc.ops.convolve import Windows

_PRODUCTS = 3_000_000
_SIZES = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    14,
    16,
    17,
    24,
    31,
    32,
    33,
    48,
    64,
    65,
    100,
    128,
    130,
    200,
    256,
    257,
    300,
    512,
    520,
    1025,
)
_LENGTHS = (15, 16, 17, 64, 100, 255, 256, 257, 1000, 1024, 2049, 5000, 20000)
_CHANNELS = (1, 2, 3, 4, 7, 8, 16, 17, 24, 32, 33, 64, 96)
_LETTERS = "abcdefgh"


def _few(g: Grower, *shape: Dim, most: int) -> None:
    """ShapeError unless the product is small enough for the interpreter, for all sizes that are tried."""
    if any(prod(dims.evaluate(d, sizes) for d in shape) > most for sizes in g.sizes):
        raise ShapeError("too large")


def _size(g: Grower, choices: Sequence[int] = _SIZES) -> Dim:
    symbols = list(g.sizes[0])
    return dims.symbol(g.rng.choice(symbols)) if symbols and g.rng.random() < 0.2 else g.rng.choice(choices)


def weights(g: Grower, shape: Sequence[Dim], dtype: DType) -> Value:
    """What a call may find unchanged: state, or whatever else an operand is."""
    if g.closed or g.rng.random() < 0.5 or not all(isinstance(d, int) for d in shape):
        return dressed(g, shape, dtype)
    name = f"s{len(g.state)}"
    type_ = TensorType(dtype, tuple(shape))
    g.state[name] = State(type_)
    return g.keep(state(name, type_))


def dressed(g: Grower, shape: Sequence[Dim], dtype: DType) -> Value:
    """An operand of that type: a leaf, or one that is mapped, cast, permuted, cut out, padded or repeated first."""
    shape, rng, b = tuple(shape), g.rng, g.builder
    way = rng.random()
    rank = len(shape)
    if way < 0.4 or not rank:
        return g.leaf(shape, dtype)
    if way < 0.45:
        # of nothing, which is zero, this is something
        return g.keep(b.add(g.leaf(shape, dtype), b.constant(rng.choice((1, 3)), dtype)))
    if way < 0.5:
        maps = ("relu", "tanh", "square", "cos") if dtype.is_float else ("neg", "abs", "square")
        return g.add(rng.choice(maps), g.leaf(shape, dtype))
    if way < 0.6:
        axes = sorted(rng.sample(range(rank), rng.randrange(rank)))
        other = b.broadcast(g.leaf([shape[a] for a in axes], dtype), shape, axes)
        return g.add(rng.choice(("add", "mul", "maximum")), g.leaf(shape, dtype), other)
    if way < 0.65:
        return g.keep(b.cast(g.leaf(shape, DTYPES[rng.choice(("f32", "i32", "bf16"))]), dtype))
    if way < 0.8:
        order = rng.sample(range(rank), rank)
        x = g.leaf([shape[a] for a in order], dtype)
        return g.add("transpose", x, attributes={"permutation": tuple(order.index(a) for a in range(rank))})
    if way < 0.87:
        start = tuple(rng.choice((0, 0, 1, 2)) for _ in shape)
        x = g.leaf([d + low + rng.choice((0, 1)) for d, low in zip(shape, start, strict=True)], dtype)
        stop = tuple(d + low for d, low in zip(shape, start, strict=True))
        return g.add("slice", x, attributes={"start": start, "stop": stop, "step": (1,) * rank})
    if way < 0.94 and isinstance(shape[-1], int) and shape[-1] > 2:
        x = g.leaf((*shape[:-1], shape[-1] - 2), dtype)
        sides = {"low": (0,) * (rank - 1) + (1,), "high": (0,) * (rank - 1) + (1,), "interior": (0,) * rank}
        return g.add("pad", x, b.constant(0, dtype), attributes=sides)
    axes = sorted(rng.sample(range(rank), rng.randrange(rank)))
    return g.keep(b.broadcast(g.leaf([shape[a] for a in axes], dtype), shape, axes))


def _float(g: Grower) -> DType:
    return DTYPES[g.rng.choice(FLOATS)]


# -- products ----------------------------------------------------------------------------------------------------


def product(g: Grower) -> None:
    rng = g.rng
    size: dict[str, Dim] = {}
    letters = iter(_LETTERS)
    batch, rows, columns, folded = (
        [next(letters) for _ in range(rng.choice(counts))]
        for counts in ((0, 0, 0, 1), (0, 1, 1, 1, 2), (0, 1, 1, 1, 2), (1, 1, 1, 2))
    )
    for c in (*batch, *rows, *columns, *folded):
        size[c] = _size(g, (2, 3, 5) if c in batch else _SIZES)
    _few(g, *size.values(), most=_PRODUCTS)
    dtype = _float(g) if rng.random() < 0.9 else DTYPES[rng.choice(("i32", "i64", "u8"))]
    left, right, out = [*batch, *rows, *folded], [*batch, *folded, *columns], [*batch, *rows, *columns]
    for side in (left, right, out):
        if rng.random() < 0.35:
            rng.shuffle(side)
    a, b = dressed(g, [size[c] for c in left], dtype), weights(g, [size[c] for c in right], dtype)
    y = g.add("contract", a, b, attributes={"spec": f"{''.join(left)},{''.join(right)}->{''.join(out)}"})
    if y.shape and dtype.is_float and rng.random() < 0.5:
        bias = g.builder.broadcast(weights(g, y.shape[-1:], dtype), y.shape, (len(y.shape) - 1,))
        g.add(rng.choice(("relu", "tanh", "sigmoid", "square")), g.add("add", y, bias))


def convolution(g: Grower) -> None:
    rng = g.rng
    rank = rng.choice((1, 2, 2, 2, 2, 3))
    sizes = {1: (1, 8, 33, 100, 300), 2: (1, 5, 7, 12, 14, 17, 28, 33), 3: (1, 4, 6, 9)}[rank]
    dtype = DTYPES[rng.choice(("f32", "f32", "f32", "f32", "f64", "bf16"))]
    groups, inner, outer = 1, rng.choice(_CHANNELS), rng.choice(_CHANNELS)
    if rng.random() < 0.3:
        groups, inner, outer = rng.choice(((16, 1, 1), (33, 1, 1), (64, 1, 1), (8, 1, 2), (2, 8, 16), (4, 3, 5)))
    batch = _size(g, (1, 1, 2, 3, 8))
    x_shape = (batch, groups * inner, *(rng.choice(sizes) for _ in range(rank)))
    w_shape = (groups * outer, inner, *(rng.choice((1, 1, 2, 3, 3, 3, 5, 7)) for _ in range(rank)))
    attributes: Attributes = {
        "stride": tuple(rng.choice((1, 1, 1, 2, 2, 3)) for _ in range(rank)),
        "padding": tuple((rng.choice((0, 1, 1, 2, 3)), rng.choice((0, 1, 1, 2, 3))) for _ in range(rank)),
        "dilation": tuple(rng.choice((1, 1, 1, 1, 2)) for _ in range(rank)),
        "groups": groups,
    }
    result = Windows.of(attributes).result(TensorType(dtype, x_shape), TensorType(dtype, w_shape))
    if not g.fits(result):
        raise ShapeError("too large")
    _few(g, *result.shape, *w_shape[1:], most=_PRODUCTS)
    way = rng.random()
    if way < 0.5:
        y = g.add("convolution", dressed(g, x_shape, dtype), weights(g, w_shape, dtype), attributes=attributes)
        if rng.random() < 0.6:
            y = g.add("add", y, g.builder.broadcast(weights(g, w_shape[:1], dtype), y.shape, (1,)))
        if rng.random() < 0.3:
            y = g.add("add", y, dressed(g, y.shape, dtype))
        if rng.random() < 0.5:
            g.add("relu", y)
    elif way < 0.75:
        dy, w = dressed(g, result.shape, dtype), weights(g, w_shape, dtype)
        g.add("convolution_input_gradient", dy, w, attributes={**attributes, "input_shape": x_shape})
    else:
        dy, x = dressed(g, result.shape, dtype), dressed(g, x_shape, dtype)
        g.add("convolution_filter_gradient", dy, x, attributes={**attributes, "filter_shape": w_shape})


def attention(g: Grower) -> None:
    """Written out, so that masks, scales and what else stands between the products differ."""
    rng, b = g.rng, g.builder
    dtype = DTYPES[rng.choice(("f32", "f32", "f32", "f64", "bf16"))]
    heads = [rng.choice((1, 2, 3)) for _ in range(rng.choice((0, 1, 1, 2)))]
    queries, keys = (_size(g, (1, 15, 16, 17, 33, 64, 100, 130, 200)) for _ in range(2))
    inner, outer = (rng.choice((1, 4, 16, 24, 32, 33, 64)) for _ in range(2))
    causal = rng.random() < 0.3
    keys = queries if causal else keys
    _few(g, *heads, queries, keys, inner + outer, most=_PRODUCTS)
    batch = _LETTERS[: len(heads)]
    q, k, v = (dressed(g, (*heads, n, d), dtype) for n, d in ((queries, inner), (keys, inner), (keys, outer)))
    if rng.random() < 0.4:
        mask = []
        if not causal and rng.random() < 0.5:
            shape = rng.choice(((*heads, queries, keys), (queries, keys), (keys,), (*heads, 1, keys)))
            mask = [g.leaf(shape, DTYPES[rng.choice(("bool", dtype.name))])]
        g.add("attention", q, k, v, *mask, attributes={"causal": causal, "scale": rng.choice((None, 0.5, 1.0))})
        return
    s = g.add("contract", q, k, attributes={"spec": f"{batch}xz,{batch}yz->{batch}xy"})
    if rng.random() < 0.6:
        s = b.mul(s, b.constant(rng.choice((0.25, 0.125, 1.5)), dtype))
    if causal:
        row, column = (
            b.op("iota", attributes={"shape": s.shape, "axis": len(heads) + i, "dtype": i64}) for i in (0, 1)
        )
        seen = b.op(rng.choice(("ge", "le", "gt")), row, column)
        s = b.op("select", seen, s, b.full_like(s, rng.choice((-1e9, -1e4, float("-inf")))))
    elif rng.random() < 0.5:
        s = b.add(s, b.broadcast_to(g.leaf(rng.choice((s.shape[-2:], s.shape[-1:])), dtype), s.shape))
    rows = rng.random()
    if rows < 0.75:
        p = g.add("softmax", s, attributes={"axis": len(s.shape) - 1})
    elif rows < 0.9:
        total = b.op("max", s, attributes={"axes": (len(s.shape) - 1,)})
        p = g.keep(b.sub(s, b.broadcast(total, s.shape, range(len(s.shape) - 1))))
    else:
        p = g.add("relu", s)
    spec = f"{batch}xy,{batch}yw->{batch}{rng.choice(('xw', 'wx'))}"
    g.add("contract", p, v, attributes={"spec": spec})


def loop(g: Grower) -> None:
    """A scan or while whose products have captured factors, which leave it packed."""
    rng, b = g.rng, g.builder
    dtype = DTYPES[rng.choice(("f32", "f32", "f64", "bf16"))]
    rows, width, features = _size(g, (1, 4, 17, 32)), rng.choice((8, 17, 32, 64, 100)), rng.choice((3, 16, 48))
    steps = _size(g, (0, 1, 2, 5))
    _few(g, steps, rows, width, width + features, most=_PRODUCTS)
    h, xs = dressed(g, (rows, width), dtype), dressed(g, (steps, rows, features), dtype)
    w, u, bias = (weights(g, shape, dtype) for shape in ((features, width), (width, width), (width,)))
    values = (h, xs, w, u, bias)
    types = [TensorType(i64, ()), h.type, TensorType(dtype, xs.shape[1:]), w.type, u.type, bias.type]
    inner = tuple(parameter(i, t) for i, t in enumerate(types))
    _, h_in, x_in, w_in, u_in, bias_in = inner
    if rng.random() < 0.3:
        w_in = b.op("relu", w_in)
    y = b.op("contract", h_in, u_in, attributes={"spec": rng.choice(("ab,bc->ac", "ab,cb->ac"))})
    y = b.add(y, b.op("contract", x_in, w_in, attributes={"spec": "ab,bc->ac"}))
    y = b.op("tanh", b.add(y, b.broadcast(bias_in, y.shape, (1,))))
    outputs = rng.choice(((y,), (y, h_in), (b.op("relu", y),)))
    attributes: Attributes = {"carries": 1, "sequences": 1, "length": steps, "reverse": rng.random() < 0.3}
    for value in b.results("scan", *values, attributes=attributes, regions=(Graph(inner, (y, *outputs)),)):
        g.check(value)
        g.keep(value)


def recurrent(g: Grower) -> None:
    rng = g.rng
    name = rng.choice(("lstm", "gru"))
    steps, batch = _size(g, (1, 3, 6)), _size(g, (1, 3, 16, 33))
    features, hidden = rng.choice((3, 16, 40)), rng.choice((5, 16, 32))
    gates = 4 if name == "lstm" else 3
    _few(g, steps, batch, features + hidden, gates * hidden, most=_PRODUCTS)
    x = dressed(g, (steps, batch, features), f32)
    states = [dressed(g, (batch, hidden), f32) for _ in range(2 if name == "lstm" else 1)]
    factors = [weights(g, (gates * hidden, n), f32) for n in (features, hidden)]
    biases = [weights(g, (gates * hidden,), f32) for _ in range(1 if name == "lstm" else 2)]
    g.add(name, x, *states, *factors, *biases, attributes={"reverse": rng.random() < 0.3})


# -- folds, searches and moves -----------------------------------------------------------------------------------


def _long(g: Grower) -> tuple[Dim, ...]:
    """The shape of a large tensor with one long axis, anywhere."""
    shape: list[Dim] = [g.rng.choice((1, 2, 3, 5, 17)) for _ in range(g.rng.choice((0, 1, 1, 2)))]
    shape.insert(g.rng.randint(0, len(shape)), _size(g, _LENGTHS))
    if g.rng.random() < 0.5:
        shape = [_size(g, (16, 17, 33, 64, 100, 257)) for _ in range(2)]
    _few(g, *shape, most=g.extent.most)
    return tuple(shape)


def fold(g: Grower) -> None:
    rng = g.rng
    names = rng.sample(("sum", "sum", "max", "min", "prod", "argmax", "argmin"), rng.choice((1, 1, 2, 3)))
    dtype = DTYPES[rng.choice((*FLOATS, "i32", "i64", "u8", "i16"))]
    x = dressed(g, _long(g), dtype)
    axes = tuple(sorted(rng.sample(range(len(x.shape)), rng.randint(1, len(x.shape)))))
    for name in names:
        if name.startswith("arg"):
            g.need_elements(x.shape[axes[0]])
            g.add(name, x, attributes={"axis": axes[0]})
        else:
            g.add(name, g.into(x, 0.9, 1.1) if name == "prod" else x, attributes={"axes": axes})
    if rng.random() < 0.3 and dtype.is_float:
        g.add(rng.choice(("softmax", "log_softmax")), x, attributes={"axis": axes[0]})


def normalise(g: Grower) -> None:
    x = dressed(g, _long(g), _float(g))
    g.need_elements(x.shape[-1])
    scale = [weights(g, x.shape[-1:], x.dtype) for _ in range(2)]
    name = g.rng.choice(("layer_norm", "rms_norm", "softmax"))
    g.add(name, x, *scale[: {"layer_norm": 2, "rms_norm": 1}.get(name, 0)],
          attributes={"axis": len(x.shape) - 1} if name == "softmax" else {"axes_count": 1})  # fmt: skip


def running(g: Grower) -> None:
    x = dressed(g, _long(g), DTYPES[g.rng.choice((*FLOATS, "i32", "i64", "u8"))])
    name = g.rng.choice(("cumulative_sum", "cumulative_sum", "cumulative_max", "cumulative_min", "cumulative_prod"))
    x = g.into(x, 0.9, 1.1) if name == "cumulative_prod" else x
    g.add(name, x, attributes={"axis": g.rng.randrange(len(x.shape)), "reverse": g.rng.random() < 0.4})


def order(g: Grower) -> None:
    """Lines of numbers of all sizes, with and without equal ones."""
    rng, b = g.rng, g.builder
    dtype = DTYPES[
        rng.choice(("f32", "f32", "f64", "f16", "bf16", "i32", "i64", "u8", "i16", "u32", "u64", "i8", "u16"))
    ]
    x = dressed(g, _long(g), dtype)
    if dtype.is_integer and rng.random() < 0.7:
        # all digits
        factor = rng.choice((3, 1_000_003, 0x9E37_79B9_7F4A_7C15)) % (1 << (dtype.bits - 1))
        spread = b.op("iota", attributes={"shape": x.shape, "axis": rng.randrange(len(x.shape)), "dtype": dtype})
        x = g.keep(b.mul(b.add(x, spread), b.constant(factor | 1, dtype)))
    attributes = {"axis": rng.randrange(len(x.shape)), "descending": rng.random() < 0.4}
    for name in rng.choice((("sort",), ("argsort",), ("sort", "argsort"))):
        g.add(name, x, attributes=attributes)


def look_up(g: Grower) -> None:
    """Rows of tables, taken and put."""
    rng = g.rng
    dtype = DTYPES[rng.choice((*FLOATS, "i32", "u8"))]
    table = [_size(g, (3, 17, 100, 1000)), *rng.choice(((), (_size(g, (1, 8, 16, 33, 64)),), (5, 17)))]
    axis = rng.randrange(len(table)) if rng.random() < 0.3 else 0
    count = [_size(g, (1, 7, 32, 100)) for _ in range(rng.choice((1, 1, 2)))]
    g.need_elements(table[axis])
    shape = (*table[:axis], *count, *table[axis + 1 :])
    _few(g, *table, most=g.extent.most)
    _few(g, *shape, most=g.extent.most)
    x, indices = weights(g, table, dtype), g.index(count, table[axis])
    if rng.random() < 0.5:
        g.add("gather", x, indices, attributes={"axis": axis})
    else:
        mode = rng.choice(("set", "add", "add", "max", "min"))
        g.add("scatter", x, indices, dressed(g, shape, dtype), attributes={"axis": axis, "mode": mode})


def rearrange(g: Grower) -> None:
    """Transpositions of large tensors, in chains, joined."""
    rng = g.rng
    shape = rng.choice(((_size(g), _size(g)), (2, _size(g, _CHANNELS), 9, 14), (3, 17, _size(g), 5)))
    _few(g, *shape, most=g.extent.most)
    x = dressed(g, shape, DTYPES[rng.choice((*FLOATS, "u8", "i16", "i64", "bool"))])
    for _ in range(rng.choice((1, 1, 2))):
        x = g.add("transpose", x, attributes={"permutation": tuple(rng.sample(range(len(shape)), len(shape)))})
    if rng.random() < 0.4:
        axis = rng.randrange(len(shape))
        other = (*x.shape[:axis], _size(g, (1, 8, 17)), *x.shape[axis + 1 :])
        parts = [x, dressed(g, other, x.dtype)]
        rng.shuffle(parts)
        g.add("concatenate", *parts, attributes={"axis": axis})


SUBJECTS: dict[Step, int] = {
    product: 6,
    convolution: 8,
    attention: 4,
    loop: 2,
    recurrent: 1,
    fold: 4,
    normalise: 2,
    running: 2,
    order: 2,
    look_up: 3,
    rearrange: 3,
}
