"""How much memory a checkpoint's weights and the work on one picture take, told before anything is loaded. No torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engines.parts import PART_CLASSES, TINY_VAE_FOLDER
from engines.places import WEIGHTS_SUFFIX
from studio.domain.catalogue import Checkpoint, Family
from studio.domain.memory import SCORES_BYTES, SLICED_SCORES_BYTES, MemoryPlan, Placement
from studio.domain.tensors import read_header

TILE_PX = 512
"""Side of the tiles in which a VAE decodes where memory is short."""
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CELL_PX = 8
_UNET_CHANNELS = 320 * 42
"""Values a latent cell of one picture takes in a UNet at most: skips of the way down, joined inputs of the way up, the
inner layers of transformer blocks, in units of the first level's 320 channels. Measured in bfloat16 on a CPU, with
SD 1.5 at 512 and 768 px, one picture and two; the decoder at 256 to 1024 px (docs/benchmarks.md)."""
_DECODER_CHANNELS = 256 * 3
"""Values a pixel takes in a decoder at most: input, normalised input and output of its last blocks of 256 channels."""
_KEPT_CHANNELS = 128
"""Values a pixel that the C library keeps on a CPU of blocks freed before."""
_WORKSPACE_BYTES = 130 * 2**20
"""What large layers take beside that, whatever the size of the picture."""
_HEADS = 20
"""Attention heads at most where a UNet sees most cells."""
_OFFLOADED_LAYER = 0.02
"""Part of the weights that is on the GPU at a time when they come layer by layer."""
_CONTROL_SHARE = 0.49
"""Values of a ControlNet for each of its UNet, whose way down and middle it repeats: 0.42 with SD 1.5 and 2.1, 0.487
with SDXL."""
_PREFIXES = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.": "text_encoder",
    "conditioner.": "text_encoder",
}
"""Whose tensors these are in a single file."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """How many values the weights of each part have, with those of a ControlNet if one is used; `is_small` for the
    miniatures, whose layers are narrow."""

    unet: int
    text: int
    vae: int
    control: int = 0
    is_small: bool = False

    def steered(self) -> "Footprint":
        """The same with a ControlNet."""
        return replace(self, control=int(self.unet * _CONTROL_SHARE))

    @property
    def total(self) -> int:
        return self.unet + self.text + self.vae + self.control

    @property
    def largest(self) -> int:
        """The part that takes most: where parts take turns, no more than this is in memory."""
        return max(self.unet, self.text, self.vae)


def footprint_of(place: Path, *, is_small: bool = False) -> Footprint:
    """Of the weights at `place`, told by their headers.

    Raises:
        CorruptModel: a file is damaged.
    """
    counts = dict.fromkeys((*PART_CLASSES, TINY_VAE_FOLDER), 0)
    for part, values in _values_in_file(place) if place.is_file() else _values_in_folder(place, counts):
        counts[part] += values
    return Footprint(
        unet=counts["unet"],
        text=counts["text_encoder"] + counts["text_encoder_2"],
        vae=counts["vae"] + counts[TINY_VAE_FOLDER],
        is_small=is_small,
    )


def expected_footprint(checkpoint: Checkpoint, family: Family, place: Path | None) -> Footprint:
    """Of `checkpoint`, whether its weights are here, at `place`, or not yet.

    Raises:
        CorruptModel: a file is damaged.
    """
    return footprint_of(place, is_small=checkpoint.is_pocket) if place else usual_footprint(family)


def usual_footprint(family: Family) -> Footprint:
    """Of weights that are not here: what those of their family have."""
    return Footprint(unet=family.unet_values, text=family.text_values, vae=family.vae_values)


def needed_bytes(
    footprint: Footprint, plan: MemoryPlan, width: int, height: int, *, is_guided: bool, num_pictures: int = 1
) -> int:
    """The most memory in use at once while so many pictures of `width` × `height` px are made as `plan` says, in bytes,
    beyond what the process takes without a checkpoint."""
    item = ITEM_BYTES[plan.dtype]
    weights = {"unet": footprint.unet * item, "text": footprint.text * item, "vae": footprint.vae * item}
    work = {
        "unet": unet_work(
            footprint, plan, width, height, pictures=num_pictures * (2 if is_guided and not plan.is_halved else 1)
        ),
        "text": 0,
        "vae": decoder_work(footprint, plan, width, height),
    }
    control = footprint.control * item  # which stays where it computes, wherever the others are
    return control + _most_at_once(plan.placement, weights, work)


def _most_at_once(placement: Placement, weights: Mapping[str, int], work: Mapping[str, int]) -> int:
    """Of the weights of the parts and the work in them, what is in memory together."""
    match placement:
        case "resident":
            return sum(weights.values()) + max(work.values())
        case "model_offload":
            return max(weights[part] + work[part] for part in work)
        case "sequential_offload":
            return max(int(weights[part] * _OFFLOADED_LAYER) + work[part] for part in work)
        case "mapped":
            return max(work.values())


def unet_work(footprint: Footprint, plan: MemoryPlan, width: int, height: int, *, pictures: int) -> int:
    """What a UNet takes beside its weights to look at so many `pictures` at once, in bytes."""
    cells, item = width * height // CELL_PX**2, ITEM_BYTES[plan.dtype]
    channels = _UNET_CHANNELS * _narrowness(footprint)
    scores = 0
    if plan.is_sliced or plan.attention == "chunked":
        scores = SLICED_SCORES_BYTES if plan.is_sliced else SCORES_BYTES
    elif plan.device == "mps":  # its kernel keeps every score
        scores = pictures * item * _HEADS * cells**2
    return int(pictures * item * cells * channels) + scores + _workspace(footprint)


def decoder_work(footprint: Footprint, plan: MemoryPlan, width: int, height: int) -> int:
    """What a VAE takes beside its weights to decode one picture, in bytes; to encode one takes no more."""
    pixels = width * height
    if plan.is_tiled:
        pixels = min(width, TILE_PX) * min(height, TILE_PX)
    channels = _DECODER_CHANNELS + (_KEPT_CHANNELS if plan.device == "cpu" else 0)
    work = int(pixels * channels * _narrowness(footprint) * ITEM_BYTES[plan.dtype])
    return work + 3 * 4 * width * height + _workspace(footprint)


def _narrowness(footprint: Footprint) -> float:
    return 0.25 if footprint.is_small else 1.0


def _workspace(footprint: Footprint) -> int:
    """What large layers take whatever the size of the picture, in bytes."""
    return 0 if footprint.is_small else _WORKSPACE_BYTES


def _values_in_folder(folder: Path, parts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for part in parts:
        for path in sorted((folder / part).glob(f"*{WEIGHTS_SUFFIX}")):
            yield part, sum(math.prod(tensor.shape) for tensor in read_header(path).tensors.values())


def _values_in_file(path: Path) -> Iterator[tuple[str, int]]:
    for name, tensor in read_header(path).tensors.items():
        for prefix, part in _PREFIXES.items():
            if name.startswith(prefix):
                yield part, math.prod(tensor.shape)
