import gradio as gr
import pytest

from engines.base import EngineState
from studio.services import Services
from tabs.system import SystemTab, build_system


@pytest.fixture
def system(services: Services) -> SystemTab:
    with gr.Blocks():
        return build_system(services)


def test_before_an_engine_is_there_the_table_says_what_was_asked_for(system: SystemTab) -> None:
    assert system.engine_rows()["Device"] == "chosen automatically"


def test_then_it_says_what_computes_and_what_is_in_memory(system: SystemTab, monkeypatch: pytest.MonkeyPatch) -> None:
    state = EngineState(device="cpu", dtype="float32", loaded=("pocket-sd15",))
    monkeypatch.setattr(type(system.services.generation), "engine_state", lambda _: state)
    assert system.engine_rows() == {
        "Device": "cpu (chosen automatically)",
        "Number format": "float32 (chosen automatically); pocket models always use float32",
        "In memory": "Pocket SD 1.5",
    }
