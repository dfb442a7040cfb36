"""Evaluates the checkpoints of a training run: draws a grid over them, scales, prompts and seeds, and has it judged."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import never
from studio.cell_drawer import CellDrawer
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.choices import refuse_open
from studio.domain.errors import InvalidRequest, NotFound, StorageFailed
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.domain.run_grid import MAX_PICTURES, Grid, GridColumn, GridRequest, plain_prompt, seeds_from
from studio.domain.tags import AdapterUse
from studio.domain.training import TrainingPlan
from studio.evaluation_systems import default_set
from studio.files import atomic_write
from studio.flash_files import png
from studio.gallery import Gallery
from studio.generation import GenerationService
from studio.job import Job
from studio.jobs import JobRunner
from studio.prompt_sets import PROMPT_SETS
from studio.recent import Recent
from studio.run_adapters import checkpoint_adapter
from studio.run_grid_embeddings import GridEmbeddings
from studio.run_grid_files import GridFolder, grid_folder, newest_grid
from studio.run_grid_scores import ColumnScore, column_scores
from studio.run_grid_sheet import contact_sheet
from studio.runs import Run
from studio.scoring import ScoringService
from studio.training import TrainingService

logger = logging.getLogger(__name__)

KIND = "run-grid"
_A_LOOK = 100
"""Pictures that a judge is asked about, at most, while somebody waits for a look at a grid."""


@dataclass(frozen=True, kw_only=True)
class RunGrid:
    """A grid as it stands: what was asked, what came of its cells, which pictures are there, by index. `job` draws it,
    or did so; None if nothing is known of it any more."""

    folder: GridFolder
    grid: Grid
    results: Mapping[int, CellResult]
    pictures: Mapping[int, ImageRecord]
    job: Job | None


class RunGridService:
    """Submits such grids and draws them. What its owner has of a cell already is not drawn again."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        training: TrainingService,
        gallery: Gallery,
        generation: GenerationService,
        scoring: ScoringService,
    ) -> None:
        self._catalogue = catalogue
        self._runner = runner
        self._training = training
        self._gallery = gallery
        self._generation = generation
        self._scoring = scoring
        self._drawer = CellDrawer(catalogue, gallery, generation, scoring)
        self._embeddings = GridEmbeddings(gallery, scoring)
        self._filled = set[str]()
        self._scores = Recent[tuple[ColumnScore, ...]]()
        runner.register(KIND, self.run)

    def submit(self, request: GridRequest, visitor: str = "local") -> RunGrid:
        """Decide what is open and put the grid in line.

        Raises:
            NotFound: there is no such run.
            InvalidRequest: values that do not fit the run or its model, or an adapter that cannot be used.
            QueueFull: too much is waiting.
        """
        grid = self.resolve(request)
        for column in grid.columns:
            tag = f" {column.use.tag}" if column.use else ""
            self._generation.check(grid.recipe.model_copy(update={"prompt": f"{grid.prompts[0]}{tag}"}))
        for prompt in grid.prompts:
            refuse_open(prompt, "prompts")
        self._generation.check_words(*grid.prompts)
        job = self._runner.submit(KIND, grid.model_dump(mode="json"), visitor)
        folder = grid_folder(self._training.run_of(grid.run), job.id)
        folder.begin(grid)
        return self._standing(folder, grid, job)

    def standing(self, grid: RunGrid) -> RunGrid:
        """A grid as it stands now."""
        return self._standing(grid.folder, grid.grid, grid.job)

    def resolve(self, request: GridRequest) -> Grid:
        """What would be drawn; see `submit`."""
        run = self._training.run_of(request.run)
        steps = _chosen_steps(run, request)
        scales = sorted({scale for scale in request.scales if scale})  # at 0 it is the model alone
        if not scales:
            raise InvalidRequest("A scale of 0 is the model alone.", "Give another one, such as 1.", "scales")
        prompts = tuple(dict.fromkeys(map(plain_prompt, request.prompts or run_prompts(run))))
        if not all(prompts) or not prompts:
            raise InvalidRequest("There is no prompt.", "Write what the pictures should show.", "prompts")
        columns = (
            GridColumn(step=step, use=AdapterUse(adapter=checkpoint_adapter(run, step), lora_scale=scale))
            for step in steps
            for scale in scales
        )
        grid = Grid(
            run=run.id,
            recipe=self._catalogue.resolve(self._common(request, run.plan, prompts[0])),
            columns=(GridColumn(), *columns),
            prompts=prompts,
            seeds=seeds_from(request.seed, request.num_images),
            ordinary=self._ordinary(run.plan, request.num_ordinary, prompts),
        )
        if (count := len(grid.columns) * len(grid.rows)) > MAX_PICTURES:
            raise InvalidRequest(
                f"That comes to {count} pictures; at most {MAX_PICTURES} are drawn at a time.",
                "Take fewer checkpoints, scales, prompts or seeds.",
                "num_images",
            )
        return grid

    def _ordinary(self, plan: TrainingPlan, count: int, prompts: Sequence[str]) -> tuple[str, ...]:
        """Prompts that the model knew before, as far as they are not asked for already."""
        known = PROMPT_SETS[default_set([plan.checkpoint], self._catalogue)]
        return tuple(each.text for each in known.take(count) if each.text not in prompts) if count else ()

    def newest(self, run: Run[TrainingPlan]) -> RunGrid | None:
        """The last grid of `run` as it stands; None where there is none that can be read."""
        folder = newest_grid(run)
        if folder is None:
            return None
        try:
            grid = folder.asked
        except (OSError, ValueError):
            return None
        return self._standing(folder, grid, self._job(folder.job_id))

    def scores(self, grid: RunGrid) -> tuple[ColumnScore, ...]:
        """What each of its columns scored so far. A page asks every other second; where a grid that is not being drawn
        lacks embeddings, some more are made each time."""
        job_id = grid.folder.job_id
        if grid.job is None or grid.job.is_over:
            self._see(grid, self._training.run_of(grid.grid.run), None)
        state = len(grid.results), len(grid.pictures), _changed(grid.folder.embeddings)

        def told() -> tuple[ColumnScore, ...]:
            likeness = self._embeddings.read(grid.folder.embeddings, grid.pictures)
            return column_scores(grid.grid, grid.results, likeness)

        return self._scores.get(job_id, state, told)

    def _see(self, grid: RunGrid, run: Run[TrainingPlan], job: Job | None) -> None:
        """Have the pictures of a grid seen by its judge, and those that its run learnt: all of them while `job` draws
        it, some more at a look. A judge that cannot be used is asked once."""
        job_id, checkpoint = grid.folder.job_id, self._catalogue.checkpoint(grid.grid.recipe.checkpoint)
        judge = self._scoring.judge_of(checkpoint)
        if judge is None or job_id in self._filled or not grid.pictures:
            return
        self._scoring.prepare(checkpoint)
        if self._scoring.problem(checkpoint):
            self._filled.add(job_id)
            return
        cancelled, most = (job.cancelled, None) if job else (never, _A_LOOK)
        try:
            is_all = self._embeddings.fill(
                grid.folder.embeddings, judge, grid.pictures, Path(run.plan.folder), most=most, cancelled=cancelled
            )
        except StorageFailed as error:  # the pictures are there, and so are their scores
            logger.warning("embeddings of a grid are not kept: %s", error)
            is_all = True
        if is_all and not (job and job.cancelled()):
            self._filled.add(job_id)

    def run(self, job: Job) -> dict[str, Any]:
        """Draw and judge every cell of `job` that no line tells of yet; the job handler."""
        grid = Grid.model_validate(dict(job.payload))
        run = self._training.run_of(grid.run)
        folder = grid_folder(run, job.id)
        folder.begin(grid)
        checkpoint = self._catalogue.checkpoint(grid.recipe.checkpoint)
        try:
            seconds = self._drawer.draw(job, grid.cells(), folder, self._scoring.judge_of(checkpoint))
        finally:
            self._write_sheet(folder, grid)
        self._see(self._standing(folder, grid, job), run, job)
        return {"num_images": len(grid.cells()), "seconds": round(seconds, 2)}

    def _write_sheet(self, folder: GridFolder, grid: Grid) -> None:
        paths = self._paths(folder)
        if paths:
            atomic_write(folder.sheet, png(contact_sheet(grid, paths)))

    def _paths(self, folder: GridFolder) -> dict[int, Path]:
        records = {record.image_index: record for record in self._gallery.of_job(folder.job_id)}
        return {index: self._gallery.path(record) for index, record in records.items()}

    def _common(self, request: GridRequest, plan: TrainingPlan, prompt: str) -> GenerationRequest:
        checkpoint = self._catalogue.checkpoint(plan.checkpoint)
        size = plan.size if checkpoint.min_size <= plan.size <= checkpoint.max_size else None
        return GenerationRequest(
            prompt=prompt,
            checkpoint=checkpoint.id,
            width=size,
            height=size,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            scheduler=request.scheduler,
            seed=request.seed,
        )

    def _standing(self, folder: GridFolder, grid: Grid, job: Job | None) -> RunGrid:
        pictures = {record.image_index: record for record in self._gallery.of_job(folder.job_id)}
        return RunGrid(folder=folder, grid=grid, results=folder.results(), pictures=pictures, job=job)

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._runner.job(job_id)
        except NotFound:
            return None


def _changed(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 while it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def run_prompts(run: Run[TrainingPlan]) -> tuple[str, ...]:
    """The prompts that `run` drew samples of."""
    return next((look.prompts for look in reversed(run.looked) if look.prompts), run.plan.sample_prompts)


def _chosen_steps(run: Run[TrainingPlan], request: GridRequest) -> tuple[int, ...]:
    """Raises InvalidRequest where the run has not kept what is asked for."""
    kept = tuple(run.checkpoints)
    if not kept:
        raise InvalidRequest(
            "This run has kept no checkpoint yet.", "One is kept whenever it is looked at.", "steps_of_run"
        )
    if request.steps_of_run is None:
        return kept
    if unknown := sorted(set(request.steps_of_run) - set(kept)):
        raise InvalidRequest(
            f"No checkpoint of step {unknown[0]} is kept.",
            f"There are those of step {', '.join(map(str, kept))}.",
            "steps_of_run",
        )
    return tuple(sorted(set(request.steps_of_run)))
