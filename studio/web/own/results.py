"""What came of a job that is over, by its kind."""

import json
from typing import Any

from studio.distillation import DistillationService
from studio.domain.errors import NotFound
from studio.evaluation import KIND as EVALUATION
from studio.evaluation_export import document
from studio.evaluation_scores import Analysis, SystemScore, disagreement, headline
from studio.flash import KIND as FLASH
from studio.job import Job
from studio.runs import Run
from studio.services import Services
from studio.tables import JobRow
from studio.training import TrainingService
from studio.web.own.pictures import picture_view
from studio.web.own.views import (
    ColumnView,
    ComparisonView,
    EvaluationView,
    ProblemView,
    ResultView,
    RunView,
    SystemView,
)

TRAININGS = (TrainingService.KIND, DistillationService.KIND)
_LAST_LOSSES = 20


def kind_of(row: JobRow) -> str:
    """What the API calls the kind of a job."""
    return "evaluate" if row.kind == EVALUATION else row.kind


def result_view(services: Services, row: JobRow, job: Job) -> ResultView:
    """What came of `job`, which is over."""
    values: dict[str, Any] = {
        "id": row.id,
        "kind": kind_of(row),
        "state": row.state,
        "error": ProblemView(message=row.message, hint=row.hint) if row.state == "failed" else None,
        "summary": row.summary or {},
        "pictures": [],
    }
    if row.kind == EVALUATION:
        values["evaluation"] = _evaluation(services, row.id)
    elif row.kind in TRAININGS:
        values["run"] = run_view(services, str(row.payload.get("run", "")))
    else:
        values["pictures"] = [picture_view(record, services) for record in services.gallery.of_job(row.id)]
    if row.kind == FLASH:
        values["comparison"] = _comparison(services, job)
    return ResultView.model_validate(values)


def _comparison(services: Services, job: Job) -> ComparisonView:
    columns = [
        ColumnView(
            name=each.column.name,
            title=each.column.title,
            is_baseline=each.column.is_baseline,
            recipe=each.column.recipe,
            n=each.n,
            seconds=dict(each.seconds),
            peak_memory_mb=each.peak_memory_mb,
            speed_up=each.speed_up,
            likeness=each.likeness,
            right=each.right,
            clip=each.clip,
            clip_gain=each.clip_gain,
        )
        for each in services.flash.figures(job)
    ]
    return ComparisonView(
        columns=columns, judged_by=services.flash.judged_by(job), archive_url=f"/comparisons/{job.id}.zip"
    )


def _evaluation(services: Services, job_id: str) -> EvaluationView:
    standing = services.evaluations.standing(job_id)
    analysis = services.evaluations.analysis(standing)
    return EvaluationView(
        headline=headline(analysis),
        disagreement=disagreement(analysis),
        baseline=analysis.evaluation.baseline,
        measure=analysis.measure,
        num_prompts=len(analysis.places),
        table=[_system(score, analysis) for score in analysis.systems],
        document=json.loads(document(standing.findings, services.evaluations.pictures(standing))),
        report_url=f"/evaluations/{job_id}/report.html",
    )


def _system(score: SystemScore, analysis: Analysis) -> SystemView:
    return SystemView(
        name=score.system.name,
        is_baseline=score.system.name == analysis.evaluation.baseline,
        n=score.n,
        failed=score.failed,
        means={**score.means},
        skills={**score.skills},
        against={**score.against},
        seconds=score.seconds,
    )


def run_view(services: Services, run_id: str) -> RunView | None:
    """How a training run stands; None where it was deleted since."""
    try:
        run: Run[Any] = services.run_of(run_id)
    except NotFound:
        return None
    return RunView(
        id=run.id,
        name=run.plan.name,
        checkpoint=run.plan.checkpoint,
        step=run.step,
        total=run.plan.num_steps,
        adapter_id=run.record.product_id,
        best=run.best,
        losses=run.trained[-_LAST_LOSSES:],
        adapter_url=f"/runs/{run.id}/kohya.safetensors" if run.export("kohya") else None,
    )
