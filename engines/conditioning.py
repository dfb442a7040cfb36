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
from engines.prompt_chunks import Chunk, chunks_of
from studio.domain.errors import GenerationFailed
from studio.domain.prompt_syntax import is_plain

_LEAST_MEAN = 1e-6
_CAPACITY = 64
"""Texts kept; in SD 1.5 one takes 236 kB, in SDXL 635 kB."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a UNet is told of texts: `embeds` `(B, 77, width)` (of longer texts a multiple of 77) and, for SDXL, the
    projected end token `pooled` `(B, width)` of the second encoder."""

    embeds: Tensor
    pooled: Tensor | None = None


class PromptCache:
    """Conditionings of one pipeline's last prompts, `capacity` of them, as `read` (`read_prompt`) gives them. Its text
    encoders must stay as they are."""

    def __init__(
        self, capacity: int = _CAPACITY, read: Callable[[Any, str, bool, int], Conditioning] | None = None
    ) -> None:
        self._capacity = capacity
        self._read = read or _read_as_trained
        self._kept: OrderedDict[tuple[str, bool, int], Conditioning] = OrderedDict()

    def read(self, pipeline: Any, text: str, *, is_negative: bool = False, clip_skip: int = 1) -> Conditioning:
        """The conditioning of `text`, as the cache's function reads it."""
        key = (text, is_negative, clip_skip)
        if key not in self._kept:
            self._kept[key] = self._read(pipeline, text, is_negative, clip_skip)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _read_as_trained(pipeline: Any, text: str, is_negative: bool, clip_skip: int) -> Conditioning:
    assert clip_skip == 1
    return read_prompt(pipeline, text, is_negative)


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
    if _is_nothing(pipeline, text, is_negative):
        return Conditioning(embeds=torch.zeros_like(embeds), pooled=torch.zeros_like(pooled))
    return Conditioning(embeds=embeds, pooled=pooled)


def _is_nothing(pipeline: Any, text: str | list[str], is_negative: bool) -> bool:
    """SDXL's own weights were trained to be told nothing at all where there is no negative prompt, rather than ""."""
    return is_negative and not text and bool(getattr(pipeline.config, "force_zeros_for_empty_prompt", False))


def read_meant(pipeline: Any, text: str, is_negative: bool = False, clip_skip: int = 1) -> Conditioning:
    """The conditioning of `text` with its weights, breaks and any length (see `studio.domain.prompt_syntax`); of one
    that has none of them and fits, what diffusers' own call computes, to the bit.

    Each chunk is read by itself, what comes of a token is multiplied by its weight, the mean of the chunk is put back
    to what it was, and chunks are put one behind the other, as A1111's tools do. SDXL's pooled token is the first
    chunk's, without weights, and of the last layer whatever `clip_skip` is. That is A1111's: 1 is the layer that the
    checkpoint was trained with, 2 the one before it (diffusers counts from 0, and its own way of doing it looks for
    modules that transformers 5.6 has renamed).

    Raises:
        GenerationFailed: the encoder has fewer layers than `clip_skip` leaves out.
    """
    _check_depth(pipeline, clip_skip)
    chunks = chunks_of(pipeline.tokenizer, text)
    if len(chunks) == 1 and is_plain(text) and (clip_skip == 1 or _is_nothing(pipeline, text, is_negative)):
        return read_prompt(pipeline, text, is_negative)
    is_sdxl = isinstance(pipeline, StableDiffusionXLPipeline)
    parts = [(pipeline.tokenizer, pipeline.text_encoder)]
    parts += [(pipeline.tokenizer_2, pipeline.text_encoder_2)] if is_sdxl else []
    pooled: Tensor | None = None
    embeds: list[Tensor] = []
    for tokenizer, encoder in parts:
        ids, weights = _framed(tokenizer, chunks, execution_device(pipeline))
        read = encoder(ids, output_hidden_states=is_sdxl or clip_skip > 1)
        pooled = read[0][:1] if is_sdxl else None
        if is_sdxl:  # trained on the layer before the last, without the norm behind that
            words = read.hidden_states[-clip_skip - 1]
        else:
            words = read[0] if clip_skip == 1 else encoder.final_layer_norm(read.hidden_states[-clip_skip])
        embeds.append(_weighed(words, weights))
    rows = torch.cat(embeds, dim=-1).to(dtype=pipeline.text_encoder.dtype)
    return Conditioning(embeds=rows.reshape(1, -1, rows.shape[-1]), pooled=pooled)


def _check_depth(pipeline: Any, clip_skip: int) -> None:
    """The first layer is the least that may be read."""
    is_sdxl = isinstance(pipeline, StableDiffusionXLPipeline)
    encoders = [pipeline.text_encoder, *([pipeline.text_encoder_2] if is_sdxl else [])]
    most = min(encoder.config.num_hidden_layers for encoder in encoders) - is_sdxl
    if clip_skip > most:
        raise GenerationFailed(
            f"Clip skip is {clip_skip}, and this model's text encoder has no layer so far from its last.",
            f"Give at most {most}; 1 is what the model was trained with.",
        )


def _framed(tokenizer: Any, chunks: Sequence[Chunk], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Tokens and weights of chunks, `(chunks, 77)` each: with the beginning, the end and what fills them up."""
    length = tokenizer.model_max_length
    ids, weights = [], []
    for chunk in chunks:
        filled = length - 2 - len(chunk)
        ids.append([tokenizer.bos_token_id, *chunk.tokens, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * filled])
        weights.append([1.0, *chunk.weights, 1.0, *[1.0] * filled])
    return torch.tensor(ids, device=device), torch.tensor(weights, device=device)


def _weighed(read: Tensor, weights: Tensor) -> Tensor:
    """`read` `(chunks, 77, width)` by the `weights` `(chunks, 77)`, with the mean that it had."""
    scaled = read.float() * weights[..., None]
    before, after = (each.float().mean(dim=(1, 2), keepdim=True) for each in (read, scaled))
    # A mean near 0 says nothing of how large the numbers are.
    factor = torch.where(after.abs() > _LEAST_MEAN, before / after, torch.ones_like(after))
    is_weighed = (weights != 1).any(dim=1)[:, None, None]
    return torch.where(is_weighed, scaled * factor, read.float()).to(read.dtype)


def evened(
    prompt: Conditioning, negative: Conditioning | None, empty: Callable[[], Conditioning]
) -> tuple[Conditioning, Conditioning | None]:
    """Both of one length: the shorter one is filled up with what the text "" reads as, which `empty` gives."""
    if negative is None or prompt.embeds.shape[1] == negative.embeds.shape[1]:
        return prompt, negative
    length = max(prompt.embeds.shape[1], negative.embeds.shape[1])
    return _filled(prompt, length, empty()), _filled(negative, length, empty())


def _filled(read: Conditioning, length: int, empty: Conditioning) -> Conditioning:
    missing = (length - read.embeds.shape[1]) // empty.embeds.shape[1]
    return Conditioning(embeds=torch.cat([read.embeds, *[empty.embeds] * missing], dim=1), pooled=read.pooled)


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
