"""The addresses of what a training run leaves: samples, adapters, the grid over its checkpoints."""

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from studio.domain.errors import StudioError
from studio.services import Services

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
"""Of what never changes: browsers may keep it."""


def run_routes(services: Services) -> list[Route]:
    """Those of every run, by its unguessable id."""

    def run_sample(request: Request) -> Response:
        try:
            path = services.run_of(request.path_params["run_id"]).sample(request.path_params["name"])
        except StudioError:
            path = None
        if path is None:
            return PlainTextResponse("There is no such sample.", status_code=404)
        return FileResponse(path, media_type="image/png", headers=FOREVER)

    def run_export(request: Request) -> Response:
        try:
            run = services.run_of(request.path_params["run_id"])
            path = run.export(request.path_params["layout"])
        except (StudioError, KeyError):
            run = path = None
        if run is None or path is None:
            return PlainTextResponse("There is no such adapter.", status_code=404)
        name = f"{run.record.product_id or run.plan.name}-{path.stem}.safetensors"
        return FileResponse(path, filename=name, headers={"X-Content-Type-Options": "nosniff"})

    def run_checkpoint(request: Request) -> Response:
        step = request.path_params["step"]
        try:
            run = services.training.run_of(request.path_params["run_id"])
            path = run.checkpoints[step]
        except (StudioError, KeyError):
            return PlainTextResponse("There is no such checkpoint.", status_code=404)
        name = f"{run.plan.name}-step-{step}.safetensors"
        return FileResponse(path, filename=name, headers={"X-Content-Type-Options": "nosniff"})

    def run_grid(request: Request) -> Response:
        try:
            grid = services.run_grids.newest(services.training.run_of(request.path_params["run_id"]))
        except StudioError:
            grid = None
        if grid is None or not grid.folder.sheet.is_file():
            return PlainTextResponse("There is no such grid.", status_code=404)
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return FileResponse(grid.folder.sheet, filename=f"grid-{grid.folder.job_id[:16]}.png", headers=headers)

    return [
        Route("/runs/{run_id:str}/samples/{name:str}", run_sample),
        Route("/runs/{run_id:str}/{layout:str}.safetensors", run_export),
        Route("/runs/{run_id:str}/checkpoints/{step:int}.safetensors", run_checkpoint),
        Route("/runs/{run_id:str}/grid.png", run_grid),
    ]
