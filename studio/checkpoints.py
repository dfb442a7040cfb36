"""Checkpoints of one's own: whatever lies in the models folder and is not in the catalogue, as rows of their own."""

import itertools
import logging
import os
import re
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engines.hub_files import INDEX_NAME
from engines.places import WEIGHTS_SUFFIX
from engines.soundness import PARTS, inspect, json_object
from studio.domain.catalogue import Catalogue, Checkpoint, PredictionType
from studio.domain.errors import Incompatible, InvalidRequest, NotFound, StudioError
from studio.domain.merging import MERGED_FILE, MergedCheckpoint
from studio.domain.stamps import FileStamp, file_stamp
from studio.files import storage_errors
from studio.placing import is_link, link_or_copy

logger = logging.getLogger(__name__)

_HIDDEN = re.compile(r"^\.|\.part$")
"""Downloads and copies in the making."""
_NOT_IN_NAMES = re.compile(r"[^\w ()+.-]+")
_AT_ENDS = re.compile(r"^[ .-]+|([ .-]|\.part)+$")
_MAX_NAME_BYTES = 100
_SIZES_PX = range(64, 2049)
"""What a folder may call its native size."""
LICENCE = "your own file"
_ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("folder", "hub_id", "revision", "vae_hub_id", "download_gb", "half_gb")),
    "mirrors": (),
}
"""What a model of the catalogue has, and one in the models folder has not."""

_Stamp = frozenset[FileStamp]
"""Those of the files that tell what a place is."""
_PREDICTS: dict[PredictionType | None, str] = {
    "epsilon": "it predicts noise",
    "v_prediction": "it predicts velocity",
    "sample": "it predicts the picture",
    None: "whether it predicts noise or velocity is measured at its first picture",
}


@dataclass(frozen=True, kw_only=True)
class Added:
    """What `OwnCheckpoints.add` did: the model that can now be chosen, and what to tell of it in one sentence."""

    checkpoint: Checkpoint
    message: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file or folder that is no checkpoint, and why."""

    name: str
    error: StudioError


class OwnCheckpoints:
    """Looks into the models folder. What has not changed since the last look is not opened again."""

    def __init__(self, models_dir: Path, catalogue: Catalogue) -> None:
        self._models_dir = models_dir
        self._catalogue = catalogue
        self._seen: dict[Path, tuple[_Stamp, Checkpoint | Refused]] = {}
        self._looking = threading.Lock()
        self._changing = threading.Lock()
        """Two locks: a page that looks need not wait for a copy that takes minutes."""

    def refresh(self) -> tuple[Refused, ...]:
        """Let the catalogue offer what is there now; gives what is there and cannot be used."""
        with self._looking:
            known = {row.id for row in self._catalogue.rows}
            places = [place for place in self._places() if _id(place) not in known]
            self._seen = {place: self._look(place) for place in places}
            found = [row for _, row in self._seen.values()]
            self._catalogue.set_own(tuple(row for row in found if isinstance(row, Checkpoint)))
            return tuple(row for row in found if isinstance(row, Refused))

    def add(self, path: str | Path, name: str | None = None) -> Added:
        """Offer the checkpoint at `path`, wherever on this machine it lies, under `name` or its own. It is linked into
        the models folder, or copied where nothing can be linked; what is there already keeps its place.

        Raises:
            NotFound: there is nothing at `path`.
            CorruptModel, Incompatible: it is no checkpoint, or not one that may be opened.
            StorageFailed: it cannot be read, or the models folder cannot be written.
        """
        source = _resolved(path)
        given = Path(path).expanduser()
        called = source if given.name in ("", "..") else given
        _check_name(called)
        inspect(called)
        with self._changing:
            twin = next((place for place in self._places() if _is_same(place, source)), None)
            if twin is not None:
                return self._added(twin, "is in the list of models already")
            free = self._free_id(_safe_name(name or called.name))
            target = self._models_dir / (free if source.is_dir() else free + WEIGHTS_SUFFIX)
            is_linked = link_or_copy(source, target)
            return self._added(target, "is in the list of models" + ("" if is_linked else ", as a copy"))

    def build(self, name: str, write: Callable[[Path], None]) -> Added:
        """Offer a checkpoint that `write` puts, whole or not at all, at the folder that it is given, in the models
        folder and called `name` or nearly so.

        Raises:
            StorageFailed: the models folder cannot be written.
            StudioError: whatever `write` raises; nothing is offered then.
        """
        with self._changing:
            target = self._models_dir / self._free_id(_safe_name(name))
            with storage_errors(target):
                self._models_dir.mkdir(parents=True, exist_ok=True)
                write(target)
            return self._added(target, "is in the list of models")

    def remove(self, checkpoint_id: str) -> Path:
        """Take a checkpoint that was linked out of the list, by its id or the name of its link; gives where the
        checkpoint itself is, untouched.

        Raises:
            NotFound: there is none of that id in the models folder.
            InvalidRequest: it is itself in the models folder, and so for its owner to delete.
        """
        with self._changing:
            named = [place for place in self._places() if checkpoint_id in (place.name, _id(place))]
            if not named:
                raise NotFound(f"The models folder has no {checkpoint_id[:80]!r}.", "Choose a model that was added.")
            place = next((place for place in named if is_link(place)), None)
            if place is None:
                raise InvalidRequest(
                    f"{named[0].name} itself lies in the models folder, and what is yours is not deleted from here.",
                    f"Delete or move it there: {named[0]}.",
                )
            leads_to = Path(os.path.realpath(place))
            with storage_errors(place):
                place.unlink()
        self.refresh()
        return leads_to

    def _added(self, place: Path, what: str) -> Added:
        for refused in self.refresh():
            if refused.name == place.name:
                raise refused.error
        checkpoint = self._catalogue.checkpoint(_id(place))
        family = self._catalogue.family(checkpoint.family).title
        message = f"{checkpoint.title} {what}: {family}; {_PREDICTS[checkpoint.prediction_type]}."
        return Added(checkpoint=checkpoint, message=message)

    def _free_id(self, name: str) -> str:
        there = os.listdir(self._models_dir) if self._models_dir.is_dir() else []
        taken = {_id(Path(other)).casefold() for other in there} | {row.id.casefold() for row in self._catalogue.rows}
        names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        return next(name for name in names if name.casefold() not in taken)

    def _places(self) -> list[Path]:
        if not self._models_dir.is_dir():
            return []
        return [path for path in sorted(self._models_dir.iterdir()) if _may_be_one(path)]

    def _look(self, place: Path) -> tuple[_Stamp, Checkpoint | Refused]:
        stamp = _stamp(place)
        if place in self._seen and self._seen[place][0] == stamp:
            return self._seen[place]
        try:
            return stamp, self._row(place)
        except StudioError as error:
            logger.info("%s is left out: %s", place.name, error)
            return stamp, Refused(name=_printable(place.name), error=error)

    def _row(self, place: Path) -> Checkpoint:
        _check_name(place)
        if os.path.isfile(place) and os.path.exists(place.with_name(_id(place))):
            raise Incompatible(f"{place.name} has the name of what lies beside it.", "Give it another name.")
        detected = inspect(place)
        merged = _merged(place)
        family = self._catalogue.family(detected.family)
        if base := self._base_of(merged, place, family.id):
            return base.model_copy(
                update={**_ELSEWHERE, **_told(place, merged), "prediction_type": detected.prediction_type}
            )
        native = _native_size(place) or family.native_size
        return Checkpoint(
            **_told(place, merged, f"A checkpoint of {family.title} from the models folder."),
            family=family.id,
            prediction_type=detected.prediction_type,
            native_size=native,
            min_size=min(native, 256),
            max_size=max(native, family.max_size),
            default_steps=30,
            default_guidance=family.default_guidance,
            default_scheduler=self._catalogue.checkpoint(self._catalogue.default_checkpoint).default_scheduler,
        )

    def _base_of(self, merged: MergedCheckpoint | None, place: Path, family: str) -> Checkpoint | None:
        """The row of the model that a merged one came of, if the catalogue has it: it draws as that does."""
        found = next((row for row in self._catalogue.rows if merged and row.id == merged.base), None)
        return found if found and (found.family, found.native_size) == (family, _native_size(place)) else None


def _merged(place: Path) -> MergedCheckpoint | None:
    """What a folder says that it came of; None for one that says nothing, or what is another program's."""
    told = json_object(place / MERGED_FILE)
    try:
        return MergedCheckpoint.model_validate(told) if told else None
    except ValidationError:
        return None


