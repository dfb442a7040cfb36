"""Few steps beside many: draws a comparison, picture by picture, and says what each way of drawing takes and gives."""

from dataclasses import replace
from typing import Any

from studio.comparison import Figures, figures
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import JobCancelled
from studio.domain.events import Drawing, ImageReady
from studio.domain.flash import Cell, Comparison, FlashRequest, resolve_flash
from studio.domain.images import ImageRecord
from studio.gallery import Gallery
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.recent import Recent
from studio.scoring import ScoringService
from studio.step_reporter import StepReporter
from studio.tables import Once

KIND = "flash"
WARM_UP_STEPS = 2
"""Of the picture that each column draws first and nobody sees: what is done once (weights and kernels fetched, an
adapter read) is not what a picture takes."""


class FlashService:
    """Submits comparisons and runs them. Every picture is drawn, even one that was made before: its time counts."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        gallery: Gallery,
        generation: GenerationService,
        scoring: ScoringService,
    ) -> None:
        self._catalogue = catalogue
        self._runner = runner
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._figures = Recent[tuple[Figures, ...]]()
        runner.register(KIND, self.run)

    def submit(self, request: FlashRequest, visitor: str = "local", *, once_key: str = "") -> Job:
        """Decide what is open and put the job in line. A request that comes again with the same `once_key` is the job
        that it was before.

        Raises:
            InvalidRequest: values that do not fit each other or the checkpoint, which may have no accelerator.
            QueueFull: too much is waiting.
        """
        comparison = resolve_flash(request, self._catalogue)
        return self.submit_resolved(comparison, visitor, Once.of(once_key, request))

    def submit_resolved(self, comparison: Comparison, visitor: str = "local", once: Once | None = None) -> Job:
        """Put in line what is decided already.

        Raises:
            InvalidRequest: a prompt names an adapter that is not there, or does not fit.
            QueueFull: too much is waiting.
        """
        for prompt in comparison.prompts:
            recipe = comparison.columns[0].recipe.model_copy(update={"prompt": prompt})
            self._generation.check(recipe, may_leave_open=True)
        return self._runner.submit(KIND, comparison.model_dump(mode="json"), visitor, once)

    def run(self, job: Job) -> dict[str, Any]:
        """Draw every picture of `job` that is not recorded yet; the job handler."""
        comparison = comparison_of(job)
        cells = tuple(replace(cell, recipe=self._generation.decided(cell.recipe)) for cell in comparison.cells())
        checkpoint = self._checkpoint(comparison)
        done = {event.image_index for event in job.events(timeout=0, previews=False) if isinstance(event, ImageReady)}
        left = [cell for cell in cells if cell.index not in done]
        reporter = StepReporter(job, len(cells), len(done), [cell.column.evaluations for cell in cells])
        self._score_the_rest(job, checkpoint)
        if left:
            job.emit(Drawing)
            self._scoring.prepare(checkpoint)
            self._warm_up(job, cells, reporter)
        for cell in left:
            picture = self._generation.make(cell.recipe, job.cancelled, reporter, reporter.fetching)
            if job.cancelled():
                raise JobCancelled
            record = self._generation.keep(job, cell.recipe, cell.index, picture)
            self._scoring.score(record, checkpoint)
            reporter.image_done()
        return {"num_images": len(cells), "seconds": round(reporter.elapsed_s, 2)}

    def pictures(self, job: Job) -> dict[int, ImageRecord]:
        """What is drawn of `job`, by the index of the cell; without what was deleted since."""
        return {record.image_index: record for record in self._gallery.of_job(job.id)}

    def figures(self, job: Job) -> tuple[Figures, ...]:
        """What each column took and gave so far."""
        comparison, pictures = comparison_of(job), self.pictures(job)
        scores = self._scoring.scores(job.id)
        ids = frozenset(record.id for record in pictures.values()), frozenset(scores)

        def told() -> tuple[Figures, ...]:
            is_pocket = self._checkpoint(comparison).is_pocket
            return figures(comparison, pictures, self._gallery.path, is_pocket=is_pocket, scores=scores)

        return self._figures.get(job.id, ids, told)  # a page looks every second

    def judged_by(self, job: Job) -> str:
        """What the CLIP scores of `job` are scores of, in a sentence, or why there are none; "" if nobody asked for
        any."""
        scores = list(self._scoring.scores(job.id).values())
        if not scores:
            problem = self._scoring.problem(self._checkpoint(comparison_of(job)))
            return f"There is no CLIP score: {problem}" if problem else ""
        cut = sum(score.is_truncated for score in scores)
        words = f"CLIP score: cosine × 100 by {scores[0].judge}, the mean over prompts, whose seeds are averaged first."
        return f"{words} It read only the beginning of {cut} of {len(scores)} prompts." if cut else words

    def _score_the_rest(self, job: Job, checkpoint: Checkpoint) -> None:
        """Those that were kept just before a studio was killed."""
        scored = self._scoring.scores(job.id)
        for record in self.pictures(job).values():
            if record.id not in scored:
                self._scoring.score(record, checkpoint)

    def _checkpoint(self, comparison: Comparison) -> Checkpoint:
        return self._catalogue.checkpoint(comparison.columns[0].recipe.checkpoint)

    def _warm_up(self, job: Job, cells: tuple[Cell, ...], reporter: StepReporter) -> None:
        for cell in {cell.column.name: cell for cell in cells}.values():
            steps = min(WARM_UP_STEPS, cell.recipe.num_inference_steps)
            short = cell.recipe.model_copy(update={"num_inference_steps": steps})
            self._generation.make(short, job.cancelled, lambda step: None, reporter.fetching)
            if job.cancelled():
                raise JobCancelled


def comparison_of(job: Job) -> Comparison:
    """What `job` compares."""
    return Comparison.model_validate(dict(job.payload))
