"""Flash Studio's page: settings → services → tabs → launch. `python app.py [--port N]`."""

import argparse
import logging
import os
import signal
import threading
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from studio.domain.errors import InvalidRequest, StudioError
from studio.services import Services, open_services
from studio.settings import Settings
from tabs import shell
from tabs.generate import MAX_FOLLOWERS
from tabs.routes import build_routes

logger = logging.getLogger("flash_studio")


def main() -> None:
    """Open the services, put the page up, load the engine behind it, and stay until stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is as clean as Ctrl+C
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="app.py", description="Flash Studio, a local text-to-image studio.")
    parser.add_argument("--port", type=int, help="port of the page (0: any free one)")
    parser.add_argument("--share", action="store_true", default=None, help="also open a public link through Gradio")
    try:
        given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
        with open_services(Settings.from_environment(**given), is_page=True) as services:
            demo = shell.build(services)
            launch(demo, services)
            threading.Thread(target=preload, args=(services,), name="preload", daemon=True).start()
            demo.block_thread()
    except StudioError as error:
        raise SystemExit(str(error)) from None


def launch(demo: gr.Blocks, services: Services) -> None:
    """Put the page up and say where it is.

    Raises:
        InvalidRequest: the port cannot be had.
    """
    settings = services.settings
    demo.queue(max_size=2 * settings.max_queued, api_open=False)
    try:
        _, address, public = _open_page(demo, services)
    except OSError as error:
        logger.info("no port: %s", error)
        raise InvalidRequest(
            f"Port {settings.port} of {settings.host} is taken, or not for us.",
            "Close the other program, or choose another port with --port (0 takes any free one).",
        ) from error
    print(f"Flash Studio is at {address}", *([f"and for everybody at {public}"] if public else []), flush=True)


def _open_page(demo: gr.Blocks, services: Services) -> tuple[Any, str, str | None]:
    settings = services.settings
    return demo.launch(
        server_name=None if "SPACE_ID" in os.environ else settings.host,
        server_port=settings.port or None,
        share=settings.share,
        prevent_thread_lock=True,
        app_kwargs={"routes": build_routes(services), "docs_url": None, "redoc_url": None},
        max_threads=2 * MAX_FOLLOWERS,
        max_file_size="50mb",
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=["settings"],
        quiet=True,
        **shell.appearance(),
    )


def preload(services: Services) -> None:
    """Load the default model now, so that the first picture need not wait for it."""
    try:
        services.generation.preload()
    except Exception:  # the first job meets the same error and tells it
        logger.warning("the model could not be loaded ahead of time", exc_info=True)


if __name__ == "__main__":
    main()
