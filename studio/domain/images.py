"""A picture as the studio remembers it."""

import hashlib
import json
import time

from pydantic import BaseModel, ConfigDict

from studio.domain.request import ResolvedRequest


class ImageRecord(BaseModel):
    """One finished image: where it lies, what made it, what it cost.

    `path` is relative to the gallery's root, with forward slashes. `recipe` makes this one image again.
    `prompt_as_run` and `negative_as_run` are what the model read, after the style.
    `environment` names device, dtype, versions and the checkpoint's hash. `seconds` splits the time by phase.
    `pixels_sha256` is over the raw RGB bytes, so it survives a re-save of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    job_id: str
    visitor: str
    image_index: int
    created_at: float
    path: str
    recipe: ResolvedRequest
    prompt_as_run: str
    negative_as_run: str
    environment: dict[str, str]
    seconds: dict[str, float]
    peak_memory_mb: float
    pixels_sha256: str
    is_starred: bool = False

    @property
    def made_on(self) -> str:
        """Day and time for a person: "25 November at 14:02", with the year where that is not the present one."""
        made, now = time.localtime(self.created_at), time.localtime()
        year = "" if made.tm_year == now.tm_year else f" {made.tm_year}"
        return f"{made.tm_mday} {time.strftime('%B', made)}{year} at {time.strftime('%H:%M', made)}"


def recipe_sha256(recipe: ResolvedRequest, prompt_as_run: str, negative_as_run: str) -> str:
    """One name for all that was asked of the model: the recipe of a picture, and the texts as the model reads them.

    A field that comes to the recipe has to have a default, which is left out here, so that names stay as they are.
    How a prompt came about is no part of what is drawn.
    """
    asked = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"typed_prompt", "original_prompt"})
    told = [asked, prompt_as_run, negative_as_run]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
