"""Steps of growth: maps, folds, products and composites. Each adds a node or a few, or raises ShapeError."""

from __future__ import annotations

from tests.fuzz.grower import INTEGERS, Grower
from tgc.dtypes import DTYPES, bool_, f32
from tgc.errors import ShapeError
from tgc.ir import dims
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes
from tgc.ir.kinds import OpKind
from tgc.ops import OPS
from tgc.ops.convolve import Windows

_LETTERS = "abcdefgh"
_COMPOSITES = (
    *("softmax", "log_softmax", "softmax", "gelu", "silu", "softplus", "elu", "leaky_relu", "layer_norm", "rms_norm"),
    *(
        "batch_norm",
        "batch_norm_inference",
        "group_norm",
        "cross_entropy",
        "binary_cross_entropy",
        "attention",
        "lstm",
        "gru",
    ),
)
MAPS = tuple(n for n, d in OPS.items() if d.kind is OpKind.MAP and n not in ("cast", "bitcast", "select", "clamp"))


# -- maps --------------------------------------------------------------------------------------------------------


def map_step(g: Grower) -> None:
    name = g.rng.choice(MAPS)
    definition = OPS[name]
    accepted = {t[0].dtype for t, _ in definition.cases}
    candidates = [v for v in g.pool if v.dtype in accepted]
    x = g.rng.choice(candidates[-8:]) if candidates and g.rng.random() < 0.9 else g.pick()
    if x.dtype not in accepted:
        x = g.builder.cast(x, g.rng.choice(sorted(accepted, key=str)))
    operands = [x]
    while len(operands) < (definition.operands or 1):
        operands.append(g.operand(x.shape, x.dtype))
    if g.rng.random() < 0.2:
        operands.reverse()
    narrow = ("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "asin", "acos", "acosh", "atanh", "pow", "tan", "exp",
              "exp2", "expm1", "sinh", "cosh", "reciprocal", "div", "floor_divide", "remainder")  # fmt: skip
    if name in narrow:
        for i, (low, high) in enumerate(definition.domain):
            operands[i] = g.into(operands[i], max(low, -8.0), min(high, 8.0))
    g.add(name, *operands)


def common_map(g: Grower) -> None:
    """Maps that networks are made of, so that chains of them are frequent."""
    x = g.pick(kinds="float")
    name = g.rng.choice(("add", "sub", "mul", "relu", "tanh", "sigmoid", "maximum", "minimum", "neg", "abs", "square"))
    g.add(name, *(x, g.operand(x.shape, x.dtype))[: OPS[name].operands])


def choose(g: Grower) -> None:
    x = g.pick()
    if g.rng.random() < 0.5 and x.dtype is not bool_:
        g.add("clamp", x, *(g.operand(x.shape, x.dtype) for _ in range(2)))
    else:
        g.add("select", g.operand(x.shape, bool_), *g.rng.sample([x, g.operand(x.shape, x.dtype)], 2))


def compare(g: Grower) -> None:
    x = g.pick()
    names = ("eq", "ne") if x.dtype is bool_ else ("eq", "ne", "lt", "le", "gt", "ge")
    g.add(g.rng.choice(names), x, g.operand(x.shape, x.dtype))


def cast(g: Grower) -> None:
    x = g.pick()
    if g.rng.random() < 0.2:
        same = [d for d in DTYPES.values() if d.bits == x.dtype.bits and bool_ not in (d, x.dtype)]
        if same:
            g.add("bitcast", x, attributes={"dtype": g.rng.choice(same)})
            return
    g.add("cast", x, attributes={"dtype": DTYPES[g.rng.choice((*INTEGERS, "f32", "f64", "bf16", "f16", "bool"))]})


def barrier(g: Grower) -> None:
    g.add("barrier", g.pick())


def dimension(g: Grower) -> None:
    x = g.pick(rank=1)
    g.add("dimension", attributes={"size": g.rng.choice(x.shape), "dtype": DTYPES[g.rng.choice(("i64", "f32", "i32"))]})


# -- folds -------------------------------------------------------------------------------------------------------


def reduce(g: Grower) -> None:
    name = g.rng.choice(("sum", "sum", "sum", "max", "max", "min", "prod", "any", "all"))
    x = g.pick(kinds="bool" if name in ("any", "all") else "float float int uint", rank=1)
    axes = tuple(sorted(g.rng.sample(range(len(x.shape)), g.rng.randint(1, len(x.shape)))))
    if name == "prod":
        x = g.into(x, 0.5, 1.5)
    y = g.add(name, x, attributes={"axes": axes})
    if g.rng.random() < 0.5:
        # as normalisations do: back to the shape of what was folded
        back = g.keep(g.builder.broadcast(y, x.shape, [i for i in range(len(x.shape)) if i not in axes]))
        if x.dtype is not bool_:
            g.add(g.rng.choice(("sub", "add", "mul")), x, back)


