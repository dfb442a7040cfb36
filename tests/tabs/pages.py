"""The page really up, on a port of its own, over the engine that tests share; and Gradio's own clients of it. Nobody
trains: that takes a process which loads everything anew."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradio_client import Client

from engines.base import Engine
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings
from tabs import shell
from tabs.launch import launch

PASSWORD = "a password for guests"
PATIENCE_S = 120.0


class Page:
    """A studio that is up, and clients of it."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services = services
        self.demo = shell.build(services)
        launch(self.demo, services)
        self.url = self.demo.local_url
        self._folder = folder
        self._clients: list[Client] = []

    def client(self, **given: Any) -> Any:
        """One that comes with `given`."""
        client = Client(self.url, verbose=False, analytics_enabled=False, download_files=self._folder, **given)
        self._clients.append(client)
        return client

    def close(self) -> None:
        self.demo.close()  # first: it ends the streams that clients listen to
        for client in self._clients:
            client.close()


@contextmanager
def page_up(engine: Engine, folder: Path, **settings: Any) -> Iterator[Page]:
    given = Settings(data_dir=folder / "data", offline=True, port=free_port(), **settings)
    with open_services(given, engine=EngineHolder(lambda: engine)) as services:
        services.trainer.stop(timeout=10)
        page = Page(services, folder / "downloads")
        try:
            yield page
        finally:
            page.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`, for as long as a loaded machine may need."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    """One that nobody listens on. Where Gradio looks for one itself it leaves a socket open for each that is taken."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
