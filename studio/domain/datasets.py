"""How people keep pictures with captions, whether in a folder of theirs or in a data set of the hub; and what is found
out about such pictures before they are used."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MASK_ENDS = (".mask.png", "-masklabel.png")
"""What follows the name of a picture, without its suffix, in that of its mask, in the order to look: `cat.mask.png`
beside `cat.jpg`, or as OneTrainer names them. White says what is learnt of a picture, black what is not."""
CAPTIONS = (".txt", ".caption")
"""Suffixes of text files beside pictures, in the order to look for them."""
LISTS = ("metadata.jsonl", "metadata.csv", "captions.csv")
"""Files that name pictures with their captions, in the order to look for them."""
ABOUT = "about.jsonl"
"""What a data set with text files says of its pictures besides their captions: a line of JSON for each, by its file
name."""
CAPTION_KEYS = ("text", "caption", "prompt")
"""What a caption is called in a list or a table, in the order to look for it."""
FILE_KEYS = ("file_name", "file", "filename", "image")
"""What a picture's file is called in a table, in the order to look for it."""
MAX_CAPTION = 10_000
MIN_SIZE = 256
"""Pixels of the shorter side: half of the least size that a model of full size is trained at."""

Crop = Literal["centre", "buckets"]
"""Squares from the middle, or shapes near that of the picture."""
Layout = Literal["text_files", "metadata"]
"""A text file beside each picture, or all captions in a `metadata.jsonl`."""


class Finding(StrEnum):
    """What a picture may be."""

    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    OUTSIDE = "outside"
    """A link that leads out of the folder."""
    DUPLICATE = "duplicate"
    """The same pixels as another picture."""
    NEAR_DUPLICATE = "near_duplicate"
    WRONG_SUFFIX = "wrong_suffix"
    ROTATED = "rotated"
    """EXIF says that it is to be turned."""
    TRANSPARENT = "transparent"
    MASKED = "masked"
    """A mask beside it says what of it is learnt, where masks are asked for."""
    BAD_MASK = "bad_mask"
    """It has a mask that cannot be used."""
    ANIMATED = "animated"
    NO_CAPTION = "no_caption"
    EMPTY_CAPTION = "empty_caption"

    @property
    def is_fatal(self) -> bool:
        """Whether a picture of this kind cannot be used."""
        return self in _FATAL


_FATAL = (Finding.CORRUPT, Finding.TOO_LARGE, Finding.TOO_SMALL, Finding.OUTSIDE, Finding.DUPLICATE)
_WORDS = {
    Finding.CORRUPT: ("is corrupt", "are corrupt"),
    Finding.TOO_LARGE: ("is too large", "are too large"),
    Finding.TOO_SMALL: ("is too small", "are too small"),
    Finding.OUTSIDE: ("lies outside the folder", "lie outside the folder"),
    Finding.DUPLICATE: ("is a duplicate", "are duplicates"),
    Finding.NEAR_DUPLICATE: ("is nearly the same as another", "are nearly the same as another"),
    Finding.WRONG_SUFFIX: ("has the suffix of another format", "have the suffix of another format"),
    Finding.ROTATED: ("will be turned upright", "will be turned upright"),
    Finding.TRANSPARENT: ("is transparent", "are transparent"),
    Finding.MASKED: ("has a mask", "have a mask"),
    Finding.BAD_MASK: ("has a mask that cannot be used", "have a mask that cannot be used"),
    Finding.ANIMATED: ("is animated", "are animated"),
    Finding.NO_CAPTION: ("has no caption", "have no caption"),
    Finding.EMPTY_CAPTION: ("has an empty caption", "have an empty caption"),
}


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What was found, in a sentence; `twin` is the name of the picture that a duplicate repeats."""

    finding: Finding
    message: str
    twin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a scan says of a picture. `name` is its path in the folder, with slashes; `caption` is "" where there is
    none. `width` and `height` are those of the upright picture in pixels, 0 for one that could not be opened."""

    name: str
    caption: str
    width: int
    height: int
    remarks: tuple[Remark, ...]

    @property
    def is_usable(self) -> bool:
        return not any(remark.finding.is_fatal for remark in self.remarks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(remark.finding for remark in self.remarks)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A verdict for each picture of `folder`, in order of name; `notes` tell of what is no picture."""

    folder: Path
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def usable(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.is_usable)

    @property
    def summary(self) -> str:
        """One sentence: how many there are and can be used, then what there is to say, what hinders first."""
        counts = Counter(finding for verdict in self.verdicts for finding in verdict.findings)
        told = [f"{counts[kind]} {_WORDS[kind][counts[kind] > 1]}" for kind in Finding if counts[kind]]
        return f"{counted(len(self.verdicts), 'picture')}: {', '.join([f'{len(self.usable)} can be used', *told])}."


def is_mask(name: str) -> bool:
    """Whether a file of this name is the mask of a picture rather than a picture."""
    return name.lower().endswith(MASK_ENDS)


def mask_beside(picture: Path) -> Path | None:
    """The mask of a picture, if it has one; a link that leads elsewhere is none."""
    masks = (picture.with_name(f"{picture.stem}{end}") for end in MASK_ENDS)
    return next((mask for mask in masks if mask.is_file() and mask.resolve().parent == picture.parent.resolve()), None)


def mask_problem(mask: tuple[int, int], picture: tuple[int, int], brightest: int) -> str | None:
    """Why a mask of a picture cannot be used, by their widths and heights and the mask's largest value; None if it
    can. It may be larger or smaller than the picture, if its shape is the same but for a rounded pixel."""
    if abs(mask[0] * picture[1] - mask[1] * picture[0]) > sum(picture):
        return f"has {mask[0]}×{mask[1]} pixels, which is another shape than {picture[0]}×{picture[1]}"
    return None if brightest else "is all black, so that nothing would be learnt"


def caption_of(text: str) -> str:
    """`text` as one line; "" where that says nothing, or has more than `MAX_CAPTION` characters."""
    caption = " ".join(text.split())
    return caption if len(caption) <= MAX_CAPTION else ""


def counted(number: int, what: str) -> str:
    """A number of things: "1 picture", "2 pictures"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
