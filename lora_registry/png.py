"""PNG files as they are shown to others: without what they tell of how they were made."""

from collections.abc import Iterator

START = b"\x89PNG\r\n\x1a\n"
_TELLING = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")
_MARK = b"XML:com.adobe.xmp\0"
"""Begins the chunk that says that a model made it, which stays."""


def without_texts(png: bytes) -> bytes:
    """The file without texts, Exif and time, but for the mark; what is no whole PNG comes back as far as it is one."""
    return START + b"".join(
        chunk
        for chunk in _chunks(png)
        if chunk[4:8] not in _TELLING or (chunk[4:8] == b"iTXt" and chunk[8:].startswith(_MARK))
    )


def _chunks(png: bytes) -> Iterator[bytes]:
    """Length, name, content and checksum of each chunk (PNG specification, §5.3)."""
    place = len(START)
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        yield png[place:end]
        place = end
