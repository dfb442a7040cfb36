"""A prompt whose words weigh something draws what it says, is recorded as typed, and judged by its words."""

import numpy as np
import pytest
from PIL import Image

from studio.domain.errors import StudioError
from studio.domain.images import ImageRecord
from studio.infotext import infotext, request_from_infotext
from studio.prompts import prompt_remarks
from studio.services import Services

STEPS = 8


def redness(services: Services, record: ImageRecord) -> float:
    """How much more red than blue there is in what stands before the background, 0 to 255."""
    pixels = np.asarray(Image.open(services.gallery.path(record)).convert("RGB"), float)
    background = np.median(pixels[:6].reshape(-1, 3), axis=0)
    thing = pixels[np.abs(pixels - background).sum(axis=-1) > 90]
    return float((thing[:, 0] - thing[:, 2]).mean())


def test_what_weighs_more_shows_more(services: Services) -> None:
    for seed in range(2):
        told: list[float] = []
        for weight in (0.6, 1.0, 1.4, 1.8):
            prompt = f"a (red:{weight}) blue circle on a white background"
            (record,) = services.generate(prompt, seed=seed, num_inference_steps=STEPS)
            told.append(redness(services, record))
        assert told == sorted(told) and told[-1] > told[0] + 10, told


def test_prompts_of_any_length_are_drawn_with_negatives_of_any_other(services: Services) -> None:
    long = ", ".join(["a red circle on a white background"] * 12)
    (first,) = services.generate(long, seed=1, num_inference_steps=2, negative_prompt="blue")
    (second,) = services.generate("a red circle", seed=1, num_inference_steps=2, negative_prompt=long)
    (third,) = services.generate(
        f"{long} BREAK (a blue star:1.2)", seed=1, num_inference_steps=2, checkpoint="pocket-sdxl"
    )
    assert len({services.gallery.path(record).read_bytes() for record in (first, second, third)}) == 3


def test_it_is_kept_as_typed_and_judged_by_its_words(services: Services) -> None:
    typed = r"a (red:1.3) circle on a [white] background BREAK \(really\)"
    (record,) = services.generate(typed, seed=3, num_inference_steps=2)
    assert record.recipe.prompt == typed
    assert request_from_infotext(infotext(record, services.catalogue), services.catalogue).request.prompt == typed
    score = services.scoring.score(record, services.catalogue.checkpoint(record.recipe.checkpoint))
    assert score and score.text == "a red circle on a white background (really)"
    checkpoint = services.catalogue.checkpoint("pocket-sd15")
    style = services.catalogue.style("none")
    assert prompt_remarks(checkpoint, style, "a (red:1.3) circle on a [white] background") == ()
    assert "never learnt “wibble”" in prompt_remarks(checkpoint, style, "a (wibble:1.3) circle")[0]


def test_clip_skip_reads_an_earlier_layer_and_is_told(services: Services) -> None:
    prompt = "a red circle on a white background"
    (usual,) = services.generate(prompt, seed=4, num_inference_steps=4)
    (same,) = services.generate(prompt, seed=4, num_inference_steps=4, clip_skip=1, again=True)
    (skipped,) = services.generate(prompt, seed=4, num_inference_steps=4, clip_skip=2)
    assert same.pixels_sha256 == usual.pixels_sha256 != skipped.pixels_sha256
    told = infotext(skipped, services.catalogue)
    assert "Clip skip: 2" in told and "Clip skip" not in infotext(usual, services.catalogue)
    assert request_from_infotext(told, services.catalogue).request.clip_skip == 2
    with pytest.raises(StudioError, match="Clip skip is 9"):
        services.generate(prompt, seed=4, num_inference_steps=4, clip_skip=9)
