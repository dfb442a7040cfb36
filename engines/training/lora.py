"""Low-rank changes in training: y = W·x + alpha/rank · up(down(x)) (Hu et al., 2021, arXiv:2106.09685).

They stand beside the modules that they change, so the network without them is a switch away, to the bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.training.reach import REACHES, TEXT_REACH
from lora_registry.weights import LowRank
from studio.domain.distillation import Reach


def reached(unet: nn.Module, reach: Reach) -> tuple[str, ...]:
    """The paths of the layers of `unet` that `reach` names."""
    return tuple(
        path
        for path, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and REACHES[reach].fullmatch(path)
    )


def reached_text(encoder: nn.Module) -> tuple[str, ...]:
    """The paths of the layers of a text encoder that are changed: all of its attention and feed-forward layers."""
    return tuple(
        path for path, module in encoder.named_modules() if isinstance(module, nn.Linear) and TEXT_REACH.fullmatch(path)
    )


class TrainableLora(nn.Module):
    """Low-rank changes of the layers at `paths` of `root`, in float32 whatever the layers are in. They change nothing
    until they are trained (`up` begins as zeros), and are taken off again by `detach`. A layer narrower than `rank`
    gets one of its own width. `dropout` of what goes in is left out, at random, while there are gradients."""

    def __init__(self, root: nn.Module, paths: tuple[str, ...], rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.is_on = True
        self.alpha = alpha
        self._paths = paths
        self._layers = nn.ModuleList(_Change(root.get_submodule(path), rank, alpha, dropout) for path in paths)
        self._handles = [
            root.get_submodule(path).register_forward_hook(self._adding(layer))
            for path, layer in zip(paths, self._layers, strict=True)
        ]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network as it was, for as long as the context lasts."""
        was, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = was

    def detach(self) -> None:
        """Leave the network for good."""
        for handle in self._handles:
            handle.remove()

    def factors(self) -> dict[str, LowRank]:
        """What was learnt, by path; copies."""
        return {
            path: LowRank(down=layer.down.detach().clone(), up=layer.up.detach().clone(), alpha=self.alpha)
            for path, layer in zip(self._paths, self._layers, strict=True)
        }

    def _adding(self, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + layer(inputs[0]).to(output.dtype) if self.is_on else output

        return add


class _Change(nn.Module):
    """down (rank, in, *kernel), up (out, rank, 1, …), as kohya and PEFT store them."""

    def __init__(self, module: nn.Module, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        weight = module.weight
        rank = min(rank, len(weight), int(weight.shape[1]))
        self._strength = alpha / rank
        self._dropout = dropout
        self._module = [module]  # in a list, lest its weights count as this module's
        kernel = weight.shape[2:]
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:], device=weight.device) / rank)
        self.up = nn.Parameter(torch.zeros(len(weight), rank, *(1 for _ in kernel), device=weight.device))

    def forward(self, hidden: Tensor) -> Tensor:
        (module,) = self._module
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(self.down.dtype)
        if self._dropout and torch.is_grad_enabled():  # what is drawn and measured is the whole adapter
            hidden = F.dropout(hidden, self._dropout)
        if isinstance(module, nn.Linear):
            return F.linear(F.linear(hidden, self.down), self.up) * self._strength
        narrow = F.conv2d(hidden, self.down, None, module.stride, module.padding, module.dilation, module.groups)
        return F.conv2d(narrow, self.up) * self._strength
