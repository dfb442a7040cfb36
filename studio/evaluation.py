"""Evaluates systems: draws what each makes of the same prompts, has it judged, and says which is better."""

import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.cell_drawer import CellDrawer
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.errors import JobCancelled, NotFound
from studio.domain.evaluation import Evaluation, EvaluationRequest
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.evaluation_files import Anchors, EvaluationFolder, evaluation_folders
from studio.evaluation_scores import Analysis, analyse
from studio.evaluation_systems import checkpoints_of, resolve_evaluation
from studio.gallery import Gallery
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.judge_remarks import judge_remark
from studio.recent import Recent
from studio.scoring import ScoringService

KIND = "evaluation"
_KEPT = 16
"""Evaluations that are over, whose jobs are kept."""
_ORACLE_PX = 128
_RECENT = 64
"""Pictures by which it is told how long others will take."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An evaluation as it stands: what was asked, what came of its cells, by index, and the `job` that draws it, or did
    so. What has to be read for that is read when it is first asked for, and then stays: a list needs none of it."""

    folder: EvaluationFolder
    evaluation: Evaluation
    find_job: Callable[[], Job]

    @property
    def id(self) -> str:
        return self.folder.job_id

    @property
    def begun_at(self) -> float:
        """When it was asked for, in seconds since 1970."""
        return self.folder.begun_at

    @cached_property
    def results(self) -> Mapping[int, CellResult]:
        return self.folder.results()

    @cached_property
    def job(self) -> Job:
        return self.find_job()

    @property
    def is_running(self) -> bool:
        return not self.job.is_over


