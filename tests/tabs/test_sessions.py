"""What is kept of pages that were opened: nothing, soon after they were closed."""

import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest

from studio.services import Services, open_services
from studio.settings import Settings
from tabs import shell
from tabs.launch import launch
from tabs.sessions import CLOSING, KEPT_CLOSED
from tests.tabs.pages import free_port

PATIENCE_S = 30.0

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(Settings(data_dir=tmp_path, offline=True, port=free_port())) as opened:
        yield opened


@pytest.fixture
def page(services: Services) -> Iterator[gr.Blocks]:
    demo = shell.build(services)
    launch(demo, services)
    yield demo
    demo.close()


def test_pages_that_were_closed_are_forgotten_and_those_that_are_open_are_not(page: gr.Blocks) -> None:
    sessions = page.state_holder.session_data
    with httpx.Client(base_url=page.local_url, timeout=PATIENCE_S) as client:
        use(client, page, "open")  # and it stays open
        for number in range(2 * KEPT_CLOSED):
            session = f"closed{number}"
            with client.stream("GET", f"/gradio_api/heartbeat/{session}") as heard:
                next(heard.iter_lines())
                use(client, page, session)
                if number == KEPT_CLOSED:
                    time.sleep(CLOSING.total_seconds())  # else it counts as closed at the same time
                    use(client, page, "closed3")  # it only lost the connection, and is in use again
    deadline = time.monotonic() + PATIENCE_S
    while len(sessions) > KEPT_CLOSED + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(sessions) == KEPT_CLOSED + 2
    assert {"open", "closed3", f"closed{2 * KEPT_CLOSED - 1}"} <= set(sessions) and "closed0" not in sessions


def use(client: httpx.Client, page: gr.Blocks, session: str) -> None:
    """Something that a page does: what it is given is worth nothing, but its session is made."""
    index = next(number for number, each in page.fns.items() if each.fn is not None and not each.queue)
    values = [None] * len(page.fns[index].inputs)
    client.post(
        "/gradio_api/run/predict", json={"fn_index": index, "data": values, "session_hash": session, "event_data": {}}
    )
