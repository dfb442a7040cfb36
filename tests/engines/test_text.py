"""A prompt is read once, and reads the same as in plain diffusers."""

from collections.abc import Iterator

import pytest
import torch

from engines.devices import Device
from engines.pool import Loaded, PipelinePool
from engines.text import PromptCache
from studio.domain.catalogue import Catalogue
from studio.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def loaded(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    pool = PipelinePool(PROJECT_ROOT, tmp_path_factory.mktemp("models"), Device(name="cpu", dtype=torch.float32))
    with pool.lease(catalogue.checkpoint("pocket-sd15")) as lent, torch.inference_mode():
        yield lent


def test_a_prompt_reads_as_diffusers_would_read_it_the_first_time_and_later(loaded: Loaded) -> None:
    texts = ("a red circle", "")
    wanted = loaded.pipeline.encode_prompt(texts[0], "cpu", 1, True, texts[1])
    for _ in range(2):
        for text, embeds in zip(texts, wanted, strict=True):
            assert torch.equal(loaded.prompts.embeds(loaded.pipeline, text), embeds)


def test_only_the_last_prompts_are_kept(loaded: Loaded) -> None:
    prompts = PromptCache()
    first = prompts.embeds(loaded.pipeline, "first")
    assert prompts.embeds(loaded.pipeline, "first") is first
    for number in range(64):
        prompts.embeds(loaded.pipeline, f"prompt {number}")
    again = prompts.embeds(loaded.pipeline, "first")
    assert again is not first
    assert torch.equal(again, first)
