"""A ControlNet kept as what it adds to the UNet that it steers (a "Control-LoRA"): a thirtieth of its size.

A ControlNet (Zhang et al., 2023, arXiv:2302.05543) begins as a copy of a UNet's encoder. What training changes of that
copy is kept as low-rank factors, and what the UNet does not have, the reading of the hint and the convolutions that
hand the result over, as it is.
"""

from collections.abc import Mapping

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

HINT_CHANNELS = (8, 16, 32, 48)
"""Of the convolutions that bring the hint, three channels of pixels, to the size of latents."""
DOWN, UP = ".lora_down.weight", ".lora_up.weight"
_WHOLE = ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block.")


def new_control(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that copies the encoder of `unet` and does not steer yet."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS)


def own_modules(control: ControlNetModel) -> dict[str, nn.Module]:
    """The modules that the UNet does not have, by name."""
    names = (prefix.removesuffix(".") for prefix in _WHOLE)
    return {name: control.get_submodule(name) for name in names}


def handing_over(control: ControlNetModel) -> dict[str, nn.Conv2d]:
    """The convolutions that hand over what was read, by path. They begin at zero, so that their weights are changes
    like those of the copied encoder."""
    paths = [f"controlnet_down_blocks.{place}" for place in range(len(control.controlnet_down_blocks))]
    modules = {path: control.get_submodule(path) for path in (*paths, "controlnet_mid_block")}
    return {path: module for path, module in modules.items() if isinstance(module, nn.Conv2d)}


def packed(control: ControlNetModel, factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """What a file keeps, in float16: of `factors`, by path, (down, up) with their scale already in; of what the UNet
    does not have all else."""
    kept = {f"{path}.weight" for path in factors}
    state = control.state_dict()
    tensors = {name: each for name, each in state.items() if name.startswith(_WHOLE) and name not in kept}
    for path, (down, up) in factors.items():
        tensors |= {path + DOWN: down, path + UP: up}
    return {name: each.detach().half().contiguous() for name, each in tensors.items()}


def unpacked(unet: UNet2DConditionModel, tensors: Mapping[str, Tensor]) -> ControlNetModel:
    """The ControlNet that `packed` gave, for the same `unet`.

    Raises:
        KeyError, RuntimeError: the tensors do not fit it.
    """
    control = new_control(unet)
    state = control.state_dict()
    for name, value in tensors.items():
        if name.endswith(DOWN):
            path = name.removesuffix(DOWN)
            state[f"{path}.weight"] += _product(value, tensors[path + UP]).to(state[f"{path}.weight"])
        elif not name.endswith(UP):
            state[name].copy_(value)
    control.load_state_dict(state)
    return control.eval().requires_grad_(False)


def _product(down: Tensor, up: Tensor) -> Tensor:
    """The change of a weight: up (out, rank, 1, …) after down (rank, in, …)."""
    flat = up.float().flatten(1) @ down.float().flatten(1)
    return flat.reshape(len(up), *down.shape[1:])
