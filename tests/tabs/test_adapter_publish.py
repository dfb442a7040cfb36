"""An adapter put on the hub from the page: by its owner only, and what is wrong beside its control."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from huggingface_hub import close_session

from studio.services import Services
from tabs.adapter_publish import AdapterPublish
from tabs.adapters import build_adapters
from tests.engines.hub import FakeHub, forget_the_machine, served, use
from tests.studio.adapter_files import adapter_file

TOKEN = "hf_thisIsASecretThatNobodyReads"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    forget_the_machine(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with served({}) as running:
        use(monkeypatch, running)
        yield running
    close_session()


@pytest.fixture
def section(services: Services, hub: FakeHub, tmp_path: Path) -> AdapterPublish:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    return built(services)


def built(services: Services) -> AdapterPublish:
    with gr.Blocks():
        return build_adapters(services, gr.Textbox(), gr.Dropdown()).details.publish


def press(section: AdapterPublish, adapter: str | None = "ink", where: str = "me/ink", private: Any = True) -> Any:
    """Press the button; what comes at once, and at the end."""
    first, last = section.on_publish({section.picked_id: adapter, section.repository: where, section.private: private})
    assert not first[section.button].interactive and last[section.button].interactive
    return last


@pytest.mark.parametrize("private", [True, False])
def test_it_is_told_where_it_is(section: AdapterPublish, hub: FakeHub, private: bool) -> None:
    said = press(section, where=" me/ink ", private=private)
    assert f"It is at {hub.endpoint}/me/ink." in said[section.note]
    assert hub.private == {"me/ink": private} and "README.md" in hub.repositories["me/ink"]


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"where": "ink"}, "repository", "no id of a repository"),
        ({"where": ""}, "repository", "no id of a repository"),
        ({"adapter": None}, "publish", "No adapter is chosen."),
        ({"adapter": "nobody"}, "publish", "no adapter called"),
    ],
)
def test_what_is_wrong_stands_beside_its_control(
    section: AdapterPublish, hub: FakeHub, given: dict[str, Any], field: str, said: str
) -> None:
    last = press(section, **given)
    assert said in last[section.errors[field]] and hub.asked == []


def test_what_the_hub_refuses_is_told_without_the_token(section: AdapterPublish, hub: FakeHub) -> None:
    hub.faults.status = 403
    last = press(section)
    assert "does not let you write to me/ink" in last[section.errors["publish"]] and TOKEN not in str(last)


def test_a_guest_publishes_nothing(services: Services, section: AdapterPublish, hub: FakeHub) -> None:
    theirs = built(replace(services, settings=services.settings.model_copy(update={"share": True})))
    assert "Only the owner of this machine" in press(theirs)[theirs.errors["publish"]] and hub.asked == []
