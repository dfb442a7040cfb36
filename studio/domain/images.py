"""A picture as the studio remembers it."""

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
