"""ControlNets in memory: read from the files of the studio's own, or from a folder as diffusers keeps them."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from engines.parts import CONTROL_FILES
from engines.small_controls import unpacked
from studio.domain.errors import CorruptModel, Incompatible, NotFound
from studio.domain.tensors import read_header


class ControlShelf:
    """Keeps the ControlNet that was used last, for one `unet`."""

    def __init__(self, unet: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._unet = unet
        self._device = device
        self._dtype = dtype
        self._key: tuple[str, int] | None = None
        self._control: ControlNetModel | None = None

    def take(self, path: Path) -> ControlNetModel:
        """The ControlNet in a file or a folder, where the UNet computes. Must be called while the UNet's weights are
        its own.

        Raises:
            NotFound: it is not there.
            CorruptModel: it cannot be read.
            Incompatible: it was made for another kind of UNet.
        """
        file = weights_of(path)
        key = str(file), file.stat().st_mtime_ns
        if self._control is None or self._key != key:
            self._control = None  # two of them need not be in memory at once
            read_header(file)  # refuses what is damaged or no safetensors file
            made = self._from_folder(path) if path.is_dir() else self._from_file(path)
            self._control, self._key = made.to(self._device, self._dtype).eval().requires_grad_(False), key
        return self._control

    @property
    def num_bytes(self) -> int:
        """What the one that it keeps takes."""
        return sum(weight.nbytes for weight in self._control.parameters()) if self._control else 0

    def _from_file(self, path: Path) -> ControlNetModel:
        try:
            return unpacked(self._unet, load_file(path))
        except (KeyError, RuntimeError, SafetensorError) as error:
            raise CorruptModel(
                f"{path.name} is no ControlNet of this model.", "Build it again, or choose another."
            ) from error

    def _from_folder(self, path: Path) -> ControlNetModel:
        try:
            control = ControlNetModel.from_pretrained(path, use_safetensors=True, dtype=self._dtype)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise CorruptModel(f"{path.name} cannot be read as a ControlNet.", "Fetch it again.") from error
        theirs, ours = (each.config.cross_attention_dim for each in (control, self._unet))
        if theirs != ours:
            raise Incompatible(
                f"{path.name} was made for UNets that are told {theirs} numbers a word; this one is told {ours}.",
                "Choose a ControlNet of the model's family.",
            )
        return control


def weights_of(path: Path) -> Path:
    """The file of weights of a ControlNet, given as a file or a folder.

    Raises:
        NotFound: there is none.
    """
    files = [path / name for name in CONTROL_FILES] if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise NotFound(f"There is no ControlNet in {path.name}.", "Choose it again: it is fetched when first used.")
    return files[0]