def arg(g: Grower) -> None:
    x = g.pick(kinds="float int uint", rank=1)
    axis = g.rng.randrange(len(x.shape))
    g.need_elements(x.shape[axis])
    g.add(g.rng.choice(("argmax", "argmin")), x, attributes={"axis": axis})


def cumulative(g: Grower) -> None:
    x = g.pick(kinds="float int uint", rank=1)
    name = g.rng.choice(("cumulative_sum", "cumulative_sum", "cumulative_max", "cumulative_min", "cumulative_prod"))
    if name == "cumulative_prod":
        x = g.into(x, 0.5, 1.5)
    g.add(name, x, attributes={"axis": g.rng.randrange(len(x.shape)), "reverse": g.rng.random() < 0.4})


# -- products ----------------------------------------------------------------------------------------------------


def contract(g: Grower) -> None:
    a = g.pick(kinds="float float float int uint", rank=1)
    if len(a.shape) > 4:
        raise ShapeError("too many letters")
    left = list(_LETTERS[: len(a.shape)])
    shared = g.rng.sample(left, g.rng.randint(1, len(left)))
    fresh = list(_LETTERS[len(left) : len(left) + g.rng.choice((0, 1, 1, 2))])
    right = shared + fresh
    if g.rng.random() < 0.4:
        g.rng.shuffle(right)
    size: dict[str, Dim] = dict(zip(left, a.shape, strict=True))
    size.update({c: g.dim() for c in fresh})
    b = g.operand(tuple(size[c] for c in right), a.dtype)
    out = [c for c in left if c not in shared or g.rng.random() < 0.25] + [c for c in fresh if g.rng.random() < 0.9]
    if g.rng.random() < 0.3:
        g.rng.shuffle(out)
    operands, letters = [a, b], ["".join(left), "".join(right)]
    if g.rng.random() < 0.4:
        operands.reverse()
        letters.reverse()
    g.add("contract", *operands, attributes={"spec": f"{letters[0]},{letters[1]}->{''.join(out)}"})


def dense(g: Grower) -> None:
    """A layer: product, bias, activation."""
    x = g.pick(kinds="float", rank=2)
    outputs = g.dim()
    rows = _LETTERS[: len(x.shape) - 1]
    w = g.operand((x.shape[-1], outputs), x.dtype)
    y = g.add("contract", x, w, attributes={"spec": f"{rows}y,yz->{rows}z"})
    y = g.add("add", y, g.builder.broadcast_to(g.operand((outputs,), x.dtype), y.shape))
    g.add(g.rng.choice(("relu", "tanh", "sigmoid")), y)


def _windows(g: Grower, rank: int) -> Attributes:
    choose = g.rng.choice
    return {
        "stride": tuple(choose((1, 1, 2, 3)) for _ in range(rank)),
        "padding": tuple((choose((0, 1, 1, 2)), choose((0, 1, 1, 2))) for _ in range(rank)),
        "dilation": tuple(choose((1, 1, 1, 2)) for _ in range(rank)),
    }


