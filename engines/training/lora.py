"""Low-rank changes in training: y = W·x + alpha/rank · up(down(x)) (Hu et al., 2021, arXiv:2106.09685).

They stand beside the modules that they change, so the network without them is a switch away, to the bit. Where layers
are small and what goes through them is large, it is faster to add them to the weights, W + alpha/rank · up · down, at
each call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.training.reach import REACHES, TEXT_REACH
from lora_registry.weights import LowRank
from studio.domain.distillation import Reach

_LEAST_LENGTH = 1e-12
"""A row of zeros stays one."""


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
    gets one of its own width. `dropout` of what goes in is left out, at random, while there are gradients. With
    `decompose` each is a DoRA, whose outputs have lengths of their own. `in_weights` adds them to the weights, which
    takes a copy and a gradient of each; not with dropout."""

    def __init__(
        self,
        root: nn.Module,
        paths: tuple[str, ...],
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        *,
        decompose: bool = False,
        in_weights: bool = False,
    ) -> None:
        if in_weights and dropout:
            raise ValueError("what is added to weights cannot leave out part of what goes in")
        super().__init__()
        self._strength = 1.0
        self.alpha = alpha
        self._paths = paths
        kind = _Decomposed if decompose else _Change
        self._layers = nn.ModuleList(kind(root.get_submodule(path), rank, alpha, dropout) for path in paths)
        attach = self._replace if in_weights else self._hook
        self._detachers = [
            attach(root.get_submodule(path), layer) for path, layer in zip(paths, self._layers, strict=True)
        ]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The network as it was, for as long as the context lasts."""
        with self.at(0.0):
            yield

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """So much of the changes [0, 1] for as long as the context lasts, as a scale takes it when pictures are
        drawn."""
        was, self._strength = self._strength, strength
        try:
            yield
        finally:
            self._strength = was

    def detach(self) -> None:
        """Leave the network for good."""
        for detach in self._detachers:
            detach()
        self._detachers.clear()

    def factors(self) -> dict[str, LowRank]:
        """What was learnt, by path; copies."""
        return {
            path: LowRank(
                down=layer.down.detach().clone(),
                up=layer.up.detach().clone(),
                alpha=self.alpha,
                magnitude=layer.magnitude(),
            )
            for path, layer in zip(self._paths, self._layers, strict=True)
        }

    def _hook(self, module: nn.Module, layer: nn.Module) -> Callable[[], None]:
        """Add what `layer` says to what `module` does; gives what undoes that."""

        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self._strength:
                return output
            return output + layer(inputs[0], output, self._strength).to(output.dtype)

        return module.register_forward_hook(add).remove

    def _replace(self, module: nn.Module, layer: "_Change") -> Callable[[], None]:
        """Have `module` compute with changed weights; gives what undoes that."""
        plain = module.forward

        def forward(hidden: Tensor) -> Tensor:
            if not self._strength:
                return plain(hidden)
            weight = layer.weight(self._strength).to(module.weight.dtype)
            return _applied(module, hidden, weight, module.bias)

        module.forward = forward
        return lambda: delattr(module, "forward")


class _Change(nn.Module):
    """down (rank, in, *kernel), up (out, rank, 1, …), as kohya and PEFT store them."""

    def __init__(self, module: nn.Module, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        weight = module.weight
        rank = min(rank, len(weight), int(weight.shape[1]))
        self._scale = alpha / rank
        self._dropout = dropout
        self._module = [module]  # in a list, lest its weights count as this module's
        kernel = weight.shape[2:]
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:], device=weight.device) / rank)
        self.up = nn.Parameter(torch.zeros(len(weight), rank, *(1 for _ in kernel), device=weight.device))

    def magnitude(self) -> Tensor | None:
        """The lengths that a DoRA gives to outputs; None for a plain change."""
        return None

    def forward(self, hidden: Tensor, output: Tensor, strength: float = 1.0) -> Tensor:
        """What is added to the module's `output` for `hidden`."""
        return self._low_rank(hidden, strength)

    def weight(self, strength: float = 1.0) -> Tensor:
        """The module's weight as it is changed, in float32."""
        (module,) = self._module
        with torch.autocast(module.weight.device.type, enabled=False):
            weight = module.weight.float().flatten(1)
            changed = torch.addmm(weight, self.up.flatten(1), self.down.flatten(1), alpha=self._scale * strength)
        return changed.view(module.weight.shape)

    def _low_rank(self, hidden: Tensor, strength: float) -> Tensor:
        (module,) = self._module
        scale = self._scale * strength
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(self.down.dtype)
        if self._dropout and torch.is_grad_enabled():  # what is drawn and measured is the whole adapter
            hidden = F.dropout(hidden, self._dropout)
        narrow = _applied(module, hidden, self.down)
        return (F.linear if isinstance(module, nn.Linear) else F.conv2d)(narrow, self.up) * scale


class _Decomposed(_Change):
    """DoRA (Liu et al., 2024, arXiv:2402.09353): W' = m · (W + ΔW) / ‖W + ΔW‖, with a length for each output, measured
    over all else. What is trained is how far m is from ‖W‖: as zeros it changes nothing, and weight decay draws it to
    the checkpoint's length rather than to none."""

    def __init__(self, module: nn.Module, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(module, rank, alpha, dropout)
        self.register_buffer("_lengths", self._lengths_now(), persistent=False)  # (out,); of the checkpoint, as up is 0
        self.longer = nn.Parameter(torch.zeros_like(self._lengths))

    def magnitude(self) -> Tensor:
        """m (out, 1, …), with as many dimensions as the weight."""
        lengths = (self._lengths + self.longer).detach()
        return lengths.view(-1, *(1 for _ in self.down.shape[1:]))

    def forward(self, hidden: Tensor, output: Tensor, strength: float = 1.0) -> Tensor:
        (module,) = self._module
        ratio = (self._lengths + self.longer) / self._lengths_now(strength)
        if isinstance(module, nn.Conv2d):
            ratio = ratio.view(-1, 1, 1)
        plain = output if module.bias is None else output - module.bias.view(ratio.shape)
        change = self._low_rank(hidden, strength)
        return change + (ratio - 1) * (plain + change)  # = ratio · (plain + change) - plain, and 0 to the bit at first

    def weight(self, strength: float = 1.0) -> Tensor:
        changed = super().weight(strength)
        ratio = (self._lengths + self.longer) / _row_lengths(changed.detach())
        return changed * ratio.view(-1, *(1 for _ in changed.shape[1:]))

    @torch.no_grad()
    def _lengths_now(self, strength: float = 1.0) -> Tensor:
        """‖W + ΔW‖, (out,), in float32. No gradient goes through it (§4.3 of the paper): half of the memory, and no
        worse."""
        return _row_lengths(super().weight(strength))


def _applied(module: nn.Module, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a matrix or a convolution does with other weights."""
    if isinstance(module, nn.Linear):
        return F.linear(hidden, weight, bias)
    return F.conv2d(hidden, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _row_lengths(weight: Tensor) -> Tensor:
    """How long a weight is for each output, `(out,)`."""
    return weight.flatten(1).norm(dim=1).clamp_min(_LEAST_LENGTH)
