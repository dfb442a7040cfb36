"""An adapter's factors in one form, whatever file they came in: what is to be added to each weight."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from lora_registry.compatibility import FittedModule, check_numbers, fit
from lora_registry.factors import MAGNITUDES, magnitude_shape
from lora_registry.formats import alphas_of, read_adapter
from lora_registry.tensor_data import TensorReader
from studio.domain.adapter import AdapterTarget, Part


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """LoRA and, with a kernel in `down` or a core between (`mid`), LoCon: ΔW = up·mid·down · alpha/rank.

    down (rank, in, *kernel), up (out, rank, …), mid (rank, rank, *kernel), as stored. `magnitude` makes it a DoRA.
    """

    down: Tensor
    up: Tensor
    alpha: float
    mid: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def product(self) -> Tensor:
        """ΔW in float32, before any magnitude; of the weight's size, perhaps not of its shape."""
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        scale = self.alpha / self.rank
        if self.mid is None:
            return up @ down * scale
        return torch.einsum("op,pr...,ri->oi...", up, self.mid.float(), down) * scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Hadamard:
    """LoHa: ΔW = `first` ∘ `second`, element by element; the scale is the first's."""

    first: LowRank
    second: LowRank
    magnitude: Tensor | None = None

    def product(self) -> Tensor:
        return self.first.product().flatten(1) * self.second.product().flatten(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Kronecker:
    """LoKr: ΔW = `first` ⊗ `second` · scale; first (a, b), second (c, d, *kernel), ΔW (a·c, b·d, *kernel)."""

    first: Tensor
    second: Tensor
    scale: float
    magnitude: Tensor | None = None

    def product(self) -> Tensor:
        second = self.second.float().contiguous()  # torch.kron takes no other
        first = self.first.float().reshape(*self.first.shape, *(1,) * (second.ndim - self.first.ndim))
        return torch.kron(first, second) * self.scale


Change: TypeAlias = LowRank | Hadamard | Kronecker
AdapterWeights: TypeAlias = dict[Part, dict[str, Change]]
"""What is added to each weight, by part and diffusers module path."""


def load_weights(path: Path, target: AdapterTarget) -> AdapterWeights:
    """Read an adapter that fits `target`, with its numbers in the type they are stored in.

    Raises:
        Incompatible, CorruptModel: in the words of `compatibility.judge`.
    """
    file = read_adapter(path)
    fitted = fit(file, target)
    check_numbers(file)
    alphas = alphas_of(file)
    weights: AdapterWeights = {}
    with TensorReader(path) as reader:
        for item in fitted:
            alpha = alphas[item.module.part, item.module.path]
            weights.setdefault(item.module.part, {})[item.path] = _change(item, _factors(item, reader), alpha)
    return weights


def delta(change: Change, weight: Tensor) -> Tensor:
    """What `change` adds to `weight` at a lora_scale of 1, in float32 and in the weight's shape.

    A DoRA gives the sum a length of its own (arXiv 2402.09353), so what it adds depends on the weight.
    """
    product = change.product().reshape(weight.shape)
    if change.magnitude is None:
        return product
    magnitude, base = change.magnitude.float(), weight.float()
    changed = base + product
    across = [axis for axis, size in enumerate(magnitude.shape) if size == 1]
    lengths = changed.square().sum(dim=across, keepdim=True).sqrt().clamp_min(1e-12)  # a row of zeros stays one
    return changed * (magnitude / lengths) - base


def _factors(item: FittedModule, reader: TensorReader) -> dict[str, Tensor]:
    tensors = {role: tensor for role, tensor in item.module.tensors.items() if role != "alpha"}
    return {role: torch.tensor(reader.numbers(tensor)).reshape(tensor.shape) for role, tensor in tensors.items()}


def _change(item: FittedModule, factors: dict[str, Tensor], alpha: float | None) -> Change:
    rank = item.module.rank
    alpha = float(rank or 1) if alpha is None else alpha
    shape = magnitude_shape(item.module, item.weight_shape)
    magnitude = None if shape is None else next(factors[role] for role in MAGNITUDES if role in factors).reshape(shape)
    if item.module.algorithm == "loha":
        first, second = _lycoris_pair(factors, "hada_w1", "hada_t1"), _lycoris_pair(factors, "hada_w2", "hada_t2")
        return Hadamard(first=replace(first, alpha=alpha), second=second, magnitude=magnitude)
    if item.module.algorithm == "lokr":
        second = _lycoris_factor(factors, "lokr_w2", "lokr_t2")
        return Kronecker(
            first=_lycoris_factor(factors, "lokr_w1", "lokr_t1"),
            second=second.reshape(second.shape[0], -1, *item.weight_shape[2:]),
            scale=alpha / rank if rank else 1.0,  # two whole factors have no rank, and their alpha means nothing
            magnitude=magnitude,
        )
    return LowRank(down=factors["down"], up=factors["up"], alpha=alpha, mid=factors.get("mid"), magnitude=magnitude)


def _lycoris_factor(factors: dict[str, Tensor], name: str, core: str) -> Tensor:
    return factors[name] if name in factors else _lycoris_pair(factors, name, core).product()


def _lycoris_pair(factors: dict[str, Tensor], name: str, core: str) -> LowRank:
    """a·b with a scale of 1. In Tucker form, where a core stands between, LyCORIS keeps `a` transposed."""
    a, b = factors[f"{name}_a"], factors[f"{name}_b"]
    return LowRank(down=b, up=a.T if core in factors else a, alpha=float(b.shape[0]), mid=factors.get(core))
