from pathlib import Path

import gradio as gr
import pytest

from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.request import RANDOM_SEED, GenerationRequest
from studio.settings import Settings
from studio.sources import Sources
from tabs.ask_layout import build_ask
from tabs.form import Form


@pytest.fixture
def form(catalogue: Catalogue, tmp_path: Path) -> Form:
    with gr.Blocks():
        return build_ask(catalogue, Sources(tmp_path), Settings(data_dir=tmp_path)).form


def data(form: Form, **values: object) -> dict:
    return {component: values.get(name) for name, component in form.fields.items()}


def test_every_control_is_a_field_of_the_request_and_every_field_has_a_control(form: Form) -> None:
    """But for the prompt that a choice was made from: nobody types a choice."""
    assert form.fields.keys() == GenerationRequest.model_fields.keys() - {"typed_prompt"}


def test_read_gives_the_request_that_the_controls_describe(form: Form) -> None:
    request = form.read(data(form, prompt="a red circle", width=96, seed=7, guidance_scale=0.0))
    assert request == GenerationRequest(prompt="a red circle", width=96, seed=7, guidance_scale=0.0)


def test_an_empty_control_leaves_the_choice_to_the_catalogue(form: Form) -> None:
    request = form.read(data(form, prompt="a red circle"))
    assert (request.num_inference_steps, request.seed) == (None, RANDOM_SEED)


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", "  "), ("seed", -2), ("width", 100), ("num_images", 65), ("guidance_scale", 31)]
)
def test_an_error_names_the_control(form: Form, field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        form.read(data(form, **{"prompt": "a red circle", field: value}))
    assert caught.value.field == field
