"""Pictures to train with, from the hub: told while they come, then a folder like any other."""

import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from huggingface_hub import close_session

from studio.services import Services
from tabs.pictures import PicturesPanel, build_pictures_panel
from tests.engines.hub import FakeHub, forget_the_machine, served, use
from tests.studio.test_distillation import pictures_with_a_list


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    forget_the_machine(monkeypatch, tmp_path)
    with served({"datasets/owner/set": pictures_with_a_list(5)}) as running:
        use(monkeypatch, running)
        yield running
    close_session()


@pytest.fixture
def panel(services: Services) -> PicturesPanel:
    with gr.Blocks():
        return build_pictures_panel(services)


def test_a_data_set_of_the_hub_becomes_a_folder(panel: PicturesPanel, hub: FakeHub) -> None:
    *_, last = panel.on_fetch(" owner/set", 3)
    assert Path(last[panel.folder]).name == "owner--set--3" and last[panel.fetch].interactive
    assert "3 pictures: 3 can be used" in last[panel.told] and last[panel.captions].visible
    assert list(last[panel.table]["Caption"]) == ["a red star"] * 3


@pytest.mark.parametrize(
    ("hub_id", "wanted", "said"),
    [
        (None, 3, "is no id of a data set"),
        ("owner/set", None, "no number of pictures"),
        ("owner/gone", 3, "There is no data set owner/gone"),
    ],
)
def test_what_cannot_be_had_is_told_there(
    panel: PicturesPanel, hub: FakeHub, hub_id: str | None, wanted: int | None, said: str
) -> None:
    *_, last = panel.on_fetch(hub_id, wanted)
    assert said in last[panel.told] and last[panel.fetch].interactive and panel.folder not in last


def test_a_page_that_is_closed_fetches_no_more(panel: PicturesPanel, hub: FakeHub) -> None:
    hub.faults.status = 503  # asked again and again, for half a minute
    looking = panel.on_fetch("owner/set", 3)
    first = next(looking)
    assert "asking the hub" in first[panel.told] and not first[panel.fetch].interactive
    (fetching,) = [thread for thread in threading.enumerate() if thread.name == "fetch"]
    looking.close()  # type: ignore[attr-defined]
    fetching.join(timeout=25)
    assert not fetching.is_alive()
