"""Multi-head attention. Names and shapes are PyTorch's."""

from __future__ import annotations

import numpy as np

import tgc.nn.functional as functional
import tgc.nn.initialise as initialise
from tgc.dtypes import bool_
from tgc.errors import ShapeError, UnsupportedError, UserError
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.nn.layers import Linear
from tgc.nn.module import Module, Parameter


class MultiheadAttention(Module):
    """Attention in ``num_heads`` subspaces (Vaswani et al., arXiv 1706.03762, §3.2.2).

    State: in_proj_weight [3·E, E], in_proj_bias [3·E], out_proj.weight [E, E], out_proj.bias [E]. Sequences are
    [L, N, E], or [N, L, E] if ``batch_first``, or [L, E] without a batch.

    >>> import tgc
    >>> x = tgc.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> MultiheadAttention(2, 1)(x, x, x)[0].shape
    (3, 2)
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, dropout: float = 0.0, bias: bool = True, batch_first: bool = False
    ) -> None:
        if num_heads < 1 or embed_dim % num_heads:
            raise UserError(f"{num_heads} heads do not divide a size of {embed_dim}", location=here())
        self.embed_dim, self.num_heads, self.batch_first, self.dropout = embed_dim, num_heads, batch_first, dropout
        self.in_proj_weight = Parameter(initialise.xavier_uniform((3 * embed_dim, embed_dim)))
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        if self.out_proj.bias is not None:
            self.out_proj.bias.replace(np.zeros(embed_dim, np.float32))

    def _projected(self, x: Tensor, part: int) -> Tensor:
        size = self.embed_dim
        rows = slice(part * size, (part + 1) * size)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return functional.linear(x, self.in_proj_weight[rows], bias)

    def _heads(self, x: Tensor) -> Tensor:
        """[N, L, E] -> [N, heads, L, E / heads]."""
        batch, length, _ = x.shape
        return x.reshape(batch, length, self.num_heads, self.embed_dim // self.num_heads).permute(0, 2, 1, 3)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """The attention of ``query`` [N, L, E] to ``key`` and ``value`` [N, S, E] (order as the module's), and None.

        As in PyTorch: ``attn_mask`` broadcasts to [N, heads, L, S], bool, true where a query must *not* see a key, or
        floats that are added to the scores; ``key_padding_mask`` [N, S] is true for keys that nobody sees;
        ``is_causal``: query i sees keys 0 to i alone. The weights are never written to memory, so asking for them
        (``need_weights``) raises :class:`UnsupportedError`.
        """
        if need_weights:
            raise UnsupportedError(
                "the weights of attention are not kept", hint="compute them from in_proj_weight", location=here()
            )
        if query.ndim not in (2, 3) or query.shape[-1] != self.embed_dim:
            raise ShapeError(f"attention of {query.type}", hint=f"vectors have size {self.embed_dim}", location=here())

        def batched(x: Tensor) -> Tensor:
            return x.unsqueeze(0) if x.ndim == 2 else x if self.batch_first else x.swapaxes(0, 1)

        if query is key and key is value:
            # one product for all three
            whole = functional.linear(batched(query), self.in_proj_weight, self.in_proj_bias)
            size = self.embed_dim
            parts = [whole[:, :, i * size : (i + 1) * size] for i in range(3)]
        else:
            parts = [self._projected(batched(x), i) for i, x in enumerate((query, key, value))]
        q, k, v = (self._heads(part) for part in parts)
        mask = _seen(attn_mask, key_padding_mask)
        found = functional.scaled_dot_product_attention(q, k, v, mask, causal=is_causal)
        if self.dropout:
            found = functional.dropout(found, self.dropout, training=self.training)
        batch, _, length, _ = found.shape
        joined = found.permute(0, 2, 1, 3).reshape(batch, length, self.embed_dim)
        result = self.out_proj(joined)
        if query.ndim == 2:
            return result.squeeze(0), None
        return (result if self.batch_first else result.swapaxes(0, 1)), None


def _seen(hidden: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """What :func:`functional.scaled_dot_product_attention` takes: true where a key is seen, or floats to be added."""
    mask = hidden if hidden is None or hidden.dtype is not bool_ else ~hidden
    if padding is None:
        return mask
    keys = ~padding.reshape(padding.shape[0], 1, 1, padding.shape[1])
    if mask is None:
        return keys
    if mask.dtype is bool_:
        return mask & keys
    return mask + (1 - keys.astype(mask.dtype)) * -1e30
