"""How a UNet attends: torch's fused kernel, or plain matrix products over pieces that stay in the cache.

torch's CPU kernel for bfloat16 does not reach the speed of its plain products. These do, where their scores fit the
cache and are written to the same memory again and again: a fresh block for each costs more than the product that fills
it. Which way is faster is measured on the machine at hand.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from engines.devices import best_seconds
from studio.domain.memory import SCORES_BYTES, SLICED_SCORES_BYTES, Attention

logger = logging.getLogger(__name__)

_SHAPES = ((1, 4096, 40), (2, 1024, 80))
"""Heads, cells and width of the first two levels of SD 1.5 at 512 px, an eighth of their heads."""
_MARGIN = 0.9
"""Part of the fused kernel's time that pieces must stay below to be taken; the choice does not waver between runs."""


class ChunkedAttnProcessor:
    """Scaled dot-product attention of a UNet by batched matrix products, `scores_bytes` of scores at a time.

    The same sums as `AttnProcessor2_0` in another order, with scores in the number format of the weights: 8e-7 apart in
    float32, 0.5 % in bfloat16. Where a layer asks for `upcast_attention`, as SD 2.1's do, its scores may be too large
    for that: the fused kernel has them in float32, and so do the slices. For inference only.
    """

    def __init__(self, *, is_sliced: bool = False) -> None:
        self._is_sliced = is_sliced
        self._scores_bytes = SLICED_SCORES_BYTES if is_sliced else SCORES_BYTES
        self._fused = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """`(B, N, width)` to the same shape; texts `(B, M, text width)` are the keys of cross-attention."""
        if attn.upcast_attention and not self._is_sliced:
            return self._fused(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        assert attention_mask is None and hidden_states.ndim == 3, "the attention of a text-to-image UNet"
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            _split(layer(tokens), attn.heads)
            for layer, tokens in ((attn.to_q, hidden_states), (attn.to_k, told), (attn.to_v, told))
        )
        if attn.upcast_attention:
            query, key, value = query.float(), key.float(), value.float()
        mixed = chunked_attention(query, key, value, self._scores_bytes).to(hidden_states.dtype)
        mixed = mixed.unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)  # (B, N, heads · d)
        return attn.to_out[1](attn.to_out[0](mixed))


def chunked_attention(query: Tensor, key: Tensor, value: Tensor, scores_bytes: int = SCORES_BYTES) -> Tensor:
    """softmax(q·kᵀ / √d)·v for `(B · heads, N, d)`: as many heads at once as `scores_bytes` hold, or else one head and
    as many of its queries."""
    heads, queries, width = query.shape
    keys = (key * width**-0.5).transpose(1, 2)
    room = max(scores_bytes // query.element_size(), key.shape[1])
    rows = min(queries, room // key.shape[1])
    group = max(1, min(heads, room // (rows * key.shape[1])))
    mixed, scores = torch.empty_like(query), query.new_empty(group * rows * key.shape[1])
    for first in range(0, heads, group):
        those = slice(first, first + group)
        for start in range(0, queries, rows):
            part, out = query[those, start : start + rows], mixed[those, start : start + rows]
            shape = (*part.shape[:2], key.shape[1])
            weights = scores[: math.prod(shape)].view(shape)
            torch.bmm(part, keys[those], out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            torch.bmm(weights, value[those], out=out)
    return mixed


def _split(tokens: Tensor, heads: int) -> Tensor:
    """`(B, N, heads · d)` as `(B · heads, N, d)`."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)


@contextmanager
def attending(unet: Any, attention: Attention, *, is_sliced: bool = False) -> Iterator[None]:
    """Let `unet` attend that way for a while; in slices it takes the least memory and the most time."""
    if attention == "fused" and not is_sliced:  # as diffusers opens it; to say so again takes 4 ms
        yield
        return
    before = dict(unet.attn_processors)
    unet.set_attn_processor(ChunkedAttnProcessor(is_sliced=is_sliced))
    try:
        yield
    finally:
        unet.set_attn_processor(before)


@cache
def fastest_attention(device: str, dtype: torch.dtype) -> Attention:
    """Which way is faster here, measured once on the shapes that weigh most in a large UNet (a second).

    GPUs have kernels made for it; they are not asked.
    """
    if device != "cpu" or dtype == torch.float32:
        return "fused"
    fused = chunked = 0.0
    for shape in _SHAPES:
        tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(3)]
        whole = partial(F.scaled_dot_product_attention, *(tensor[None] for tensor in tensors))
        seconds = best_seconds([whole, partial(chunked_attention, *tensors)], repeats=5)
        fused, chunked = fused + seconds[0], chunked + seconds[1]
    logger.info("attention in %s: fused %.0f ms, in pieces %.0f ms", dtype, 1e3 * fused, 1e3 * chunked)
    return "chunked" if chunked < _MARGIN * fused else "fused"
