"""Flash Studio's page: settings → services → tabs → launch. `python app.py [--port N]`."""

import argparse
import logging
import os
import signal
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from studio.domain.errors import JobCancelled, StudioError

try:
    import engines.zero_gpu_call  # noqa: F401  (on ZeroGPU it imports `spaces`, which has to come before torch)
except StudioError as error:
    raise SystemExit(str(error)) from None

from studio.services import Services, open_services
from studio.settings import Settings
from tabs import shell
from tabs.launch import launch

logger = logging.getLogger("flash_studio")


def main() -> None:
    """Open the services, put the page up, load the engine behind it, and stay until stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is as clean as Ctrl+C
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="app.py", description="Flash Studio, a local text-to-image studio.")
    parser.add_argument("--port", type=int, help="port of the page (0: any free one)")
    parser.add_argument("--host", help="address that the page listens on; others need a password then")
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


def preload(services: Services) -> None:
    """Load the default model now, so that the first picture need not wait for it."""
    try:
        services.generation.preload()
    except JobCancelled:
        pass  # the studio was stopped meanwhile
    except Exception:  # the first job meets the same error and tells it
        logger.warning("the model could not be loaded ahead of time", exc_info=True)


if __name__ == "__main__":
    main()
