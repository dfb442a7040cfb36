"""An adapter on UNet and text encoders: what it says, off and on, and in the files that it is written to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from engines.conditioning import read_prompt
from engines.pocket.accuracy import Sampling
from engines.training.adapter import AdapterInTraining
from lora_registry.export import write_adapter
from studio.domain.adapter import FamilyId, Layout
from studio.domain.catalogue import Catalogue
from studio.domain.tensors import read_header
from studio.domain.training import parse_training, resolve_training
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT

PLAN = resolve_training(
    parse_training({"name": "x", "rank": 4, "alpha": 8, "text_learning_rate": 1e-3, "reach": "all"}),
    Catalogue.load(CATALOGUE_PATH),
    12,
)


def pipeline_of(family: FamilyId) -> Any:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    folder = PROJECT_ROOT / "engines" / "pocket" / "weights" / f"pocket-{family}"
    pipeline = kind.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False)
    return pipeline


def stirred(adapter: AdapterInTraining) -> None:
    """As if it had learnt something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for lora in adapter.parts.values():
            for name, parameter in lora.named_parameters():
                if name.endswith("up"):
                    parameter.copy_(0.03 * torch.randn(parameter.shape, generator=generator))


def drawn(pipeline: Any) -> Tensor:
    pipeline.scheduler = Sampling().scheduler(pipeline.scheduler.config)
    size = 8 * pipeline.unet.config.sample_size
    return torch.from_numpy(
        pipeline(
            "a red star on a white background", width=size, height=size, num_inference_steps=2, guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0), output_type="latent",
        ).images.numpy()
    )  # fmt: skip


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_diffusers_draws_with_either_file_what_was_drawn_in_training(tmp_path: Path, family: FamilyId) -> None:
    pipeline = pipeline_of(family)
    before = drawn(pipeline)
    adapter = AdapterInTraining(pipeline, PLAN)
    assert not adapter.has_learnt() and torch.equal(drawn(pipeline), before)
    stirred(adapter)
    assert adapter.has_learnt()
    expected = drawn(pipeline)
    assert (expected - before).abs().max() > 0.05
    with adapter.off():
        assert torch.equal(drawn(pipeline), before)
    factors = adapter.factors()
    adapter.detach()
    layouts: tuple[Layout, ...] = ("kohya", "peft")
    for layout in layouts:
        path = tmp_path / f"{layout}.safetensors"
        write_adapter(path, factors, family, layout, {"modelspec.title": "x"}, torch.float32)
        pipeline.load_lora_weights(path)
        torch.testing.assert_close(drawn(pipeline), expected, atol=2e-4, rtol=1e-4)
        pipeline.unload_lora_weights()
        assert torch.equal(drawn(pipeline), before)


@pytest.mark.parametrize(("family", "prefixes"), [("sd15", {"lora_te"}), ("sdxl", {"lora_te1", "lora_te2"})])
def test_text_encoders_have_the_names_that_other_programs_look_for(
    tmp_path: Path, family: FamilyId, prefixes: set[str]
) -> None:
    adapter = AdapterInTraining(pipeline_of(family), PLAN)
    path = tmp_path / "x.safetensors"
    write_adapter(path, adapter.factors(), family, "kohya", {"modelspec.title": "x"}, torch.float32)
    names = [name for name in read_header(path).tensors if name.startswith("lora_te")]
    assert {name.split("_text_model_encoder_layers_")[0] for name in names} == prefixes
    assert any("self_attn_q_proj" in name for name in names) and any("mlp_fc1" in name for name in names)


def test_words_are_learnt_with_gradients_in_the_text_encoder() -> None:
    pipeline = pipeline_of("sd15")
    adapter = AdapterInTraining(pipeline, PLAN)
    stirred(adapter)
    read_prompt(pipeline, "a red star", False).embeds.square().mean().backward()
    learning = [parameter.grad for parameter in adapter.parts["text_encoder"].parameters()]
    assert all(grad is not None and grad.any() for grad in learning)
    assert all(parameter.grad is None for parameter in pipeline.text_encoder.parameters())
    assert [group["peak"] for group in adapter.groups()] == [PLAN.learning_rate, 1e-3]
