"""What a picture says about itself: written into its file, and read back to get its settings again.

A PNG of ours holds three chunks: `studio` (JSON, everything, exact), `parameters` (A1111's text, for other tools) and
XMP (made by a model). Foreign PNG, JPEG and WebP files are read by their A1111 text. No path is ever written.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import TypeAdapter, ValidationError

from studio import __version__
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.exif import comment_of
from studio.infotext import SOFTWARE, FoundSettings, infotext, request_from_infotext
from studio.provenance import XMP_KEY, xmp_packet

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 50_000_000

STUDIO_KEY = "studio"
PARAMETERS_KEY = "parameters"

_NOT_IN_FILE = {"path", "is_starred"}
"""Facts about the gallery rather than about the picture."""

_Chunk = TypeAdapter(dict[str, Any])


def pixels_sha256(image: Image.Image) -> str:
    """A hash over the raw RGB bytes: the same for every lossless copy of a picture."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def embed(image: Image.Image, record: ImageRecord, catalogue: Catalogue) -> bytes:
    """The bytes of a PNG that tells how it was made."""
    chunk = {"version": __version__, **record.model_dump(mode="json", exclude=_NOT_IN_FILE)}
    info = PngInfo()
    info.add_text(PARAMETERS_KEY, infotext(record, catalogue))
    info.add_text(STUDIO_KEY, json.dumps(chunk))
    info.add_itxt(XMP_KEY, xmp_packet(SOFTWARE, is_composite=bool(record.recipe.init_image)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_record(path: Path, relative_path: str) -> ImageRecord | None:
    """The record of a picture of ours, as if it lay at `relative_path` in a gallery; None for any other file.

    The pixels are compared with their hash, so a picture that somebody has painted over is not ours any more.
    """
    try:
        with _open(path) as image:
            chunk = _studio_chunk(_texts(image))
            record = ImageRecord.model_validate({**chunk, "path": relative_path})
            return record if record.pixels_sha256 == pixels_sha256(image) else None
    except Exception:  # not ours or damaged: Pillow's decoders fail in more ways than they document
        return None


def read_settings(source: str | Path | BinaryIO, catalogue: Catalogue) -> FoundSettings:
    """The request that makes the picture in `source` again: exactly if it is ours, else as near as A1111's text allows.

    Raises:
        InvalidRequest: it is no PNG, JPEG or WebP picture, it is too large, or it carries no settings.
    """
    with _open(source) as image:
        try:
            texts = _texts(image)
        except Exception as error:  # as in read_record
            raise _not_a_picture() from error
    try:
        recipe = ResolvedRequest.model_validate(_studio_chunk(texts)["recipe"])
        return FoundSettings(request=recipe.as_request())
    except (KeyError, ValidationError):
        pass  # not ours, or from a version that knew other settings
    if texts.get(PARAMETERS_KEY, "").strip():
        return request_from_infotext(texts[PARAMETERS_KEY], catalogue)
    raise InvalidRequest(
        "This picture carries no settings.",
        "Pictures from here and from A1111-like programs do, until a screenshot or a chat app strips them.",
    )


@dataclass(frozen=True, kw_only=True)
class Told:
    """A picture (RGB), and what its file tells of it: `chunk` is ours, {} without one."""

    image: Image.Image
    file_format: str
    infotext: str
    xmp: str
    chunk: dict[str, Any]


def read_told(content: bytes) -> Told:
    """What a PNG, JPEG or WebP file of anybody tells.

    Raises:
        InvalidRequest: it is none of these, is damaged or too large.
    """
    with _open(io.BytesIO(content)) as image:
        try:
            pixels = image.convert("RGB")
            texts = _texts(image)
            xmp: Any = image.info.get(XMP_KEY) or image.info.get("xmp") or ""
        except Exception as error:  # as in read_record
            raise _not_a_picture() from error
        return Told(
            image=pixels,
            file_format=image.format or "",
            infotext=texts[PARAMETERS_KEY].strip(),
            xmp=xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp),
            chunk=_chunk(texts),
        )


def _open(source: str | Path | BinaryIO) -> Image.Image:
    """Open a picture without decoding it."""
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except Exception as error:  # as in read_record
        raise _not_a_picture() from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _too_large()
    return image


def _texts(image: Image.Image) -> dict[str, str]:
    """The settings texts of an opened picture, by the key that a PNG has for them."""
    if image.format == "PNG" and PARAMETERS_KEY not in image.info:
        image.load()  # chunks may also follow the pixels
    info: Mapping[Any, Any] = image.info
    texts = {key: str(info[key]) for key in (STUDIO_KEY, PARAMETERS_KEY) if isinstance(info.get(key), str)}
    if PARAMETERS_KEY not in texts:
        texts[PARAMETERS_KEY] = comment_of(image)
    return texts


def _studio_chunk(texts: Mapping[str, str]) -> dict[str, Any]:
    """Our JSON without the program's version; {} where there is none."""
    return {key: value for key, value in _chunk(texts).items() if key != "version"}


def _chunk(texts: Mapping[str, str]) -> dict[str, Any]:
    try:
        return _Chunk.validate_json(texts.get(STUDIO_KEY, ""))
    except ValidationError:
        return {}


def _not_a_picture() -> InvalidRequest:
    return InvalidRequest("This file is no PNG, JPEG or WebP picture, or it is damaged.", "Choose another file.")


def _too_large() -> InvalidRequest:
    return InvalidRequest(
        f"This picture has more than {MAX_PIXELS / 1e6:.0f} megapixels.", "Scale it down, or choose another."
    )
