"""Adapters made smaller: of every layer, the directions that change most for what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_registry.weights import LowRank

_LINALG: Any = torch.linalg
"""Which torch leaves without types."""
_ALPHA = 8.0
"""Of every layer, whatever its rank: where alphas differ, diffusers (0.42) drops those of attention layers in kohya's
layout, and adds those layers at a wrong scale."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """ΔW = left · diag(values) · right, strongest first; `value_cost`: numbers that a direction takes."""

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def value_cost(self) -> int:
        return len(self.left) + self.right.shape[1]


def shrunk(changes: Mapping[str, LowRank], max_values: int) -> dict[str, LowRank]:
    """The adapter of at most `max_values` numbers that is nearest to `changes`, by the sum of squares of what it adds
    to the weights: per layer the leading singular directions (Eckart & Young, 1936), between layers by what each is
    worth for its size. Layers that nothing is left of are left out.

    Raises:
        ValueError: a change has a core or a magnitude of its own.
    """
    splits = {path: _split(change) for path, change in changes.items()}
    worth = sorted(
        (float(value) ** 2 / split.value_cost, path, split.value_cost)
        for path, split in splits.items()
        for value in split.values
    )
    ranks = dict.fromkeys(changes, 0)
    used = 0
    for _, path, cost in reversed(worth):
        if used + cost > max_values:
            break
        used += cost
        ranks[path] += 1
    return {path: _joined(splits[path], changes[path], rank) for path, rank in ranks.items() if rank}


def _split(change: LowRank) -> _Split:
    if change.mid is not None or change.magnitude is not None:
        raise ValueError("only plain low-rank changes can be made smaller")
    up = change.up.float().flatten(1) * (change.alpha / change.rank)
    q_up, r_up = _factored(up)
    q_down, r_down = _factored(change.down.float().flatten(1).transpose(0, 1))
    svd = _LINALG.svd(r_up @ r_down.transpose(0, 1), full_matrices=False)
    left: Tensor = q_up @ svd.U
    right: Tensor = svd.Vh @ q_down.transpose(0, 1)
    return _Split(left=left, values=svd.S, right=right)


def _factored(matrix: Tensor) -> tuple[Tensor, Tensor]:
    qr = _LINALG.qr(matrix)
    return qr.Q, qr.R


def _joined(split: _Split, like: LowRank, rank: int) -> LowRank:
    roots = split.values[:rank].sqrt()
    return LowRank(
        down=(roots[:, None] * split.right[:rank]).reshape(rank, *like.down.shape[1:]),
        up=(split.left[:, :rank] * roots * (rank / _ALPHA)).reshape(len(split.left), rank, *like.up.shape[2:]),
        alpha=_ALPHA,
    )
