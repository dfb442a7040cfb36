"""What is wrong with the pictures of a folder, and what is worth knowing of them, before anything is made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from studio.dataset_files import Found, found_in, is_file, is_named_picture, is_within, list_of
from studio.domain.datasets import (
    MIN_SIZE,
    Finding,
    Remark,
    Scan,
    Verdict,
    counted,
    is_mask,
    mask_beside,
    mask_problem,
)
from studio.domain.errors import DatasetError
from studio.metadata import FORMATS, MAX_PIXELS, pixels_sha256
from studio.similarity import ssim

_SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",)}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what turns such a picture upright."""

_HASH_SIDE = 8
_THUMB_SIDE = 32
_MAX_HASH_DISTANCE = 10
"""Of 64 bits, as is usual for difference hashes: unrelated pictures differ in about 32."""
_MIN_SSIM = 0.85
"""Hashes alone take any two pictures with much plain ground for each other."""


class Unusable(Exception):
    """A file that cannot be opened as a picture; `remark` says why."""

    def __init__(self, finding: Finding, message: str) -> None:
        super().__init__(message)
        self.remark = Remark(finding=finding, message=message)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A picture as a model is to see it: upright, in RGB, transparency on white, without metadata."""

    image: Image.Image
    format: str
    is_rotated: bool
    is_transparent: bool
    is_animated: bool


def scan(folder: Path, *, min_size: int = MIN_SIZE, on_progress: Callable[[int, int], None] | None = None) -> Scan:
    """Open every picture of `folder` and say what it is. `min_size` is the least shorter side in pixels;
    `on_progress` is told after each picture how many are done of how many, and may raise to end it.

    Raises:
        DatasetError: there is no such folder, it cannot be read, or it holds no pictures.
    """
    found = found_in(folder)
    root = folder.resolve()
    notes = [each for each in found if isinstance(each, str)]
    pictures = sorted(_with_unlisted(root, [each for each in found if isinstance(each, Found)]), key=lambda f: f.name)
    if not pictures:
        more = _inner_note(root, pictures)
        raise DatasetError(
            f"{folder.name!r} holds no pictures.",
            more or "Put PNG, JPEG or WebP files into it, and a text file of the same name beside each.",
        )
    twins = _Twins()
    verdicts: list[Verdict] = []
    for number, picture in enumerate(pictures, start=1):
        verdicts.append(_verdict(picture, min_size, twins))
        if on_progress:
            on_progress(number, len(pictures))
    notes += filter(None, [_inner_note(root, pictures), _lone_masks_note(root, pictures)])
    return Scan(folder=folder, verdicts=tuple(verdicts), notes=tuple(notes))


def open_picture(path: Path, ground: str = "white") -> Opened:
    """Read a PNG, JPEG or WebP picture whole, by its content, whatever it is called. Of an animation, the first frame;
    `ground` is the colour that shows through what is transparent.

    Raises:
        Unusable: it is none, is damaged, or has more pixels than anybody needs.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise _too_large(path)
            file.load()
            turn = _UPRIGHT.get(_orientation(file))
            is_animated = file.format != "MPO" and getattr(file, "n_frames", 1) > 1
            plain, is_transparent = _flattened(file, ground)
            return Opened(
                image=plain if turn is None else plain.transpose(turn),
                format="JPEG" if file.format == "MPO" else str(file.format),  # MPO: a JPEG with its preview behind it
                is_rotated=turn is not None,
                is_transparent=is_transparent,
                is_animated=is_animated,
            )
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except Exception as error:  # Pillow's decoders fail in more ways than they document
        raise Unusable(Finding.CORRUPT, _why_not(path, error)) from error


def open_mask(path: Path) -> Image.Image:
    """Read a mask whole and upright, in 256 greys; what is transparent in it is black.

    Raises:
        Unusable: as `open_picture` says.
    """
    return open_picture(path, ground="black").image.convert("L")


class _Twins:
    """The pictures that were seen, to find those that come again."""

    def __init__(self) -> None:
        self._exact: dict[tuple[tuple[int, int], str], str] = {}
        self._names: list[str] = []
        self._hashes: list[int] = []
        self._thumbs: list[Image.Image] = []

    def remark(self, name: str, image: Image.Image) -> Remark | None:
        """What `image` repeats, if anything; it is remembered otherwise, and so is one that is only nearly the same."""
        key = image.size, pixels_sha256(image)
        if key in self._exact:
            twin = self._exact[key]
            return Remark(finding=Finding.DUPLICATE, message=f"{name} is the same as {twin}.", twin=twin)
        bits, thumb = difference_hash(image), image.resize((_THUMB_SIDE, _THUMB_SIDE), Image.Resampling.BOX)
        near = self._near(bits, thumb)
        self._exact[key] = name
        self._names.append(name)
        self._hashes.append(bits)
        self._thumbs.append(thumb)
        if near is None:
            return None
        return Remark(finding=Finding.NEAR_DUPLICATE, message=f"{name} is nearly the same as {near}.", twin=near)

    def _near(self, bits: int, thumb: Image.Image) -> str | None:
        if not self._hashes:
            return None
        differing = np.array(self._hashes, dtype=np.uint64) ^ np.uint64(bits)
        alike = np.flatnonzero(np.bitwise_count(differing) <= _MAX_HASH_DISTANCE)
        return next((self._names[index] for index in alike if ssim(self._thumbs[index], thumb) >= _MIN_SSIM), None)


