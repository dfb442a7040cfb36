"""What an evaluation leaves: `evaluations/<job>/` with what was asked, a line for each picture, and the two anchors."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.domain.evaluation import Evaluation
from studio.files import atomic_write
from studio.result_folder import ResultFolder

_EVALUATION, _ANCHORS = "evaluation.json", "anchors.json"


class Anchors(BaseModel):
    """What the CLIP score of these prompts can be, as cosines by the place of the prompt: of pictures of other prompts
    (`floor`), and of exact drawings of what they say (`ceiling`), where the world can draw that."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    floor: dict[int, float] = {}
    ceiling: dict[int, float] = {}


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


def evaluation_folders(root: Path) -> Iterator[EvaluationFolder]:
    """Those of all evaluations that can be read, newest first."""
    for path in sorted(root.glob(f"*/{_EVALUATION}"), reverse=True):
        yield EvaluationFolder(path.parent)
