"""A LoRA in training: nothing at first, off to the bit, and the same in every file that it is written to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from engines.training.lora import TrainableLora, reached
from lora_registry.export import write_adapter
from lora_registry.weights import load_weights
from studio.domain.adapter import AdapterTarget, Layout
from studio.domain.distillation import Reach
from tests.lora_registry.making import tiny_unet, weight_shapes

UNET = tiny_unet()
NOISY = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TOLD = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))


def output(unet: UNet2DConditionModel = UNET) -> Tensor:
    return unet(NOISY, torch.tensor([10, 900]), TOLD).sample


def trained(reach: Reach = "all", rank: int = 4, alpha: float = 2.0) -> TrainableLora:
    """One that changes something, after a step of training."""
    torch.manual_seed(2)
    lora = TrainableLora(UNET, reached(UNET, reach), rank, alpha)
    optimizer = torch.optim.AdamW(lora.parameters(), lr=0.02)
    output().square().mean().backward()
    optimizer.step()
    return lora


def test_it_changes_nothing_until_it_is_trained_and_nothing_while_it_is_off() -> None:
    UNET.requires_grad_(False)
    before = output()
    lora = TrainableLora(UNET, reached(UNET, "all"), 4, 4.0)
    assert torch.equal(output(), before)
    lora.detach()
    lora = trained()
    try:
        changed = output()
        assert not torch.allclose(changed, before, atol=1e-3)
        with lora.off():
            assert torch.equal(output(), before)
        assert torch.equal(output(), changed)
    finally:
        lora.detach()
    assert torch.equal(output(), before)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_added_to_weights_it_says_and_learns_the_same(strength: float) -> None:
    UNET.requires_grad_(False)
    before, beside = output(), trained()
    beside.zero_grad()
    with beside.at(strength):
        expected = output()
        expected.square().mean().backward()
    beside.detach()
    within = TrainableLora(UNET, reached(UNET, "all"), 4, 2.0, in_weights=True)
    within.load_state_dict(beside.state_dict())
    try:
        with within.at(strength):
            told = output()
            told.square().mean().backward()
        with within.off():
            assert torch.equal(output(), before)
    finally:
        within.detach()
    torch.testing.assert_close(told, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(output(), before)
    for one, other in zip(beside.parameters(), within.parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-3)


def test_only_its_own_factors_are_trained() -> None:
    UNET.requires_grad_(False)
    lora = trained()
    lora.detach()
    assert all(parameter.grad is not None for parameter in lora.parameters())
    assert all(parameter.grad is None for parameter in UNET.parameters())
    names = {name.rsplit(".", 1)[-1] for name, _ in lora.named_parameters()}
    assert names == {"down", "up"}


def test_each_reach_is_part_of_the_next() -> None:
    attention, more, everything = (
        set(reached(UNET, reach)) for reach in ("attention", "attention_and_feed_forward", "all")
    )
    assert attention < more < everything
    assert all(".attn" in path for path in attention)
    assert not any(path.startswith(("conv_in", "conv_out", "time_embedding")) for path in everything)


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_what_was_learnt_comes_back_from_a_file(tmp_path: Path, layout: Layout) -> None:
    lora = trained()
    lora.detach()
    learnt = lora.factors()
    path = tmp_path / "learnt.safetensors"
    write_adapter(path, {"unet": learnt}, "sd15", layout, {"modelspec.title": "Learnt"}, torch.float32)
    target = AdapterTarget(title="Tiny", family="sd15", modules={"unet": weight_shapes(UNET)})
    read = load_weights(path, target)["unet"]
    assert read.keys() == learnt.keys()
    for place, change in learnt.items():
        torch.testing.assert_close(read[place].product().flatten(), change.product().flatten())


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_diffusers_loads_the_file_and_computes_the_same(tmp_path: Path, layout: Layout) -> None:
    lora = trained()
    expected = output()
    lora.detach()
    write_adapter(tmp_path / "x.safetensors", {"unet": lora.factors()}, "sd15", layout, None, torch.float32)
    unet = UNet2DConditionModel.from_config(UNET.config)
    unet.load_state_dict(UNET.state_dict())
    read: Any = StableDiffusionPipeline.lora_state_dict(
        tmp_path / "x.safetensors", unet_config=unet.config, return_lora_metadata=True
    )
    state, alphas, metadata = read
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    torch.testing.assert_close(output(unet), expected, atol=1e-4, rtol=1e-4)
