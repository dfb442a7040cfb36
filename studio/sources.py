"""The pictures that others begin from: kept under their own hash, so that a recipe finds them again after a restart.

`<visitor>/<hash>.png` under one folder. What is kept is upright RGB without metadata, and never changes; a mask is
black and white. A recipe names pictures that are as large as it draws: what was given is fitted to that size first, so
that how it was fitted need not be remembered (see docs/decisions/0014-a-source-is-fitted-before-it-is-kept.md).
"""

import contextlib
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from PIL import Image

from engines.base import Start
from studio.dataset_scan import Unusable, open_mask, open_picture
from studio.domain.beginning import BORDERS, SOURCE_FIELDS
from studio.domain.beginning_rules import check_beginning, has_borders
from studio.domain.catalogue import Checkpoint
from studio.domain.datasets import mask_problem
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest, ResolvedRequest, parse_request
from studio.files import atomic_write, make_folder, storage_errors
from studio.fitting import black_and_white, fitted, room_for, usual_size, widened

MAX_SIDE_PX = 4096
"""Nothing is drawn so large; what is larger is scaled down before it is kept."""
UNUSED_S = 30 * 24 * 3600.0
"""How long a picture is kept that nothing names: a form that a browser remembers may still do so."""
_GONE = "Choose the picture again, or start without one."
_HASH = re.compile(r"[0-9a-f]{64}")
_OWNER = re.compile(r"[\w-]{1,64}")

logger = logging.getLogger(__name__)

Given = str | Path | Image.Image
"""A picture as a caller has it: the hash of one that is kept, a file, or the pixels."""


