"""The page's own addresses: pictures and comparisons by their unguessable ids. No path of the server shows."""

import io

from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from studio.domain.errors import NotFound, StudioError
from studio.flash import KIND as FLASH
from studio.flash import comparison_of
from studio.flash_files import archive
from studio.services import Services
from studio.web.evaluation_routes import evaluation_routes
from studio.web.run_routes import FOREVER, run_routes

THUMB_PX = 320


def page_routes(services: Services) -> list[Route]:
    """Routes for the app that gradio launches; a picture never changes, so browsers may keep it."""

    def picture(request: Request) -> Response:
        try:
            record = services.gallery.image(request.path_params["image_id"])
            path = services.gallery.path(record)
        except StudioError as error:
            return PlainTextResponse(str(error), status_code=404)
        if not path.is_file():
            return PlainTextResponse("The file of this picture is gone.", status_code=404)
        how = "attachment" if "download" in request.query_params else "inline"
        return FileResponse(
            path, media_type="image/png", filename=path.name, content_disposition_type=how, headers=FOREVER
        )

    def thumb(request: Request) -> Response:
        try:
            path = services.gallery.path(services.gallery.image(request.path_params["image_id"]))
            content = thumbnail(path.read_bytes())
        except (StudioError, OSError):
            return PlainTextResponse("There is no such picture.", status_code=404)
        return Response(content, media_type="image/webp", headers=FOREVER)

    def comparison(request: Request) -> Response:
        try:
            job = services.runner.job(request.path_params["job_id"])
            if job.kind != FLASH:
                raise NotFound("There is no such comparison.", "Make one under Flash.")
            content = archive(comparison_of(job), services.flash.pictures(job), services.gallery.path)
        except (StudioError, OSError):
            return PlainTextResponse("There is no such comparison.", status_code=404)
        name = f"flash-{comparison_of(job).seeds[0]}.zip"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return Response(content, media_type="application/zip", headers=headers)

    def adapter_preview(request: Request) -> Response:
        try:
            path = services.adapters.store.preview_path(request.path_params["adapter_id"])
        except StudioError as error:
            return PlainTextResponse(str(error), status_code=404)
        if path is None:
            return PlainTextResponse("This adapter has no preview.", status_code=404)
        return FileResponse(path, media_type="image/png", headers={"X-Content-Type-Options": "nosniff"})

    return [
        Route(picture_address("{image_id:str}"), picture),
        Route("/pictures/{image_id:str}/thumb", thumb),
        Route("/comparisons/{job_id:str}.zip", comparison),
        *run_routes(services),
        *evaluation_routes(services),
        Route("/adapters/{adapter_id:str}/preview", adapter_preview),
    ]


def picture_address(image_id: str) -> str:
    """Where the PNG of a picture is, from the server's root on."""
    return f"/pictures/{image_id}.png"


def thumbnail(png: bytes) -> bytes:
    """A WebP of at most `THUMB_PX` on the longer side, without metadata."""
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
