"""Pictures and captions from an archive or from files that somebody chose, as a new folder that holds nothing else.

What comes in is hostile until it is written: no name decides where a file goes, no header how much is read.
"""

import itertools
import lzma
import os
import posixpath
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from studio.dataset_captions import write_captions
from studio.dataset_files import (
    MAX_LIST_BYTES,
    MAX_TEXT_BYTES,
    SYSTEM_FILES,
    check_free,
    decoded,
    entries_of,
    whole_folder,
)
from studio.domain.datasets import CAPTIONS, MASK_ENDS, PICTURES, caption_of, counted, is_mask
from studio.domain.errors import DatasetError
from studio.files import storage_errors

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_LIST_SUFFIXES = (".jsonl", ".csv")
_CHUNK = 1 << 18
_FREE_BYTES = 1_000_000
"""What any entry may unpack to, however well it is packed: text packs well."""
_ENCRYPTED = 0x1
_END, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_64_BYTES, _END_64_BYTES = 22, 20, 56
_TAIL_BYTES = (1 << 16) + _END_BYTES + _LOCATOR_64_BYTES + _END_64_BYTES
"""What may stand at the end of a zip: where its table of contents is, and a comment."""
_BYTES_PER_ENTRY = 1024
"""Of that table: more than a long name and what packers add to it take."""

