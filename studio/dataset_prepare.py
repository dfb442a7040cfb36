"""A folder of pictures as a training wants it: all upright, in RGB, of the size of the model, with their captions."""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from studio.dataset_captions import prefixed, write_captions
from studio.dataset_files import about_in, check_free, whole_folder
from studio.dataset_scan import Unusable, open_mask, open_picture, scan
from studio.domain.buckets import Bucket, Fit, fit, make_buckets, nearest_bucket
from studio.domain.datasets import MASK_ENDS, Crop, Finding, Layout, Scan, Verdict, counted, mask_beside
from studio.domain.errors import DatasetError, InvalidRequest
from studio.files import atomic_write

MAX_UPSCALE = 2.0
"""What is enlarged more teaches a model how blur looks."""
SIZES = (64, 2048)
"""Pixels of a square, from and to."""

_LEAVE_ALONE = "Leave the folder alone, and try again."

Phase = Literal["scan", "write"]
OnProgress = Callable[[Phase, int, int], None]
"""Told what is done, with how many pictures of how many. It may raise, and nothing is written then."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was made; `notes` say which pictures were left out, enlarged or have no caption, a sentence each. `scan` is
    what was found in the source."""

    folder: Path
    num_pictures: int
    buckets: dict[Bucket, int]
    notes: tuple[str, ...]
    scan: Scan

    @property
    def summary(self) -> str:
        """One sentence: how many pictures of which size."""
        sizes = ", ".join(f"{bucket} ({count})" for bucket, count in sorted(self.buckets.items()))
        return f"{counted(self.num_pictures, 'picture')} of {len(self.scan.verdicts)} written: {sizes}."


def prepare(
    source: Path,
    destination: Path,
    size: int,
    crop: Crop = "centre",
    layout: Layout = "text_files",
    *,
    trigger: str = "",
    replace: bool = False,
    on_progress: OnProgress | None = None,
) -> Prepared:
    """Write every usable picture of `source` into a new folder `destination`: upright, in RGB, transparency on white,
    resized by Lanczos to cover a square of `size` pixels or the bucket of that area nearest to its shape, cut around
    the middle, as `0000.png` and so on without metadata; its caption beside it, with `trigger` before it, and its mask,
    cut alike, as `0000.mask.png`. What the list of `source` says besides, such as author and licence, goes into the new
    one, or into an `about.jsonl` beside text files. One that would be enlarged more than `MAX_UPSCALE` times is left
    out. `source` is not changed; `destination` is written whole or not at all, and only with `replace` over a data set
    that is there.

    Raises:
        InvalidRequest: a size, crop or layout that there is none of.
        DatasetError: nothing in `source` can be used, or `destination` is in use or within it.
        StorageFailed: `destination` cannot be written.
    """
    buckets = _buckets(size, crop, layout)
    _check_apart(source, destination)
    check_free(destination, replace=replace)
    tell = on_progress or _say_nothing
    found = scan(source, min_size=1, on_progress=lambda done, total: tell("scan", done, total))
    fits = {verdict: _fit(verdict, buckets) for verdict in found.usable}
    chosen = {verdict: each for verdict, each in fits.items() if each[1].scale <= MAX_UPSCALE}
    notes = tuple(_notes(found, fits))
    if not chosen:
        raise DatasetError(
            f"No picture of {source.name!r} can be used. The first of {counted(len(notes), 'reason')}: {notes[0]}",
            "Add other pictures, or choose a smaller size.",
        )
    digits = max(4, len(str(len(chosen) - 1)))
    names = {verdict: f"{number:0{digits}}.png" for number, verdict in enumerate(chosen)}
    known = about_in(source)
    about = {name: known[verdict.name] for verdict, name in names.items() if verdict.name in known}
    captions = {names[verdict]: verdict.caption for verdict in chosen}
    captions = prefixed(captions, trigger) if trigger else captions
    with whole_folder(destination, replace=replace) as folder:
        for number, (verdict, (_, how)) in enumerate(chosen.items(), start=1):
            atomic_write(folder / names[verdict], _png(source, verdict, how))
            if Finding.MASKED in verdict.findings:
                mask = folder / f"{Path(names[verdict]).stem}{MASK_ENDS[0]}"
                atomic_write(mask, _mask_png(source, verdict, how))
            tell("write", number, len(chosen))
        write_captions(folder, {name: caption for name, caption in captions.items() if caption}, layout, about)
    counts = Counter(bucket for bucket, _ in chosen.values())
    return Prepared(folder=destination, num_pictures=len(chosen), buckets=dict(counts), notes=notes, scan=found)


