"""The addresses of what an evaluation exports, by its unguessable id."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from studio.domain.errors import StudioError
from studio.domain.evaluation import EvaluationCell
from studio.evaluation import Standing
from studio.evaluation_export import document, manifest, rows_csv
from studio.evaluation_report import report_html
from studio.judge_exams import exam_words
from studio.services import Services
from studio.sweep_page import sweep_page
from studio.web.probe_routes import probe_routes

_TYPES = {"html": "text/html", "csv": "text/csv", "json": "application/json", "toml": "application/toml"}


def evaluation_routes(services: Services) -> list[Route]:
    """Those of every evaluation, and of every probe."""

    def export(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            standing = services.evaluations.standing(request.path_params["evaluation_id"])
            text = _text(services, standing, name)
        except (StudioError, KeyError):
            return PlainTextResponse("There is no such evaluation.", status_code=404)
        kind = name.rpartition(".")[2]
        headers = {
            "Content-Disposition": f'attachment; filename="evaluation-{standing.id[:16]}-{name}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(text, media_type=f"{_TYPES[kind]}; charset=utf-8", headers=headers)

    return [Route("/evaluations/{evaluation_id:str}/{name:str}", export), *probe_routes(services.probes)]


def remarks_of(services: Services, standing: Standing) -> list[str]:
    """What is to be known of the judge."""
    exam = services.judge_exams.of(services.evaluations.analysis(standing).judge)
    return [exam_words(exam) if exam else "", services.evaluations.remark(standing.evaluation)]


def _text(services: Services, standing: Standing, name: str) -> str:
    """Raises KeyError for what is not exported."""
    pictures = services.evaluations.pictures(standing)

    def path_of(cell: EvaluationCell) -> Path | None:
        return services.gallery.path(pictures[cell.index]) if cell.index in pictures else None

    made = {
        "report.html": lambda: report_html(
            services.evaluations.analysis(standing),
            standing.folder.anchors,
            path_of,
            remarks_of(services, standing),
        ),
        "images.csv": lambda: rows_csv(standing.findings),
        "results.json": lambda: document(standing.findings, pictures),
        "sweep.html": lambda: sweep_page(services.evaluations.analysis(standing), standing.results, path_of),
        "manifest.toml": lambda: manifest(standing.evaluation),
    }
    return made[name]()
