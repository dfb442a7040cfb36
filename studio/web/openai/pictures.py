"""Pictures as OpenAI's clients send and ask for them."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from studio.dataset_scan import Unusable, open_picture
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.images import ImageRecord
from studio.exif import MAX_BYTES, comment_block
from studio.gallery import Gallery
from studio.infotext import SOFTWARE, infotext
from studio.metadata import FORMATS
from studio.provenance import xmp_packet
from studio.sources import Sources
from studio.web.access import Caller
from studio.web.given_pictures import taken


def kept_picture(sources: Sources, given: Any, caller: Caller, field: str) -> str:
    """Keep a picture that a client sends for `field`: bytes, base64, a `data:` address, or the name of one of its own.

    Raises:
        InvalidRequest: it is none of these, no PNG, JPEG or WebP picture, or lies at an address.
        StorageFailed: it cannot be kept.
    """
    try:
        return taken(sources, given, caller, field, _mask) if field == "mask" else taken(sources, given, caller, field)
    except NotFound as error:
        raise InvalidRequest(error.message, error.hint, field) from None


def file_of(record: ImageRecord, gallery: Gallery, catalogue: Catalogue, output_format: str, quality: int) -> bytes:
    """The file of a picture: as the gallery has it, or made into a `webp` or `jpeg` of `quality` 0 to 100.

    Raises:
        NotFound: it was deleted.
    """
    try:
        png = gallery.path(record).read_bytes()
    except OSError:
        raise NotFound("The file of this picture is gone.", "Draw it again.") from None
    if output_format == "png":
        return png
    with Image.open(io.BytesIO(png)) as image:
        content = encoded(image.convert("RGB"), record, catalogue, output_format, quality)
    return gallery.signed(content, output_format.upper(), record)


def encoded(image: Image.Image, record: ImageRecord, catalogue: Catalogue, output_format: str, quality: int) -> bytes:
    """A WebP or JPEG that tells how it was made, as A1111's do: in the Exif comment, and marked in XMP."""
    xmp = xmp_packet(SOFTWARE, is_composite=bool(record.recipe.init_image)).encode()
    return _saved(image, output_format, quality, exif=_exif(record, catalogue), xmp=xmp)


def preview_as(jpeg: bytes, size: tuple[int, int], output_format: str, quality: int) -> bytes:
    """A preview in the size and format of the finished picture."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return _saved(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), output_format, quality)


def _saved(image: Image.Image, output_format: str, quality: int, **told: Any) -> bytes:
    options = {} if output_format == "png" else {"quality": max(1, quality)}  # 0 means "the usual" to Pillow
    if output_format == "jpeg":
        options["subsampling"] = 0
    buffer = io.BytesIO()
    image.save(buffer, output_format.upper(), **options, **told)
    return buffer.getvalue()


def _exif(record: ImageRecord, catalogue: Catalogue) -> bytes:
    """An Exif block whose comment is the infotext; without what was typed before, where both are too long for a JPEG,
    and empty where the prompts alone are."""
    short = record.recipe.model_copy(update={"typed_prompt": "", "original_prompt": ""})
    for told in (record, record.model_copy(update={"recipe": short})):
        block = comment_block(infotext(told, catalogue))
        if len(block) < MAX_BYTES:
            return block
    return b""


def _mask(path: Path) -> Image.Image:
    """A mask in our words, where white changes. With OpenAI's clients what is fully transparent does; one without
    transparency is ours already.

    Raises:
        InvalidRequest: it is no picture.
    """
    try:
        opened = open_picture(path)
    except (Unusable, OSError) as error:
        raise InvalidRequest(str(error), "Send a PNG as large as the picture.", "mask") from error
    if not opened.is_transparent:
        return opened.image
    with Image.open(path, formats=FORMATS) as file:
        return file.convert("RGBA").getchannel("A").point([255] + [0] * 255)
