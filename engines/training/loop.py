"""What every training shares: schedule, moving average, and checkpoints that a kill cannot spoil."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.training.muon import Muon
from engines.training.saving import save_whole

logger = logging.getLogger(__name__)

_MOST_SKIPPED = 20
"""Steps in a row: from its first value, 2¹⁶, so many halvings bring the scale of losses below 1, of no use."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train: `learning_rate` is the peak after `warmup` steps, then a cosine to 2 %.

    `dtype` is what matrix products compute in; weights, losses and averages are float32. In float16 small gradients
    would be lost, so losses are scaled up, as far as gradients do not overflow (Micikevicius et al., 2018,
    arXiv:1710.03740).
    """

    name: str
    steps: int
    learning_rate: float
    warmup: int = 200
    ema_decay: float = 0.999
    save_every_s: float = 120.0
    seed: int = 0
    dtype: torch.dtype = torch.float32
    factor_at: Callable[[int], float] | None = None
    """Another schedule: the learning rate at a step, as a share of the peak."""

    def factor(self, step: int) -> float:
        """The learning rate at `step` as a share of its peak, by linear warm-up and cosine decay (Loshchilov & Hutter,
        2017) unless another schedule is given."""
        if self.factor_at is not None:
            return self.factor_at(step)
        warm = min(1.0, (step + 1) / self.warmup)
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return warm * (0.02 + 0.98 * decay)

    def rate(self, step: int) -> float:
        """The learning rate at `step`."""
        return self.learning_rate * self.factor(step)


class Trainee:
    """Modules in training with their optimisers and moving averages, saved and restored as one.

    AdamW trains what is not in `muon`, the weights that Muon trains; or else `optimizer` trains everything. A group of
    its parameters that has a `peak` learns at that rate instead of the plan's.
    """

    def __init__(
        self,
        plan: Plan,
        modules: dict[str, nn.Module],
        folder: Path,
        muon: Collection[nn.Parameter] = (),
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.plan = plan
        self.modules = modules
        self.path = folder / f"{plan.name}.pt"
        self.parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        chosen = {id(parameter) for parameter in muon}
        others = [parameter for parameter in self.parameters if id(parameter) not in chosen]
        self.optimizers: list[torch.optim.Optimizer] = [
            optimizer
            or torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        ]
        if muon:
            self.optimizers.append(Muon(muon, plan.learning_rate, dtype=plan.dtype))
        self.averages = {name: _copy_state(module) for name, module in modules.items()}
        is_scaled = plan.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=is_scaled)
        self.step = 0
        self.skipped = 0
        self._skipped_last = 0
        self.seconds = 0.0

    def update(self, loss: Tensor) -> float:
        """Take one optimiser step on `loss`; returns the gradient norm before clipping at 1."""
        self.backward(loss)
        return self.take_step()

    @property
    def num_updates(self) -> int:
        """How often weights were changed: at every step but those that were skipped."""
        return self.step - self.skipped

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled up as far as its plan's number format asks for."""
        self.scaler.scale(loss).backward()

    def take_step(self) -> float:
        """Take one optimiser step on the gradients that `backward` left; returns their norm before clipping at 1. In
        float16, where they are not finite, the step is skipped and the scale halved: weights and averages stay.

        Raises:
            FloatingPointError: they are not finite, in float16 for many steps in a row; weights stay as they were.
        """
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        self.scaler.update()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if not math.isfinite(norm):
            self._skip()
            return norm
        self._skipped_last = 0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.get("peak", self.plan.learning_rate) * self.plan.factor(self.step)
            optimizer.step()
        self._forget_gradients()
        self.step += 1
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        for name, module in self.modules.items():
            _average(self.averages[name], module.state_dict(), decay)
        return norm

    def _skip(self) -> None:
        self._forget_gradients()
        self._skipped_last += 1
        if not self.scaler.is_enabled() or self._skipped_last > _MOST_SKIPPED:
            raise FloatingPointError(f"{self.plan.name}: gradients are not finite at step {self.step}")
        self.step += 1
        self.skipped += 1

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def save(self) -> None:
        """Write everything needed to go on, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "averages": self.averages,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "skipped": [self.skipped, self._skipped_last],
        }
        save_whole(state, self.path)

    def resume(self) -> bool:
        """Load the last checkpoint if there is one; tells whether there was."""
        if not self.path.exists():
            return False
        state = torch.load(self.path, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.averages = state["averages"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        if kept_scaler := state.get("scaler"):  # none before 0.1.0, nor in other formats than float16
            self.scaler.load_state_dict(kept_scaler)
            self.skipped, self._skipped_last = state["skipped"]
        logger.info("%s: resumed at step %d", self.plan.name, self.step)
        return True

    def use_averages(self) -> None:
        """Put the moving averages in place of the trained weights."""
        for name, module in self.modules.items():
            module.load_state_dict(self.averages[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The moving averages in place of the trained weights, for as long as the context lasts."""
        trained = {name: _copy_state(module) for name, module in self.modules.items()}
        self.use_averages()
        try:
            yield
        finally:
            for name, module in self.modules.items():
                module.load_state_dict(trained[name])


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A step that was taken: how many are now, and its loss."""

    step: int
    loss: float


def train(trainee: Trainee, step_loss: Callable[[int], Tensor], log_every: int = 100) -> Iterator[Taken]:
    """Run `trainee` to the end of its plan, saving on the way and when interrupted; yields every step."""
    try:
        yield from _steps(trainee, step_loss, log_every)
    finally:
        trainee.save()


def _steps(trainee: Trainee, step_loss: Callable[[int], Tensor], log_every: int) -> Iterator[Taken]:
    plan, losses = trainee.plan, []
    last_save = time.monotonic()
    while trainee.step < plan.steps:
        started = time.monotonic()
        loss = step_loss(trainee.step)
        trainee.update(loss)
        losses.append(float(loss.detach()))
        trainee.seconds += time.monotonic() - started
        if trainee.step % log_every == 0:
            _log(plan, trainee.step, sum(losses) / len(losses), trainee.seconds / trainee.step)
            losses.clear()
        yield Taken(step=trainee.step, loss=float(loss.detach()))
        if time.monotonic() - last_save > plan.save_every_s:
            trainee.save()
            last_save = time.monotonic()


def _log(plan: Plan, step: int, loss: float, pace: float) -> None:
    left = (plan.steps - step) * pace / 60
    logger.info(
        "%s %d/%d loss %.5f, %.0f ms a step, %.0f min left", plan.name, step, plan.steps, loss, pace * 1e3, left
    )


@torch.no_grad()
def _average(averages: dict[str, Tensor], state: dict[str, Tensor], decay: float) -> None:
    torch._foreach_lerp_(list(averages.values()), [state[key] for key in averages], 1 - decay)


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone().float() for key, value in module.state_dict().items()}
