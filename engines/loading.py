"""Open a checkpoint where it lies: a diffusers folder or a single file, checked before a tensor is touched."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError

from engines.conditioning import PromptCache
from engines.detection import detect_file, detect_folder
from engines.full_size import family_folder, family_tokenizers
from engines.hub_files import PICKLE_SUFFIXES
from engines.prediction import measure_prediction_type
from studio.domain.adapter import FAMILY_TITLES
from studio.domain.catalogue import Checkpoint, PredictionType
from studio.domain.errors import CorruptModel, Incompatible
from studio.domain.tensors import read_header

logger = logging.getLogger(__name__)

TINY_VAE_FOLDER = "tiny_vae"
PIPELINES = {"sd15": StableDiffusionPipeline, "sd21": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
_PARTS = ("unet", "vae", "text_encoder")
_XL_PARTS = (*_PARTS, "text_encoder_2")
_FOLDER_HINT = "A checkpoint is a diffusers folder with model_index.json and .safetensors weights."
_FEWEST_WORDS = 256
"""A CLIP tokenizer has a token for every byte at least."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint in memory, with its preview decoder (if it has one), the prompts it read last, the SHA-256 of its
    weights and what its UNet predicts."""

    checkpoint: Checkpoint
    pipeline: Any
    tiny_vae: AutoencoderTiny | None
    prompts: PromptCache
    sha256: str
    dtype: torch.dtype
    prediction_type: PredictionType

    @property
    def num_bytes(self) -> int:
        """What its weights take."""
        modules = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        tensors = (
            t for module in (*modules, self.tiny_vae) if module for t in (*module.parameters(), *module.buffers())
        )
        return sum(tensor.nbytes for tensor in tensors)


def load(checkpoint: Checkpoint, place: Path, device: str, dtype: torch.dtype, *, offline: bool = False) -> Loaded:
    """Open `checkpoint`, which lies at `place`, on `device`.

    Raises:
        CorruptModel: files are missing, unsafe or damaged.
        Incompatible: it is a checkpoint of another family than its row says.
    """
    family = check(place)
    if family != checkpoint.family:
        holds, wanted = FAMILY_TITLES[family], FAMILY_TITLES[checkpoint.family]
        raise Incompatible(
            f"{place.name} holds a checkpoint of {holds}, and {checkpoint.title} is one of {wanted}.",
            "Put it under another name.",
        )
    try:
        pipeline, tiny_vae = _open(checkpoint, place, dtype, offline)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        # Its text names folders of this machine, which is nothing for a visitor from elsewhere.
        logger.warning("%s cannot be loaded: %s", place, error)
        raise CorruptModel(
            f"{checkpoint.title} in {place.name} cannot be loaded; the log says what is wrong with it.",
            f"{_FOLDER_HINT} Fetch or copy it again.",
        ) from error
    _check_words(pipeline, place)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)  # 0.96 and 0.83 of the time, docs/benchmarks.md
    if tiny_vae is not None:
        tiny_vae.to(device)
    logger.info("loaded %s on %s in %s", checkpoint.id, device, dtype)
    return Loaded(
        checkpoint=checkpoint,
        pipeline=pipeline,
        tiny_vae=tiny_vae,
        prompts=PromptCache(),
        sha256=weights_sha256(place),
        dtype=dtype,
        prediction_type=_prediction_type(checkpoint, pipeline),
    )


def check(place: Path) -> str:
    """Refuse a folder or file that is no checkpoint, or whose weights are pickles or cut short, before anything is
    opened; gives its family.

    Raises:
        CorruptModel: naming what is missing, unsafe or damaged.
        Incompatible: it is something else, such as an adapter.
    """
    if place.is_file():
        return detect_file(place).family
    if not (place / "model_index.json").is_file():
        raise CorruptModel(f"{place.name} has no model_index.json.", _FOLDER_HINT)
    for part in _parts(place):
        if any((place / part).glob("*.safetensors")):
            continue
        pickles = [path.name for path in (place / part).glob("*") if path.suffix in PICKLE_SUFFIXES]
        what = f"only has {pickles[0]}, a pickle, which can run code" if pickles else "has no weights"
        raise CorruptModel(f"{place.name}/{part} {what}.", "Only .safetensors weights are loaded.")
    for path in _weight_files(place):
        read_header(path)
    return detect_folder(place)


def weights_bytes(place: Path, dtype: torch.dtype) -> int:
    """What the weights at `place` will take in memory as `dtype`, told by their headers."""
    tensors = (tensor for path in _weight_files(place) for tensor in read_header(path).tensors.values())
    return sum(math.prod(tensor.shape) for tensor in tensors) * dtype.itemsize


def weights_sha256(place: Path) -> str:
    """SHA-256 over the weights that make a picture, part by part and file by file in order of name."""
    digest = hashlib.sha256()
    for path in _weight_files(place):
        if path.parent.name == TINY_VAE_FOLDER:
            continue
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _open(
    checkpoint: Checkpoint, place: Path, dtype: torch.dtype, offline: bool
) -> tuple[DiffusionPipeline, AutoencoderTiny | None]:
    pipeline_class = PIPELINES[checkpoint.family]
    bare = {} if checkpoint.family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}
    if place.is_file():
        parts = family_tokenizers(checkpoint.family, offline)
        config = str(family_folder(checkpoint.family))
        pipeline = pipeline_class.from_single_file(
            str(place), config=config, dtype=dtype, local_files_only=True, **parts, **bare
        )
        return pipeline, None
    pipeline = pipeline_class.from_pretrained(place, dtype=dtype, use_safetensors=True, **bare)
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


def _parts(folder: Path) -> Iterator[str]:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    yield from _XL_PARTS if "text_encoder_2" in index else _PARTS
    if (folder / TINY_VAE_FOLDER).is_dir():
        yield TINY_VAE_FOLDER


def _weight_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return [path for part in _parts(place) for path in sorted((place / part).glob("*.safetensors"))]
