"""Adapters act while they are attached, as much as asked, and leave no bit changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from engines.adapters import target_of
from engines.attaching import AttachedAdapter, MergedWeights, attached
from engines.devices import Device
from engines.loading import Loaded
from engines.pool import PipelinePool
from lora_registry.weights import AdapterWeights, load_weights
from studio.domain.catalogue import Catalogue
from studio.settings import PROJECT_ROOT

RANK, ALPHA = 4, 2.0
MODULES = {
    "unet": (
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "down_blocks.1.attentions.0.proj_in",
        "up_blocks.0.resnets.0.conv1",
        "down_blocks.0.downsamplers.0.conv",
    ),
    "text_encoder": tuple(f"encoder.layers.1.self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
}


@pytest.fixture(scope="module")
def loaded(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    pool = PipelinePool(PROJECT_ROOT, tmp_path_factory.mktemp("models"), Device(name="cpu", dtype=torch.float32))
    with pool.lease(catalogue.checkpoint("pocket-sd15")) as lent, torch.inference_mode():
        yield lent


def adapter_file(loaded: Loaded, path: Path, seed: int = 0, parts: tuple[str, ...] = ("unet", "text_encoder")) -> Path:
    """A kohya file for the pocket model: attention, a 1×1 projection and 3×3 kernels, alpha unlike rank."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for part in parts:
        for name in MODULES[part]:
            weight = getattr(loaded.pipeline, part).get_submodule(name).weight
            prefix = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}[part]
            key = f"{prefix}_{name.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = torch.randn(RANK, *weight.shape[1:], generator=generator) * 0.1
            ones = (1,) * (weight.ndim - 2)
            tensors[f"{key}.lora_up.weight"] = torch.randn(len(weight), RANK, *ones, generator=generator) * 0.1
            tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def weights_of(loaded: Loaded, path: Path) -> AdapterWeights:
    return load_weights(path, target_of(loaded))


def noise_pred(pipeline: StableDiffusionPipeline) -> Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    embeds = pipeline.encode_prompt("a red star", "cpu", 1, False)[0]
    return pipeline.unet(latents, 500, embeds).sample


@pytest.mark.parametrize("scale", [1.0, 0.6, -0.5])
def test_an_adapter_acts_as_it_does_in_diffusers(loaded: Loaded, tmp_path: Path, scale: float) -> None:
    path = adapter_file(loaded, tmp_path / "style.safetensors")
    theirs = StableDiffusionPipeline.from_pretrained(
        PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", dtype=torch.float32, safety_checker=None
    )
    theirs.load_lora_weights(path, adapter_name="style")
    theirs.set_adapters("style", scale)
    plain = noise_pred(loaded.pipeline)
    with attached(loaded.pipeline, [AttachedAdapter(weights=weights_of(loaded, path), lora_scale=scale)]):
        ours = noise_pred(loaded.pipeline)
    expected = noise_pred(theirs)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_after_any_number_of_rounds_every_bit_is_as_it_was(loaded: Loaded, tmp_path: Path) -> None:
    before = noise_pred(loaded.pipeline)
    weights = [weights_of(loaded, adapter_file(loaded, tmp_path / f"{n}.safetensors", seed=n)) for n in range(2)]
    for number in range(30):
        with attached(loaded.pipeline, [AttachedAdapter(weights=weights[number % 2], lora_scale=number / 10)]):
            pass
    with pytest.raises(ValueError, match="x"), attached(loaded.pipeline, [AttachedAdapter(weights=weights[0])]):
        raise ValueError("x")
    assert torch.equal(noise_pred(loaded.pipeline), before)
    modules = (*loaded.pipeline.unet.modules(), *loaded.pipeline.text_encoder.modules())
    assert not any(module._forward_hooks for module in modules)


def test_weights_that_are_merged_do_the_same_and_leave_the_very_tensors_that_were_there(
    loaded: Loaded, tmp_path: Path
) -> None:
    before, merged = noise_pred(loaded.pipeline), MergedWeights()
    tensors = {name: tensor.data_ptr() for name, tensor in loaded.pipeline.unet.named_parameters()}
    adapters = [
        AttachedAdapter(weights=weights_of(loaded, adapter_file(loaded, tmp_path / f"{n}.safetensors", seed=n)))
        for n in range(2)
    ]
    for chosen in (adapters, adapters[:1], adapters):
        with attached(loaded.pipeline, chosen):
            beside = noise_pred(loaded.pipeline)
        with merged.in_place(loaded.pipeline, chosen):
            torch.testing.assert_close(noise_pred(loaded.pipeline), beside, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="x"), merged.in_place(loaded.pipeline, adapters):
        raise ValueError("x")
    assert {name: tensor.data_ptr() for name, tensor in loaded.pipeline.unet.named_parameters()} == tensors
    assert torch.equal(noise_pred(loaded.pipeline), before)


def test_several_adapters_add_up(loaded: Loaded, tmp_path: Path) -> None:
    one, other = (
        AttachedAdapter(weights=weights_of(loaded, adapter_file(loaded, tmp_path / f"{n}.safetensors", seed=n)))
        for n in range(2)
    )
    with attached(loaded.pipeline, [one, other]):
        both = noise_pred(loaded.pipeline)
    with attached(loaded.pipeline, [one]), attached(loaded.pipeline, [other]):
        nested = noise_pred(loaded.pipeline)
    torch.testing.assert_close(both, nested, atol=1e-5, rtol=0)


def test_each_part_has_a_scale_of_its_own(loaded: Loaded, tmp_path: Path) -> None:
    weights = weights_of(loaded, adapter_file(loaded, tmp_path / "x.safetensors"))
    adapter = AttachedAdapter(weights=weights, part_scales={"text_encoder": 0.0})
    assert AttachedAdapter(weights=weights).changes_text
    assert not adapter.changes_text
    embeds = loaded.pipeline.encode_prompt("a red star", "cpu", 1, False)[0]
    with attached(loaded.pipeline, [adapter]):
        assert torch.equal(loaded.pipeline.encode_prompt("a red star", "cpu", 1, False)[0], embeds)
    with attached(loaded.pipeline, [AttachedAdapter(weights=weights)]):
        assert not torch.equal(loaded.pipeline.encode_prompt("a red star", "cpu", 1, False)[0], embeds)


def test_a_scale_of_nothing_changes_no_bit(loaded: Loaded, tmp_path: Path) -> None:
    before = noise_pred(loaded.pipeline)
    weights = weights_of(loaded, adapter_file(loaded, tmp_path / "x.safetensors"))
    with attached(loaded.pipeline, [AttachedAdapter(weights=weights, lora_scale=0.0)]):
        assert torch.equal(noise_pred(loaded.pipeline), before)
