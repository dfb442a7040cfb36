"""Pictures side by side, with words over them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_GAP_SHARE, _TEXT_SHARE = 0.03, 0.09
_LEAST_TEXT_PX = 11
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


@dataclass(frozen=True)
class Row:
    """Pictures of one size, with words over the row ("" for none)."""

    title: str
    pictures: Sequence[Image.Image]


def grid(rows: Sequence[Row]) -> Image.Image:
    """The rows below each other on white, each under its title; all pictures have the size of the first.

    Raises:
        ValueError: there is no picture.
    """
    pictures = [picture for row in rows for picture in row.pictures]
    if not pictures:
        raise ValueError("a grid needs a picture")
    width, height = pictures[0].size
    gap = max(2, round(_GAP_SHARE * width))
    text_px = max(_LEAST_TEXT_PX, round(_TEXT_SHARE * height))
    across = max(len(row.pictures) for row in rows)
    line = round(text_px * 1.6)
    tall = gap + sum((line if row.title else 0) + height + gap for row in rows)
    sheet = Image.new("RGB", (gap + across * (width + gap), tall), _PAPER)
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(text_px)
    top = gap
    for row in rows:
        if row.title:
            brush.text((gap, top), row.title, fill=_INK, font=font)
            top += line
        for place, picture in enumerate(row.pictures):
            sheet.paste(picture.resize((width, height)), (gap + place * (width + gap), top))
        top += height + gap
    return sheet


def columns_of(count: int) -> int:
    """How many of `count` pictures stand in a row of a grid that is about as wide as tall."""
    return max(1, round(count**0.5))
