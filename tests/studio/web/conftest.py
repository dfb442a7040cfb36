"""A real server on loopback, over real services: what clients of other programs speak to."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

Serve = Callable[[Sequence[BaseRoute]], str]


@contextmanager
def served(routes: Sequence[BaseRoute]) -> Generator[str]:
    """The address of a server of `routes`, without a slash at its end."""
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=list(routes)), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def serve() -> Generator[Serve]:
    """Puts routes on the network until the test is over; gives their address."""
    with ExitStack() as stack:
        yield lambda routes: stack.enter_context(served(routes))
