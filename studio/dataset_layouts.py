"""How well-known data sets of faces lie on a disk: their pictures, and what is known of each."""

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, cast

from studio.dataset_files import caption_files, decoded, is_named_picture
from studio.domain.datasets import MAX_CAPTION, caption_of
from studio.domain.errors import DatasetError

IGNORED = frozenset(
    {"annotations", "masks", "mask", "labels", "segmentation", "thumbnails128x128", "in-the-wild-images"}
)
"""Folders of what is no picture of its own: masks, small copies, and what the pictures were cut from."""
MAX_WATERMARK, MAX_UNSAFE = 0.8, 0.5
"""How likely a watermark, or what is unfit to be shown, may be, where a data set has that from its own detectors."""
_MAX_ABOUT = 200_000
_FFHQ_LIST = "ffhq-dataset-v2.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A picture of a data set: its path there, with slashes, the caption that comes with it, "" for none, and what is
    to be kept of whose it is. `objection` says why it is not to be used, "" where nothing speaks against it."""

    path: Path
    name: str
    caption: str = ""
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    objection: str = ""


@dataclass(frozen=True, kw_only=True)
class SourceLayout:
    """One way of lying there. `licence` is that of the data set, which single pictures may narrow; "" where their owner
    has to say."""

    title: str
    licence: str
    licence_url: str
    candidates: Callable[[Path], Iterator[Candidate]]


def pictures_under(root: Path) -> Iterator[Path]:
    """Every picture below a folder in order of path; masks and what lies in folders of such are left out, and so are
    links, which may lead anywhere."""
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if name.lower() not in IGNORED and not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if is_named_picture(path) and not path.is_symlink():
                yield path


def _ffhq(root: Path) -> Iterator[Candidate]:
    listing = next((folder / _FFHQ_LIST for folder in (root, root.parent) if (folder / _FFHQ_LIST).is_file()), None)
    known = _ffhq_authors(listing) if listing else {}
    for path in pictures_under(root):
        yield Candidate(path=path, name=_name(root, path), about=known.get(path.stem, {}))


def _ffhq_authors(listing: Path) -> dict[str, dict[str, str]]:
    """Whose each picture is, by its number. The list has 250 MB: it is read entry by entry, and little of it kept."""
    keys = {"author": "author", "license": "licence", "license_url": "licence_url", "photo_url": "source_url"}
    known: dict[str, dict[str, str]] = {}
    for number, entry in _entries(listing):
        told = _object(_object(entry).get("metadata"))
        if number.isdecimal():
            known[f"{int(number):05}"] = {ours: _text(told[key]) for key, ours in keys.items() if told.get(key)}
    return known


def _entries(listing: Path) -> Iterator[tuple[str, Any]]:
    """The entries of one large JSON object, one at a time."""
    try:
        text = listing.read_text(encoding="utf-8")
        decoder, at = JSONDecoder(), _past(text, 0, "{")
        while text[at] != "}":
            number, at = decoder.raw_decode(text, at)
            at = _past(text, at, ":")
            entry, at = decoder.raw_decode(text, at)
            yield str(number), entry
            at = _past(text, at, "," if text[_past(text, at, "")] == "," else "")
    except (OSError, UnicodeDecodeError, JSONDecodeError, IndexError, RecursionError) as error:
        raise DatasetError(
            f"{listing.name} cannot be read, and so nobody knows whose the pictures are.",
            "Fetch it again, or remove it.",
        ) from error


def _past(text: str, at: int, mark: str) -> int:
    """The place after white space, `mark` and white space again."""
    while text[at].isspace():
        at += 1
    if mark and text[at] != mark:
        raise IndexError
    at += len(mark)
    while mark and text[at].isspace():
        at += 1
    return at


def _easy_portrait(root: Path) -> Iterator[Candidate]:
    for path in pictures_under(root):
        yield Candidate(path=path, name=_name(root, path))


def _laion_face(root: Path) -> Iterator[Candidate]:
    """As img2dataset writes it: `00000/000000001.jpg`, its words in a text file, and what is known of it in a JSON."""
    for path in pictures_under(root):
        about = _json_beside(path)
        caption = _text(about.get("caption") or _text_beside(path), MAX_CAPTION)
        url, licence = _text(about.get("url") or ""), _text(about.get("LICENSE") or about.get("license") or "")
        kept = {"source_url": url, "licence": licence if licence not in ("", "?") else "unknown"}
        yield Candidate(
            path=path,
            name=_name(root, path),
            caption=caption,
            about={key: value for key, value in kept.items() if value},
            objection=_objection(about),
        )


def _objection(about: Mapping[str, Any]) -> str:
    if about.get("status", "success") != "success":
        return "it was not fetched whole"
    for key, most, why in (("pwatermark", MAX_WATERMARK, "a watermark"), ("punsafe", MAX_UNSAFE, "unfit to be shown")):
        value = about.get(key)
        if isinstance(value, int | float) and value > most:
            return f"probably {why}"
    return ""


def _folder(root: Path) -> Iterator[Candidate]:
    for path in pictures_under(root):
        yield Candidate(path=path, name=_name(root, path), caption=caption_of(_text_beside(path)))


LAYOUTS = {
    "ffhq": SourceLayout(
        title="FFHQ",
        licence="CC BY-NC-SA 4.0; pictures under licences of their own",
        licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
        candidates=_ffhq,
    ),
    "easyportrait": SourceLayout(
        title="EasyPortrait",
        licence="CC BY-SA 4.0",
        licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
        candidates=_easy_portrait,
    ),
    "laion-face": SourceLayout(title="LAION-Face", licence="unknown", licence_url="", candidates=_laion_face),
    "folder": SourceLayout(title="", licence="", licence_url="", candidates=_folder),
}
"""By the name that `--layout-of` takes."""


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _text(value: Any, most: int = 500) -> str:
    """What others wrote, as one line that can be kept."""
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text_beside(path: Path) -> str:
    for beside in caption_files(path.parent, path):
        try:
            with beside.open("rb") as file:
                return decoded(file.read(4 * MAX_CAPTION))
        except OSError:
            continue
    return ""


def _json_beside(path: Path) -> dict[str, Any]:
    try:
        with path.with_suffix(".json").open("rb") as file:
            about: Any = json.loads(io.BytesIO(file.read(_MAX_ABOUT)).read())
    except (OSError, ValueError, RecursionError):
        return {}
    return _object(about)


def _object(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