class EvaluationService:
    """Submits evaluations and draws them. What their owner has of a picture already is not drawn again: to go on with
    one that was stopped, or to take more prompts, is to ask once more."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        gallery: Gallery,
        generation: GenerationService,
        scoring: ScoringService,
        root: Path,
    ) -> None:
        self._catalogue = catalogue
        self._runner = runner
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._drawer = CellDrawer(catalogue, gallery, generation, scoring)
        self._root = root
        self._analyses = Recent[Analysis]()
        self._over: dict[str, Job] = {}
        runner.register(KIND, self.run)

    def submit(self, request: EvaluationRequest, visitor: str = "local") -> Standing:
        """Decide what is open and put the evaluation in line.

        Raises:
            InvalidRequest: values that do not fit each other, their model or an adapter; a judge that is not there.
            QueueFull: too much is waiting.
        """
        return self.submit_resolved(self.resolve(request), visitor)

    def submit_resolved(self, evaluation: Evaluation, visitor: str = "local") -> Standing:
        """Put in line what is decided already, such as one that was stopped.

        Raises:
            InvalidRequest: an adapter that is not there, or does not fit.
            QueueFull: too much is waiting.
        """
        for system in evaluation.systems:
            self._generation.check(system.recipe_of(evaluation.prompts[0].text, evaluation.seed))
        job = self._runner.submit(KIND, evaluation.model_dump(mode="json"), visitor)
        folder = EvaluationFolder(self._root / job.id)
        folder.begin(evaluation)
        return Standing(folder=folder, evaluation=evaluation, find_job=lambda: job)

    def resolve(self, request: EvaluationRequest) -> Evaluation:
        """What would be drawn; see `submit`."""
        return resolve_evaluation(request, self._catalogue, self._judge_name(request))

    def standing(self, evaluation_id: str, visitor: str | None = None) -> Standing:
        """An evaluation as it stands now.

        Raises:
            NotFound: there is none of that id, or it is not that of `visitor`.
        """
        row = self._runner.row(evaluation_id)
        if row.kind != KIND or (visitor is not None and row.visitor != visitor):
            raise NotFound("There is no such evaluation.", "Start one under Evaluate.")
        return Standing(
            folder=EvaluationFolder(self._root / row.id),
            evaluation=Evaluation.model_validate(row.payload),
            find_job=partial(self._job, row.id),
        )

    def of(self, visitor: str | None = None) -> list[Standing]:
        """Those of `visitor`, or all, newest first."""
        found: list[Standing] = []
        for folder in evaluation_folders(self._root):
            try:
                found.append(self.standing(folder.job_id, visitor))
            except NotFound:
                continue
        return found

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
        results = standing.results
        return self._analyses.get(standing.id, len(results), lambda: analyse(standing.evaluation, results))

    def remark(self, evaluation: Evaluation) -> str:
        """What makes its CLIP scores doubtful, in a sentence; "" where nothing is known to."""
        checkpoints = [system.recipe.checkpoint for system in evaluation.systems]
        return judge_remark(self._scoring, evaluation.judge, checkpoints, self._catalogue)

    def remaining_s(self, evaluation: Evaluation) -> float | None:
        """How long drawing will take, by how long pictures like these took here; None where a system is new here."""
        known = [self._usual_s(system.recipe) for system in evaluation.systems]
        if None in known:
            return None
        return sum(filter(None, known)) * len(evaluation.prompts) * evaluation.num_images

    def _usual_s(self, recipe: ResolvedRequest) -> float | None:
        """How long a picture takes, by the newest of that model and size: as long as the calls of its UNet."""
        same = {"checkpoint": recipe.checkpoint, "width": recipe.width, "height": recipe.height}
        records = self._gallery.find(filters=same, limit=_RECENT)
        like = [record for record in records if record.recipe.evaluations == recipe.evaluations] or records
        paces = [record.seconds.get("total", 0.0) / record.recipe.evaluations for record in like]
        return median(paces) * recipe.evaluations if paces else None

    def run(self, job: Job) -> dict[str, Any]:
        """Draw and judge every picture of `job` that no line tells of yet; the job handler."""
        evaluation = Evaluation.model_validate(dict(job.payload))
        folder = EvaluationFolder(self._root / job.id)
        folder.begin(evaluation)
        judge = self._scoring.folder_of(evaluation.judge) if evaluation.judge else None
        seconds = self._drawer.draw(job, evaluation.cells, folder, judge)
        if judge is not None:
            folder.keep_anchors(self._anchors(job, evaluation, folder, judge))
        return {"num_images": len(evaluation.cells), "seconds": round(seconds, 2)}

    def _anchors(self, job: Job, evaluation: Evaluation, folder: EvaluationFolder, judge: Path) -> Anchors:
        """See `Anchors`; the floor is of the baseline's first picture of each prompt, judged by the next one."""
        results, texts = folder.results(), [prompt.text for prompt in evaluation.prompts]
        floor: dict[int, float] = {}
        for cell in evaluation.cells:
            result = results.get(cell.index)
            if cell.system.name != evaluation.baseline or cell.image or result is None or not result.image_id:
                continue
            if job.cancelled():
                raise JobCancelled
            picture = self._gallery.path(self._gallery.image(result.image_id))
            score = self._scoring.score_file(judge, picture, texts[(cell.place + 1) % len(texts)])
            if score is not None:
                floor[cell.place] = round(score.cosine, 6)
        return Anchors(floor=floor if len(texts) > 1 else {}, ceiling=self._ceiling(job, texts, judge))

    def _ceiling(self, job: Job, texts: list[str], judge: Path) -> dict[int, float]:
        ceiling: dict[int, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            drawing = Path(folder) / "exact.png"
            for place, text in enumerate(texts):
                scene = parse(text)
                if scene is None:
                    continue
                if job.cancelled():
                    raise JobCancelled
                render(scene, place, _ORACLE_PX).save(drawing)
                score = self._scoring.score_file(judge, drawing, text)
                if score is not None:
                    ceiling[place] = round(score.cosine, 6)
        return ceiling

    def _judge_name(self, request: EvaluationRequest) -> str:
        """Raises InvalidRequest where the judge that is asked for is not there."""
        if request.judge:
            return self._scoring.asked_for(request.judge).name
        rows = [self._catalogue.checkpoint(each) for each in checkpoints_of(request, self._catalogue)]
        strangers = [row for row in rows if not row.is_pocket]
        judge = self._scoring.judge_of((strangers or rows)[0])
        return judge.name if judge else ""

    def _job(self, job_id: str) -> Job:
        """One that is over is told from the ledger once: of thousands of pictures that takes a second."""
        if job_id in self._over:
            return self._over[job_id]
        job = self._runner.job(job_id)
        if job.is_over:
            self._over = {**dict(list(self._over.items())[-_KEPT:]), job_id: job}
        return job
