"""Sweeps: one way of drawing, of which up to three settings take several values each (an X/Y/Z plot)."""

import math
import re
from typing import Annotated, Literal, get_args

from pydantic import Field

from studio.domain.errors import InvalidRequest
from studio.domain.request import Frozen

AxisField = Literal[
    "checkpoint", "adapter", "accelerator", "scheduler", "style", "decoder", "num_inference_steps", "guidance_scale",
    "lora_scale", "negative_prompt", "trigger",
]  # fmt: skip
AXIS_FIELDS: tuple[AxisField, ...] = get_args(AxisField)
"""What can be swept, what takes longest to change first: that is changed least often."""
AXIS_TITLES: dict[AxisField, str] = {
    "checkpoint": "Model", "adapter": "Adapter", "accelerator": "Accelerator", "scheduler": "Sampler",
    "style": "Style", "decoder": "Decoder", "num_inference_steps": "Steps", "guidance_scale": "Guidance scale",
    "lora_scale": "Scale of the adapter", "negative_prompt": "Negative prompt", "trigger": "Words before the prompt",
}  # fmt: skip
WHOLE, NUMBERS = ("num_inference_steps",), ("guidance_scale", "lora_scale")
MAX_AXES, MAX_VALUES = 3, 24

_RANGE = re.compile(r"\s*(-?[\d.]+)\s*-\s*(-?[\d.]+)\s*(?:\(\s*\+?(-?[\d.]+)\s*\)|\[\s*(\d+)\s*\])?\s*")


class Axis(Frozen):
    """A setting and the values that it takes, in that order."""

    field: AxisField
    values: Annotated[tuple[int | float | str, ...], Field(min_length=1, max_length=MAX_VALUES)]

    @property
    def title(self) -> str:
        return AXIS_TITLES[self.field]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its values as they are written beside a grid."""
        return tuple(f"{value:g}" if isinstance(value, int | float) else value or "none" for value in self.values)


def parse_axis(field: str, text: str) -> Axis:
    """Read the values of an axis as people type them: `2, 4, 8`, and for numbers ranges as A1111's users write them:
    `1-5`, `2-10 (+2)` with a step, `1-9 [5]` with a count.

    Raises:
        InvalidRequest: there is no such setting, or a value that it cannot have.
    """
    if field not in AXIS_FIELDS:
        raise InvalidRequest(f"{field!r} cannot be swept.", f"What can: {', '.join(AXIS_FIELDS)}.", "axes")
    is_number = field in WHOLE + NUMBERS
    found: list[int | float | str] = []
    for part in text.split(","):
        found += _numbers(field, part) if is_number and part.strip() else [part.strip()]
    values = tuple(dict.fromkeys(found))
    if is_number:
        values = tuple(value for value in values if value != "")
    count = 0 if values == ("",) and field != "adapter" else len(values)
    if not 1 <= count <= MAX_VALUES:
        raise InvalidRequest(
            f"{AXIS_TITLES[field]} takes {count} values; it can take 1 to {MAX_VALUES}.",
            "Write them with commas between, such as 2, 4, 8.",
            "axes",
        )
    return Axis(field=field, values=values)


def _numbers(field: AxisField, text: str) -> list[int | float | str]:
    span = _RANGE.fullmatch(text)
    try:
        numbers = [float(text)] if span is None else _ranged(*span.groups())
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)) or (field in WHOLE and any(number % 1 for number in numbers)):
        kind = "whole numbers" if field in WHOLE else "numbers"
        raise InvalidRequest(
            f"{AXIS_TITLES[field]} cannot be {text.strip()!r}; it takes {kind}.", "Write 2, 4, 8 or 2-8 (+2).", "axes"
        )
    return [int(number) if field in WHOLE else round(number, 6) for number in numbers]


def _ranged(first: str, last: str, step: str | None, count: str | None) -> list[float]:
    """Raises ValueError for what is no range."""
    low, high = float(first), float(last)
    if count is not None:
        pieces = max(1, int(count) - 1)
        return [low + (high - low) * place / pieces for place in range(min(int(count), MAX_VALUES + 1))]
    by = float(step) if step else math.copysign(1.0, high - low)
    if by == 0 or (high - low) * by < 0:
        raise ValueError(f"{by} leads from {low} not to {high}")
    return [low + place * by for place in range(min(math.floor((high - low) / by + 1e-9) + 1, MAX_VALUES + 1))]
