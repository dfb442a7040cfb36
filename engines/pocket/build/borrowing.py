"""Begin the UNet of one pocket model with the weights of another, which may be wider and read a narrower text."""

import re
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

_JOINED = re.compile(r"up_blocks\.(\d)\.resnets\.(\d)\.(norm1|conv1|conv_shortcut)\.")
"""What takes in the hidden states and, behind them, those of the way down."""
_FIRST_BLOCK = ".transformer_blocks.0."
_OUTPUTS = (".attn1.to_out.0.", ".attn2.to_out.0.", ".ff.net.2.")


@torch.no_grad()
def borrow_unet(unet: UNet2DConditionModel, lender: UNet2DConditionModel) -> float:
    """Begin `unet` with what fits of another pocket UNet; gives the share of its parameters that did.

    A 1 × 1 convolution fits a linear layer. Of a wider level evenly spaced channels are taken, so that norm groups and
    attention heads keep theirs. Keys and values of a narrower text fit the first columns of wider ones, and the other
    columns begin at zero: what the further text says is learnt. Further blocks of a transformer add nothing at first.
    """
    mine, theirs, fitted = unet.state_dict(), lender.state_dict(), 0
    widths, their_widths = unet.config.block_out_channels, lender.config.block_out_channels
    for name, weight in mine.items():
        other = theirs.get(name)
        if other is None:
            if _FIRST_BLOCK not in name and any(output in name for output in _OUTPUTS):
                weight.zero_()
            continue
        other = other.reshape(other.shape[: weight.ndim])  # a 1 × 1 convolution as a matrix
        for axis in range(min(2, weight.ndim)):
            parts = _parts(name, axis, their_widths), _parts(name, axis, widths)
            other = _thinned(other, axis, weight.shape[axis], *parts)
        if name.endswith((".to_k.weight", ".to_v.weight")):
            weight.zero_()[:, : other.shape[1]] = other
        elif other.shape == weight.shape:
            weight.copy_(other)
        else:
            continue
        fitted += other.numel()
    return fitted / sum(weight.numel() for weight in mine.values())


def _thinned(weight: Tensor, axis: int, size: int, theirs: Sequence[int], mine: Sequence[int]) -> Tensor:
    """`weight` with `size` evenly spaced channels left on `axis`; of joined inputs, of each part its own number."""
    if weight.shape[axis] <= size:
        return weight
    if not theirs:
        theirs, mine = (weight.shape[axis],), (size,)
    picks, start = [], 0
    for have, want in zip(theirs, mine, strict=True):
        picks.append(start + torch.arange(want) * have // want)
        start += have
    return weight.index_select(axis, torch.cat(picks))


def _parts(name: str, axis: int, widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of what is joined on `axis`, for the layers of the way up that take in two; else none."""
    match = _JOINED.match(name)
    if match is None or axis != (0 if match[3] == "norm1" else 1):
        return ()
    level, layer = int(match[1]), int(match[2])
    upwards = [*reversed(widths)]
    hidden = upwards[max(level - 1, 0)] if layer == 0 else upwards[level]
    skipped = upwards[level] if layer == 0 else upwards[min(level + 1, len(upwards) - 1)]
    return hidden, skipped
