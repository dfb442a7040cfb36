"""A prompt is read once, and reads the same as in plain diffusers."""

from collections.abc import Iterator

import pytest
import torch

from engines.conditioning import PromptCache, remembered_prompt
from engines.devices import Device
from engines.loading import Loaded
from engines.pool import PipelinePool
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
            assert torch.equal(loaded.prompts.read(loaded.pipeline, text).embeds, embeds)


def test_only_the_last_prompts_are_kept(loaded: Loaded) -> None:
    prompts = PromptCache()
    first = prompts.read(loaded.pipeline, "first")
    assert prompts.read(loaded.pipeline, "first") is first
    for number in range(64):
        prompts.read(loaded.pipeline, f"prompt {number}")
    again = prompts.read(loaded.pipeline, "first")
    assert again is not first
    assert torch.equal(again.embeds, first.embeds)


def test_keys_and_values_of_a_prompt_are_computed_once_to_the_same_bits(loaded: Loaded) -> None:
    unet, calls = loaded.pipeline.unet, []
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn(2, 4, 16, 16, generator=generator) for _ in range(3)]
    one, other = (torch.randn(2, 77, 128, generator=generator) for _ in range(2))
    plain = [unet(noisy, 500, embeds).sample for embeds in (one, other) for noisy in latents]
    forward = layer.forward
    layer.forward = lambda embeds: calls.append(0) or forward(embeds)
    try:
        with remembered_prompt(unet):
            remembered = [unet(noisy, 500, embeds).sample for embeds in (one, other) for noisy in latents]
        assert len(calls) == 2
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(remembered, plain, strict=True))
        assert torch.equal(unet(latents[0], 500, one).sample, plain[0])
        assert len(calls) == 3
    finally:
        del layer.forward


def test_after_an_error_every_step_reads_the_prompt_again(loaded: Loaded) -> None:
    unet = loaded.pipeline.unet
    with pytest.raises(ValueError, match="x"), remembered_prompt(unet):
        raise ValueError("x")
    assert not any("forward" in vars(module) for module in unet.modules())
