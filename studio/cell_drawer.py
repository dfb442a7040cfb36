"""Draws many pictures that are compared and has each judged, one after the other, whatever they are cells of."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engines.pocket.checker import judge as check
from engines.pocket.grammar import parse
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult, Drawable
from studio.domain.errors import GenerationFailed, JobCancelled
from studio.domain.events import Drawing
from studio.domain.images import ImageRecord
from studio.gallery import Gallery, opened
from studio.generation import GenerationService
from studio.job import Job
from studio.result_folder import ResultFolder
from studio.scoring import ScoringService
from studio.step_reporter import StepReporter

Done = Callable[[Drawable, ImageRecord], None]
"""Told of each cell as soon as its picture is there and its line is written."""


class CellDrawer:
    """What is there already is not drawn again: what a line tells of, what this job drew just before the studio was
    killed, what its owner had of the same recipe."""

    def __init__(
        self, catalogue: Catalogue, gallery: Gallery, generation: GenerationService, scoring: ScoringService
    ) -> None:
        self._catalogue = catalogue
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring

    def draw(
        self,
        job: Job,
        cells: Sequence[Drawable],
        folder: ResultFolder[Any],
        judge: Path | None,
        done: Done | None = None,
    ) -> float:
        """Draw what is missing of `cells` and write a line for each; gives what it took, in seconds. `done` is told of
        every one that this adds, and of none that failed.

        Raises:
            JobCancelled: somebody stopped it; what was drawn is kept.
            StudioError: no picture can be drawn, or none can be kept.
        """
        told = folder.results()
        made = {record.image_index: record for record in self._gallery.of_job(job.id)}
        left = [cell for cell in cells if cell.index not in told]
        left = [cell for cell in left if not self._is_there(job, cell, made.get(cell.index), folder, judge, done)]
        reporter = StepReporter(job, len(cells), len(cells) - len(left))
        if left:
            job.emit(Drawing)
        for cell in left:
            try:
                picture = self._generation.make(cell.recipe, job.cancelled, reporter, reporter.fetching)
            except GenerationFailed as error:  # an adapter that was trained too hard spoils its own cells alone
                wrong = False if self._scene(cell) is not None else None
                folder.note(CellResult(index=cell.index, right=wrong, problem=error.message))
            else:
                if job.cancelled():
                    raise JobCancelled
                record = self._generation.keep(job, cell.recipe, cell.index, picture)
                self._judge(cell, record, folder, judge, done)
            reporter.image_done()
        return reporter.elapsed_s

    def _is_there(
        self,
        job: Job,
        cell: Drawable,
        made: ImageRecord | None,
        folder: ResultFolder[Any],
        judge: Path | None,
        done: Done | None,
    ) -> bool:
        """Whether a cell is drawn, `made` by this job or earlier; it is then judged."""
        if job.cancelled():
            raise JobCancelled
        record = made or self._generation.reuse(job, cell.recipe, cell.index)
        if record is None:
            return False
        self._judge(cell, record, folder, judge, done)
        return True

    def _judge(
        self, cell: Drawable, record: ImageRecord, folder: ResultFolder[Any], judge: Path | None, done: Done | None
    ) -> None:
        scene = self._scene(cell)
        verdict = None if scene is None else check(opened(self._gallery.path(record)), scene)
        score = self._scoring.score_by(judge, record, cell.text)
        folder.note(
            CellResult(
                index=cell.index,
                image_id=record.id,
                right=verdict and verdict.correct,
                skills=verdict and verdict.asked,
                cosine=score and round(score.cosine, 6),
                judge=score.judge if score else "",
                is_truncated=bool(score and score.is_truncated),
                seconds=record.seconds.get("total"),
            )
        )
        if done is not None:
            done(cell, record)

    def _scene(self, cell: Drawable) -> Any:
        """What the checker can look for; None where it knows nothing of the picture."""
        return parse(cell.text) if self._catalogue.checkpoint(cell.recipe.checkpoint).is_pocket else None
