"""Which marks a picture carries that say what it is: by us and by others, in its metadata and in its pixels."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.c2pa_signing import Credential, read_credential
from studio.domain.errors import NotFound
from studio.files import storage_errors
from studio.infotext import parse_infotext
from studio.metadata import Told, pixels_sha256, read_told
from studio.provenance import says_model, source_type_in
from studio.watermark import Mark, read_mark

MAX_BYTES = 256 * 2**20
_STEPS = "Steps"
"""What no text in A1111's form is without."""


@dataclass(frozen=True, kw_only=True)
class StudioChunk:
    """What our own chunk says: the version that wrote it, and whether the pixels are those that it was written for."""

    version: str
    is_unchanged: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The marks of a picture, each None or "" where it is not there. `source_type` is what XMP says of where it comes
    from (IPTC's term), whatever that is; `infotext` are settings as A1111 writes them."""

    source_type: str
    infotext: str
    studio: StudioChunk | None
    watermark: Mark | None
    c2pa: Credential | None

    @property
    def is_by_model(self) -> bool:
        """Whether one of them at least says that a model made the picture. A manifest counts only while the file is as
        it was signed."""
        told = says_model(self.source_type) or bool(self.infotext) or self.studio is not None
        return told or self.watermark is not None or (self.c2pa is not None and self.c2pa.says_model)

    def values(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {"made_by_model": self.is_by_model, **asdict(self)}


def verify(content: bytes) -> Verification:
    """Look for every mark in the bytes of a PNG, JPEG or WebP file. Takes up to some seconds where there is none.

    Raises:
        InvalidRequest: it is none of these, is damaged or too large.
    """
    told = read_told(content)
    return Verification(
        source_type=source_type_in(told.xmp),
        infotext=told.infotext if _STEPS in parse_infotext(told.infotext) else "",
        studio=_studio(told),
        watermark=read_mark(told.image),
        c2pa=read_credential(content, told.file_format),
    )


def verify_file(path: Path) -> Verification:
    """The same for a file.

    Raises:
        NotFound: there is no such file, or it is larger than any picture.
        StorageFailed: it cannot be read.
        InvalidRequest: as `verify`.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path.name!r}.", "Give the path of a picture.")
    if path.stat().st_size > MAX_BYTES:
        raise NotFound(f"{path.name!r} is larger than {MAX_BYTES // 2**20} MB.", "Give the path of a picture.")
    with storage_errors(path):
        content = path.read_bytes()
    return verify(content)


def _studio(told: Told) -> StudioChunk | None:
    if "recipe" not in told.chunk:
        return None
    is_unchanged = told.chunk.get("pixels_sha256") == pixels_sha256(told.image)
    return StudioChunk(version=str(told.chunk.get("version", "")), is_unchanged=is_unchanged)
