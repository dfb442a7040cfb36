"""The frame of the page."""

import gradio as gr
import pytest

from studio.services import Services
from tabs import shell


def header(services: Services) -> str:
    blocks = shell.build(services).blocks.values()
    (found,) = (block for block in blocks if isinstance(block, gr.HTML) and block.elem_id == "header")
    return str(found.value)


def test_a_page_for_others_does_not_say_that_it_is_their_machine(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    own = header(services)
    assert "on your own machine" in own and "Duplicate this Space" not in own
    monkeypatch.setenv("SPACE_ID", 'ada/flash"><script>')
    space = header(services)
    assert "on your own machine" not in space and "<script>" not in space
    assert 'href="https://huggingface.co/spaces/ada/flash&quot;&gt;&lt;script&gt;?duplicate=true"' in space
