"""What becomes of a prompt, kept: its conditioning for the next picture, its keys and values for the next step."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from engines.forwards import instead_of_forward
from engines.placement import execution_device

_CAPACITY = 64
"""Texts kept; in SD 1.5 one takes 236 kB, in SDXL 635 kB."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a UNet is told of texts: `embeds` `(B, 77, width)` and, for SDXL, the projected end token `pooled`
    `(B, width)` of the second encoder."""

    embeds: Tensor
    pooled: Tensor | None = None


class PromptCache:
    """Conditionings of one pipeline's last prompts, `capacity` of them, as `read` (`read_prompt`) gives them. Its text
    encoders must stay as they are."""

    def __init__(self, capacity: int = _CAPACITY, read: Callable[[Any, str, bool], Conditioning] | None = None) -> None:
        self._capacity = capacity
        self._read = read or read_prompt
        self._kept: OrderedDict[tuple[str, bool], Conditioning] = OrderedDict()

    def read(self, pipeline: Any, text: str, *, is_negative: bool = False) -> Conditioning:
        """The conditioning of `text`, the very one that diffusers' own call computes."""
        key = (text, is_negative)
        if key not in self._kept:
            self._kept[key] = self._read(pipeline, text, is_negative)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def call_arguments(prompt: Conditioning, negative: Conditioning | None) -> dict[str, Tensor | None]:
    """The arguments by which a diffusers pipeline takes conditionings; `negative` is None while guidance is off."""
    arguments = {"prompt_embeds": prompt.embeds, "negative_prompt_embeds": negative and negative.embeds}
    if prompt.pooled is not None:
        arguments["pooled_prompt_embeds"] = prompt.pooled
        arguments["negative_pooled_prompt_embeds"] = negative and negative.pooled
    return arguments


def joined(read: Sequence[Conditioning]) -> Conditioning:
    """Several texts as one batch."""
    pooled = [each.pooled for each in read if each.pooled is not None]
    return Conditioning(embeds=torch.cat([each.embeds for each in read]), pooled=torch.cat(pooled) if pooled else None)


def read_prompt(pipeline: Any, text: str | list[str], is_negative: bool) -> Conditioning:
    """The conditioning of `text`, or of several: what diffusers' own call computes, with gradients where they are."""
    read = pipeline.encode_prompt(
        text, device=execution_device(pipeline), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if not isinstance(pipeline, StableDiffusionXLPipeline):
        return Conditioning(embeds=read[0])
    embeds, _, pooled, _ = read
    if is_negative and not text and pipeline.config.force_zeros_for_empty_prompt:
        # SDXL's own weights were trained to be told nothing at all here, rather than the text "".
        return Conditioning(embeds=torch.zeros_like(embeds), pooled=torch.zeros_like(pooled))
    return Conditioning(embeds=embeds, pooled=pooled)


@contextmanager
def remembered_prompt(unet: nn.Module) -> Iterator[None]:
    """Compute the prompt's keys and values once a picture instead of at every step: the same bits, a sixteenth of a
    miniature's time. The UNet's weights must stay as they are while it lasts."""
    with ExitStack() as stack:
        for name, module in unet.named_modules():
            if name.endswith((".attn2.to_k", ".attn2.to_v")):
                stack.enter_context(instead_of_forward(module, _once))
        yield


def _once(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the last answer, for as long as the very same tensor is asked about."""
    asked: Tensor | None = None
    answer: Tensor | None = None

    def remembering(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal asked, answer
        if answer is None or hidden_states is not asked:
            asked, answer = hidden_states, forward(hidden_states, *args, **kwargs)
        return answer

    return remembering
