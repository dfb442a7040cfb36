"""The page on the network: its routes, the gate before them, and what is said when it is up."""

import logging
import secrets
from typing import Any

from starlette.middleware import Middleware
from starlette.types import Scope

from studio.domain.errors import InvalidRequest
from studio.domain.hosting import is_zero_gpu
from studio.services import Services
from studio.web.bodies import Bounded
from studio.web.gate import Gate
from studio.web.own.mcp_server import mcp_server
from studio.web.routes import all_routes
from studio.web.uploads import UPLOAD, UploadsNoted
from tabs import shell
from tabs.frame import Frame
from tabs.generate import MAX_FOLLOWERS
from tabs.sessions import MOST_SESSIONS
from tabs.zero_gpu_caller import ZeroGpuCaller

logger = logging.getLogger(__name__)


def launch(demo: Frame, services: Services) -> None:
    """Put the page up and say where it is.

    Raises:
        InvalidRequest: the port cannot be had, or what MCP needs is not installed.
    """
    settings = services.settings
    made = secrets.token_urlsafe(12) if settings.needs_password and not settings.password else ""
    demo.queue(max_size=2 * settings.max_queued, api_open=False)
    try:
        _, address, public = _open_page(demo, services, settings.password or made)
    except OSError as error:
        logger.info("no port: %s", error)
        raise InvalidRequest(
            f"Port {settings.port} of {settings.host} is taken, or not for us.",
            "Close the other program, or choose another port with --port (0 takes any free one).",
        ) from error
    print(f"Flash Studio is at {address}", *([f"and for everybody at {public}"] if public else []), flush=True)
    if made:
        print(f"It asks for this password: {made}", flush=True)


def _is_call(scope: Scope) -> bool:
    """Whether it is one of Gradio's own requests with JSON; it has a limit for files alone."""
    return scope["method"] == "POST" and scope["path"].startswith("/gradio_api/") and scope["path"] != UPLOAD


def _open_page(demo: Frame, services: Services, password: str) -> tuple[Any, str, str | None]:
    settings = services.settings
    tools = mcp_server(services) if settings.mcp else None
    return demo.launch(
        server_name=None if settings.operating_mode == "space" else settings.host,
        server_port=settings.port or None,
        share=settings.share,
        prevent_thread_lock=True,
        mcp_server=False,  # whatever the environment says: see docs/decisions/0018
        app_kwargs={
            "routes": [*all_routes(services), *(tools.routes if tools else [])],
            "lifespan": tools.lifespan if tools else None,
            "middleware": [
                Middleware(Gate, settings=settings, password=password),
                Middleware(Bounded, is_bounded=_is_call),
                Middleware(UploadsNoted, settings=settings, uploads=demo.uploads),
                *([Middleware(ZeroGpuCaller, blocks=demo)] if is_zero_gpu() else []),
            ],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        max_threads=2 * MAX_FOLLOWERS,
        max_file_size="50mb",
        state_session_capacity=MOST_SESSIONS,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=["api", "settings"] if settings.is_local else ["api"],
        quiet=True,
        **shell.appearance(),
    )
