"""The addresses of what a probe exports, by its unguessable id."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from studio.domain.errors import StudioError
from studio.probe import ProbeService, ProbeStanding
from studio.probe_export import document, rows_csv
from studio.probe_views import probe_report

EXPORTS = {"report.html": "Report", "images.csv": "Pictures as CSV", "results.json": "Everything as JSON"}
"""The name of each file, and what it is called on the page."""
_TYPES = {"html": "text/html", "csv": "text/csv", "json": "application/json"}


def probe_routes(probes: ProbeService) -> list[Route]:
    """Those of every probe."""

    def export(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            standing = probes.standing(request.path_params["probe_id"])
            text = _text(probes, standing, name)
        except (StudioError, KeyError):
            return PlainTextResponse("There is no such probe.", status_code=404)
        headers = {
            "Content-Disposition": f'attachment; filename="balance-{standing.id[:16]}-{name}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(text, media_type=f"{kind}; charset=utf-8", headers=headers)

    return [Route("/probes/{probe_id:str}/{name:str}", export)]


def _text(probes: ProbeService, standing: ProbeStanding, name: str) -> str:
    """Raises KeyError for what is not exported."""
    made = {
        "report.html": lambda: probe_report(probes.result(standing)),
        "images.csv": lambda: rows_csv(standing),
        "results.json": lambda: document(standing, probes.result(standing), probes.pictures(standing)),
    }
    return made[name]()
