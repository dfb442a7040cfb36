import shutil

import gradio as gr
import pytest

from engines.base import EngineState
from studio.services import Services
from studio.settings import PROJECT_ROOT
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


def test_models_of_ones_own_are_listed_and_what_is_left_out_says_why(system: SystemTab) -> None:
    folder = system.services.settings.models_dir
    shutil.copytree(PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", folder / "my shapes")
    (folder / "broken.safetensors").write_bytes(b"no weights")
    table = system.on_show(None)[system.models]
    assert "my shapes" in table and "Draws at 128 px" in table
    assert "Left out: broken.safetensors is no .safetensors file" in table
