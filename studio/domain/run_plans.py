"""The kinds of training runs that there are, by their plans."""

from pydantic import ValidationError

from studio.domain.distillation import DistillationPlan
from studio.domain.training import TrainingPlan

RunPlan = DistillationPlan | TrainingPlan


def plan_of(text: bytes) -> RunPlan:
    """The plan that `text`, in JSON, holds; raises ValueError where it is none."""
    try:
        return TrainingPlan.model_validate_json(text)
    except ValidationError:
        return DistillationPlan.model_validate_json(text)
