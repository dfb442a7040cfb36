"""Pipelines in memory: loaded on first use, lent to one job at a time, the least recently used one let go."""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError

from engines.base import EngineState
from engines.devices import Device
from engines.text import PromptCache
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import CorruptModel, DownloadFailed, NotFound

logger = logging.getLogger(__name__)

TINY_VAE_FOLDER = "tiny_vae"
_PARTS = ("unet", "vae", "text_encoder")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint in memory, with its preview decoder (if it has one), the prompts it read last and the SHA-256 of
    its weights."""

    checkpoint: Checkpoint
    pipeline: Any
    tiny_vae: AutoencoderTiny | None
    prompts: PromptCache
    sha256: str
    dtype: torch.dtype


class PipelinePool:
    """Keeps up to `capacity` checkpoints in memory. `root` is what catalogue folders are relative to."""

    def __init__(
        self, root: Path, models_dir: Path, device: Device, *, offline: bool = False, capacity: int = 2
    ) -> None:
        self._root = root
        self._models_dir = models_dir
        self._device = device
        self._offline = offline
        self._capacity = capacity
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.RLock()

    def state(self) -> EngineState:
        """Device and what is loaded, without waiting for a lease to end."""
        dtype = str(self._device.dtype).removeprefix("torch.")
        return EngineState(device=self._device.name, dtype=dtype, loaded=tuple(self._loaded))

    @contextmanager
    def lease(self, checkpoint: Checkpoint) -> Iterator[Loaded]:
        """Lend `checkpoint`'s pipeline to one job at a time; the scheduler it came with is put back afterwards."""
        with self._lock:
            loaded = self._get(checkpoint)
            scheduler = loaded.pipeline.scheduler
            try:
                yield loaded
            finally:
                loaded.pipeline.scheduler = scheduler

    def _get(self, checkpoint: Checkpoint) -> Loaded:
        loaded = self._loaded.get(checkpoint.id)
        if loaded is None:
            while len(self._loaded) >= self._capacity:
                self._loaded.popitem(last=False)
            loaded = self._loaded[checkpoint.id] = self._load(checkpoint)
        self._loaded.move_to_end(checkpoint.id)
        return loaded

    def _load(self, checkpoint: Checkpoint) -> Loaded:
        folder = self.local_folder(checkpoint)
        # Miniatures gain nothing from short numbers, and in float32 they match plain diffusers exactly.
        dtype = torch.float32 if checkpoint.is_pocket else self._device.dtype
        if folder is None:
            folder = self._download(checkpoint)
        check_folder(folder)
        try:
            pipeline, tiny_vae = _open(folder, dtype)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            # Its text names folders of this machine, which is nothing for a visitor from elsewhere.
            logger.warning("%s cannot be loaded: %s", folder, error)
            raise CorruptModel(
                f"{checkpoint.title} in {folder.name} cannot be loaded; the log says what is wrong with it.",
                f"{_FOLDER_HINT} Fetch or copy it again.",
            ) from error
        pipeline.to(self._device.name)
        if tiny_vae is not None:
            tiny_vae.to(self._device.name)
        logger.info("loaded %s on %s in %s", checkpoint.id, self._device.name, dtype)
        return Loaded(
            checkpoint=checkpoint,
            pipeline=pipeline,
            tiny_vae=tiny_vae,
            prompts=PromptCache(),
            sha256=weights_sha256(folder),
            dtype=dtype,
        )

    def local_folder(self, checkpoint: Checkpoint) -> Path | None:
        """Where the checkpoint lies on this machine: its catalogue folder, or one of its name in the models folder.

        Raises:
            NotFound: the catalogue names a folder that is not there.
        """
        dropped = self._models_dir / checkpoint.id
        if dropped.is_dir():
            return dropped
        if checkpoint.folder is None:
            return None
        folder = self._root / checkpoint.folder
        if not folder.is_dir():
            raise NotFound(
                f"{checkpoint.title} is not in {checkpoint.folder}.", "Build it: python -m engines.pocket.build."
            )
        return folder

    def _download(self, checkpoint: Checkpoint) -> Path:
        place = self._models_dir / checkpoint.id
        try:
            return Path(
                StableDiffusionPipeline.download(
                    checkpoint.hub_id,
                    use_safetensors=True,
                    safety_checker=None,
                    requires_safety_checker=False,
                    local_files_only=self._offline,
                )
            )
        except GatedRepoError as error:
            raise DownloadFailed(
                f"{checkpoint.hub_id} asks you to accept its licence.",
                "Accept it on its page, then log in with `hf auth login`.",
            ) from error
        except RepositoryNotFoundError as error:
            raise DownloadFailed(f"{checkpoint.hub_id} is no longer on the hub.", "Choose another model.") from error
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            if self._offline:
                raise DownloadFailed(
                    f"{checkpoint.title} is not on this machine and the studio is offline.",
                    f"Put its diffusers folder at {place.parent.name}/{place.name}, or switch offline mode off.",
                ) from error
            raise DownloadFailed(
                f"{checkpoint.title} could not be fetched from {checkpoint.hub_id}.",
                f"Check the connection, or put its diffusers folder at {place.parent.name}/{place.name}.",
            ) from error


_FOLDER_HINT = "A checkpoint is a diffusers folder with model_index.json and .safetensors weights."


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no diffusers checkpoint, or whose weights are pickles, before anything is opened.

    Raises:
        CorruptModel: naming what is missing or unsafe.
    """
    if not (folder / "model_index.json").is_file():
        raise CorruptModel(f"{folder.name} has no model_index.json.", _FOLDER_HINT)
    optional = (TINY_VAE_FOLDER,) if (folder / TINY_VAE_FOLDER).is_dir() else ()
    for part in (*_PARTS, *optional):
        if any((folder / part).glob("*.safetensors")):
            continue
        pickles = [path.name for path in (folder / part).glob("*") if path.suffix in PICKLE_SUFFIXES]
        what = f"only has {pickles[0]}, a pickle, which can run code" if pickles else "has no weights"
        raise CorruptModel(f"{folder.name}/{part} {what}.", "Only .safetensors weights are loaded.")


def _open(folder: Path, dtype: torch.dtype) -> tuple[StableDiffusionPipeline, AutoencoderTiny | None]:
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)  # 0.96 and 0.83 of the time, docs/benchmarks.md
    tiny = folder / TINY_VAE_FOLDER
    if not tiny.is_dir():
        return pipeline, None
    return pipeline, AutoencoderTiny.from_pretrained(tiny, dtype=dtype, use_safetensors=True)


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the weights that make a picture, part by part and file by file in order of name."""
    digest = hashlib.sha256()
    for path in (path for part in _PARTS for path in sorted((folder / part).glob("*.safetensors"))):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
