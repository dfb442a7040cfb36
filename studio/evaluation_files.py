"""What an evaluation leaves: `evaluations/<job>/` with what was asked, a line for each picture, the two anchors, and
how alike the pictures are."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.domain.evaluation import Evaluation
from studio.files import atomic_write
from studio.result_folder import ResultFolder

_EVALUATION, _ANCHORS, _LIKENESS = "evaluation.json", "anchors.json", "likeness.json"


class Anchors(BaseModel):
    """What the CLIP score of these prompts can be, as cosines by the place of the prompt: of pictures of other prompts
    (`floor`), and of exact drawings of what they say (`ceiling`), where the world can draw that."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    floor: dict[int, float] = {}
    ceiling: dict[int, float] = {}


class Nearness(BaseModel):
    """How near the pictures of a system come to those that its adapters learnt from: the cosine of each with the one
    that it is most like, and the name of that one, by the index of the cell; `control` are the cosines of the pictures
    that the same draws without adapters. Above `threshold` a picture is nearer than they are to each other. Those whose
    prompt is a caption of one are left out: they are like it with good reason."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    threshold: float
    cosines: dict[int, float]
    names: dict[int, str]
    control: dict[int, float] = {}


class Likeness(BaseModel):
    """How alike pictures are, by the judge `judge`: `varied` is how unlike those of one prompt are (by the name of
    their system and the place of the prompt, see `studio.diversity`), `to_baseline` the cosine of each picture with the
    baseline's of the same prompt and seed (by the index of its cell), `near` is told of systems with adapters whose
    training pictures are here."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    judge: str = ""
    varied: dict[str, dict[int, float]] = {}
    to_baseline: dict[int, float] = {}
    near: dict[str, Nearness] = {}


class EvaluationFolder(ResultFolder[Evaluation]):
    """The folder of one evaluation."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Evaluation, _EVALUATION)

    @property
    def anchors(self) -> Anchors:
        """Empty while they are not known."""
        try:
            return Anchors.model_validate_json((self.path / _ANCHORS).read_bytes())
        except (OSError, ValidationError):
            return Anchors()

    def keep_anchors(self, anchors: Anchors) -> None:
        """Raises StorageFailed where it cannot be written."""
        atomic_write(self.path / _ANCHORS, anchors.model_dump_json().encode())

    @property
    def likeness(self) -> Likeness:
        """Empty while it is not known."""
        try:
            return Likeness.model_validate_json((self.path / _LIKENESS).read_bytes())
        except (OSError, ValidationError):
            return Likeness()

    def keep_likeness(self, likeness: Likeness) -> None:
        """Raises StorageFailed where it cannot be written."""
        atomic_write(self.path / _LIKENESS, likeness.model_dump_json().encode())
