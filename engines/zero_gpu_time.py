"""For how many seconds a GPU of ZeroGPU is asked for. Light: no torch here."""

import math

from studio.domain.request import ResolvedRequest
from studio.domain.steering import NO_CONTROL

FLOOR_S = 15
"""No picture asks for less: a visitor whose quota has not even that left is better told before."""
CAP_S = 120
"""No call asks for more: Hugging Face refuses what is long, and a visitor with a free account has 5 minutes a day."""
_BEGIN_S = 8.0
"""The fork, CUDA's beginning, the first kernels."""
_BYTES_PER_S = 1e9
"""Weights on their way to the GPU, from pages that are not pinned."""
_UNET_S = 0.15
"""One evaluation of a large UNet per megapixel, with room: the GPU is a part of one, and shared."""
_PICTURE_S = 1.5
"""Reading the prompt, decoding and checking, per megapixel."""
_ADAPTER_S = 2.0
_CONTROL = 1.5
"""A ControlNet is half a UNet."""


def seconds_asked(request: ResolvedRequest, weights_bytes: int, num_pictures: int = 1, num_adapters: int = 0) -> int:
    """An estimate from above of what `num_pictures` like that of `request` take together, within floor and cap. Only
    the time that is used is counted against a quota, but one who has less left than is asked for gets none."""
    width, height = request.final_size
    megapixels = width * height / 1e6
    unet = request.evaluations * megapixels * _UNET_S * (1.0 if request.control == NO_CONTROL else _CONTROL)
    begin = _BEGIN_S + weights_bytes / _BYTES_PER_S + num_adapters * _ADAPTER_S
    return min(CAP_S, max(FLOOR_S, math.ceil(begin + num_pictures * (unet + megapixels * _PICTURE_S))))
