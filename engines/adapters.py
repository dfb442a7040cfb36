"""Adapters at work: attached for one picture, then gone. No weight of the checkpoint is ever written to."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.base import ChosenAdapter
from engines.loading import Loaded
from engines.placement import execution_device, weight_of
from lora_registry.weights import AdapterWeights, Change, LowRank, delta, load_weights
from studio.domain.adapter import PARTS, AdapterTarget, Part
from studio.domain.tags import AdapterUse

_CAPACITY = 8
"""Adapters kept; one of rank 16 takes 40 MB with SD 1.5 and 180 MB with SDXL."""
Branch = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class AttachedAdapter:
    """Weights and how much of them is added: `lora_scale`, or for a part that `part_scales` names, that."""

    weights: AdapterWeights
    lora_scale: float = 1.0
    part_scales: Mapping[Part, float] = field(default_factory=dict)

    def scale_of(self, part: Part) -> float:
        return self.part_scales.get(part, self.lora_scale)

    @property
    def changes_text(self) -> bool:
        """Whether a prompt reads differently with it."""
        return any(part != "unet" and self.scale_of(part) != 0 for part in self.weights)


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


def _ready(use: AdapterUse, weights: AdapterWeights) -> AttachedAdapter:
    te = use.text_encoder_scale
    scales = {} if te is None else {part: te for part in PARTS if part != "unet"}
    return AttachedAdapter(weights=weights, lora_scale=use.lora_scale, part_scales=scales)


class AdapterShelf:
    """Adapters ready to be attached: the files used last, read for the checkpoint that they were used with."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int, str], AdapterWeights] = OrderedDict()

    def take(self, chosen: Sequence[ChosenAdapter], loaded: Loaded) -> tuple[AttachedAdapter, ...]:
        """What is `chosen`, for `loaded`.

        Raises:
            Incompatible, CorruptModel: a file was changed since it was checked.
        """
        return tuple(_ready(item.use, self._weights(item.path, loaded)) for item in chosen)

    def _weights(self, path: Path, loaded: Loaded) -> AdapterWeights:
        key = (path, path.stat().st_mtime_ns, loaded.sha256)
        if key not in self._kept:
            self._kept[key] = load_weights(path, target_of(loaded))
            if len(self._kept) > _CAPACITY:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


@contextmanager
def attached(pipeline: Any, adapters: Sequence[AttachedAdapter]) -> Iterator[None]:
    """Add what `adapters` say to what the modules of `pipeline` compute, until the context ends.

    Each change stands beside its module: y = W·x + Σ lora_scale · ΔW·x. So the weights stay as they are, and detaching
    leaves nothing behind; fusing and unfusing would change their last bits.
    """
    device = execution_device(pipeline)
    branches: dict[nn.Module, list[Branch]] = {}
    for adapter in adapters:
        for part, changes in adapter.weights.items():
            scale = adapter.scale_of(part)
            for path, change in changes.items() if scale else ():
                module = getattr(pipeline, part).get_submodule(path)
                branches.setdefault(module, []).append(_branch(module, change, scale, device))
    handles = [module.register_forward_hook(_adding(beside)) for module, beside in branches.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(branches: list[Branch]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for branch in branches:
            output = output + branch(inputs[0])
        return output

    return add


def _branch(module: nn.Module, change: Change, scale: float, device: torch.device) -> Branch:
    """`scale`·ΔW as a function of the module's input."""
    weight = module.weight
    if isinstance(change, LowRank) and change.mid is None and change.magnitude is None:
        strength = scale * change.alpha / change.rank
        down, up = change.down.to(device, weight.dtype), (change.up.float() * strength).to(device, weight.dtype)
        if isinstance(module, nn.Linear):
            down, up = down.flatten(1), up.flatten(1)
            return lambda hidden: F.linear(F.linear(hidden, down), up)
        down, up = down.reshape(-1, *weight.shape[1:]), up.reshape(len(up), -1, 1, 1)
        return lambda hidden: F.conv2d(_convolved(module, hidden, down), up)
    whole = (delta(change, weight_of(module)) * scale).to(device, weight.dtype)
    if isinstance(module, nn.Linear):
        return lambda hidden: F.linear(hidden, whole)
    return lambda hidden: _convolved(module, hidden, whole)


def _convolved(module: nn.Module, hidden: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(hidden, kernel, None, module.stride, module.padding, module.dilation, module.groups)
