"""Which layers of a checkpoint an adapter changes, by their paths; and how many numbers that is. No torch."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from engines.places import WEIGHTS_SUFFIX
from studio.domain.adapter import Part
from studio.domain.distillation import Reach
from studio.domain.tensors import read_header

_ATTENTION = r".*\.attn\d\.(to_[qkv]|to_out\.0)"
_FEED_FORWARD = r".*\.ff\.net\.(0\.proj|2)|.*\.(proj_in|proj_out)"
_REST = r".*\.(conv1|conv2|conv_shortcut|time_emb_proj|conv)"
TEXT_PARTS: tuple[Part, ...] = ("text_encoder", "text_encoder_2")
"""The parts of a pipeline that read prompts, as far as it has them."""
REACHES: Mapping[Reach, re.Pattern[str]] = {
    "attention": re.compile(_ATTENTION),
    "attention_and_feed_forward": re.compile(f"{_ATTENTION}|{_FEED_FORWARD}"),
    "all": re.compile(f"{_ATTENTION}|{_FEED_FORWARD}|{_REST}"),
}
"""Which modules of a UNet are changed."""
TEXT_REACH = re.compile(r".*\.self_attn\.([qkv]|out)_proj|.*\.mlp\.fc[12]")
"""Which of a text encoder: all of its attention and feed-forward layers."""
_PER_RANK: Mapping[str, Mapping[Reach, int]] = {
    "sd15": {"attention": 199_296, "attention_and_feed_forward": 423_936, "all": 1_050_816},
    "sd21": {"attention": 207_488, "attention_and_feed_forward": 432_128, "all": 1_059_008},
    "sdxl": {"attention": 1_451_520, "attention_and_feed_forward": 2_659_840, "all": 3_074_240},
}
"""Numbers of an adapter of a full-size UNet for each unit of rank."""
_TEXT_PER_RANK: Mapping[str, int] = {"sd15": 165_888, "sd21": 423_936, "sdxl": 903_168}
"""The same for all of its text encoders."""


def adapter_values(family: str, place: Path | None, reach: Reach, rank: int, *, learns_text: bool) -> int:
    """How many numbers an adapter has that is trained on the checkpoint at `place`; None or a single file, whose
    layers have other names, has the shapes of its family.

    Raises:
        CorruptModel: a file is damaged.
    """
    unet = _layers(place, "unet")
    if not unet:
        return rank * (_PER_RANK[family][reach] + (_TEXT_PER_RANK[family] if learns_text else 0))
    texts = [*_layers(place, "text_encoder"), *_layers(place, "text_encoder_2")] if learns_text else []
    return sum(
        _change_values(shape, rank)
        for layers, pattern in ((unet, REACHES[reach]), (texts, TEXT_REACH))
        for path, shape in layers
        if pattern.fullmatch(path)
    )


def _change_values(shape: tuple[int, ...], rank: int) -> int:
    """down (rank, in, *kernel) and up (out, rank); a layer narrower than `rank` gets one of its own width."""
    rank = min(rank, *shape[:2])
    return rank * (math.prod(shape[1:]) + shape[0])


def _layers(place: Path | None, part: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The paths and weights' shapes of the layers of a part in a diffusers folder."""
    if place is None or place.is_file():
        return ()
    files = sorted((place / part).glob(f"*{WEIGHTS_SUFFIX}"))
    return tuple(layer for path in files for layer in _in_file(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=16)
def _in_file(path: Path, changed_at: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(_weights(path))


def _weights(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, tensor in read_header(path).tensors.items():
        if name.endswith(".weight") and len(tensor.shape) > 1:
            yield name.removesuffix(".weight"), tensor.shape
