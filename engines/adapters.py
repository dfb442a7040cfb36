"""Adapters ready to be attached: read once, for the checkpoint that they are used with."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from engines.attaching import AttachedAdapter
from engines.base import ChosenAdapter
from engines.loading import Loaded
from lora_registry.weights import AdapterWeights, load_weights
from studio.domain.adapter import PARTS, AdapterTarget
from studio.domain.stamps import FileStamp, file_stamp
from studio.domain.tags import AdapterUse

_CAPACITY = 8
"""Adapters kept; one of rank 16 takes 40 MB with SD 1.5 and 180 MB with SDXL."""


def target_of(loaded: Loaded) -> AdapterTarget:
    """A checkpoint as adapters see it: every matrix and kernel by its path."""
    checkpoint, pipeline = loaded.checkpoint, loaded.pipeline
    modules = {
        part: {
            path: tuple(module.weight.shape)
            for path, module in getattr(pipeline, part).named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        for part in PARTS
        if getattr(pipeline, part, None) is not None
    }
    return AdapterTarget(
        title=checkpoint.title, family=checkpoint.family, modules=modules, prediction_type=loaded.prediction_type
    )


def ready(use: AdapterUse, weights: AdapterWeights) -> AttachedAdapter:
    """Weights with as much of them as `use` says."""
    te = use.text_encoder_scale
    scales = {} if te is None else {part: te for part in PARTS if part != "unet"}
    return AttachedAdapter(weights=weights, lora_scale=use.lora_scale, part_scales=scales)


class AdapterShelf:
    """Adapters ready to be attached: the files used last, read for the checkpoint that they were used with."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[FileStamp, str], AdapterWeights] = OrderedDict()

    def take(self, chosen: Sequence[ChosenAdapter], loaded: Loaded) -> tuple[AttachedAdapter, ...]:
        """What is `chosen`, for `loaded`.

        Raises:
            Incompatible, CorruptModel: a file was changed since it was checked.
        """
        return tuple(ready(item.use, self._weights(item.path, loaded)) for item in chosen)

    def _weights(self, path: Path, loaded: Loaded) -> AdapterWeights:
        key = (file_stamp(path), loaded.sha256)
        if key not in self._kept:
            self._kept[key] = load_weights(path, target_of(loaded))
            if len(self._kept) > _CAPACITY:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
