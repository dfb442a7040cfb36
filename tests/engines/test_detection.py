"""A checkpoint is what its tensors say, whatever it is called."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engines.detection import detect_file, detect_folder
from studio.domain.errors import CorruptModel, Incompatible, StudioError
from tests.engines.small import save_untrained

UNET = "model.diffusion_model."
CONVOLUTION, LINEAR = (320, 320, 1, 1), (320, 320)


def saved(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path, metadata=metadata)
    return path


def original(family: str, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """The names that tell families apart in a single-file checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{UNET}input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{UNET}input_blocks.4.1.proj_in.weight": CONVOLUTION if family == "sd15" else LINEAR,
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    }
    if family == "sdxl":
        names = ("conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.positional_embedding")
        return {**shapes, **dict.fromkeys(names, (77, 8)), f"{UNET}label_emb.0.0.weight": (1280, 2816)}
    return {**shapes, "cond_stage_model.transformer.x": (77, 8)}


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_single_file_is_known_by_its_tensors(tmp_path: Path, family: str) -> None:
    detected = detect_file(saved(tmp_path / "sdxl_v_pred_final.safetensors", original(family)))
    assert (detected.family, detected.prediction_type) == (family, None)


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_a_folder_is_known_by_its_tensors(tmp_path: Path, family: str) -> None:
    save_untrained(family, tmp_path / "sd15-or-is-it")
    assert detect_folder(tmp_path / "sd15-or-is-it") == family


@pytest.mark.parametrize(
    ("extra", "metadata", "expected"),
    [
        ({"v_pred": (1,)}, None, "v_prediction"),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction"),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({}, {"modelspec.prediction_type": "guess"}, None),
    ],
)
def test_what_a_file_says_of_its_prediction_is_read(
    tmp_path: Path, extra: dict[str, tuple[int, ...]], metadata: dict[str, str] | None, expected: str | None
) -> None:
    path = saved(tmp_path / "x.safetensors", {**original("sdxl"), **extra}, metadata)
    assert detect_file(path).prediction_type == expected


@pytest.mark.parametrize(
    ("shapes", "error", "said"),
    [
        (original("sd15", channels=9), Incompatible, "inpainting"),
        (original("sd15", channels=8), Incompatible, "image-editing"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, Incompatible, "adapter"),
        ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 8)}, Incompatible, "adapter"),
        ({f"{UNET}joint_blocks.0.x.weight": (4, 8)}, Incompatible, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.proj.weight": (4, 8)}, Incompatible, "Flux"),
        ({"control_model.time_embed.0.weight": (4, 8)}, Incompatible, "ControlNet"),
        ({"decoder.conv_in.weight": (4, 8)}, CorruptModel, "no UNet"),
    ],
)
def test_other_kinds_of_files_are_refused_by_name(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], error: type[StudioError], said: str
) -> None:
    with pytest.raises(error, match=said):
        detect_file(saved(tmp_path / "x.safetensors", shapes))


@pytest.mark.parametrize(("left_out", "said"), [("cond_stage_model", "text encoder"), ("first_stage_model", "VAE")])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path, left_out: str, said: str) -> None:
    shapes = {name: shape for name, shape in original("sd15").items() if not name.startswith(left_out)}
    with pytest.raises(CorruptModel, match=f"no {said}"):
        detect_file(saved(tmp_path / "x.safetensors", shapes))


def test_the_refiner_of_sdxl_is_no_base_model(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in original("sdxl").items() if "embedders.1" not in name}
    with pytest.raises(Incompatible, match="refiner"):
        detect_file(saved(tmp_path / "x.safetensors", shapes))
