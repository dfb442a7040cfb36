"""One picture of many that are compared, and what came of it."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict

from studio.domain.request import ResolvedRequest


class Drawable(Protocol):
    """A picture that is to be drawn and judged. `index` counts those of its job, `text` is what it is judged by."""

    @property
    def index(self) -> int: ...

    @property
    def recipe(self) -> ResolvedRequest: ...

    @property
    def text(self) -> str: ...


class Opinion(BaseModel):
    """What another judge says of a picture: a `cosine` from -1 to 1, of only the beginning of the text where
    `is_truncated`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    cosine: float
    judge: str
    is_truncated: bool = False


class CellResult(BaseModel):
    """What came of a cell: a picture, or the `problem` that kept it from being drawn. `right`: whether it shows what
    its text says, and `skills` whether each thing that it says (None: nobody can tell). `cosine` is its CLIP score, by
    `judge`, which read only the beginning of the text where `is_truncated`, and `second` what a second judge says of
    it; `seconds` is what drawing it took."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    index: int
    image_id: str = ""
    right: bool | None = None
    skills: dict[str, bool] | None = None
    cosine: float | None = None
    judge: str = ""
    is_truncated: bool = False
    second: Opinion | None = None
    seconds: float | None = None
    problem: str = ""
