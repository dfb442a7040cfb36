"""Prompts of any length and weight: what the text encoder reads, and what becomes of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engines.conditioning import Conditioning, evened, read_meant, read_prompt
from engines.devices import Device
from engines.pool import PipelinePool
from engines.prompt_chunks import chunks_of
from studio.domain.catalogue import Catalogue
from studio.settings import PROJECT_ROOT

RED = "a red circle on a white background"


@pytest.fixture(scope="module", params=["pocket-sd15", "pocket-sd21", "pocket-sdxl"])
def pipeline(
    request: pytest.FixtureRequest, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    pool = PipelinePool(PROJECT_ROOT, tmp_path_factory.mktemp("models"), Device(name="cpu", dtype=torch.float32))
    with pool.lease(catalogue.checkpoint(request.param)) as lent, torch.inference_mode():
        yield lent.pipeline


def words(pipeline: Any, prompt: str) -> list[list[int]]:
    return [chunk.tokens for chunk in chunks_of(pipeline.tokenizer, prompt)]


def test_what_is_plain_and_fits_is_read_as_diffusers_does_to_the_bit(pipeline: Any) -> None:
    for text in (RED, "", "3:2"):
        ours, theirs = read_meant(pipeline, text), read_prompt(pipeline, text, False)
        assert torch.equal(ours.embeds, theirs.embeds)
        assert ours.pooled is None or torch.equal(ours.pooled, theirs.pooled)


def test_a_weight_of_one_changes_nothing(pipeline: Any) -> None:
    ours, theirs = read_meant(pipeline, f"({RED}:1)"), read_prompt(pipeline, RED, False)
    assert torch.allclose(ours.embeds, theirs.embeds, atol=1e-5)
    assert ours.pooled is None or torch.allclose(ours.pooled, theirs.pooled, atol=1e-5)


def test_a_weight_scales_what_its_tokens_read_as_and_the_mean_stays(pipeline: Any) -> None:
    ours, plain = read_meant(pipeline, "a (red:1.5) circle").embeds, read_prompt(pipeline, "a red circle", False).embeds
    width = pipeline.text_encoder.config.hidden_size
    before = len(pipeline.tokenizer("a", add_special_tokens=False).input_ids) + 1
    count = len(pipeline.tokenizer("red", add_special_tokens=False).input_ids)
    weights = torch.ones(plain.shape[1])
    weights[before : before + count] = 1.5
    for part in (slice(0, width), slice(width, None)):
        theirs = plain[..., part] * weights[:, None]
        if theirs.numel():
            theirs = theirs * (plain[..., part].mean() / theirs.mean())
            assert torch.allclose(ours[..., part], theirs, atol=1e-4, rtol=1e-4)


def test_a_long_prompt_is_read_in_chunks_and_nothing_of_it_is_lost(pipeline: Any) -> None:
    phrase = "a red circle, a blue star, "
    prompt = phrase * 20
    chunks = words(pipeline, prompt)
    whole = pipeline.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    assert len(chunks) > 1 and [token for chunk in chunks for token in chunk] == list(whole)
    comma = pipeline.tokenizer(",", add_special_tokens=False).input_ids[-1]
    assert all(len(chunk) <= 75 and chunk[-1] == comma for chunk in chunks[:-1]), "no phrase is torn"
    read = read_meant(pipeline, prompt)
    assert read.embeds.shape[1] == 77 * len(chunks)
    tail = pipeline.tokenizer.decode(chunks[-1])
    alone = read_meant(pipeline, f"({tail}:1)").embeds
    if words(pipeline, tail) == [chunks[-1]]:
        assert torch.allclose(read.embeds[:, -77:], alone, atol=1e-5), "each chunk is read by itself"


def test_a_break_is_two_prompts_side_by_side(pipeline: Any) -> None:
    both = read_meant(pipeline, f"{RED} BREAK a blue star")
    first, second = read_prompt(pipeline, RED, False), read_prompt(pipeline, "a blue star", False)
    assert torch.allclose(both.embeds, torch.cat([first.embeds, second.embeds], dim=1), atol=1e-5)
    assert both.pooled is None or torch.allclose(both.pooled, first.pooled, atol=1e-5), "pooled from the first chunk"


def test_a_negative_prompt_is_made_as_long_as_the_prompt() -> None:
    long, short, empty = (Conditioning(embeds=torch.full((1, 77 * n, 4), n)) for n in (3, 1, 1))
    prompt, negative = evened(long, short, lambda: empty)
    assert negative and prompt.embeds.shape == negative.embeds.shape == (1, 231, 4)
    assert evened(long, None, lambda: empty) == (long, None)
