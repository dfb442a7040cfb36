"""Pipelines in memory: loaded on first use, lent to one job at a time, the least recently used one let go."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from engines.base import EngineState, OnFetch, unheard
from engines.devices import Device
from engines.downloads import cached, fetch
from engines.loading import Loaded, load, weights_bytes
from engines.memory import release_memory
from engines.places import local_place, sources_of
from studio.domain.catalogue import Checkpoint

logger = logging.getLogger(__name__)

WEIGHTS_SHARE = 0.5
"""Part of the memory that weights may fill; the rest is for the work on them and for everybody else."""


def _never() -> bool:
    return False


class PipelinePool:
    """Keeps checkpoints in memory while their weights fit into `limit_bytes` together, by default half of the device's
    memory. `root` is what catalogue folders are relative to."""

    def __init__(
        self,
        root: Path,
        models_dir: Path,
        device: Device,
        *,
        offline: bool = False,
        limit_bytes: int | None = None,
    ) -> None:
        self._root = root
        self._models_dir = models_dir
        self._device = device
        self._offline = offline
        self._limit_bytes = limit_bytes or int(WEIGHTS_SHARE * _memory_bytes(device.name))
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.RLock()

    def state(self) -> EngineState:
        """Device and what is loaded, without waiting for a lease to end."""
        dtype = str(self._device.dtype).removeprefix("torch.")
        return EngineState(device=self._device.name, dtype=dtype, loaded=tuple(self._loaded))

    @contextmanager
    def lease(
        self, checkpoint: Checkpoint, cancelled: Callable[[], bool] = _never, on_fetch: OnFetch = unheard
    ) -> Iterator[Loaded]:
        """Lend `checkpoint`'s pipeline to one job at a time; the scheduler it came with is put back afterwards.

        Raises:
            JobCancelled: `cancelled()` turned true while the weights were fetched.
            CorruptModel, DownloadFailed, Incompatible, NotFound, StorageFailed: they cannot be had.
        """
        with self._lock:
            loaded = self._get(checkpoint, cancelled, on_fetch)
            scheduler = loaded.pipeline.scheduler
            try:
                yield loaded
            finally:
                loaded.pipeline.scheduler = scheduler

    def _get(self, checkpoint: Checkpoint, cancelled: Callable[[], bool], on_fetch: OnFetch) -> Loaded:
        loaded = self._loaded.get(checkpoint.id)
        if loaded is None:
            place = local_place(checkpoint, self._root, self._models_dir)
            place = place or self._fetch(checkpoint, cancelled, on_fetch)
            # Miniatures gain nothing from short numbers, and in float32 they match plain diffusers exactly.
            dtype = torch.float32 if checkpoint.is_pocket else self._device.dtype
            self._make_room(weights_bytes(place, dtype))
            loaded = load(checkpoint, place, self._device.name, dtype, offline=self._offline)
            self._loaded[checkpoint.id] = loaded
        self._loaded.move_to_end(checkpoint.id)
        return loaded

    def _make_room(self, needed: int) -> None:
        """Let go of the least recently used checkpoints until `needed` bytes more fit, or none is left."""
        before = len(self._loaded)
        while self._loaded and sum(kept.num_bytes for kept in self._loaded.values()) + needed > self._limit_bytes:
            name, _ = self._loaded.popitem(last=False)
            logger.info("let go of %s", name)
        if len(self._loaded) < before:
            release_memory()

    def _fetch(self, checkpoint: Checkpoint, cancelled: Callable[[], bool], on_fetch: OnFetch) -> Path:
        sources = sources_of(checkpoint)
        for source in sources:
            if (found := cached(source)) is not None:
                return found
        return fetch(
            checkpoint.title,
            sources,
            self._models_dir / checkpoint.id,
            prefer_half=self._device.dtype != torch.float32,
            offline=self._offline,
            on_progress=lambda fetched: on_fetch(fetched.done_bytes, fetched.total_bytes),
            cancelled=cancelled,
        )


def _memory_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
