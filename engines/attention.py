"""How a UNet attends: torch's fused kernel, or plain matrix products over pieces of the queries.

torch's CPU kernel for bfloat16 does not use the fast matrix units of every processor that has them, while its plain
products do. Which is faster is measured on the machine at hand.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from studio.domain.memory import Attention

logger = logging.getLogger(__name__)

CHUNK = 256
"""Queries at a time: their scores, `(B · heads, CHUNK, keys)`, stay in the cache of a core while they are used."""
SLICE = 64
"""Queries at a time where memory is short."""
_SHAPES = ((4, 4096, 40), (8, 1024, 80))
"""Heads, cells and width of the first two levels of SD 1.5 at 512 px, a quarter of the first level's heads."""
_MARGIN = 0.9
"""Part of the fused kernel's time that pieces must stay below to be taken; the choice does not waver between runs."""


class ChunkedAttnProcessor:
    """Scaled dot-product attention of a UNet by batched matrix products, `chunk` queries at a time.

    The same sums as `AttnProcessor2_0` in another order: 8e-7 apart in float32, 1e-2 of the largest value in bfloat16.
    """

    def __init__(self, chunk: int = CHUNK) -> None:
        self.chunk = chunk

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """`(B, N, width)` to the same shape; texts `(B, M, text width)` are the keys of cross-attention."""
        assert attention_mask is None and hidden_states.ndim == 3, "the attention of a text-to-image UNet"
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            _split(layer(tokens), attn.heads)
            for layer, tokens in ((attn.to_q, hidden_states), (attn.to_k, told), (attn.to_v, told))
        )
        if attn.upcast_attention:  # SD 2.1's scores overflow in float16
            query, key = query.float(), key.float()
        mixed = chunked_attention(query, key, value, self.chunk)
        mixed = mixed.unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)  # (B, N, heads · d)
        return attn.to_out[1](attn.to_out[0](mixed))


def chunked_attention(query: Tensor, key: Tensor, value: Tensor, chunk: int = CHUNK) -> Tensor:
    """softmax(q·kᵀ / √d)·v for `(B · heads, N, d)`, `chunk` queries at a time; the result has the format of `value`."""
    keys = (key * query.shape[-1] ** -0.5).transpose(1, 2)
    pieces = [
        torch.bmm(torch.bmm(part, keys).softmax(dim=-1).to(value.dtype), value) for part in query.split(chunk, dim=1)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """`(B, N, heads · d)` as `(B · heads, N, d)`."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)


def processor_of(attention: Attention, *, is_sliced: bool = False) -> Any:
    """The diffusers attention processor of that name; `is_sliced` takes the least memory and the most time."""
    if is_sliced:
        return ChunkedAttnProcessor(SLICE)
    return ChunkedAttnProcessor() if attention == "chunked" else AttnProcessor2_0()


@contextmanager
def attending(unet: Any, attention: Attention, *, is_sliced: bool = False) -> Iterator[None]:
    """Let `unet` attend that way for a while."""
    before = dict(unet.attn_processors)
    unet.set_attn_processor(processor_of(attention, is_sliced=is_sliced))
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
        fused += _best_seconds(partial(F.scaled_dot_product_attention, *(tensor[None] for tensor in tensors)))
        chunked += _best_seconds(partial(chunked_attention, *tensors))
    logger.info("attention in %s: fused %.0f ms, in pieces %.0f ms", dtype, 1e3 * fused, 1e3 * chunked)
    return "chunked" if chunked < _MARGIN * fused else "fused"


def _best_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of several runs after one to warm up."""
    best = math.inf
    for turn in range(repeats + 1):
        started = time.perf_counter()
        work()
        if turn:
            best = min(best, time.perf_counter() - started)
    return best
