"""Pipelines in memory: loaded on first use, lent to one job at a time, the least recently used one let go."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from engines.attention import fastest_attention
from engines.base import EngineState, OnFetch, never, unheard
from engines.devices import DTYPES, Device, dtype_name, free_bytes
from engines.downloads import cached, fetch
from engines.footprint import Footprint, expected_footprint, footprint_of
from engines.identity import find_place, weights_stamp
from engines.loading import Loaded, load, moved
from engines.memory import release_memory
from engines.places import local_place, sources_of
from engines.plans import NO_WISHES, Means, Task, Wishes, choose_plan
from studio.domain.catalogue import Checkpoint, Family
from studio.domain.errors import NotFound
from studio.domain.memory import MemoryPlan, Placement

logger = logging.getLogger(__name__)

WEIGHTS_SHARE = 0.5
"""Part of the memory that weights may fill; the rest is for the work on them and for everybody else."""
MAPPED_FOLDER = ".mapped"
"""In the models folder: weights in the form in which they are read from disk as needed."""


class PipelinePool:
    """Keeps checkpoints in memory while there is room: their weights within `limit_bytes` together, by default half of
    the device's memory, and never more than what is free. `root` is what catalogue folders are relative to.

    With a `home`, weights wait there until this process, or a fork of it, gets its device: see `arrive`."""

    def __init__(
        self,
        root: Path,
        models_dir: Path,
        device: Device,
        *,
        offline: bool = False,
        limit_bytes: int | None = None,
        wishes: Wishes = NO_WISHES,
        home: str | None = None,
    ) -> None:
        self._home = home or device.name
        self._root = root
        self._models_dir = models_dir
        self._device = device
        self._offline = offline
        self._limit_bytes = limit_bytes or int(WEIGHTS_SHARE * _memory_bytes(self._home))
        self._wishes = wishes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.RLock()

    def state(self) -> EngineState:
        """Device and what is loaded, without waiting for a lease to end."""
        return EngineState(device=self._device.name, dtype=dtype_name(self._device.dtype), loaded=tuple(self._loaded))

    def arrive(self) -> None:
        """From here on the device is there: weights that wait elsewhere go to it when they are next lent. Called in a
        fork, where whoever held the lock before does not live."""
        self._home = self._device.name
        self._lock = threading.RLock()

    def spare_bytes(self) -> int:
        """Memory of its device that another process could take now."""
        return free_bytes(self._device.name, is_for_others=True)

    def footprint(self, checkpoint: Checkpoint, family: Family) -> Footprint:
        """How large the weights of `checkpoint` are, wherever they are.

        Raises:
            CorruptModel: a file is damaged.
            NotFound: the catalogue names a folder that is not there.
        """
        return expected_footprint(checkpoint, family, find_place(checkpoint, self._root, self._models_dir))

    def plan(self, checkpoint: Checkpoint, task: Task) -> MemoryPlan:
        """How a picture is to be made with what is free now, from any thread. What the pool holds counts as free: it
        lets go of it when it must."""
        resident = [kept for kept in tuple(self._loaded.values()) if kept.placement == "resident"]
        held = sum(kept.num_bytes for kept in resident if kept.device.type == self._device.name)
        free = self._wishes.memory_bytes or free_bytes(self._device.name) + held
        dtype = self._dtype(checkpoint)
        return choose_plan(
            task,
            Means(
                device=self._device.name,
                dtype=dtype_name(dtype),
                free_bytes=free,
                attention="fused" if checkpoint.is_pocket else fastest_attention(self._device.name, dtype),
                placement=self._wishes.placement,
            ),
        )

    @contextmanager
    def lease(
        self,
        checkpoint: Checkpoint,
        placement: Placement = "resident",
        cancelled: Callable[[], bool] = never,
        on_fetch: OnFetch = unheard,
    ) -> Iterator[Loaded]:
        """Lend `checkpoint`'s pipeline to one job at a time; the scheduler it came with is put back afterwards.

        Raises:
            JobCancelled: `cancelled()` turned true while the weights were fetched.
            CorruptModel, DownloadFailed, Incompatible, NotFound, StorageFailed: they cannot be had.
        """
        with self._lock:
            loaded = self._get(checkpoint, placement, cancelled, on_fetch)
            scheduler = loaded.pipeline.scheduler
            try:
                yield loaded
            finally:
                loaded.pipeline.scheduler = scheduler

    def keep_only(self, checkpoint: Checkpoint) -> None:
        """Let go of everything else."""
        with self._lock:
            for name in [name for name in self._loaded if name != checkpoint.id]:
                self._let_go(name)

    def _get(
        self, checkpoint: Checkpoint, placement: Placement, cancelled: Callable[[], bool], on_fetch: OnFetch
    ) -> Loaded:
        loaded = self._loaded.get(checkpoint.id)
        if loaded is not None and (loaded.placement != placement or self._was_exchanged(checkpoint, loaded)):
            self._let_go(checkpoint.id)
            loaded = None
        if loaded is None:
            loaded = self._load(checkpoint, placement, cancelled, on_fetch)
            self._loaded[checkpoint.id] = loaded
        elif placement == "resident" and loaded.device.type != self._home:
            loaded = self._loaded[checkpoint.id] = moved(loaded, self._home)
        self._loaded.move_to_end(checkpoint.id)
        return loaded

    def _load(
        self, checkpoint: Checkpoint, placement: Placement, cancelled: Callable[[], bool], on_fetch: OnFetch
    ) -> Loaded:
        place = local_place(checkpoint, self._root, self._models_dir) or self._fetch(checkpoint, cancelled, on_fetch)
        dtype = self._dtype(checkpoint)
        self._make_room(footprint_of(place).total * dtype.itemsize if placement == "resident" else 0)
        return load(
            checkpoint,
            place,
            self._home,
            dtype,
            offline=self._offline,
            placement=placement,
            mapped_dir=self._models_dir / MAPPED_FOLDER / checkpoint.id,
        )

    def _was_exchanged(self, checkpoint: Checkpoint, loaded: Loaded) -> bool:
        """Whether other weights lie now where these came from. Where nothing lies any more, they are still good."""
        try:
            place = local_place(checkpoint, self._root, self._models_dir)
            return place is not None and weights_stamp(place) != loaded.stamp
        except (NotFound, OSError, ValueError):
            return False

    def _let_go(self, name: str) -> None:
        del self._loaded[name]
        logger.info("let go of %s", name)
        release_memory()

    def _make_room(self, needed: int) -> None:
        """Let go of the least recently used checkpoints until `needed` bytes more fit, or none is left."""
        while self._loaded and not self._has_room(needed):
            self._let_go(next(iter(self._loaded)))

    def _has_room(self, needed: int) -> bool:
        held = sum(kept.num_bytes for kept in self._loaded.values())
        return held + needed <= self._limit_bytes and needed <= free_bytes(self._home)

    def _dtype(self, checkpoint: Checkpoint) -> torch.dtype:
        return DTYPES[checkpoint.number_format(dtype_name(self._device.dtype))]

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
