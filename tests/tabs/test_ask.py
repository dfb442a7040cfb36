from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.settings import CONSENT, Settings
from studio.sources import Sources
from tabs.ask import Ask, Updates, usable
from tabs.ask_layout import build_ask


@pytest.fixture
def ask(catalogue: Catalogue, tmp_path: Path) -> Ask:
    with gr.Blocks():
        return build_ask(catalogue, Sources(tmp_path / "sources"), Settings(data_dir=tmp_path))


def value(updates: Updates, ask: Ask, field: str) -> Any:
    update = updates[ask.form[field]]
    return update.value if isinstance(update, gr.blocks.Block) else update


def test_fill_sets_every_control_it_promises(ask: Ask) -> None:
    assert ask.fill({}).keys() == set(ask.outputs)


def test_another_model_brings_its_own_defaults_and_keeps_what_was_typed(ask: Ask) -> None:
    data = {component: None for component in ask.form.fields.values()}
    typed = {"prompt": "a harbour", "checkpoint": "sd15", "seed": 7, "num_inference_steps": 3, "style": "on_navy"}
    data |= {ask.form[name]: given for name, given in typed.items()}
    updates = ask.on_model(data)
    assert [value(updates, ask, name) for name in ("prompt", "seed")] == ["a harbour", 7]
    assert [value(updates, ask, name) for name in ("num_inference_steps", "guidance_scale", "width")] == [30, 7.5, 512]
    assert value(updates, ask, "style") == "none"


def test_of_what_a_browser_kept_only_what_a_request_could_hold_is_taken(ask: Ask) -> None:
    kept = {"prompt": "", "seed": 7, "width": "wide", "guidance_scale": None, "style": 5, "colour": "red"}
    assert usable(kept) == {"prompt": "", "seed": 7, "guidance_scale": None}
    assert usable({"prompt": 5, "steps": 3}) == {}
    assert value(ask.fill(usable(kept)), ask, "seed") == 7


def test_settings_that_the_model_cannot_use_are_named(ask: Ask) -> None:
    updates = ask.fill({"prompt": "x", "width": 512, "height": 768}, "Read.")
    assert "size 512 × 768 (Pocket SD 1.5 draws from 64 to 256 px)" in updates[ask.drop_note]
    assert value(updates, ask, "width") == 128


def test_a_dropped_picture_of_another_program_fills_the_form(ask: Ask, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a red circle\nSteps: 12, Sampler: Euler, CFG scale: 3, Seed: 9, Size: 128x96")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    updates = ask.on_drop(str(tmp_path / "a.png"), "pocket-sd15")
    assert [value(updates, ask, name) for name in ("prompt", "scheduler", "seed", "height")] == [
        "a red circle",
        "euler",
        9,
        96,
    ]


def test_a_model_that_we_do_not_have_is_named_and_the_chosen_one_stays(ask: Ask, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 12, Sampler: DPM++ 3M SDE, CFG scale: 3, Seed: 9, Model: dreamshaper_8")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    updates = ask.on_drop(str(tmp_path / "a.png"), "sd15")
    assert value(updates, ask, "checkpoint") == "sd15"
    assert "model dreamshaper_8" in updates[ask.drop_note]
    assert "sampler DPM++ 3M SDE" in updates[ask.drop_note]


def test_a_dropped_picture_without_settings_says_so(ask: Ask, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert "carries no settings" in ask.on_drop(str(tmp_path / "a.png"), "sd15")[ask.drop_note]


def test_an_error_stands_next_to_its_control_and_nowhere_else(ask: Ask) -> None:
    updates = ask.on_error(InvalidRequest("Seed is -5.", "Choose another.", "seed"))
    assert [name for name, slot in ask.errors.items() if updates[slot]] == ["seed"]


def test_an_error_of_a_control_in_a_closed_panel_stands_by_the_prompt_too(ask: Ask) -> None:
    updates = ask.on_error(InvalidRequest("Steps is 60.", "Ask for fewer.", "num_inference_steps"))
    assert [name for name, slot in ask.errors.items() if updates[slot]] == ["prompt", "num_inference_steps"]


def test_more_steps_than_the_sampler_takes_are_lowered_and_named(ask: Ask) -> None:
    updates = ask.fill({"prompt": "x", "scheduler": "lcm", "num_inference_steps": 60})
    assert value(updates, ask, "num_inference_steps") == 50
    assert "60 steps (LCM takes 50)" in updates[ask.drop_note]


def test_words_the_model_never_learnt_are_named(ask: Ask) -> None:
    assert "“cat”" in ask.warn({"prompt": "a red cat", "checkpoint": "pocket-sd15"})
    assert ask.warn({"prompt": "a red circle", "checkpoint": "pocket-sd15", "style": "on_navy"}) == ""
    assert ask.warn({"prompt": "a red cat", "checkpoint": "sd15"}) == ""


def test_an_accelerator_brings_its_own_steps_guidance_and_sampler_and_gives_them_back(ask: Ask) -> None:
    data = {component: None for component in ask.form.fields.values()}
    typed = {"prompt": "a harbour", "checkpoint": "sd15", "seed": 7, "num_inference_steps": 30, "guidance_scale": 7.5}
    data |= {ask.form[name]: given for name, given in typed.items()}
    decided = ("prompt", "seed", "num_inference_steps", "guidance_scale", "scheduler")
    updates = ask.on_accelerator({**data, ask.form["accelerator"]: "flash-sd"})
    assert [value(updates, ask, name) for name in decided] == ["a harbour", 7, 4, 1.0, "lcm"]
    assert updates[ask.form["negative_prompt"]].interactive is False
    updates = ask.on_accelerator({**data, ask.form["accelerator"]: "none"})
    assert [value(updates, ask, name) for name in decided] == ["a harbour", 7, 30, 7.5, "dpmpp_2m_karras"]


def test_accelerators_are_those_of_the_model_with_their_licence(ask: Ask) -> None:
    offered = ask.fill({"checkpoint": "sdxl"})[ask.form["accelerator"]]
    assert [key for _, key in offered.choices] == ["none", "flash-sdxl", "lcm-sdxl", "hyper-sdxl"]
    assert offered.choices[1][0] == "Flash SDXL — CC BY-NC-ND 4.0, not for commercial use"
    nothing = ask.fill({"checkpoint": "sd21"})[ask.form["accelerator"]]
    assert nothing.interactive is False and nothing.info == "There is none for Stable Diffusion 2.1 yet."


def test_what_an_accelerator_was_not_made_for_is_said(ask: Ask) -> None:
    asked = {"prompt": "a harbour", "checkpoint": "sd15", "accelerator": "flash-sd", "num_inference_steps": 30}
    assert "was made for 2 to 4 steps; 30 may" in ask.warn(asked)
    assert ask.warn({**asked, "num_inference_steps": 4}) == ""


def test_guests_are_told_that_a_model_draws_and_the_owner_is_not(catalogue: Catalogue, tmp_path: Path) -> None:
    def told(**values: str) -> list[str]:
        with gr.Blocks() as page:
            build_ask(
                catalogue, Sources(tmp_path / "sources"), Settings.model_validate({"data_dir": tmp_path, **values})
            )
        return [str(block.value) for block in page.blocks.values() if getattr(block, "elem_id", "") == "consent"]

    assert told(mode="local") == []
    assert CONSENT in told(mode="space")[0]
    assert told(mode="shared", consent_notice=" ") == []
    assert "<b>" not in told(mode="lan", consent_notice="<b>Mind</b>")[0]
