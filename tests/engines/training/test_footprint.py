"""What is told of an adapter before anything is loaded is what it turns out to be; saving memory changes no number."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig

from engines.full_size import family_folder
from engines.parts import class_named
from engines.training.adapter import AdapterInTraining
from engines.training.lora import TrainableLora, reached, reached_text
from engines.training.preparing import prepare_for_training
from engines.training.reach import REACHES, adapter_values
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import Reach
from studio.domain.training import parse_training, resolve_training
from studio.settings import PROJECT_ROOT

WEIGHTS = PROJECT_ROOT / "engines" / "pocket" / "weights"
PIPELINES = {"pocket-sd15": StableDiffusionPipeline, "pocket-sdxl": StableDiffusionXLPipeline}


def count(*loras: TrainableLora) -> int:
    return sum(parameter.numel() for lora in loras for parameter in lora.parameters())


@pytest.mark.parametrize("checkpoint", PIPELINES)
def test_numbers_are_counted_without_loading(catalogue: Catalogue, checkpoint: str) -> None:
    pipeline = PIPELINES[checkpoint].from_pretrained(WEIGHTS / checkpoint, safety_checker=None, local_files_only=True)
    family = catalogue.checkpoint(checkpoint).family
    values: list[tuple[Reach, int, float]] = [
        ("all", 256, 1e-3),
        ("attention", 8, 0),
        ("attention_and_feed_forward", 4, 0),
    ]
    for reach, rank, text_rate in values:
        asked = {"name": "x", "folder": "x", "checkpoint": checkpoint, "reach": reach, "rank": rank}
        plan = resolve_training(parse_training({**asked, "text_learning_rate": text_rate}), catalogue, 16)
        adapter = AdapterInTraining(pipeline, plan)
        told = adapter_values(family, WEIGHTS / checkpoint, reach, rank, learns_text=bool(text_rate))
        assert told == count(*adapter.parts.values())
        adapter.detach()


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_numbers_of_full_size_models_are_known_before_they_are_here(family: str) -> None:
    folder = family_folder(family)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        texts = 0
        for path in sorted(folder.glob("text_encoder*/config.json")):
            config = json.loads(path.read_text())
            encoder = class_named(config["architectures"][0])(CLIPTextConfig(**config))
            texts += count(TrainableLora(encoder, reached_text(encoder), 2, 2.0))
        for reach in REACHES:
            lora = TrainableLora(unet, reached(unet, reach), 2, 2.0)
            assert adapter_values(family, None, reach, 2, learns_text=False) == count(lora)
            assert adapter_values(family, None, reach, 2, learns_text=True) == count(lora) + texts
            lora.detach()


def gradients(*, is_checkpointed: bool) -> list[Tensor]:
    """Of a step with dropout."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        WEIGHTS / "pocket-sd15", safety_checker=None, local_files_only=True
    )
    prepare_for_training(pipeline, is_pocket=True, is_checkpointed=is_checkpointed)
    torch.manual_seed(0)
    lora = TrainableLora(pipeline.unet, reached(pipeline.unet, "all"), 4, 4.0, dropout=0.2)
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    noisy, told = torch.randn(2, 4, 16, 16), torch.randn(2, 77, pipeline.unet.config.cross_attention_dim)
    pipeline.unet(noisy, torch.tensor([10, 900]), told).sample.square().mean().backward()
    return [parameter.grad for parameter in lora.parameters() if parameter.grad is not None]


def test_blocks_that_are_computed_twice_teach_the_same_to_the_bit() -> None:
    kept, again = gradients(is_checkpointed=False), gradients(is_checkpointed=True)
    assert len(kept) == len(again) > 100 and any(gradient.any() for gradient in kept)
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