_NOT_IN_NAMES = re.compile(r"[^\w ()+.-]+")
_AT_ENDS = re.compile(r"^[ .-]+|[ .-]+$")
_MAX_NAME_BYTES = 100
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the dot."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may come in. `ratio` is how many bytes may come of one, above a first megabyte."""

    files: int = 20_000
    file_bytes: int = 100_000_000
    total_bytes: int = 8_000_000_000
    ratio: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came in: `left_out` has a sentence for each file that did not, or for each line of a list."""

    folder: Path
    num_pictures: int
    num_captions: int
    left_out: tuple[str, ...]

    @property
    def summary(self) -> str:
        told = f"{counted(self.num_pictures, 'picture')} taken in, {self.num_captions} with a caption"
        return f"{told}; {len(self.left_out)} left out." if self.left_out else f"{told}."


@dataclass(frozen=True)
class _Source:
    """A file to take in: the folder and the name that it says it has, and its content piece by piece."""

    folder: str
    name: str
    chunks: Callable[[], Iterator[bytes]]
    packed: int | None = None
    """Bytes that it takes in an archive."""

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def told(self) -> str:
        """Its path, as it may be shown."""
        return repr(posixpath.join(self.folder, self.name)[-80:])


def import_zip(archive: Path, into: Path, *, limits: Limits | None = None) -> Imported:
    """Unpack the pictures and captions of a zip into a new folder `into`, all in one place, under names that are safe
    and their own; a list comes out as `metadata.jsonl` with those names. Archives inside are not opened.

    Raises:
        DatasetError: it is no zip, is damaged, encrypted or made to do harm, holds no pictures or too much, or `into`
            is in use.
        StorageFailed: the folder cannot be written.
    """
    limits = limits or Limits()
    check_free(into, replace=False)
    try:
        with archive.open("rb") as file:
            _check_directory(file, archive.name, limits)
            with zipfile.ZipFile(file) as opened:
                packed = os.fstat(file.fileno()).st_size
                sources = [_zipped(opened, entry, packed) for entry in _entries(opened, archive.name, limits)]
                return _take(sources, into, archive.name, _Meter(archive.name, limits, packed))
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, zlib.error, lzma.LZMAError) as error:
        raise DatasetError(
            f"{archive.name!r} is damaged, or no zip file: {str(error) or 'it ends too early'}.", "Pack it again."
        ) from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise DatasetError(f"{archive.name!r} cannot be read: {why}.", "Check its path and permissions.") from error


def import_files(paths: Iterable[Path], into: Path, *, limits: Limits | None = None) -> Imported:
    """Copy pictures and captions from anywhere on this machine into a new folder `into`, as `import_zip` does. Files
    belong together by their names, or where these come twice, by their folders too.

    Raises:
        DatasetError: there are no pictures among them, or too much, or `into` is in use.
        StorageFailed: the folder cannot be written.
    """
    limits = limits or Limits()
    check_free(into, replace=False)
    given = list(paths)
    if len(given) > limits.files:
        raise DatasetError(
            f"{len(given):,} files were chosen; at most {limits.files:,} can be.", "Make several data sets of them."
        )
    names = [path.name.casefold() for path in given]
    is_flat = len(set(names)) == len(names)
    sources = [_chosen(path, "" if is_flat else path.parent.as_posix()) for path in given]
    return _take(sources, into, "the selection", _Meter("the selection", limits, None))


class _Meter:
    """Counts what is really read, and stops what is too much."""

    def __init__(self, what: str, limits: Limits, packed: int | None) -> None:
        self._what = what
        self._limits = limits
        self._packed = packed
        self._total = 0

    def counted(self, source: _Source) -> Iterator[bytes]:
        """The content of `source`.

        Raises:
            DatasetError: it has more bytes than one file may, or all have.
        """
        size = 0
        for chunk in source.chunks():
            size += len(chunk)
            self._total += len(chunk)
            if size > self._limits.file_bytes:
                limit = f"{self._limits.file_bytes / 1e6:,.0f} MB"
                raise DatasetError(f"{source.told} has more than {limit}.", "Leave it out, or make it smaller.")
            if self._total > self._limits.total_bytes:
                limit = f"{self._limits.total_bytes / 1e9:,.1f} GB"
                raise DatasetError(f"{self._what!r} holds more than {limit}.", "Make several data sets of it.")
            if self._is_bomb(size, source.packed) or self._is_bomb(self._total, self._packed):
                raise DatasetError(
                    f"{self._what!r} unpacks to more than {self._limits.ratio:g} times its size, as no pictures do.",
                    "Do not use it, or pack it again yourself.",
                )
            yield chunk

    def _is_bomb(self, size: int, packed: int | None) -> bool:
        return packed is not None and size > _FREE_BYTES + self._limits.ratio * packed


def _take(sources: Sequence[_Source], into: Path, what: str, meter: _Meter) -> Imported:
    """Write what is a picture or belongs to one into a new folder."""
    kinds = (*PICTURES, *CAPTIONS, *_LIST_SUFFIXES)
    wanted = [each for each in sources if each.suffix in kinds]
    left_out = [_why_left_out(each) for each in sources if each.suffix not in kinds and each.name not in SYSTEM_FILES]
    pictures = [each for each in wanted if each.suffix in PICTURES and not is_mask(each.name)]
    if not pictures:
        more = f" The first of {len(left_out)} files left out: {left_out[0]}" if left_out else ""
        raise DatasetError(
            f"{what!r} holds no pictures.{more}", "Give PNG, JPEG or WebP files, with text files beside."
        )
    names = _new_names(pictures)
    with whole_folder(into) as folder:
        for picture, name in names.items():
            _write(folder / name, meter.counted(picture))
        masks, lone = _masks([each for each in wanted if is_mask(each.name)], names)
        for name, mask in masks.items():
            _write(folder / name, meter.counted(mask))
        beside, unused = _beside([each for each in wanted if each.suffix in CAPTIONS], names, meter)
        listed, amiss = _listed([each for each in wanted if each.suffix in _LIST_SUFFIXES], names, meter)
        captions = beside | listed
        write_captions(folder, captions, "metadata" if listed else "text_files")
    return Imported(
        folder=into, num_pictures=len(names), num_captions=len(captions), left_out=(*left_out, *lone, *unused, *amiss)
    )


def _zipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, packed: int) -> _Source:
    def chunks() -> Iterator[bytes]:
        with archive.open(entry) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    folder, name = posixpath.split(posixpath.normpath(entry.filename))
    return _Source(folder, name, chunks, min(entry.compress_size, packed))


def _chosen(path: Path, folder: str) -> _Source:
    def chunks() -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            why = (error.strerror or "the system does not say why").lower()
            raise DatasetError(f"{path.name!r} cannot be read: {why}.", "Check its permissions.") from error

    return _Source(folder, path.name, chunks)


def _check_directory(file: BinaryIO, name: str, limits: Limits) -> None:
    """Look at how long the table of contents is before zipfile reads all of it into memory, whatever number of entries
    is told; the places are those where zipfile looks.

    Raises:
        DatasetError: it is longer than that of the most files that may be.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _TAIL_BYTES))
    tail = file.read()
    file.seek(0)
    at = len(tail) - _END_BYTES if tail[-_END_BYTES:].startswith(_END) else tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        return  # zipfile says that this is none
    (length,) = struct.unpack_from("<I", tail, at + 12)
    at_64 = at - _LOCATOR_64_BYTES - _END_64_BYTES
    if at_64 >= 0 and tail[at - _LOCATOR_64_BYTES :].startswith(_LOCATOR_64):
        (length,) = struct.unpack_from("<Q", tail, at_64 + 40)
    if length > limits.files * _BYTES_PER_ENTRY:
        raise DatasetError(f"{name!r} holds more than {limits.files:,} files.", "Make several data sets of it.")


