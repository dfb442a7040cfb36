"""Whether a picture is fit to be shown: a seam, and behind it the checker that Stable Diffusion comes with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from engines.base import Step
from studio.domain.errors import CorruptModel, GenerationFailed, NotFound

CHECKER, PREPARATION = "safety_checker", "feature_extractor"
"""The folders of a safety checker, as diffusers has them beside its pipelines."""
_VEILED_PX = 6
"""Pixels on the longer side that are left of a preview that nobody has checked."""


class SafetyChecker(Protocol):
    """Looks at a finished picture."""

    def is_unfit(self, image: Image.Image) -> bool:
        """Whether this RGB picture must not be shown."""
        ...


class StableDiffusionSafety:
    """The safety checker of Stable Diffusion in a folder, on the CPU and in float32. Pickles are not read.

    Raises:
        NotFound: it is not there.
        CorruptModel: it is damaged or incomplete; it never judges with weights that were made up.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / CHECKER).is_dir() or not (folder / PREPARATION).is_dir():
            raise NotFound(
                f"Pictures are to be checked, and there is no safety checker in {folder.name!r} in the data folder.",
                f"Put the folders {CHECKER} and {PREPARATION} of a Stable Diffusion model there.",
            )
        try:
            self._checker, self._prepare = _loaded(folder)
        except Exception as error:  # transformers fails in more ways than it documents
            raise CorruptModel(
                f"The safety checker in {folder.name!r} cannot be loaded.",
                "It must be one of diffusers', complete and in safetensors; copy it again.",
            ) from error

    @torch.inference_mode()
    def is_unfit(self, image: Image.Image) -> bool:
        """See `SafetyChecker.is_unfit`."""
        seen = self._prepare(image.convert("RGB"), return_tensors="pt").pixel_values
        _, flags = self._checker(clip_input=seen, images=torch.zeros(1, 3, 1, 1))
        return bool(flags[0])


class SafetyShelf:
    """Keeps the checker of `folder`, loaded when first needed; with None nothing is checked."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._checker: SafetyChecker | None = None

    @property
    def is_asked(self) -> bool:
        return self._folder is not None

    def prepare(self) -> None:
        """Load it before a picture is drawn that could not be checked. Raises NotFound, CorruptModel."""
        if self._folder is not None and self._checker is None:
            self._checker = StableDiffusionSafety(self._folder)

    def veiled(self, on_step: Callable[[Step], None]) -> Callable[[Step], None]:
        """`on_step` for pictures that are checked at their end: told of previews that show colours and no shapes."""
        if not self.is_asked:
            return on_step
        return lambda step: on_step(replace(step, preview=lambda: _veil(step.preview())))

    def check(self, image: Image.Image) -> None:
        """Raises GenerationFailed for a picture that must not be shown."""
        self.prepare()
        if self._checker is not None and self._checker.is_unfit(image):
            raise GenerationFailed(
                "The safety checker took this picture for one that is not to be shown, so it was not kept."
            )


def _veil(image: Image.Image) -> Image.Image:
    """`image` with nothing to recognise, in its own size."""
    few = image.convert("RGB")
    few.thumbnail((_VEILED_PX, _VEILED_PX), Image.Resampling.BOX)
    return few.resize(image.size, Image.Resampling.BILINEAR)


def _loaded(folder: Path) -> tuple[Any, Any]:
    # Imported here: transformers' pictures take a second that nobody spends who checks none.
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    loaded: Any = StableDiffusionSafetyChecker.from_pretrained(
        folder / CHECKER, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    checker, found = loaded
    if found["missing_keys"] or found["mismatched_keys"]:
        raise ValueError("weights are missing")
    return checker.eval(), CLIPImageProcessor.from_pretrained(folder / PREPARATION, local_files_only=True)
