"""A steered UNet draws what diffusers' own ControlNet pipeline draws, and is as it was afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from engines.controlling import controlled, hint_of
from engines.edges import edges
from engines.pocket.grammar import parse
from engines.pocket.world import render
from engines.small_controls import DOWN, UP, new_control, own_modules, packed, unpacked
from studio.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "engines" / "pocket" / "weights" / "pocket-sd15"
CALL: dict[str, Any] = {"prompt": "a red circle on a white background", "num_inference_steps": 3, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    made = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def tensors(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Of a ControlNet that steers, at random."""
    torch.manual_seed(1)
    control = new_control(pipeline.unet)
    for name in ("controlnet_down_blocks", "controlnet_mid_block"):
        for parameter in own_modules(control)[name].parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.05)
    path = "mid_block.resnets.0.conv1"
    weight = control.get_submodule(path).weight
    factors = {path: (torch.randn(2, *weight.shape[1:]) * 0.05, torch.randn(len(weight), 2, 1, 1) * 0.05)}
    return packed(control, factors)


@pytest.fixture
def hint() -> Image.Image:
    scene = parse("a large red star on a white background")
    assert scene is not None
    return edges(render(scene, 3, 128))


def drawn(pipeline: Any, **more: Any) -> np.ndarray:
    return np.asarray(pipeline(**CALL, generator=torch.Generator().manual_seed(5), output_type="np", **more).images[0])


def test_it_draws_what_diffusers_draws(
    pipeline: StableDiffusionPipeline, tensors: dict[str, torch.Tensor], hint: Image.Image
) -> None:
    control = unpacked(pipeline.unet, tensors)
    plain = drawn(pipeline)
    theirs = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=control)
    theirs.set_progress_bar_config(disable=True)
    for scale in (0.6, 1.0):
        with controlled(pipeline.unet, control, hint_of(hint, control), scale):
            ours = drawn(pipeline)
        wanted = drawn(theirs, image=hint, controlnet_conditioning_scale=scale)
        assert np.abs(ours - wanted).max() < 1e-5
        assert np.abs(ours - plain).max() > 0.05
    with controlled(pipeline.unet, control, hint_of(hint, control), 0.0):
        assert np.abs(drawn(pipeline) - plain).max() < 1e-5
    assert np.array_equal(drawn(pipeline), plain)


def test_it_draws_what_diffusers_draws_with_sdxl(hint: Image.Image) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(FOLDER.with_name("pocket-sdxl"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(1)
    control = ControlNetModel.from_unet(pipeline.unet)
    for module in (control.controlnet_down_blocks, control.controlnet_mid_block):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    hint = hint.resize((192, 192))
    plain = drawn(pipeline)
    theirs = StableDiffusionXLControlNetPipeline(
        **pipeline.components, controlnet=control, force_zeros_for_empty_prompt=False
    )
    theirs.set_progress_bar_config(disable=True)
    with controlled(pipeline.unet, control, hint_of(hint, control), 0.8):
        ours = drawn(pipeline)
    wanted = drawn(theirs, image=hint, controlnet_conditioning_scale=0.8)
    assert np.abs(ours - wanted).max() < 1e-5
    assert np.abs(ours - plain).max() > 0.05


def test_a_file_keeps_the_change_alone(
    pipeline: StableDiffusionPipeline, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "control.safetensors")
    control = unpacked(pipeline.unet, load_file(tmp_path / "control.safetensors"))
    path = "mid_block.resnets.0.conv1"
    down, up = tensors[path + DOWN].float(), tensors[path + UP].float()
    change = torch.einsum("orij,rckl->ockl", up, down)
    before = pipeline.unet.get_submodule(path).weight
    assert torch.allclose(control.get_submodule(path).weight, before + change, atol=1e-6)
    assert torch.equal(control.conv_in.weight, pipeline.unet.conv_in.weight)
    with pytest.raises((KeyError, RuntimeError)):
        unpacked(pipeline.unet, {"controlnet_mid_block.weight": torch.zeros(3)})


def test_edges_are_thin_closed_and_tell_colours_of_one_brightness_apart() -> None:
    picture = Image.new("RGB", (64, 64), (120, 120, 120))
    picture.paste((188, 90, 90), (16, 16, 48, 48))  # as bright as the ground
    lines = np.asarray(edges(picture).convert("L")) > 0
    assert 100 <= lines.sum() <= 140  # four sides of 32
    assert not lines[:12].any() and not lines[28:36, 28:36].any()
    assert not np.asarray(edges(Image.new("RGB", (32, 32), (9, 9, 9)))).any()