def difference_hash(image: Image.Image) -> int:
    """64 bits that say, for each place of an 8 × 8 grid, whether it grows brighter to the right: much the same for
    copies of a picture in another size or quality."""
    small = image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(small, dtype=np.int16)
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _verdict(picture: Found, min_size: int, twins: _Twins) -> Verdict:
    remarks = [picture.remark] if picture.remark else []
    width = height = 0
    if not any(remark.finding is Finding.OUTSIDE for remark in remarks):
        try:
            opened = open_picture(picture.path)
        except Unusable as error:
            remarks.insert(0, error.remark)
        else:
            width, height = opened.image.size
            remarks = [*_remarks(picture, opened, min_size, twins), *remarks]
    return Verdict(name=picture.name, caption=picture.caption, width=width, height=height, remarks=tuple(remarks))


def _remarks(picture: Found, opened: Opened, min_size: int, twins: _Twins) -> Iterator[Remark]:
    name, image = picture.name, opened.image
    if min(image.size) < min_size:
        message = f"{name} has {image.width}×{image.height} pixels; the shorter side needs {min_size}."
        yield Remark(finding=Finding.TOO_SMALL, message=message)
    elif repeated := twins.remark(name, image):
        yield repeated
    if picture.path.suffix.lower() not in _SUFFIXES[opened.format]:
        yield Remark(finding=Finding.WRONG_SUFFIX, message=f"{name} is a {opened.format} picture, whatever its name.")
    if opened.is_rotated:
        yield Remark(finding=Finding.ROTATED, message=f"{name} will be turned upright, as its EXIF says.")
    if opened.is_transparent:
        yield Remark(finding=Finding.TRANSPARENT, message=f"{name} is transparent in places and will be put on white.")
    if opened.is_animated:
        yield Remark(finding=Finding.ANIMATED, message=f"{name} is animated; its first frame is taken.")
    if mask := mask_beside(picture.path):
        yield _of_mask(mask, name, opened)


def _of_mask(mask: Path, name: str, opened: Opened) -> Remark:
    try:
        image = open_mask(mask)
    except Unusable as error:
        return Remark(finding=Finding.BAD_MASK, message=f"The mask of {name} cannot be used: {error}")
    brightest = int(np.asarray(image).max())
    if problem := mask_problem(image.size, opened.image.size, brightest):
        return Remark(finding=Finding.BAD_MASK, message=f"The mask of {name} cannot be used: {mask.name} {problem}.")
    return Remark(finding=Finding.MASKED, message=f"{name} has a mask, {mask.name}.")


def _with_unlisted(root: Path, found: Sequence[Found]) -> Iterator[Found]:
    """Also the pictures that a list does not name, in the folder and wherever those are that it names."""
    yield from found
    if (listing := list_of(root)) is None:
        return
    known = {each.path.resolve() for each in found if is_within(root, each.path)}
    for folder in sorted({root, *(path.parent for path in known)}):
        for path in sorted(folder.iterdir()):
            if is_named_picture(path) and is_file(path) and is_within(root, path) and path.resolve() not in known:
                message = f"{path.name} has no caption in {listing.name}."
                remark = Remark(finding=Finding.NO_CAPTION, message=message)
                yield Found(name=path.relative_to(root).as_posix(), path=path, caption="", remark=remark)


def _inner_note(root: Path, pictures: Sequence[Found]) -> str:
    """A sentence about pictures that lie deeper than is looked; "" if there are none."""
    looked = {root, *(picture.path.parent.resolve() for picture in pictures)}
    inner = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and is_within(root, folder)]
    for folder in inner:
        deeper = [path for path in _contents(folder) if is_named_picture(path)] if folder not in looked else []
        if deeper:
            what = counted(len(deeper), "picture")
            return f"{what} in the folder {folder.name!r} inside it: give that folder by itself, or move them up."
    return ""


def _lone_masks_note(root: Path, pictures: Sequence[Found]) -> str:
    """A sentence about masks that no picture has; "" if there are none."""
    inside = [picture.path for picture in pictures if is_within(root, picture.path)]
    used = {mask_beside(path) for path in inside}
    folders = sorted({path.parent for path in inside})
    lone = [path for folder in folders for path in _contents(folder) if is_mask(path.name) and path not in used]
    if not lone:
        return ""
    return f"{counted(len(lone), 'mask')} without a picture of that name, the first is {min(lone).name}."


def _contents(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF is no reason to do without the picture
        return 1


def _flattened(file: Image.Image, colour: str) -> tuple[Image.Image, bool]:
    """A picture in RGB without metadata; and whether the ground of this colour shows through it."""
    if file.mode.startswith("I;16"):  # convert() would cut off what is over 255, and leave all white
        plain = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)).convert("RGB")
        return plain, False
    if not file.has_transparency_data:
        plain = file.convert("RGB")
        plain.info = {}
        return plain, False
    layer = file.convert("RGBA")
    ground = Image.new("RGBA", layer.size, colour)
    ground.alpha_composite(layer)
    return ground.convert("RGB"), layer.getchannel("A").getextrema()[0] != 255


def _too_large(path: Path) -> Unusable:
    return Unusable(Finding.TOO_LARGE, f"{path.name} has more than {MAX_PIXELS / 1e6:.0f} megapixels.")


def _why_not(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        why = (error.strerror or "the system does not say why").lower()
        return f"{path.name} cannot be read: {why}."
    if path.stat().st_size == 0:
        return f"{path.name} is empty."
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{path.name} is no PNG, JPEG or WebP picture."
    return f"{path.name} is damaged or cut off."
