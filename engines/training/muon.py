"""Muon: momentum whose update of every weight matrix is made orthogonal, so that no direction of it is left behind.

Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; the scale that lets it share AdamW's learning rates is
that of Liu et al. (2025), arXiv:2502.16982.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 4
_RMS = 0.2
"""Root mean square of an update at learning rate 1, about that of AdamW."""


class Muon(Optimizer):
    """For weights of two dimensions and more; a convolution counts as the matrix `(out, in · kh · kw)`.

    `dtype` is what the orthogonal directions are found in; they are rough by design, and bf16 is enough.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.01,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update; weights of one shape are treated together, as one batched product."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                momenta = torch.stack([self._direction(weight, group["momentum"]) for weight in weights])
                directions = orthogonal(momenta.to(self._dtype)).to(momenta.dtype)
                scale = _RMS * math.sqrt(max(directions.shape[1:]))
                for weight, direction in zip(weights, directions, strict=True):
                    weight.mul_(1 - group["lr"] * group["decay"])
                    weight.add_(direction.reshape(weight.shape), alpha=-group["lr"] * scale)

    def _direction(self, weight: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's momentum, as a matrix."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        average = state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(average, momentum).reshape(len(weight), -1)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearly orthogonal matrices closest to `matrices` `(N, rows, columns)`: singular values end near 1.

    A quintic Newton–Schulz iteration, matrix products only.
    """
    a, b, c = _NEWTON_SCHULZ
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
