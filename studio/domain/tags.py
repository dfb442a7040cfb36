"""Adapters named in a prompt, as people of A1111-family tools write them: `<lora:name:0.8>`.

Grammar: `<lora:NAME[:SCALE[:UNET_SCALE]]>` with, in place of positions, `te=` and `unet=`. One number is for all parts;
of two, the first is for the text encoders. A tag is taken out of what the model reads.
"""

import math
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from studio.domain.adapter import MAX_LORA_SCALE
from studio.domain.errors import InvalidRequest

TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
_SPACE_LEFT = re.compile(r"[ \t]{2,}")
_NAMES = {"te": "text_encoder_scale", "unet": "lora_scale"}

LoraScale = Annotated[float, Field(ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE)]


class AdapterUse(BaseModel):
    """An adapter and how much of it: `text_encoder_scale` of None is as much as `lora_scale`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    adapter: Annotated[str, Field(min_length=1, max_length=200)]
    lora_scale: LoraScale = 1.0
    text_encoder_scale: LoraScale | None = None

    @property
    def tag(self) -> str:
        """How it is written in a prompt."""
        if self.text_encoder_scale is None:
            return f"<lora:{self.adapter}:{self.lora_scale:g}>"
        return f"<lora:{self.adapter}:{self.text_encoder_scale:g}:{self.lora_scale:g}>"


def adapters_named(prompt: str) -> tuple[AdapterUse, ...]:
    """The adapters that `prompt` names, in order; one that is named twice counts as it is named last.

    Raises:
        InvalidRequest: a tag without a name, or whose scale is no number within the bounds.
    """
    uses = {use.adapter: use for use in map(_use, TAG.finditer(prompt))}
    return tuple(uses.values())


def without_tags(prompt: str) -> str:
    """The text that the model reads. One without tags stays as it is to the letter."""
    if not TAG.search(prompt):
        return prompt
    return _SPACE_LEFT.sub(" ", TAG.sub("", prompt)).strip(" \t,")


def without_adapter(prompt: str, adapter: str) -> str:
    """`prompt` without the tags of one adapter; the others stay as they were typed."""

    def kept(found: re.Match[str]) -> str:
        return "" if found[1].partition(":")[0].strip() == adapter else found[0]

    return _SPACE_LEFT.sub(" ", TAG.sub(kept, prompt)).strip()


def _use(found: re.Match[str]) -> AdapterUse:
    name, *numbers = (text.strip() for text in found[1].split(":"))
    if not name:
        raise InvalidRequest(f"The tag {_short(found[0])} names no adapter.", "Write <lora:name:0.8>.", "prompt")
    positional = [_scale(text, found[0]) for text in numbers if "=" not in text]
    named: dict[str, float] = {}
    for text in numbers:
        key, is_named, value = text.partition("=")
        if is_named and key in _NAMES:
            named[_NAMES[key]] = _scale(value, found[0])
    scales: dict[str, float] = {}
    if len(positional) == 1:
        scales = {"lora_scale": positional[0]}
    elif positional:
        scales = {"text_encoder_scale": positional[0], "lora_scale": positional[1]}
    name = name[:200].encode(errors="replace").decode()  # half of a pair of surrogates is no text
    return AdapterUse(adapter=name, **{**scales, **named})


def _scale(text: str, tag: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not abs(scale) <= MAX_LORA_SCALE:
        raise InvalidRequest(
            f"The tag {_short(tag)} has a scale of {_short(text)}; it must be a number from {-MAX_LORA_SCALE:g} to "
            f"{MAX_LORA_SCALE:g}.",
            "1 is the adapter as it was trained.",
            "prompt",
        )
    return scale


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