class Sources:
    """The kept pictures under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, image: Image.Image, visitor: str) -> str:
        """Keep RGB pixels for `visitor`; gives the name that a recipe has for them.

        Raises:
            StorageFailed: they cannot be written.
        """
        name = source_name(image)
        path = self._path(name, visitor)
        if path.is_file():
            with contextlib.suppress(OSError):
                os.utime(path)  # it is in use again
            return name
        make_folder(path.parent)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        atomic_write(path, buffer.getvalue())
        return name

    def take(self, given: Given, visitor: str, field: str = "init_image") -> str:
        """Keep a picture, or with `field` "mask" a mask, that somebody gives, whatever it is; gives its name.

        Raises:
            InvalidRequest: it is no PNG, JPEG or WebP picture, is damaged or far too large, or a mask without white.
            NotFound: it is the hash of a picture that is not here.
            StorageFailed: it cannot be written.
        """
        image = self._looked_at(given, field)
        if max(image.size) > MAX_SIDE_PX:
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        if field == "mask":
            image = _mask_with_white(image)
        return self.keep(image.convert("RGB"), visitor)

    def taken(self, values: Mapping[str, Any], visitor: str) -> dict[str, Any]:
        """Loose values of a request whose pictures, where they are files or pixels, are kept and named.

        Raises:
            InvalidRequest, NotFound, StorageFailed: as `take`.
        """
        given = {field: values[field] for field in SOURCE_FIELDS if values.get(field)}
        return {**values, **{field: self.take(each, visitor, field) for field, each in given.items()}}

    def is_of(self, visitor: str, name: str) -> bool:
        """Whether `visitor` gave the picture of that name, or one that it was fitted from."""
        is_named = _HASH.fullmatch(name) and _OWNER.fullmatch(visitor)
        return bool(is_named) and self._path(name, visitor).is_file()

    def open(self, name: str) -> Image.Image:
        """The RGB pixels of a kept picture.

        Raises:
            NotFound: it is gone, or is not what it was.
        """
        for path in sorted(self._root.glob(f"*/{name}.png")) if _HASH.fullmatch(name) else []:
            image = _whole(path)
            if image is not None and source_name(image) == name:
                return image
        raise NotFound("The picture that this one starts from is not kept here any more.", _GONE)

    def sweep(self, named: Callable[[], Set[str]], older_than_s: float = UNUSED_S) -> int:
        """Remove what was not given for so long and is none of what is `named`; gives the bytes freed."""
        limit = time.time() - older_than_s
        freed = 0
        with storage_errors(self._root):
            old = [path for path in self._root.glob("*/*.png") if path.stat().st_mtime <= limit]
            in_use = named() if old else frozenset[str]()
            for path in old:
                if path.stem not in in_use:
                    freed += path.stat().st_size
                    path.unlink(missing_ok=True)
        if freed:
            logger.info("swept pictures that nothing began from: %d bytes freed", freed)
        return freed

    def start(self, recipe: ResolvedRequest) -> Start | None:
        """The pictures that `recipe` begins from; None where it begins from noise alone.

        Raises:
            NotFound: one of them is gone.
            InvalidRequest: one is not as large as the recipe draws.
        """
        if not recipe.init_image:
            return None
        image = self.open(recipe.init_image)
        mask = self.open(recipe.mask).convert("L") if recipe.mask else None
        if any(each.size != (recipe.width, recipe.height) for each in (image, mask) if each):
            raise InvalidRequest(
                f"What this picture starts from is not {recipe.width} × {recipe.height} px.", _GONE, "init_image"
            )
        return Start(image=image, mask=mask)

    def prepared(self, request: GenerationRequest, checkpoint: Checkpoint, visitor: str) -> GenerationRequest:
        """`request` with its pictures fitted to the size that is drawn, borders and all. Where no size is asked for, it
        is that of the picture as far as `checkpoint` can draw it.

        Raises:
            InvalidRequest: a mask or borders without a picture, or a mask without white.
            NotFound, StorageFailed: a picture is gone, or cannot be kept.
        """
        check_beginning(request)
        if not request.init_image:
            return request
        source = self.open(request.init_image)
        mask = _of_form(self.open(request.mask), source) if request.mask else None
        borders = (request.outpaint_left, request.outpaint_up, request.outpaint_right, request.outpaint_down)
        room = room_for(checkpoint, borders)
        width, height = usual_size(source.size, checkpoint.min_size, room) if request.width is None else (0, 0)
        size = (request.width or width, request.height or height or _proportional(source, request.width, checkpoint))
        image = fitted(source, size, request.resize_mode)
        mask = fitted(mask, size, request.resize_mode, is_mask=True) if mask else None
        if has_borders(request):
            image, mask = widened(image, mask, borders)
        names = {"init_image": self.keep(image, visitor)}
        if mask is not None:
            names["mask"] = self.keep(_mask_with_white(mask), visitor)
        made = {**names, "width": image.width, "height": image.height, **dict.fromkeys(BORDERS, 0)}
        return parse_request({**request.model_dump(), **made})

    def _looked_at(self, given: Given, field: str) -> Image.Image:
        if isinstance(given, Image.Image):
            return given.convert("RGB")
        if isinstance(given, str) and _HASH.fullmatch(given):
            return self.open(given)
        try:
            return open_mask(Path(given)) if field == "mask" else open_picture(Path(given)).image
        except (Unusable, OSError, ValueError) as error:
            said = str(error) if isinstance(error, Unusable) else "This file cannot be read."
            raise InvalidRequest(said, "Choose another picture.", field) from error

    def _path(self, name: str, visitor: str) -> Path:
        return self._root / (visitor if _OWNER.fullmatch(visitor) else "others") / f"{name}.png"


def source_name(image: Image.Image) -> str:
    """A hash over size and RGB bytes: pictures of other forms can have the same bytes."""
    size = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(size + image.convert("RGB").tobytes()).hexdigest()


def _whole(path: Path) -> Image.Image | None:
    try:
        return open_picture(path).image
    except (Unusable, OSError):
        return None


def _mask_with_white(mask: Image.Image) -> Image.Image:
    clear = black_and_white(mask)
    if clear.getbbox() is None:
        raise InvalidRequest("The mask is empty, so nothing would change.", "Paint over what is to change.", "mask")
    return clear.convert("RGB")


def _of_form(mask: Image.Image, source: Image.Image) -> Image.Image:
    """`mask` as large as `source`.

    Raises:
        InvalidRequest: it is of another form.
    """
    if mask_problem(mask.size, source.size, brightest=1):
        raise InvalidRequest(
            f"The mask has {mask.width} × {mask.height} pixels, which is another form than the picture's "
            f"{source.width} × {source.height}.",
            "Make it from that picture.",
            "mask",
        )
    return mask.resize(source.size, Image.Resampling.NEAREST)


def _proportional(source: Image.Image, width: int | None, checkpoint: Checkpoint) -> int:
    """The height that goes with a `width` that was asked for, as the picture's form is."""
    height = round((width or source.width) * source.height / source.width / 8) * 8
    return min(max(height, checkpoint.min_size), checkpoint.max_size)
