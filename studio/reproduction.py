"""Make a picture again from its recipe and say how near the new one came."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from engines.base import CHECKED
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.gallery import Gallery, opened
from studio.generation import LICENCES, GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.step_reporter import StepReporter

KIND = "reproduce"
CLOSE_PSNR_DB = 40.0
"""Above this nobody sees a difference side by side."""

Judgement = Literal["identical", "close", "different"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`psnr_db` is infinite for identical pictures; `changed` maps a field to (recorded, now)."""

    judgement: Judgement
    psnr_db: float
    changed: dict[str, tuple[str, str]]

    def sentence(self) -> str:
        """The verdict for a person."""
        if self.judgement == "identical":
            return "Identical: every pixel is the same."
        why = "; ".join(f"{field} was {old}, is now {new}" for field, (old, new) in self.changed.items())
        tail = f" What differs: {why}." if why else " Nothing recorded differs."
        return f"{self.judgement.capitalize()}: {self.psnr_db:.1f} dB from the original.{tail}"


class ReproductionService:
    """Runs `reproduce` jobs; their summary holds the verdict."""

    def __init__(self, runner: JobRunner, gallery: Gallery, generation: GenerationService) -> None:
        self._runner = runner
        self._gallery = gallery
        self._generation = generation
        runner.register(KIND, self.run)

    def submit(self, image_id: str, visitor: str = "local") -> Job:
        """Put a reproduction in line.

        Raises:
            NotFound: no such picture.
        """
        self._gallery.image(image_id)
        return self._runner.submit(KIND, {"image_id": image_id}, visitor)

    def run(self, job: Job) -> dict[str, Any]:
        """Make the picture again and compare; the job handler. Nothing is saved."""
        record = self._gallery.image(job.payload["image_id"])
        path = self._gallery.path(record)
        if not path.is_file():
            raise NotFound("The file of this picture is gone.", "Generate it again from its settings.")
        original = opened(path)
        reporter = StepReporter(job)
        made = self._generation.make(record.recipe, job.cancelled, reporter, reporter.fetching)
        now = _told(*self._generation.prompts(record.recipe), made.environment)
        verdict = compare(original, made.image, told_by(record), now)
        return {"judgement": verdict.judgement, "sentence": verdict.sentence(), "changed": verdict.changed}


def told_by(record: ImageRecord) -> dict[str, str]:
    """What a picture says about how it was made, other than its recipe: the texts as run and the
    environment, as far as it decides pixels."""
    return _told(record.prompt_as_run, record.negative_as_run, record.environment)


def _told(prompt: str, negative: str, environment: dict[str, str]) -> dict[str, str]:
    decides = {name: text for name, text in environment.items() if name not in (LICENCES, *CHECKED)}
    return {"prompt": f"“{prompt}”", "negative prompt": f"“{negative}”", **decides}


def compare(original: Image.Image, again: Image.Image, before: dict[str, str], now: dict[str, str]) -> Verdict:
    """Judge two pictures of one recipe, and name what changed in between of what was told of them."""
    changed = {
        field: (before.get(field, "unknown"), now.get(field, "unknown"))
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    }
    psnr = psnr_db(original, again)
    if math.isinf(psnr):
        return Verdict(judgement="identical", psnr_db=psnr, changed=changed)
    return Verdict(judgement="close" if psnr >= CLOSE_PSNR_DB else "different", psnr_db=psnr, changed=changed)


def psnr_db(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio of two RGB images in dB: infinite when equal, 0 when their sizes differ."""
    if first.size != second.size:
        return 0.0
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def recipe_difference(first: ResolvedRequest, second: ResolvedRequest) -> dict[str, tuple[str, str]]:
    """Fields in which two recipes differ, with both values."""
    one, two = first.model_dump(), second.model_dump()
    return {field: (str(one[field]), str(two[field])) for field in one if one[field] != two[field]}
