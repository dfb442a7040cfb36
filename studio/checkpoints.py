"""Checkpoints of one's own: whatever lies in the models folder and is not in the catalogue, as rows of their own."""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from engines.detection import detect_file, detect_folder
from engines.places import WEIGHTS_SUFFIX
from studio.domain.catalogue import Catalogue, Checkpoint, PredictionType
from studio.domain.errors import StudioError

logger = logging.getLogger(__name__)

_HIDDEN = re.compile(r"^\.|\.part$")
"""Downloads and copies in the making."""
LICENCE = "your own file"


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
        self._seen: dict[Path, tuple[float, Checkpoint | Refused]] = {}

    def refresh(self) -> tuple[Refused, ...]:
        """Let the catalogue offer what is there now; gives what is there and cannot be used."""
        known = {row.id for row in self._catalogue.rows}
        places = [place for place in self._places() if _id(place) not in known]
        self._seen = {place: self._look(place) for place in places}
        found = [row for _, row in self._seen.values()]
        self._catalogue.set_own(tuple(row for row in found if isinstance(row, Checkpoint)))
        return tuple(row for row in found if isinstance(row, Refused))

    def _places(self) -> list[Path]:
        if not self._models_dir.is_dir():
            return []
        places = (path for path in sorted(self._models_dir.iterdir()) if not _HIDDEN.search(path.name))
        return [path for path in places if path.is_dir() or path.suffix == WEIGHTS_SUFFIX]

    def _look(self, place: Path) -> tuple[float, Checkpoint | Refused]:
        changed = _changed(place)
        if place in self._seen and self._seen[place][0] == changed:
            return self._seen[place]
        try:
            return changed, self._row(place)
        except StudioError as error:
            logger.info("%s is left out: %s", place.name, error)
            return changed, Refused(name=place.name, error=error)

    def _row(self, place: Path) -> Checkpoint:
        family_id, prediction_type, size = _described(place)
        family = self._catalogue.family(family_id)
        native = size or family.native_size
        return Checkpoint(
            id=_id(place),
            title=_id(place).replace("_", " "),
            family=family_id,
            prediction_type=prediction_type,
            native_size=native,
            min_size=min(native, 256),
            max_size=max(native, family.max_size),
            default_steps=30,
            default_guidance=family.default_guidance,
            default_scheduler=self._catalogue.checkpoint(self._catalogue.default_checkpoint).default_scheduler,
            licence=LICENCE,
            note=f"A checkpoint of {family.title} from the models folder.",
            is_own=True,
        )


def _described(place: Path) -> tuple[str, PredictionType | None, int | None]:
    """Family, prediction type and native size in pixels of a folder or file, as far as it tells."""
    if place.is_file():
        found = detect_file(place)
        return found.family, found.prediction_type, None
    family = detect_folder(place)
    scheduler = _json(place / "scheduler" / "scheduler_config.json")
    size = _json(place / "unet" / "config.json").get("sample_size")
    said = scheduler.get("prediction_type")
    prediction_type = said if said in get_args(PredictionType) else None
    return family, prediction_type, size * 8 if isinstance(size, int) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _id(place: Path) -> str:
    return place.name.removesuffix(WEIGHTS_SUFFIX)


def _changed(place: Path) -> float:
    files = [place] if place.is_file() else [place, *(place / "unet").glob("*")]
    return max(path.stat().st_mtime for path in files)
