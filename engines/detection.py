"""What a checkpoint is, told by the names and shapes of its tensors; no name of a file or folder is believed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.domain.catalogue import PredictionType
from studio.domain.errors import CorruptModel, Incompatible
from studio.domain.tensors import TensorHeader, read_header

Layout = Literal["diffusers", "original"]
Shapes = Mapping[str, tuple[int, ...]]

FAMILIES = "SD 1.5, SD 2.1 and SDXL"
_ORIGINAL = "model.diffusion_model."
_ORIGINAL_TEXT = ("cond_stage_model.", "conditioner.")
_ORIGINAL_VAE = "first_stage_model."
_FOREIGN = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "transformer_blocks.0.attn.add_k_proj": "Stable Diffusion 3 or Flux",
    "lora_": "an adapter (LoRA)",
    ".lora_A.": "an adapter (LoRA)",
    ".lora.down.": "an adapter (LoRA)",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
}
"""Parts of tensor names that give away what is no Stable Diffusion checkpoint of ours."""
_SAID: dict[str, PredictionType] = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
_INPUTS = {9: "an inpainting model", 8: "an image-editing model", 5: "a depth-guided model"}
"""Channels that the first convolution takes in; text to image has 4."""


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A checkpoint's family. `prediction_type` is None where the file does not say; `measure_prediction_type` tells
    once it is loaded."""

    family: str
    prediction_type: PredictionType | None = None


def detect_file(path: Path) -> Detected:
    """What a single `.safetensors` file holds.

    Raises:
        CorruptModel: no sound safetensors file, or parts of a checkpoint are missing.
        Incompatible: sound, but no text-to-image checkpoint of a known family.
    """
    header = read_header(path)
    shapes = _shapes(header)
    if not any(name.startswith(_ORIGINAL) for name in shapes):
        raise _unknown(path.name, shapes)
    unet = {name.removeprefix(_ORIGINAL): shape for name, shape in shapes.items() if name.startswith(_ORIGINAL)}
    family = _family(path.name, unet, "original")
    if family == "sdxl" and not any(name.startswith("conditioner.embedders.1.") for name in shapes):
        raise Incompatible(f"{path.name} is the SDXL refiner, which only reworks pictures.", "Choose the base model.")
    for part, prefixes in (("text encoder", _ORIGINAL_TEXT), ("VAE", (_ORIGINAL_VAE,))):
        if not any(name.startswith(prefixes) for name in shapes):
            raise CorruptModel(
                f"{path.name} has no {part}; a checkpoint is a UNet with its text encoder and VAE.",
                "Choose the full version of this checkpoint.",
            )
    return Detected(family=family, prediction_type=_declared(header))


def detect_folder(folder: Path) -> str:
    """The family of a diffusers folder, told by its UNet.

    Raises:
        CorruptModel, Incompatible: as `detect_file`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted((folder / "unet").glob("*.safetensors")):
        shapes |= _shapes(read_header(path))
    return _family(folder.name, shapes, "diffusers")


def _shapes(header: TensorHeader) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in header.tensors.items()}


def _declared(header: TensorHeader) -> PredictionType | None:
    """What the file itself says: ModelSpec's field, or the marker tensor of v-prediction fine-tunes."""
    if "v_pred" in header.tensors:
        return "v_prediction"
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    return _SAID.get(said)


def _family(name: str, unet: Shapes, layout: Layout) -> str:
    first, added, projection = {
        "diffusers": ("conv_in.weight", "add_embedding.linear_1.weight", "attentions.0.proj_in.weight"),
        "original": ("input_blocks.0.0.weight", "label_emb.0.0.weight", ".1.proj_in.weight"),
    }[layout]
    projections = [shape for key, shape in unet.items() if key.endswith(projection)]
    if first not in unet or not projections:
        raise _unknown(name, unet)
    if len(unet[first]) != 4:
        raise CorruptModel(f"{name} holds no UNet: its first layer is no convolution.", "Fetch or copy it again.")
    channels = unet[first][1]
    if channels != 4:
        what = _INPUTS.get(channels, f"a model of {channels} input channels")
        raise Incompatible(f"{name} is {what}; the studio draws from text with {FAMILIES}.", "Choose the base model.")
    if added in unet:
        return "sdxl"
    return "sd21" if len(projections[0]) == 2 else "sd15"


def _unknown(name: str, shapes: Shapes) -> Exception:
    for sign, what in _FOREIGN.items():
        if any(sign in key for key in shapes):
            return Incompatible(f"{name} is {what}; the studio draws with {FAMILIES}.", "Choose another file.")
    return CorruptModel(f"{name} holds no UNet of {FAMILIES}.", "A checkpoint has a UNet, a text encoder and a VAE.")
