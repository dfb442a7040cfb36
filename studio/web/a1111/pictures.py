"""Pictures in the bodies of AUTOMATIC1111's API, in its own words where they cannot be read."""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

from studio.dataset_scan import Unusable, open_mask, open_picture
from studio.domain.errors import InvalidRequest
from studio.exif import comment_of
from studio.infotext import parse_infotext
from studio.metadata import FORMATS, MAX_PIXELS, PARAMETERS_KEY
from studio.sources import Sources
from studio.web.a1111.requests import Img2Img
from studio.web.given_pictures import Unreadable, as_file, decoded

NOT_ENCODED = "Invalid encoded image"
"""A1111's own words, which clients know."""


def kept_pictures(asked: Img2Img, sources: Sources, visitor: str) -> dict[str, str]:
    """Keep what a picture begins from; gives the names for it, by the fields of our request.

    Raises:
        InvalidRequest: there is none, or several, or one cannot be read.
    """
    if len(asked.init_images) != 1:
        raise InvalidRequest(
            f"{len(asked.init_images)} pictures are given to start from; it takes one.", "Send one.", "init_images"
        )
    names = {"init_image": sources.take(_opened(asked.init_images[0], "init_images"), visitor)}
    if asked.mask:
        mask = _opened(asked.mask, "mask")
        mask = ImageOps.invert(mask) if asked.inpainting_mask_invert else mask
        names["mask"] = sources.take(mask, visitor, "mask")
    return names


def png_info(encoded: str) -> dict[str, Any]:
    """What a picture says about itself: A1111's text, the other texts of the file, and that text taken apart.

    Raises:
        InvalidRequest: it is no PNG, JPEG or WebP picture, or one of too many pixels.
    """
    content = _content(encoded, "image")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("too many pixels to decode")
            image.load()  # chunks may also follow the pixels
            texts: dict[str, str] = {str(key): value for key, value in _info(image).items() if isinstance(value, str)}
            said = texts.pop(PARAMETERS_KEY, "") or comment_of(image)
    except Exception as error:  # Pillow's decoders fail in more ways than they document
        raise _unreadable("It is no PNG, JPEG or WebP picture, is damaged, or is too large.", "image") from error
    return {"info": said, "items": texts, "parameters": parse_infotext(said) if said.strip() else {}}


def _opened(encoded: str, field: str) -> Image.Image:
    """The pixels of a picture, or the greys of a mask, upright."""
    with as_file(_content(encoded, field), field) as path:
        try:
            return open_mask(path) if field == "mask" else open_picture(path).image
        except (Unusable, OSError, ValueError) as error:
            said = str(error) if isinstance(error, Unusable) else f"{path.name} cannot be read."
            raise _unreadable(said, field) from error


def _content(encoded: str, field: str) -> bytes:
    try:
        return decoded(encoded, field)
    except Unreadable as error:
        raise _unreadable(error.message, field) from None


def _unreadable(said: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"{NOT_ENCODED}. {said}", "Send a PNG, JPEG or WebP picture in base64.", field)


def _info(image: Image.Image) -> Mapping[Any, Any]:
    return image.info
