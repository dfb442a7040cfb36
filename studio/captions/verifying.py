"""What of a captioned folder is whole, and exactly what is missing."""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.captions.merging import Chosen
from studio.captions.shards import Reading
from studio.domain.captions import Flag, Picture, Row
from studio.domain.datasets import counted
from studio.domain.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A picture whose caption is to be made again, or made at all: why, and when the caption was made that is doubted,
    "" where there is none. A caption that is later than that is the answer to the doubt."""

    picture: Picture
    why: str
    at: str


@dataclass(kw_only=True)
class Verification:
    """Every picture of a folder is in one of `num_good`, `doubtful`, `failed` and `missing`. Of `num_lines` in its
    shards those in `bad` could not be read."""

    num_pictures: int = 0
    num_good: int = 0
    doubtful: list[Doubt] = field(default_factory=list[Doubt])
    failed: list[Doubt] = field(default_factory=list[Doubt])
    missing: list[Doubt] = field(default_factory=list[Doubt])
    renamed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """What a picture was called when its caption was made, and now."""
    copies: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """A picture, and another one with the same file."""
    gone: list[str] = field(default_factory=list[str])
    """What pictures were called that have a caption and are not there."""
    num_conflicts: int = 0
    num_lines: int = 0
    bad: list[str] = field(default_factory=list[str])

    @property
    def num_captioned(self) -> int:
        return self.num_good + len(self.doubtful)

    @property
    def is_whole(self) -> bool:
        """Whether every picture has a caption that passes the checks, and every line could be read."""
        return self.num_good == self.num_pictures and not self.bad

    @property
    def to_do(self) -> list[Doubt]:
        """What is to be captioned, or captioned again."""
        return sorted([*self.doubtful, *self.failed, *self.missing], key=lambda doubt: doubt.picture.name)

    @property
    def summary(self) -> str:
        """One sentence with all the numbers."""
        parts = [f"{self.num_good} have a caption that passes"]
        told = (
            (self.doubtful, "have a doubtful one"),
            (self.failed, "failed"),
            (self.missing, "have none"),
            (self.renamed, "were renamed"),
            (self.copies, "repeat another file"),
            (self.gone, "are gone though their captions are here"),
        )
        parts += [f"{len(names)} {what}" for names, what in told if names]
        if self.num_conflicts:
            parts.append(f"{self.num_conflicts} had several captions to choose from")
        if self.bad:
            parts.append(f"{counted(len(self.bad), 'line')} of {self.num_lines} could not be read")
        return f"{counted(self.num_pictures, 'picture')}: {', '.join(parts)}."


def verify(
    pictures: Iterable[Picture], chosen: Chosen, reading: Reading, mismatched: Container[bytes] = frozenset()
) -> Verification:
    """Compare what there is with what shards say of it; `reading` was read through into `chosen`. `mismatched` are the
    pictures whose captions a judge objects to."""
    found = Verification(
        num_lines=reading.num_lines,
        bad=[str(line) for line in reading.bad],
        num_conflicts=len(chosen.conflicts()),
    )
    first: dict[bytes, str] = {}
    renamed: dict[bytes, list[str]] = {}
    for picture in pictures:
        found.num_pictures += 1
        if picture.digest in first:
            found.copies.append((picture.name, first[picture.digest]))
        else:
            first[picture.digest] = picture.name
        row = chosen.row(picture.digest)
        if row is None:
            _note_missing(found, picture, chosen.failure(picture.digest))
            continue
        if row.name != picture.name:
            renamed.setdefault(picture.digest, []).append(picture.name)
        flags = (*chosen.flags(row), *((Flag.MISMATCH,) if picture.digest in mismatched else ()))
        if flags:
            found.doubtful.append(Doubt(picture=picture, why=", ".join(flags), at=row.at))
        else:
            found.num_good += 1
    _note_names(found, chosen, first, renamed)
    return found


def redo_list(doubts: Iterable[Doubt]) -> bytes:
    """What `--redo` takes: a line of JSON for each picture that is to be captioned again."""
    lines = (
        json.dumps({"sha256": doubt.picture.digest.hex(), "name": doubt.picture.name, "why": doubt.why, "at": doubt.at})
        for doubt in doubts
    )
    return "".join(f"{line}\n" for line in lines).encode()


def read_redo_list(path: Path) -> dict[bytes, str]:
    """Which pictures are to be captioned again unless they have a caption later than this, by SHA-256.

    Raises:
        InvalidRequest: it cannot be read, or is none that `redo_list` wrote.
    """
    doubts: dict[bytes, str] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            digest, at = bytes.fromhex(values["sha256"]), values["at"]
            if len(digest) != 32 or type(at) is not str:
                raise ValueError
            doubts[digest] = max(at, doubts.get(digest, ""))
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidRequest(
            f"{path.name!r} is no list of pictures to caption again.",
            "`dataset verify --redo-list FILE` writes one.",
            "redo",
        ) from None
    return doubts


def _note_missing(found: Verification, picture: Picture, failure: Row | None) -> None:
    if failure is None:
        found.missing.append(Doubt(picture=picture, why="no caption yet", at=""))
    else:
        found.failed.append(Doubt(picture=picture, why=failure.reason or failure.status, at=failure.at))


def _note_names(
    found: Verification, chosen: Chosen, first: Mapping[bytes, str], renamed: Mapping[bytes, list[str]]
) -> None:
    for digest in chosen.digests():
        row = chosen.row(digest)
        if row is not None and digest not in first:
            found.gone.append(row.name)
    names = {picture: name for picture, name in found.copies}
    for digest, now in renamed.items():
        row = chosen.row(digest)
        is_copied = first[digest] in names.values()
        if row is not None and not is_copied:
            found.renamed += [(row.name, name) for name in now]
    found.gone.sort()
    found.renamed.sort()
