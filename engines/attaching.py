"""Adapters at work: attached for one picture, then gone. No weight of the checkpoint is ever written to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.placement import execution_device, weight_of
from lora_registry.weights import AdapterWeights, Change, LowRank, delta
from studio.domain.adapter import Part

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


class MergedWeights:
    """What the weights of a miniature become with the adapters used last: beside its small layers, those of an adapter
    take two thirds as long again."""

    def __init__(self) -> None:
        self._for: tuple[AttachedAdapter, ...] = ()
        self._kept: dict[nn.Module, Tensor] = {}

    @contextmanager
    def in_place(self, pipeline: Any, adapters: Sequence[AttachedAdapter]) -> Iterator[None]:
        """These instead of the weights of `pipeline`, which its modules must hold, until the context ends; then the
        very tensors that were there before. What `attached` does, but for the order of the sums."""
        if not adapters:  # those of the last picture may be wanted by the next
            yield
            return
        if self._for != tuple(adapters):
            self._kept = _merged(pipeline, adapters)
            self._for = tuple(adapters)
        before = {module: module.weight.data for module in self._kept}
        try:
            for module, weight in self._kept.items():
                module.weight.data = weight
            yield
        finally:
            for module, weight in before.items():
                module.weight.data = weight


def _merged(pipeline: Any, adapters: Sequence[AttachedAdapter]) -> dict[nn.Module, Tensor]:
    merged: dict[nn.Module, Tensor] = {}
    for adapter in adapters:
        for part, changes in adapter.weights.items():
            scale = adapter.scale_of(part)
            for path, change in changes.items() if scale else ():
                module = getattr(pipeline, part).get_submodule(path)
                weight = merged[module] if module in merged else module.weight.detach()
                added = (delta(change, weight_of(module)) * scale).to(weight.device, weight.dtype)
                merged[module] = weight + added
    return merged


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