def _told(place: Path, merged: MergedCheckpoint | None, note: str = "") -> dict[str, Any]:
    """The fields of a row that are about the place, not about the weights; `note` is for one that says nothing."""
    return {
        "id": _id(place),
        "title": _id(place).replace("_", " "),
        "licence": (merged and "; ".join(merged.licences)) or LICENCE,
        "note": merged.note if merged else note,
        "is_own": True,
    }


def _resolved(path: str | Path) -> Path:
    try:
        if str(path).strip():
            return Path(path).expanduser().resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:  # not there, NUL or too long, a loop of links, no such home
        logger.info("no checkpoint at %r: %s", path, error)
    shown = str(path) if len(str(path)) <= 80 else f"…{str(path)[-79:]}"
    raise NotFound(f"There is no file or folder at {shown!r}.", "Give the path of a checkpoint on this machine.")


def _check_name(place: Path) -> None:
    """Refuse a name that no page and no terminal can show."""
    if not place.name.isprintable():
        raise Incompatible(f"{_printable(place.name)} is no name for a model.", "Give it one of letters and digits.")


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _safe_name(name: str) -> str:
    """A name of letters, digits and few signs, which no shell, page or file system takes for something else."""
    stem = name[: -len(WEIGHTS_SUFFIX)] if name.lower().endswith(WEIGHTS_SUFFIX) else name
    plain = _NOT_IN_NAMES.sub("-", unicodedata.normalize("NFC", stem)).encode()
    return _AT_ENDS.sub("", plain[:_MAX_NAME_BYTES].decode(errors="ignore")) or "checkpoint"


def _may_be_one(path: Path) -> bool:
    if _HIDDEN.search(path.name):
        return False
    leads_nowhere = path.is_symlink() and not os.path.exists(path)
    return path.suffix == WEIGHTS_SUFFIX or os.path.isdir(path) or leads_nowhere


def _is_same(place: Path, source: Path) -> bool:
    return os.path.exists(place) and os.path.samefile(place, source)


def _native_size(place: Path) -> int | None:
    """In pixels, as far as a folder tells it."""
    size = json_object(place / "unet" / "config.json").get("sample_size")
    return size * 8 if isinstance(size, int) and size * 8 in _SIZES_PX else None


def _id(place: Path) -> str:
    return place.name.removesuffix(WEIGHTS_SUFFIX)


def _stamp(place: Path) -> _Stamp:
    inside = [path for part in PARTS for path in (place / part).glob("*")] if os.path.isdir(place) else []
    return frozenset(filter(None, map(_stamp_if_there, [place, place / INDEX_NAME, *inside])))


def _stamp_if_there(path: Path) -> FileStamp | None:
    try:
        return file_stamp(path)
    except OSError:  # a link that leads nowhere
        return None