def convolution(g: Grower) -> None:
    rng = g.rng
    known = [v for v in g.pool if 3 <= len(v.shape) <= 5 and v.dtype.is_float]
    rank = rng.choice((1, 2, 2, 2, 3))
    if known and rng.random() < 0.7:
        x = rng.choice(known)
    else:
        spatial = tuple(rng.choice((1, 4, 6, 7, 8)) for _ in range(rank))
        batch = (
            dims.symbol(rng.choice(list(g.sizes[0]))) if g.sizes[0] and rng.random() < 0.6 else rng.choice((1, 2, 3))
        )
        x = g.operand(
            (batch, rng.choice((1, 2, 3, 4, 8, 16)), *spatial), DTYPES[rng.choice(("f32", "f32", "f32", "f64", "bf16"))]
        )
    rank = len(x.shape) - 2
    channels = x.shape[1]
    groups = rng.choice(
        [k for k in (1, 1, 1, 2, 3, 4, 8, 16) if isinstance(channels, int) and channels % k == 0] or [1]
    )
    kernel = tuple(rng.choice((1, 2, 3, 3)) for _ in range(rank))
    outputs = groups * rng.choice((1, 2, 3, 4, 8, 17))
    attributes: Attributes = {**_windows(g, rank), "groups": groups}
    w_shape = (outputs, channels // groups, *kernel)
    w = g.operand(w_shape, x.dtype)
    result = Windows.of(attributes).result(x.type, w.type)
    if not g.fits(result):
        raise ShapeError("too large")
    way = rng.random()
    if way < 0.5:
        y = g.add("convolution", x, w, attributes=attributes)
        if rng.random() < 0.5:
            bias = g.builder.broadcast(g.operand((outputs,), x.dtype), y.shape, (1,))
            g.add("relu", g.add("add", y, bias))
    elif way < 0.75:
        dy = g.operand(result.shape, x.dtype)
        g.add("convolution_input_gradient", dy, w, attributes={**attributes, "input_shape": x.shape})
    else:
        dy = g.operand(result.shape, x.dtype)
        g.add("convolution_filter_gradient", dy, x, attributes={**attributes, "filter_shape": w_shape})


def window(g: Grower) -> None:
    x = g.pick(kinds="float float int", rank=1)
    rank = len(x.shape)
    attributes = {**_windows(g, rank), "window": tuple(g.rng.choice((1, 2, 2, 3)) for _ in range(rank))}
    if rank == 4 and g.rng.random() < 0.6:
        k = g.rng.choice((2, 3))
        attributes = {"window": (1, 1, k, k), "stride": (1, 1, 2, 2), "padding": ((0, 0),) * 4, "dilation": (1,) * 4}
    name = g.rng.choice(("window_max", "window_sum"))
    y = g.add(name, x, attributes=attributes)
    if g.rng.random() < 0.5:
        dy = g.operand(y.shape, x.dtype)
        if name == "window_max":
            g.add("window_max_gradient", x, dy, attributes=attributes)
        else:
            g.add("window_sum_gradient", dy, attributes={**attributes, "input_shape": x.shape})


# -- composites --------------------------------------------------------------------------------------------------


def composite(g: Grower) -> None:
    rng = g.rng
    name = rng.choice(_COMPOSITES)
    x = g.pick(kinds="float", rank=2)
    dtype = x.dtype
    if name in ("softmax", "log_softmax"):
        g.add(name, x, attributes={"axis": rng.randrange(len(x.shape))})
    elif name in ("gelu", "silu", "softplus", "elu", "leaky_relu"):
        g.add(name, x, attributes={"approximate": rng.choice(("none", "tanh"))} if name == "gelu" else None)
    elif name in ("layer_norm", "rms_norm"):
        count = rng.randint(1, len(x.shape) - 1)
        g.need_elements(*x.shape[-count:])
        weights = [g.operand(x.shape[-count:], dtype) for _ in range(2 if name == "layer_norm" else 1)]
        g.add(name, x, *weights, attributes={"axes_count": count})
    elif name == "batch_norm":
        g.need_elements(*x.shape)
        g.add(name, x, *(g.operand((x.shape[1],), dtype) for _ in range(2)))
    elif name == "batch_norm_inference":
        channels = x.shape[1:2]
        average = g.operand(channels, dtype.compute)
        variance = g.add("exp", g.operand(channels, dtype.compute))
        g.add(name, x, *(g.operand(channels, dtype) for _ in range(2)), average, variance)
    elif name == "group_norm":
        g.need_elements(*x.shape)
        channels = x.shape[1]
        groups = rng.choice([k for k in (1, 2, 3, 8) if isinstance(channels, int) and channels % k == 0] or [1])
        g.add(name, x, *(g.operand((channels,), dtype) for _ in range(2)), attributes={"groups": groups})
    elif name == "cross_entropy":
        g.need_elements(x.shape[-1])
        g.add(name, x, g.index(x.shape[:-1], x.shape[-1]))
    elif name == "binary_cross_entropy":
        g.add(name, x, g.into(g.operand(x.shape, dtype), 0.0, 1.0))
    elif name == "attention":
        keys = (*x.shape[:-2], g.dim(), x.shape[-1])
        causal = rng.random() < 0.4
        keys = x.shape if causal else keys
        g.check(g.builder.full(0.0, (*x.shape[:-1], keys[-2]), dtype))  # the scores
        k = g.operand(keys, dtype)
        values = g.operand((*keys[:-1], rng.choice((x.shape[-1], g.dim()))), dtype)
        g.add(name, x, k, values, attributes={"causal": causal})
    else:
        recurrent(g, name)


def recurrent(g: Grower, name: str) -> None:
    rng = g.rng
    steps, batch, features, hidden = rng.choice((1, 2, 5)), g.dim(), rng.choice((2, 3, 8)), rng.choice((1, 3, 8))
    gates = 4 if name == "lstm" else 3
    dtype = rng.choice((f32, f32, DTYPES["f64"], DTYPES["bf16"]))
    x = g.operand((steps, batch, features), dtype)
    states = [g.operand((batch, hidden), dtype) for _ in range(2 if name == "lstm" else 1)]
    weights = [g.operand((gates * hidden, n), dtype) for n in (features, hidden)]
    biases = [g.operand((gates * hidden,), dtype) for _ in range(1 if name == "lstm" else 2)]
    g.add(name, x, *states, *weights, *biases, attributes={"reverse": rng.random() < 0.3})
