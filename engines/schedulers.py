"""Schedulers from catalogue rows: a fresh one for every job, because they hold state."""

from typing import Any

import diffusers

from studio.domain.catalogue import PredictionType, SchedulerRow


def build_scheduler(row: SchedulerRow, config: Any, prediction_type: PredictionType) -> Any:
    """Make the scheduler of `row` for a checkpoint whose own scheduler has `config` (betas and offsets are kept)."""
    scheduler_class = getattr(diffusers, row.class_name)
    return scheduler_class.from_config(config, prediction_type=prediction_type, **row.options)