def buckets_of(size: int) -> tuple[Bucket, ...]:
    """The buckets of a model whose square has `size` pixels a side: from half to twice of it in steps of 64, or of 16
    below 256 pixels."""
    step = 64 if size >= 256 else 16
    return make_buckets(
        max_area=size * size,
        min_side=math.ceil(size / 2 / step) * step,
        max_side=2 * size // step * step,
        step=step,
    )


def _buckets(size: int, crop: Crop, layout: Layout) -> tuple[Bucket, ...]:
    if not SIZES[0] <= size <= SIZES[1] or size % 8:
        raise InvalidRequest(
            f"A size of {size} px is none that a model has.",
            f"Give a multiple of 8 from {SIZES[0]} to {SIZES[1]}.", "size",
        )  # fmt: skip
    for name, value, known in (("crop", crop, get_args(Crop)), ("layout", layout, get_args(Layout))):
        if value not in known:
            raise InvalidRequest(f"There is no {name} {value!r}.", f"Choose {' or '.join(known)}.", name)
    return (Bucket(size, size),) if crop == "centre" else buckets_of(size)


def _check_apart(source: Path, destination: Path) -> None:
    one, other = source.resolve(), destination.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise DatasetError(
            f"{destination.name!r} and {source.name!r} lie in each other, and what is there is not to be changed.",
            "Choose a folder beside it.",
        )


def _fit(verdict: Verdict, buckets: Sequence[Bucket]) -> tuple[Bucket, Fit]:
    bucket = nearest_bucket(verdict.width, verdict.height, buckets)
    return bucket, fit(verdict.width, verdict.height, bucket)


def _notes(found: Scan, fits: dict[Verdict, tuple[Bucket, Fit]]) -> Iterator[str]:
    yield from found.notes
    for verdict in found.verdicts:
        yield from (f"Left out: {remark.message}" for remark in verdict.remarks if remark.finding.is_fatal)
        if verdict not in fits:
            continue
        bucket, how = fits[verdict]
        size = f"{verdict.name} has {verdict.width}×{verdict.height} pixels"
        if how.scale > MAX_UPSCALE:
            yield f"Left out: {size}, and {bucket} would take {how.scale:.1f} times that; at most {MAX_UPSCALE:g}."
        elif how.scale > 1:
            yield f"Enlarged: {size}, and was made {how.scale:.2f} times as large for {bucket}."
        yield from (remark.message for remark in verdict.remarks)


def _png(source: Path, verdict: Verdict, how: Fit) -> bytes:
    try:
        image = open_picture(source / verdict.name).image
    except Unusable as error:
        raise DatasetError(f"{error} It could be read a moment ago.", _LEAVE_ALONE) from error
    if image.size != (verdict.width, verdict.height):
        raise DatasetError(f"{verdict.name} was changed while it was read.", _LEAVE_ALONE)
    return _cut_png(image, how, Image.Resampling.LANCZOS)


def _mask_png(source: Path, verdict: Verdict, how: Fit) -> bytes:
    mask = mask_beside(source / verdict.name)
    try:
        image = None if mask is None else open_mask(mask)
    except Unusable as error:
        raise DatasetError(f"{error} It could be read a moment ago.", _LEAVE_ALONE) from error
    if image is None:
        raise DatasetError(f"The mask of {verdict.name} went away while it was read.", _LEAVE_ALONE)
    return _cut_png(image, how, Image.Resampling.BILINEAR)  # as a training does; Lanczos would ring at its edges


def _cut_png(image: Image.Image, how: Fit, resampling: Image.Resampling) -> bytes:
    buffer = io.BytesIO()
    image.resize((how.width, how.height), resampling).crop(how.box).save(buffer, "PNG")
    return buffer.getvalue()


def _say_nothing(phase: Phase, done: int, total: int) -> None:
    """For those who do not ask how far it is."""
