"""Open a checkpoint where it lies: a diffusers folder or a single file, checked before a tensor is touched."""

import copy
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from safetensors import SafetensorError

from engines.attaching import MergedWeights
from engines.conditioning import PromptCache, read_meant
from engines.controls import ControlShelf
from engines.devices import dtype_name, is_bfloat16_fast
from engines.full_size import family_folder, family_tokenizers
from engines.identity import weights_sha256, weights_stamp
from engines.memory import release_memory
from engines.parts import TINY_VAE_FOLDER
from engines.pipelines import PIPELINES, SteadyPipeline, SteadyXLPipeline
from engines.placement import execution_device, mapped_parts, put
from engines.prediction import measure_prediction_type
from engines.soundness import FOLDER_HINT, inspect
from studio.domain.adapter import FAMILY_TITLES
from studio.domain.catalogue import Checkpoint, PredictionType
from studio.domain.errors import CorruptModel, Incompatible
from studio.domain.memory import Placement

logger = logging.getLogger(__name__)

_FEWEST_WORDS = 256
"""A CLIP tokenizer has a token for every byte at least."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint in memory, with its tiny decoder (if it has one), the prompts it read last, its weights as the
    adapters used last change them, the SHA-256 and the stamp of its weights, where they are while they do nothing, and
    what its UNet predicts."""

    checkpoint: Checkpoint
    pipeline: Any
    tiny_vae: AutoencoderTiny | None
    prompts: PromptCache
    merged: MergedWeights
    sha256: str
    stamp: str
    dtype: torch.dtype
    prediction_type: PredictionType
    placement: Placement = "resident"

    @property
    def device(self) -> torch.device:
        """Where it computes; its weights may be elsewhere."""
        return execution_device(self.pipeline)

    @cached_property
    def controls(self) -> ControlShelf:
        """The ControlNet that steered its UNet last."""
        return ControlShelf(self.pipeline.unet, self.device, self.dtype)

    @cached_property
    def half_vae(self) -> Any | None:
        """A copy of its VAE in bfloat16, whose range is that of float32; None where that gains nothing, or where
        weights are not at hand to be copied."""
        vae = self.pipeline.vae
        if vae.dtype != torch.float32 or self.placement != "resident" or not is_bfloat16_fast(self.device.type):
            return None
        return copy.deepcopy(vae).to(torch.bfloat16, memory_format=torch.channels_last)

    @property
    def num_bytes(self) -> int:
        """What its weights take, with those of a ControlNet."""
        control = self.__dict__.get("controls")  # only if it was ever asked for
        return self._weights_bytes + (control.num_bytes if control else 0)

    # It looks through every module, which takes 3 ms: a fortieth of a miniature's picture in four steps.
    @cached_property
    def _weights_bytes(self) -> int:
        modules = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        tensors = (
            t for module in (*modules, self.tiny_vae) if module for t in (*module.parameters(), *module.buffers())
        )
        return sum(tensor.nbytes for tensor in tensors)


def load(
    checkpoint: Checkpoint,
    place: Path,
    device: str,
    dtype: torch.dtype,
    *,
    offline: bool = False,
    placement: Placement = "resident",
    mapped_dir: Path | None = None,
) -> Loaded:
    """Open `checkpoint`, which lies at `place`, to compute on `device`. `mapped_dir` is for weights that stay on disk.

    Raises:
        CorruptModel: files are missing, unsafe or damaged.
        Incompatible: it is a checkpoint of another family than its row says.
    """
    family = inspect(place).family
    if family != checkpoint.family:
        holds, wanted = FAMILY_TITLES[family], FAMILY_TITLES[checkpoint.family]
        raise Incompatible(
            f"{place.name} holds a checkpoint of {holds}, and {checkpoint.title} is one of {wanted}.",
            "Put it under another name.",
        )
    stamp = weights_stamp(place)
    mapped = mapped_dir / f"{stamp[:16]}-{dtype_name(dtype)}" if mapped_dir and placement == "mapped" else None
    try:
        pipeline, tiny_vae = _open(checkpoint, place, dtype, offline, mapped)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        # Its text names folders of this machine, which is nothing for a visitor from elsewhere.
        logger.warning("%s cannot be loaded: %s", place, error)
        raise CorruptModel(
            f"{checkpoint.title} in {place.name} cannot be loaded; the log says what is wrong with it.",
            f"{FOLDER_HINT} Fetch or copy it again.",
        ) from error
    _check_words(pipeline, place)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)  # 0.96 and 0.83 of the time, docs/benchmarks.md
    put(pipeline, placement, device, mapped)
    if placement == "resident":
        pipeline.known_device = torch.device(device)
    if tiny_vae is not None:
        tiny_vae.to(device, memory_format=torch.channels_last)
    release_memory()  # what reading and converting left: 0.7 GB with SD 1.5
    logger.info("loaded %s on %s in %s, %s", checkpoint.id, device, dtype, placement)
    return Loaded(
        checkpoint=checkpoint,
        pipeline=pipeline,
        tiny_vae=tiny_vae,
        prompts=PromptCache(read=read_meant),
        merged=MergedWeights(),
        sha256=weights_sha256(place),
        stamp=stamp,
        dtype=dtype,
        prediction_type=_prediction_type(checkpoint, pipeline),
        placement=placement,
    )


def moved(loaded: Loaded, device: str) -> Loaded:
    """`loaded`, whose weights are all in memory, with them on `device`, and without what was made of them before."""
    loaded.pipeline.to(device)
    loaded.pipeline.known_device = torch.device(device)
    if loaded.tiny_vae is not None:
        loaded.tiny_vae.to(device)
    return replace(loaded, prompts=PromptCache(read=read_meant), merged=MergedWeights())


def _open(
    checkpoint: Checkpoint, place: Path, dtype: torch.dtype, offline: bool, mapped: Path | None
) -> tuple[SteadyPipeline | SteadyXLPipeline, AutoencoderTiny | None]:
    pipeline_class = PIPELINES[checkpoint.family]
    bare = {} if checkpoint.family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}
    if place.is_file():
        parts = family_tokenizers(checkpoint.family, offline)
        config = str(family_folder(checkpoint.family))
        pipeline = pipeline_class.from_single_file(
            str(place), config=config, dtype=dtype, local_files_only=True, **parts, **bare
        )
        return pipeline, None
    parts = mapped_parts(place, dtype, mapped) if mapped else {}
    pipeline = pipeline_class.from_pretrained(place, dtype=dtype, use_safetensors=True, **parts, **bare)
    tiny = place / TINY_VAE_FOLDER
    if not tiny.is_dir():
        return pipeline, None
    return pipeline, AutoencoderTiny.from_pretrained(tiny, dtype=dtype, use_safetensors=True)


def _check_words(pipeline: Any, place: Path) -> None:
    """Refuse a tokenizer without its files: transformers makes one of two tokens instead, and every prompt reads the
    same."""
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None and len(tokenizer) < _FEWEST_WORDS:
            raise CorruptModel(f"{place.name}/{name} has no words.", "Fetch or copy the folder again.")


def _prediction_type(checkpoint: Checkpoint, pipeline: Any) -> PredictionType:
    declared = checkpoint.prediction_type
    if declared == "epsilon":
        return declared
    measured = measure_prediction_type(pipeline)
    if declared is not None and measured == "epsilon":
        logger.warning("%s is said to predict v, and predicts ε: ε it is", checkpoint.id)
    return measured if declared is None or measured == "epsilon" else declared