def _entries(archive: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[zipfile.ZipInfo]:
    """The files of an archive, each under a name of its own, without what macOS adds.

    Raises:
        DatasetError: there are too many, or one is made to do harm or cannot be read.
    """
    if len(archive.infolist()) > limits.files:
        raise DatasetError(f"{name!r} holds more than {limits.files:,} files.", "Make several data sets of it.")
    for entry in archive.infolist():
        if why := _why_refused(entry):
            raise DatasetError(
                f"{name!r} holds {entry.filename[:80]!r}, which {why}.", "Pack the pictures themselves, without it."
            )
        path = PurePosixPath(entry.filename)
        if not entry.is_dir() and "__MACOSX" not in path.parts and not path.name.startswith("._"):
            yield entry


def _why_refused(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if "\0" in name or "\\" in name:
        return "has a name that systems read in different ways"
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device, not a file"


def _why_left_out(source: _Source) -> str:
    if source.suffix in _ARCHIVES:
        return f"{source.told} is an archive itself and was not opened."
    return f"{source.told} is neither a picture nor a caption."


def _new_names(pictures: Sequence[_Source]) -> dict[_Source, str]:
    """Each picture's name in one folder: safe for any shell, page and file system, and no other's, in capitals or not,
    not even with another suffix, for a caption file has none of the picture's."""
    names: dict[_Source, str] = {}
    taken: set[str] = set()
    for picture in pictures:
        plain = _NOT_IN_NAMES.sub("-", unicodedata.normalize("NFC", picture.stem)).encode()
        stem = _AT_ENDS.sub("", plain[:_MAX_NAME_BYTES].decode(errors="ignore")) or "picture"
        stem = f"_{stem}" if _RESERVED.match(stem) else stem
        stem = f"{stem}_" if is_mask(stem + picture.suffix) else stem
        free = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        stem = next(name for name in free if name.casefold() not in taken)
        taken.add(stem.casefold())
        names[picture] = stem + picture.suffix
    return names


def _masks(found: Sequence[_Source], names: Mapping[_Source, str]) -> tuple[dict[str, _Source], list[str]]:
    """Masks by their new names, which follow those of their pictures; and what belongs to no picture."""
    places = {(mask.folder, mask.name): mask for mask in found}
    taken: dict[str, _Source] = {}
    for picture, name in names.items():
        keys = ((picture.folder, f"{picture.stem}{end}") for end in MASK_ENDS)
        mask = next((places[key] for key in keys if key in places), None)
        if mask is not None:
            taken[f"{PurePosixPath(name).stem}{MASK_ENDS[0]}"] = mask
    lone = [mask for mask in found if mask not in taken.values()]
    return taken, [f"{mask.told} is a mask without a picture." for mask in lone]


def _beside(texts: Sequence[_Source], names: Mapping[_Source, str], meter: _Meter) -> tuple[dict[str, str], list[str]]:
    """The captions that stand in text files, by the new names of their pictures; and what belongs to none."""
    places = {(text.folder, text.stem, text.suffix): text for text in texts}
    captions: dict[str, str] = {}
    used: set[_Source] = set()
    for picture, name in names.items():
        parts = PurePosixPath(picture.folder)
        folder = parts.with_name("captions").as_posix() if parts.name == "images" else picture.folder
        keys = [(place, picture.stem, suffix) for place in (picture.folder, folder) for suffix in CAPTIONS]
        found = [places[key] for key in keys if key in places]
        used.update(found)
        caption = caption_of(decoded(_read(found[0], meter, MAX_TEXT_BYTES))) if found else ""
        captions |= {name: caption} if caption else {}
    return captions, [f"{text.told} belongs to no picture." for text in texts if text not in used]


def _listed(lists: Sequence[_Source], names: Mapping[_Source, str], meter: _Meter) -> tuple[dict[str, str], list[str]]:
    """The captions that stand in lists, by the new names of their pictures; and what is amiss with their lines."""
    places = {posixpath.join(picture.folder, picture.name): name for picture, name in names.items()}
    alone = Counter(picture.name for picture in names)
    by_name = {picture.name: name for picture, name in names.items() if alone[picture.name] == 1}
    captions: dict[str, str] = {}
    amiss: list[str] = []
    for source in lists:
        told = list(entries_of(source.name, decoded(_read(source, meter, MAX_LIST_BYTES))))
        if all(isinstance(entry, str) for entry in told):
            amiss.append(f"{source.told} names no picture with a caption.")
            continue
        for entry in told:
            if isinstance(entry, str):
                amiss.append(entry)
                continue
            place = posixpath.normpath(posixpath.join(source.folder, entry.name))
            name = places.get(place, by_name.get(posixpath.basename(place)))
            if name is None or name in captions:
                why = "which did not come with it" if name is None else "which has a caption already"
                amiss.append(f"Line {entry.line} of {source.name} names {entry.name[:80]!r}, {why}.")
            elif caption := caption_of(entry.caption):
                captions[name] = caption
    return captions, amiss


def _read(source: _Source, meter: _Meter, limit: int) -> bytes:
    """The beginning of a file, up to `limit` bytes."""
    data = b""
    for chunk in meter.counted(source):
        data += chunk
        if len(data) >= limit:
            break
    return data[:limit]


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file. Only what goes wrong in writing is a failure of the disk: chunks are read elsewhere."""
    with storage_errors(path):
        file = path.open("xb")
    with file:
        for chunk in chunks:
            with storage_errors(path):
                file.write(chunk)
        with storage_errors(path):
            file.flush()
            os.fsync(file.fileno())
