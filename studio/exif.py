"""The Exif comment, in which A1111 and its relatives keep the settings of a JPEG or WebP."""

import struct
from typing import Any

from PIL import Image

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
MAX_BYTES = 65_533
"""Of a block in a JPEG: a segment's length has two bytes, which count themselves."""
_UNDEFINED, _LONG = 7, 4
_UTF_16 = b"UNICODE\0"


def comment_block(text: str) -> bytes:
    """An Exif block (TIFF, big-endian, of one entry) whose UserComment is `text`, as `Image.save(exif=…)` takes it.

    Pillow's own `Exif` gives the comment the type of a plain byte, where the standard has "undefined" (Exif 2.32,
    §4.6.5), and stricter readers do not read it then.
    """
    comment = _UTF_16 + text.encode("utf-16-be", "replace")
    first_ifd, exif_ifd = 8, 26  # the header has 8 bytes, an IFD of one entry 2 + 12 + 4
    return (
        b"Exif\0\0MM\0*"
        + struct.pack(">L", first_ifd)
        + struct.pack(">HHHLLL", 1, EXIF_IFD, _LONG, 1, exif_ifd, 0)
        + struct.pack(">HHHLLL", 1, USER_COMMENT, _UNDEFINED, len(comment), exif_ifd + 18, 0)
        + comment
    )


def comment_of(image: Image.Image) -> str:
    """The comment of an opened picture; "" where it has none. The standard leaves the byte order of "UNICODE" open, and
    programs differ."""
    comment: Any = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    return comment if isinstance(comment, str) else _decoded(bytes(comment))


def _decoded(comment: bytes) -> str:
    code, body = comment[:8], comment[8:]
    if not code.startswith(b"UNICODE"):
        return (body if code in (b"ASCII\0\0\0", bytes(8)) else comment).decode("utf-8", "replace")
    readings = [body.decode(encoding, "replace") for encoding in ("utf-16-be", "utf-16-le")]
    return next((text for text in readings if "Steps: " in text), readings[0])
