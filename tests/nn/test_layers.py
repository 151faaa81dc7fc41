"""Layers against their formulas in NumPy, and their state against PyTorch's names and shapes."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import tgc
from tgc import nn
from tgc.errors import UnsupportedError, UserError

Array = NDArray[Any]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def wide(module: nn.Module) -> dict[str, Array]:
    return {name: value.astype(np.float64) for name, value in module.state_dict().items()}


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def correlation(x: Array, w: Array, stride: int, dilation: int, groups: int) -> Array:
    """The cross-correlation of padded [N, C, H, W] by its definition."""
    reach = [(k - 1) * dilation + 1 for k in w.shape[2:]]
    windows = sliding_window_view(x, reach, (2, 3))[:, :, ::stride, ::stride, ::dilation, ::dilation]
    inputs, outputs = w.shape[1], w.shape[0] // groups
    parts = [
        np.einsum("nchwij,ocij->nohw", windows[:, g * inputs : (g + 1) * inputs], w[g * outputs : (g + 1) * outputs])
        for g in range(groups)
    ]
    return np.concatenate(parts, 1)


def test_linear(rng: np.random.Generator, close: Any) -> None:
    layer, x = nn.Linear(5, 7), normal(rng, 2, 3, 5)
    w = wide(layer)
    close(layer(tgc.tensor(x)), x @ w["weight"].T + w["bias"], 8)
    assert {k: v.shape for k, v in w.items()} == {"weight": (7, 5), "bias": (7,)}
    assert np.abs(w["weight"]).max() <= 1 / math.sqrt(5)


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_conv2d(stride: int, dilation: int, groups: int, rng: np.random.Generator, close: Any) -> None:
    layer = nn.Conv2d(4, 6, 3, stride=stride, padding=1, dilation=dilation, groups=groups)
    x, w = normal(rng, 2, 4, 7, 8), wide(layer)
    assert w["weight"].shape == (6, 4 // groups, 3, 3)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = correlation(padded, w["weight"], stride, dilation, groups) + w["bias"][:, None, None]
    close(layer(tgc.tensor(x)), expected, 40)


def test_conv2d_same_keeps_the_size_with_the_odd_zero_behind(rng: np.random.Generator, close: Any) -> None:
    layer, x = nn.Conv2d(2, 3, (3, 4), padding="same", bias=False), normal(rng, 1, 2, 5, 6)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 2)))
    close(layer(tgc.tensor(x)), correlation(padded, wide(layer)["weight"], 1, 1, 1), 30)
    with pytest.raises(UserError, match="stride"):
        nn.Conv2d(2, 3, 3, padding="same", stride=2)(tgc.tensor(x))


def test_conv1d_and_conv3d_are_conv2d_with_other_ranks(rng: np.random.Generator, close: Any) -> None:
    one, x = nn.Conv1d(2, 3, 3, padding=1), normal(rng, 2, 2, 6)
    w = wide(one)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1)))
    expected = np.einsum("nclk,ock->nol", sliding_window_view(padded, 3, 2), w["weight"]) + w["bias"][:, None]
    close(one(tgc.tensor(x)), expected, 10)
    three, y = nn.Conv3d(1, 2, 2), normal(rng, 1, 1, 3, 4, 5)
    w = wide(three)
    windows = sliding_window_view(y.astype(np.float64), (2, 2, 2), (2, 3, 4))
    expected = np.einsum("ncdhwijk,ocijk->nodhw", windows, w["weight"]) + w["bias"][:, None, None, None]
    close(three(tgc.tensor(y)), expected, 12)


def test_transposed_convolution_is_the_transpose(rng: np.random.Generator) -> None:
    layer = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, bias=False)
    y, x = normal(rng, 1, 3, 4, 5), normal(rng, 1, 4, 8, 10)
    found = layer(tgc.tensor(y))
    assert found.shape == (1, 4, 8, 10)
    # <convᵀ y, x> = <y, conv x>, each sum of at most 320 terms of 36 products
    there = nn.functional.conv2d(tgc.tensor(x), layer.weight, stride=2, padding=1).numpy()
    a, b = np.vdot(found.numpy(), x), np.vdot(y, there)
    size = np.sum(np.abs(y)) * np.abs(layer.weight.numpy()).max() * np.abs(x).max()
    assert abs(a - b) <= 360 * 2.0**-24 * size


def test_pooling(rng: np.random.Generator, close: Any) -> None:
    x = normal(rng, 2, 3, 6, 7)
    t = tgc.tensor(x)
    windows = sliding_window_view(x, (2, 2), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(nn.MaxPool2d(2)(t).numpy(), windows.max((-2, -1)))
    close(nn.AvgPool2d(2)(t), windows.astype(np.float64).mean((-2, -1)), 5)
    border = ((0, 0), (0, 0), (1, 1), (1, 1))
    lowest = sliding_window_view(np.pad(x, border, constant_values=-np.inf), (3, 3), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(nn.MaxPool2d(3, 2, 1)(t).numpy(), lowest.max((-2, -1)))
    sums = sliding_window_view(np.pad(x.astype(np.float64), border), (3, 3), (2, 3)).sum((-2, -1))
    count = sliding_window_view(np.pad(np.ones_like(x), border), (3, 3), (2, 3)).sum((-2, -1))
    close(nn.AvgPool2d(3, 1, 1)(t), sums / 9, 10)
    close(nn.AvgPool2d(3, 1, 1, count_include_pad=False)(t), sums / count, 10)


def test_activations_as_modules(rng: np.random.Generator, close: Any) -> None:
    x = normal(rng, 4, 5)
    t, w = tgc.tensor(x), x.astype(np.float64)
    erf = np.vectorize(math.erf)(w / math.sqrt(2))
    inner = math.sqrt(2 / math.pi) * (w + 0.044715 * w**3)
    expected = {
        nn.ReLU(): np.maximum(w, 0),
        nn.GELU(): w * (1 + erf) / 2,
        nn.GELU(approximate="tanh"): w * (1 + np.tanh(inner)) / 2,
        nn.SiLU(): w * sigmoid(w),
        nn.Sigmoid(): sigmoid(w),
        nn.Tanh(): np.tanh(w),
        nn.Softplus(): np.log1p(np.exp(w)),
        nn.LeakyReLU(0.1): np.where(w > 0, w, 0.1 * w),
        nn.ELU(0.5): np.where(w > 0, w, 0.5 * np.expm1(w)),
        nn.Softmax(0): np.exp(w) / np.exp(w).sum(0),
        nn.LogSoftmax(): w - np.log(np.exp(w).sum(-1, keepdims=True)),
        nn.Identity(): w,
        nn.Flatten(0): w.reshape(-1),
    }
    for layer, values in expected.items():
        close(layer(t), values, 20)


def test_normalisation_over_trailing_axes(rng: np.random.Generator, close: Any) -> None:
    x = normal(rng, 3, 4, 6)
    t, w = tgc.tensor(x), x.astype(np.float64)
    centred = w - w.mean((1, 2), keepdims=True)
    close(nn.LayerNorm((4, 6))(t), centred / np.sqrt(w.var((1, 2), keepdims=True) + 1e-5), 60)
    layer = nn.RMSNorm(6, eps=1e-3)
    layer.weight.replace(np.arange(6, dtype=np.float32))
    close(layer(t), w / np.sqrt((w**2).mean(-1, keepdims=True) + 1e-3) * np.arange(6), 20)
    groups = w.reshape(3, 2, 12)
    standard = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    close(nn.GroupNorm(2, 4)(t), standard.reshape(w.shape), 40)


def test_batch_norm_in_training_and_inference(rng: np.random.Generator, close: Any) -> None:
    layer, x = nn.BatchNorm2d(3), normal(rng, 4, 3, 5, 2) * 2 + 1
    w = x.astype(np.float64)
    mean, variance = w.mean((0, 2, 3)), w.var((0, 2, 3))

    def shaped(v: Array) -> Array:
        return v[:, None, None]

    close(layer(tgc.tensor(x)), (w - shaped(mean)) / np.sqrt(shaped(variance) + 1e-5), 100)
    running_mean, running_variance = 0.1 * mean, 0.9 + 0.1 * variance * 40 / 39
    close(layer.running_mean, running_mean, 60)
    close(layer.running_var, running_variance, 100)
    layer.eval()
    expected = (w - shaped(running_mean)) / np.sqrt(shaped(running_variance) + 1e-5)
    close(layer(tgc.tensor(x)), expected, 100)
    names = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    assert sorted(layer.state_dict()) == names
    assert int(layer.num_batches_tracked) == 1


def test_embedding(rng: np.random.Generator) -> None:
    layer = nn.Embedding(10, 4)
    indices = rng.integers(0, 10, (3, 5))
    found = layer(tgc.tensor(indices))
    np.testing.assert_array_equal(found.numpy(), layer.weight.numpy()[indices])
    found.sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], np.bincount(indices.ravel(), minlength=10))


def lstm(x: Array, w: dict[str, Array], suffix: str, order: range) -> tuple[Array, Array, Array]:
    hidden = w[f"weight_hh_{suffix}"].shape[1]
    h = c = np.zeros((x.shape[1], hidden))
    outputs = np.zeros((*x.shape[:2], hidden))
    for t in order:
        gates = x[t] @ w[f"weight_ih_{suffix}"].T + h @ w[f"weight_hh_{suffix}"].T
        i, f, g, o = np.split(gates + w[f"bias_ih_{suffix}"] + w[f"bias_hh_{suffix}"], 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs[t] = h
    return outputs, h, c


def test_lstm_in_layers_and_directions(rng: np.random.Generator, close: Any) -> None:
    layer = nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True)
    x, w = normal(rng, 2, 5, 4), wide(layer)
    expected = x.swapaxes(0, 1).astype(np.float64)
    ends = []
    for number in range(2):
        ahead = lstm(expected, w, f"l{number}", range(5))
        back = lstm(expected, w, f"l{number}_reverse", range(4, -1, -1))
        expected = np.concatenate([ahead[0], back[0]], 2)
        ends += [ahead[1:], back[1:]]
    output, (h, c) = layer(tgc.tensor(x))
    close(output, expected.swapaxes(0, 1), 200)
    close(h, np.stack([end[0] for end in ends]), 200)
    close(c, np.stack([end[1] for end in ends]), 200)
    assert layer.state_dict()["weight_ih_l1_reverse"].shape == (12, 6)


def test_lstm_goes_on_from_given_states(rng: np.random.Generator) -> None:
    layer, x = nn.LSTM(4, 3), tgc.tensor(normal(rng, 6, 2, 4))
    whole, (h, c) = layer(x)
    first, states = layer(x[:4])
    second, (h2, c2) = layer(x[4:], states)
    np.testing.assert_array_equal(np.concatenate([first.numpy(), second.numpy()]), whole.numpy())
    np.testing.assert_array_equal(h2.numpy(), h.numpy())
    np.testing.assert_array_equal(c2.numpy(), c.numpy())
    single, _ = layer(x[:, 0])
    assert single.shape == (6, 3)


def test_gru(rng: np.random.Generator, close: Any) -> None:
    layer = nn.GRU(4, 3)
    x, w = normal(rng, 5, 2, 4), wide(layer)
    h = np.zeros((2, 3))
    for t in range(5):
        given = np.split(x[t] @ w["weight_ih_l0"].T + w["bias_ih_l0"], 3, 1)
        kept = np.split(h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 3, 1)
        reset, update = (sigmoid(given[i] + kept[i]) for i in (0, 1))
        h = (1 - update) * np.tanh(given[2] + reset * kept[2]) + update * h
    output, last = layer(tgc.tensor(x))
    close(last[0], h, 200)
    np.testing.assert_array_equal(output.numpy()[-1], last.numpy()[0])


@pytest.mark.parametrize("causal", [False, True])
def test_multihead_attention(causal: bool, rng: np.random.Generator, close: Any) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x, w = normal(rng, 3, 5, 8), wide(layer)
    names = {"in_proj_weight": (24, 8), "in_proj_bias": (24,), "out_proj.weight": (8, 8), "out_proj.bias": (8,)}
    assert {k: v.shape for k, v in w.items()} == names
    projected = x @ w["in_proj_weight"].T + w["in_proj_bias"]
    q, k, v = (part.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3) for part in np.split(projected, 3, 2))
    scores = q @ k.swapaxes(2, 3) / 2
    if causal:
        scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    joined = (weights @ v).transpose(0, 2, 1, 3).reshape(3, 5, 8)
    t = tgc.tensor(x)
    expected = joined @ w["out_proj.weight"].T + w["out_proj.bias"]
    output, weights_kept = layer(t, t, t, is_causal=causal)
    close(output, expected, 100)
    assert weights_kept is None
    # other keys and values go another way through the projections
    close(layer(t, t * 1.0, t * 1.0, is_causal=causal)[0], expected, 100)
    if causal:
        hidden = tgc.tensor(~np.tril(np.ones((5, 5), bool)))
        close(layer(t, t, t, attn_mask=hidden)[0], expected, 100)


def test_attention_leaves_out_padded_keys_and_refuses_to_give_its_weights(rng: np.random.Generator, close: Any) -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = normal(rng, 2, 5, 8)
    padded = np.zeros((2, 5), bool)
    padded[:, 3:] = True
    t, short = tgc.tensor(x), tgc.tensor(x[:, :3])
    expected = layer(t, short, short)[0].numpy().astype(np.float64)
    close(layer(t, t, t, key_padding_mask=tgc.tensor(padded))[0], expected, 100)
    zeros = tgc.tensor(np.zeros((5, 5), np.float32))
    close(layer(t, t, t, attn_mask=zeros, key_padding_mask=tgc.tensor(padded))[0], expected, 100)
    with pytest.raises(UnsupportedError, match="weights of attention are not kept"):
        layer(t, t, t, need_weights=True)


def test_losses(rng: np.random.Generator, close: Any) -> None:
    logits, labels = normal(rng, 6, 4), rng.integers(0, 4, 6)
    t, y = tgc.tensor(logits), tgc.tensor(labels)
    w = logits.astype(np.float64)
    scores = w - np.log(np.exp(w).sum(1, keepdims=True))
    each = -scores[np.arange(6), labels]
    f = nn.functional
    close(f.cross_entropy(t, y), each.mean(), 20)
    close(f.cross_entropy(t, y, reduction="sum"), each.sum(), 20)
    close(f.cross_entropy(t, y, reduction="none"), each, 20)
    close(f.cross_entropy(t, y, ignore_index=int(labels[0])), each[labels != labels[0]].mean(), 20)
    close(f.cross_entropy(t, y, label_smoothing=0.1), (0.9 * each - 0.1 * scores.mean(1)).mean(), 20)
    close(f.cross_entropy(t, f.one_hot(y, 4).astype(tgc.f32)), each.mean(), 20)
    images = logits.reshape(2, 3, 4).swapaxes(1, 2)
    close(f.cross_entropy(tgc.tensor(images.copy()), tgc.tensor(labels.reshape(2, 3))), each.mean(), 20)
    close(f.nll_loss(t.log_softmax(-1), y), each.mean(), 20)
    other = normal(rng, 6, 4)
    u = tgc.tensor(other)
    close(f.mse_loss(t, u), ((w - other) ** 2).mean(), 30)
    close(f.l1_loss(t, u, reduction="sum"), np.abs(w - other).sum(), 30)
    target = sigmoid(other.astype(np.float64)).astype(np.float32)
    p = sigmoid(w)
    entropy = -(target * np.log(p) + (1 - target) * np.log1p(-p))
    close(f.binary_cross_entropy_with_logits(t, tgc.tensor(target)), entropy.mean(), 30)
    with pytest.raises(UserError, match="reduction"):
        f.cross_entropy(t, y, reduction="median")
    with pytest.raises(UserError, match="one shape"):
        f.mse_loss(t, u[0])


def test_padding_is_given_from_the_last_dimension_on(rng: np.random.Generator) -> None:
    x = normal(rng, 2, 3)
    found = nn.functional.pad(tgc.tensor(x), (1, 2, 0, 1), value=7.0).numpy()
    np.testing.assert_array_equal(found, np.pad(x, ((0, 1), (1, 2)), constant_values=7))
