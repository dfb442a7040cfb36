"""How long pictures take here, by how long others like them took."""

from statistics import median

from studio.domain.request import ResolvedRequest
from studio.gallery import Gallery

_RECENT = 64
"""Pictures by which it is told."""


def usual_s(gallery: Gallery, recipe: ResolvedRequest) -> float | None:
    """How long one picture of `recipe` takes, by the newest of its model and size: as long as the calls of its UNet,
    those of a second pass longer by as many times as they see more pixels; None where there are none. Those with the
    same work count alone where there are some."""
    same = {"checkpoint": recipe.checkpoint, "width": recipe.width, "height": recipe.height}
    records = gallery.find(filters=same, limit=_RECENT)
    work = _work(recipe)
    like = [record for record in records if _work(record.recipe) == work] or records
    paces = [record.seconds.get("total", 0.0) / _work(record.recipe) for record in like]
    return median(paces) * work if paces else None


def _work(recipe: ResolvedRequest) -> float:
    """The calls of the UNet, in calls at the size of the first pass."""
    width, height = recipe.final_size
    larger = width * height / (recipe.width * recipe.height)
    return (recipe.steps_run + recipe.hires_steps_run * larger) * (2 if recipe.uses_guidance else 1)
