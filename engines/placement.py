"""Where the weights of a pipeline are while they do nothing."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engines.mapped import map_weights, open_mapped
from engines.parts import PART_CLASSES, class_named
from studio.domain.memory import Placement


def put(pipeline: Any, placement: Placement, device: str, folder: Path | None) -> None:
    """Put the weights of a `pipeline` that was just opened, in the computer's memory, where `placement` says.

    `folder` is for those that are read from disk as needed; folders of other weights beside it go away.

    Raises:
        StorageFailed: the disk has no room for them.
    """
    match placement:
        case "resident":
            pipeline.to(device)
        case "mapped":
            assert folder is not None, "mapped weights need a folder"
            _forget_others(folder)
            for part in PART_CLASSES:
                module = getattr(pipeline, part, None)
                if module is not None:
                    map_weights(module, _mapped_file(folder, part))
        case "model_offload":
            pipeline.enable_model_cpu_offload(device=device)
        case "sequential_offload":
            pipeline.enable_sequential_cpu_offload(device=device)


def mapped_parts(place: Path, dtype: torch.dtype, folder: Path) -> dict[str, Any]:
    """The parts of the diffusers folder at `place` by name, one after the other, their weights mapped from `folder`."""
    return {
        part: open_mapped(class_named(name), place / part, dtype, _mapped_file(folder, part))
        for part, name in PART_CLASSES.items()
        if (place / part).is_dir()
    }


def execution_device(pipeline: Any) -> torch.device:
    """Where `pipeline` computes, wherever its weights are."""
    return pipeline._execution_device


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a layer with its numbers, also where accelerate takes it away between its uses."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if not weight.is_meta:
        return weight
    return module._hf_hook.weights_map["weight"]


def _mapped_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors"


def _forget_others(folder: Path) -> None:
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
