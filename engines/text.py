"""What the text encoder makes of a prompt, kept for the next picture: a hundred pictures of one prompt read it once."""

from collections import OrderedDict
from typing import Any

from torch import Tensor

_CAPACITY = 64
"""Texts kept; in SD 1.5 one takes 236 kB."""


class PromptCache:
    """Embeddings of one pipeline's last prompts. Its text encoder must stay as it is."""

    def __init__(self) -> None:
        self._embeds: OrderedDict[str, Tensor] = OrderedDict()

    def embeds(self, pipeline: Any, text: str) -> Tensor:
        """The embedding `(1, 77, width)` of `text`, the very one that diffusers' own call computes."""
        if text not in self._embeds:
            self._embeds[text], _ = pipeline.encode_prompt(
                text, pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            if len(self._embeds) > _CAPACITY:
                self._embeds.popitem(last=False)
        self._embeds.move_to_end(text)
        return self._embeds[text]
