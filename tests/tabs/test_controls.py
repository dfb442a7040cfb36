import gradio as gr
import pytest

from studio.domain.catalogue import Catalogue
from tabs import controls


@pytest.mark.parametrize("field", ["num_inference_steps", "guidance_scale", "num_images"])
def test_a_slider_takes_bounds_and_words_from_the_field(field: str) -> None:
    low, high, _ = controls.bounds(field)
    slider = controls.build_slider(field, 1)
    assert (slider.minimum, slider.maximum) == (low, high)
    assert (slider.label, slider.info) == (controls.title(field), controls.help_text(field))


def test_a_size_slider_stays_within_what_the_checkpoint_draws(catalogue: Catalogue) -> None:
    for checkpoint in catalogue.checkpoints:
        slider = controls.build_size("width", checkpoint)
        assert (slider.minimum, slider.maximum, slider.step) == (checkpoint.min_size, checkpoint.max_size, 8)


def test_shapes_are_computed_from_the_native_size(catalogue: Catalogue) -> None:
    pocket = catalogue.checkpoint("pocket-sd15")
    assert [value for _, value in controls.shape_choices(pocket)] == ["128x128", "96x128", "128x96"]
    assert [value for _, value in controls.shape_choices(catalogue.checkpoint("sd15"))][1] == "384x512"


def test_a_size_of_its_own_selects_no_shape(catalogue: Catalogue) -> None:
    pocket = catalogue.checkpoint("pocket-sd15")
    assert controls.shape_of(96, 128, pocket) == "96x128"
    assert controls.shape_of(104, 128, pocket) is None
    assert controls.shape_of(None, 128, pocket) is None


@pytest.mark.parametrize(("guidance", "is_used"), [(0.0, False), (1.0, False), (1.5, True), (None, False)])
def test_the_negative_prompt_is_off_where_guidance_is_and_says_why(guidance: float | None, is_used: bool) -> None:
    with gr.Blocks():
        box = controls.negative_prompt_for(guidance)
    assert box.interactive is is_used
    assert (box.info == controls.GUIDANCE_OFF) is not is_used


def test_a_model_that_must_be_fetched_says_how_much(catalogue: Catalogue) -> None:
    titles = dict((value, title) for title, value in controls.checkpoint_choices(catalogue))
    assert titles["sd15"].endswith("download 4.3 GB")
    assert "download" not in titles["pocket-sd15"]
    assert "CreativeML Open RAIL-M" in controls.checkpoint_note(catalogue.checkpoint("sd15"))


def test_what_a_person_typed_is_never_html() -> None:
    assert "<script>" not in controls.error_html("<script>alert(1)</script>")
    assert "<img" not in controls.warning_html("<img src=x>")
