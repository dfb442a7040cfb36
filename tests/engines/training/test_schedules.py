"""Learning rates over a training, against diffusers."""

import pytest
import torch
from diffusers.optimization import get_scheduler

from engines.training.schedules import RESTARTS, rate_factor
from studio.domain.training import ScheduleId

NAMES: dict[ScheduleId, str] = {
    "constant": "constant_with_warmup",
    "cosine": "cosine",
    "linear": "linear",
    "restarts": "cosine_with_restarts",
}


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_they_go_as_those_of_diffusers(schedule: ScheduleId, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        NAMES[schedule], optimizer, num_warmup_steps=warmup, num_training_steps=50, num_cycles=RESTARTS
    )
    for step in range(50):
        assert rate_factor(schedule, step, 50, warmup) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()
