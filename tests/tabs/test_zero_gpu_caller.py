"""Who asked is known where the job is done, as `spaces` looks for it: the page's visitors and those of HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.context import LocalContext
from gradio_client import Client
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from tabs.zero_gpu_caller import ZeroGpuCaller
from tests.tabs.pages import free_port

PATIENCE_S = 60
HEADER = "x-ip-token"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A page and a route that each have a job done, which tells whose token it found."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'jobs.db'}")
    runner = JobRunner(ledger, keeps_contexts=True)
    found: list[str] = []

    def handler(job: Job) -> dict[str, Any]:
        request = LocalContext.request.get(None)
        headers = request.headers if request else {}
        found.append(headers.get(HEADER, "nobody"))
        return {}

    def ask() -> str:
        assert runner.submit("work", {}).wait(PATIENCE_S)
        return found[-1]

    def on_page() -> Iterator[str]:
        yield ask()

    def on_thread(_: Request) -> Response:
        return JSONResponse(ask())

    async def on_loop(_: Request) -> Response:
        return JSONResponse(runner.submit("work", {}).id)

    def last(_: Request) -> Response:
        return JSONResponse(found)

    runner.register("work", handler)
    runner.start()
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.Button().click(on_page, None, gr.Textbox(), api_name="ask")
    _, local, _ = demo.launch(
        prevent_thread_lock=True,
        quiet=True,
        server_port=free_port(),
        app_kwargs={
            "routes": [Route("/thread", on_thread), Route("/loop", on_loop), Route("/found", last)],
            "middleware": [Middleware(ZeroGpuCaller, blocks=demo)],
        },
    )
    yield local
    demo.close()
    runner.stop(timeout=PATIENCE_S)
    ledger.close()


def test_the_token_of_a_visitor_reaches_their_job(address: str) -> None:
    one, other = (Client(address, headers={HEADER: name}, verbose=False) for name in ("one", "other"))
    assert [one.predict(api_name="/ask"), other.predict(api_name="/ask")] == ["one", "other"]
    assert httpx.get(f"{address}thread", headers={HEADER: "third"}, timeout=60).json() == "third"
    assert httpx.get(f"{address}thread", timeout=60).json() == "nobody"
    httpx.get(f"{address}loop", headers={HEADER: "fourth"}, timeout=60)
    assert httpx.get(f"{address}thread", headers={HEADER: "fifth"}, timeout=60).json() == "fifth"
    assert httpx.get(f"{address}found", timeout=60).json() == ["one", "other", "third", "nobody", "fourth", "fifth"]
