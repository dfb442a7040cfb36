"""The safety checker: a real one of diffusers', small and with weights that flag everything or nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.base import Step
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from engines.safety import StableDiffusionSafety
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, NotFound, StudioError
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder
from studio.services import load_engine, open_services
from studio.settings import Settings

CIRCLE = "a red circle on a white background"
FLAGS_ALL, FLAGS_NONE = -2.0, 2.0
"""A cosine above which a concept is seen."""


def write_checker(folder: Path, threshold: float, *, is_safe: bool = True) -> Path:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    with torch.no_grad():
        checker.concept_embeds.normal_()
        checker.concept_embeds_weights.fill_(threshold)
        checker.special_care_embeds_weights.fill_(FLAGS_NONE)
    checker.save_pretrained(folder / "safety_checker")
    if not is_safe:
        (folder / "safety_checker" / "model.safetensors").unlink()
        torch.save(checker.state_dict(), folder / "safety_checker" / "pytorch_model.bin")
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessor(**size).save_pretrained(folder / "feature_extractor")
    return folder


@pytest.mark.parametrize(("threshold", "is_unfit"), [(FLAGS_ALL, True), (FLAGS_NONE, False)])
def test_it_says_what_its_weights_say(threshold: float, is_unfit: bool, tmp_path: Path) -> None:
    checker = StableDiffusionSafety(write_checker(tmp_path / "safety", threshold))
    assert checker.is_unfit(Image.new("RGB", (64, 48), "red")) is is_unfit


def test_pickles_and_incomplete_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel):
        StableDiffusionSafety(write_checker(tmp_path / "pickle", FLAGS_NONE, is_safe=False))
    from safetensors.torch import load_file, save_file

    file = write_checker(tmp_path / "part", FLAGS_NONE) / "safety_checker" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("concept_embeds")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CorruptModel):
        StableDiffusionSafety(tmp_path / "part")
    with pytest.raises(NotFound):
        StableDiffusionSafety(tmp_path / "none")


def test_a_flagged_picture_is_not_kept_and_one_that_passes_says_so(tmp_path: Path, catalogue: Catalogue) -> None:
    settings = Settings(data_dir=tmp_path / "data", offline=True, mode="space", watermark="off")
    write_checker(tmp_path / "data" / "safety", FLAGS_ALL)
    with (
        open_services(settings, engine=EngineHolder(lambda: load_engine(settings, catalogue))) as services,
        pytest.raises(StudioError, match="not to be shown"),
    ):
        services.generate(CIRCLE, num_inference_steps=2, seed=7)
    assert list((tmp_path / "data" / "images").rglob("*.png")) == []
    write_checker(tmp_path / "data" / "safety", FLAGS_NONE)
    with open_services(settings, engine=EngineHolder(lambda: load_engine(settings, catalogue))) as services:
        made = services.generate(CIRCLE, num_inference_steps=2, seed=7)[0]
        assert made.environment["safety"] == "checked"
        assert services.generate(CIRCLE, num_inference_steps=2, seed=7)[0] == made


def test_a_preview_of_what_is_not_checked_yet_shows_colours_and_no_shapes(tmp_path: Path, catalogue: Catalogue) -> None:
    settings = Settings(data_dir=tmp_path / "data", offline=True, safety="on")
    write_checker(tmp_path / "data" / "safety", FLAGS_NONE)
    recipe = catalogue.resolve(GenerationRequest(prompt=CIRCLE, seed=7)).single(0)
    seen: dict[bool, Image.Image] = {}
    for own in (settings, settings.model_copy(update={"safety": "off"})):

        def keep(step: Step, is_checked: bool = own.safety == "on") -> None:
            if step.step == step.total:
                seen[is_checked] = step.preview()

        load_engine(own, catalogue).generate(recipe, (CIRCLE, ""), cancelled=lambda: False, on_step=keep)
    assert judge(seen[False].resize((128, 128)), parse(CIRCLE)).correct
    assert not judge(seen[True].resize((128, 128)), parse(CIRCLE)).correct
    assert seen[True].size == seen[False].size
    means = [np.asarray(each, dtype=float).mean(axis=(0, 1)) for each in seen.values()]
    assert np.abs(means[0] - means[1]).max() < 12


def test_what_was_drawn_unchecked_does_not_stand_for_what_has_to_be(tmp_path: Path, catalogue: Catalogue) -> None:
    own = Settings(data_dir=tmp_path / "data", offline=True)
    with open_services(own, engine=EngineHolder(lambda: load_engine(own, catalogue))) as services:
        services.generate(CIRCLE, num_inference_steps=2, seed=7)
    write_checker(tmp_path / "data" / "safety", FLAGS_ALL)
    checked = own.model_copy(update={"safety": "on"})
    with (
        open_services(checked, engine=EngineHolder(lambda: load_engine(checked, catalogue))) as services,
        pytest.raises(StudioError, match="not to be shown"),
    ):
        services.generate(CIRCLE, num_inference_steps=2, seed=7)


def test_who_is_served_decides_unless_it_is_said(tmp_path: Path) -> None:
    def is_on(**values: str) -> bool:
        return Settings.model_validate({"data_dir": tmp_path, **values}).safety_dir is not None

    assert not is_on(mode="space") and is_on(mode="local", safety="on")
    (tmp_path / "safety").mkdir()
    assert [is_on(mode=mode) for mode in ("local", "lan", "shared", "space")] == [False, True, True, True]
    assert not is_on(mode="space", safety="off")


def test_a_check_that_is_asked_for_and_cannot_be_made_is_said_before_anything_is_drawn(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    settings = Settings(data_dir=tmp_path / "data", offline=True, safety="on")
    with (
        open_services(settings, engine=EngineHolder(lambda: load_engine(settings, catalogue))) as services,
        pytest.raises(StudioError, match="no safety checker") as caught,
    ):
        services.generate(CIRCLE, num_inference_steps=2, seed=7)
    assert str(tmp_path) not in str(caught.value)
