"""Captions from a model of one's own on this machine."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from studio.dataset_scan import Unusable as UnusablePicture
from studio.dataset_scan import open_picture
from studio.domain.captions import Answer, Unfit, Unusable
from studio.domain.datasets import caption_of

if TYPE_CHECKING:
    from engines.captioner import Seer


class LocalCaptioner:
    """A `Captioner`: a folder with a model of transformers that reads pictures, its weights in safetensors."""

    def __init__(self, model: Path, instruction: str, device: str = "auto") -> None:
        """The instruction is only for models that take one.

        Raises:
            CorruptModel, NotFound: the folder holds no such model.
        """
        from engines.captioner import load_seer  # imported here: torch and transformers take seconds

        self._seer: Seer = load_seer(model, device)
        self._instruction = instruction if self._seer.takes_instruction else ""
        self.name = f"local:{model.name}"
        asked = f"{model.name}\n{self._instruction}"
        self.template = f"local-{hashlib.sha256(asked.encode('utf-8', 'replace')).hexdigest()[:12]}"

    def caption(self, path: Path) -> Answer:
        """See `Captioner.caption`."""
        try:
            image = open_picture(path).image
        except UnusablePicture as error:
            raise Unfit(str(error)) from error
        text = self._seer.describe(image, self._instruction)
        caption = caption_of(text)
        if not caption:
            raise Unusable("The model said nothing.", Answer(caption=""))
        return Answer(caption=caption)

    def close(self) -> None:
        """See `Captioner.close`."""
