"""How the learning rate goes over a training: shares of its peak, as diffusers' `get_scheduler` has them."""

import math

from studio.domain.training import ScheduleId

RESTARTS = 3


def rate_factor(schedule: ScheduleId, step: int, steps: int, warmup: int) -> float:
    """The learning rate at `step` (from 0) of `steps` as a share of its peak: a linear rise over `warmup` steps, then
    constant, linear to 0, half a cosine to 0, or `RESTARTS` of those in turn (Loshchilov & Hutter, 2017)."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return max(0.0, 1 - progress)
    if progress >= 1:
        return 0.0
    turn = progress if schedule == "cosine" else RESTARTS * progress % 1.0
    return 0.5 * (1 + math.cos(math.pi * turn))
