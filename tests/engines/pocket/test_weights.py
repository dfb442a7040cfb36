"""The embedded models are what their cards say, and draw what the page offers them."""

import json

import pytest
import torch

from engines.base import Engine
from engines.identity import find_place
from engines.loading import load
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from engines.prediction import measure_prediction_type
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.request import GenerationRequest
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT

POCKET = [row for row in Catalogue.load(CATALOGUE_PATH).checkpoints if row.is_pocket]
SEEDS = range(2)


@pytest.mark.parametrize("row", POCKET, ids=lambda row: row.id)
def test_what_the_page_offers_is_drawn_right(engine: Engine, catalogue: Catalogue, row: Checkpoint) -> None:
    wrong = []
    for prompt in row.examples:
        scene = parse(prompt)
        assert scene is not None, prompt
        for seed in SEEDS:
            recipe = catalogue.resolve(GenerationRequest(prompt=prompt, checkpoint=row.id, seed=seed))
            picture = engine.generate(recipe, (prompt, ""), cancelled=lambda: False, on_step=lambda step: None)
            assert picture.image.size == (row.native_size, row.native_size)
            if not judge(picture.image, scene).correct:
                wrong.append((prompt, seed))
    assert len(wrong) <= 1, "the cards say that about one in twenty-five comes out wrong"


@pytest.mark.parametrize("row", POCKET, ids=lambda row: row.id)
def test_what_a_model_predicts_shows_in_its_answers(row: Checkpoint) -> None:
    place = find_place(row, PROJECT_ROOT, PROJECT_ROOT / "nowhere")
    assert place is not None
    assert measure_prediction_type(load(row, place, "cpu", torch.float32).pipeline) == row.prediction_type


def test_pocket_sdxl_has_the_conventions_of_its_family() -> None:
    folder = PROJECT_ROOT / "engines/pocket/weights/pocket-sdxl"
    unet, index = (json.loads((folder / name).read_text()) for name in ("unet/config.json", "model_index.json"))
    encoders = [json.loads((folder / f"text_encoder{n}/config.json").read_text()) for n in ("", "_2")]
    widths = [encoder["hidden_size"] for encoder in encoders]
    assert len(set(widths)) == 2 and unet["cross_attention_dim"] == sum(widths)
    assert unet["addition_embed_type"] == "text_time" and unet["sample_size"] == 24
    assert encoders[1]["architectures"] == ["CLIPTextModelWithProjection"]
    assert json.loads((folder / "vae/config.json").read_text())["scaling_factor"] == 0.13025
    assert index["force_zeros_for_empty_prompt"] is False


def test_pocket_sd21_has_the_conventions_of_its_family() -> None:
    folder = PROJECT_ROOT / "engines/pocket/weights/pocket-sd21"
    unet = json.loads((folder / "unet/config.json").read_text())
    assert unet["use_linear_projection"] and unet["upcast_attention"] and unet["sample_size"] == 20
    assert json.loads((folder / "text_encoder/config.json").read_text())["num_hidden_layers"] == 4
    assert json.loads((folder / "scheduler/scheduler_config.json").read_text())["prediction_type"] == "v_prediction"
