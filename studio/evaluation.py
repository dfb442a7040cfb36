"""Evaluates systems: draws what each makes of the same prompts, has it judged, and says which is better."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.cell_drawer import CellDrawer
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.choices import refuse_open
from studio.domain.errors import NotFound
from studio.domain.evaluation import Evaluation, EvaluationRequest
from studio.domain.events import Finished
from studio.domain.images import ImageRecord
from studio.evaluation_export import Findings, read_document
from studio.evaluation_files import EvaluationFolder, Likeness
from studio.evaluation_judging import EvaluationJudging
from studio.evaluation_scores import Analysis, analyse
from studio.evaluation_systems import checkpoints_of, resolve_evaluation
from studio.gallery import Gallery
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.judge_remarks import judge_remark
from studio.offered_judges import OfferedJudge
from studio.pace import usual_s
from studio.recent import Recent
from studio.result_service import ResultService, ResultStanding, Sort
from studio.scoring import ScoringService
from studio.settings import Settings
from studio.step_reporter import StepReporter
from studio.tables import Once

KIND = "evaluation"
_TAKEN_IN = "taken_in"


@dataclass(frozen=True, kw_only=True)
class Standing(ResultStanding[Evaluation, EvaluationFolder]):
    """An evaluation as it stands."""

    @property
    def evaluation(self) -> Evaluation:
        """What was asked."""
        return self.asked

    @cached_property
    def likeness(self) -> Likeness:
        return self.folder.likeness

    @property
    def is_taken_in(self) -> bool:
        """Whether it was drawn elsewhere; see `EvaluationService.take_in`."""
        ending = self.job.wait() if self.job.is_over else None
        return isinstance(ending, Finished) and _TAKEN_IN in ending.summary

    @property
    def findings(self) -> Findings:
        return Findings(
            evaluation=self.evaluation, results=self.results, anchors=self.folder.anchors, likeness=self.likeness
        )


class EvaluationService(ResultService[Evaluation, EvaluationFolder, Standing]):
    """Submits evaluations and draws them. What their owner has of a picture already is not drawn again: to go on with
    one that was stopped, or to take more prompts, is to ask once more."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        gallery: Gallery,
        generation: GenerationService,
        scoring: ScoringService,
        settings: Settings,
    ) -> None:
        self._catalogue = catalogue
        sort = Sort(
            kind=KIND,
            title="evaluation",
            where="Evaluate",
            asked=Evaluation,
            folder=EvaluationFolder,
            standing=Standing,
        )
        super().__init__(sort, runner, settings.evaluations_dir)
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._drawer = CellDrawer(catalogue, gallery, generation, scoring)
        self._judging = EvaluationJudging(gallery, scoring, settings.runs_dir)
        self._analyses = Recent[Analysis]()
        runner.register(KIND, self.run)

    def submit(self, request: EvaluationRequest, visitor: str = "local", *, once_key: str = "") -> Standing:
        """Decide what is open and put the evaluation in line. A request that comes again with the same `once_key` is
        the evaluation that it was before.

        Raises:
            InvalidRequest: values that do not fit each other, their model or an adapter; a judge that is not there.
            QueueFull: too much is waiting.
        """
        return self.submit_resolved(self.resolve(request), visitor, Once.of(once_key, request))

    def submit_resolved(self, evaluation: Evaluation, visitor: str = "local", once: Once | None = None) -> Standing:
        """Put in line what is decided already, such as one that was stopped.

        Raises:
            InvalidRequest: an adapter that is not there, or does not fit.
            QueueFull: too much is waiting.
        """
        for system in evaluation.systems:
            self._generation.check(system.recipe_of(evaluation.prompts[0].text, evaluation.seed))
        for prompt in evaluation.prompts:
            refuse_open(prompt.text, "prompts")
            self._generation.check_words(prompt.text)
        return self._begin(evaluation, visitor, once)

    def take_in(self, path: Path, visitor: str = "local", owner: str | None = None) -> Standing:
        """Make one of a results.json: it is told again, drawing nothing. Its pictures show as far as they are here and
        those of `owner` (None: anybody's).

        Raises:
            InvalidRequest: it is no such file.
            StorageFailed: it cannot be kept.
        """
        read = read_document(path)
        job = self._runner.record(KIND, read.evaluation.model_dump(mode="json"), visitor, _taken_in(read))
        folder = self._folder(job.id)
        folder.begin(read.evaluation)
        folder.keep_results(
            result if self._has(job.id, result, owner) else result.model_copy(update={"image_id": ""})
            for result in read.results.values()
        )
        folder.keep_anchors(read.anchors)
        folder.keep_likeness(read.likeness)
        return self.standing(job.id)

    def _has(self, job_id: str, result: CellResult, owner: str | None) -> bool:
        """Whether a picture that a file names is here, and that of `owner`; it is then the job's, too."""
        if not result.image_id:
            return False
        try:
            record = self._gallery.image(result.image_id)
        except NotFound:
            return False
        return owner in (None, record.visitor) and self._gallery.reuse(job_id, result.index, record)

    def resolve(self, request: EvaluationRequest) -> Evaluation:
        """What would be drawn; see `submit`."""
        second = self._scoring.asked_for(request.second_judge).name if request.second_judge else ""
        return resolve_evaluation(request, self._catalogue, self._judge_name(request), second)

    def pictures(self, standing: Standing) -> dict[int, ImageRecord]:
        """What is drawn, by the index of the cell; without what was deleted since."""
        return {record.image_index: record for record in self._gallery.of_job(standing.id)}

    def pictures_at(self, standing: Standing, places: Collection[int]) -> dict[int, ImageRecord]:
        """What is drawn of the prompts at these places. A page asks every other second, and shows a few."""
        found: dict[int, ImageRecord] = {}
        for cell in standing.evaluation.cells:
            result = standing.results.get(cell.index) if cell.place in places else None
            if result is not None and result.image_id:
                with suppress(NotFound):  # deleted since
                    found[cell.index] = self._gallery.image(result.image_id)
        return found

    def analysis(self, standing: Standing) -> Analysis:
        """What it says so far. A page asks every other second."""
        results, likeness = standing.results, standing.likeness
        state = len(results), sum(result.second is not None for result in results.values()), bool(likeness.judge)
        return self._analyses.get(standing.id, state, lambda: analyse(standing.evaluation, results, likeness))

    def remark(self, evaluation: Evaluation) -> str:
        """What makes its CLIP scores doubtful, in a sentence; "" where nothing is known to."""
        checkpoints = [system.recipe.checkpoint for system in evaluation.systems]
        return judge_remark(self._scoring, evaluation.judge, checkpoints, self._catalogue)

    def to_fetch(self, evaluation: Evaluation) -> list[OfferedJudge]:
        """The judges that have to be fetched before."""
        return [row for row in self._scoring.missing() if row.name in (evaluation.judge, evaluation.second_judge)]

    def remaining_s(self, evaluation: Evaluation) -> float | None:
        """How long drawing will take, by how long pictures like these took here; None where a system is new here."""
        known = [usual_s(self._gallery, system.recipe) for system in evaluation.systems]
        if None in known:
            return None
        return sum(filter(None, known)) * len(evaluation.prompts) * evaluation.num_images

    def run(self, job: Job) -> dict[str, Any]:
        """Draw and judge every picture of `job` that no line tells of yet; the job handler."""
        evaluation = Evaluation.model_validate(dict(job.payload))
        folder = self._folder(job.id)
        folder.begin(evaluation)
        fetching = StepReporter(job).fetching
        for name in filter(None, (evaluation.second_judge, evaluation.judge)):
            self._scoring.ready(name, job.cancelled, fetching)
        judge = self._scoring.folder_of(evaluation.judge) if evaluation.judge else None
        seconds = self._drawer.draw(job, evaluation.cells, folder, judge)
        self._judging.finish(job, evaluation, folder)
        return {"num_images": len(evaluation.cells), "seconds": round(seconds, 2)}

    def _judge_name(self, request: EvaluationRequest) -> str:
        """Raises InvalidRequest where the judge that is asked for is not there."""
        if request.judge:
            return self._scoring.asked_for(request.judge).name
        rows = [self._catalogue.checkpoint(each) for each in checkpoints_of(request, self._catalogue)]
        strangers = [row for row in rows if not row.is_pocket]
        return self._scoring.default_for((strangers or rows)[0])


def _taken_in(read: Findings) -> dict[str, Any]:
    """The summary of one that was drawn elsewhere."""
    seconds = sum(result.seconds or 0.0 for result in read.results.values())
    return {"num_images": len(read.results), "seconds": round(seconds, 2), _TAKEN_IN: True}
