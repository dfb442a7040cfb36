"""The studio's memory: which jobs there are and which images were made, in one database. Every method may be called
from every thread."""

import json
import re
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update

from studio.domain.beginning import SOURCE_FIELDS
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord, recipe_sha256
from studio.domain.request import ResolvedRequest
from studio.domain.scores import Score
from studio.job_ledger import JobLedger
from studio.search import conditions, search_text
from studio.tables import (
    WAITING_OR_RUNNING,
    ImageEntry,
    JobEntry,
    ReusedEntry,
    ScoreEntry,
    WeightsEntry,
)

_HASH = re.compile(r"\b[0-9a-f]{64}\b")


class Ledger(JobLedger):
    """The jobs of the database, its images, what judges said of them, and the weights that made them."""

    def add_image(self, record: ImageRecord) -> ImageRecord:
        """Record an image. If one with its id, or with its job and index, is there, that one stays and is given."""
        same_place = and_(ImageEntry.job_id == record.job_id, ImageEntry.image_index == record.image_index)
        with self._writing() as session:
            existing = session.scalar(select(ImageEntry).where(or_(ImageEntry.id == record.id, same_place)).limit(1))
            if existing is not None:
                return _image_record(existing)
            session.add(_image_entry(record))
            session.execute(update(JobEntry).where(JobEntry.id == record.job_id).values(starts=0))
            return record

    def image(self, image_id: str) -> ImageRecord:
        """Raises NotFound for an id that no image has."""
        with self._reading() as session:
            entry = session.get(ImageEntry, image_id)
            if entry is None:
                raise NotFound("There is no such picture.", "It may have been deleted.")
            return _image_record(entry)

    def images_of_job(self, job_id: str) -> list[ImageRecord]:
        """What a job has so far, by index: what it made, and what it reuses, with the index that it has in this job."""
        made = select(ImageEntry).where(ImageEntry.job_id == job_id)
        reused = select(ImageEntry, ReusedEntry.image_index).join(ReusedEntry, ReusedEntry.image_id == ImageEntry.id)
        with self._reading() as session:
            found = [_image_record(entry) for entry in session.scalars(made)]
            for entry, index in session.execute(reused.where(ReusedEntry.job_id == job_id)):
                found.append(_image_record(entry).model_copy(update={"image_index": index}))
        return sorted(found, key=lambda record: record.image_index)

    def images_of_recipe(
        self, recipe: ResolvedRequest, prompt_as_run: str, negative_as_run: str, visitor: str
    ) -> list[ImageRecord]:
        """What `visitor` has of exactly this recipe and these texts, newest first."""
        name = recipe_sha256(recipe, prompt_as_run, negative_as_run)
        wanted = select(ImageEntry).where(ImageEntry.recipe_sha256 == name, ImageEntry.visitor == visitor)
        with self._reading() as session:
            return [_image_record(entry) for entry in session.scalars(wanted.order_by(ImageEntry.id.desc()))]

    def reuse_image(self, job_id: str, image_index: int, image_id: str) -> bool:
        """Let a picture of an earlier job count as one of this job's; False if it is gone."""
        with self._writing() as session:
            if session.get(ImageEntry, image_id) is None:
                return False
            session.merge(ReusedEntry(job_id=job_id, image_index=image_index, image_id=image_id))
            return True

    def image_paths(self) -> dict[str, str]:
        """Where every image lies: path → id."""
        with self._reading() as session:
            return {path: image_id for path, image_id in session.execute(select(ImageEntry.path, ImageEntry.id))}

    def pictures_wait_s(self, visitor: str, most: int, within_s: float) -> float:
        """How long until less than `most` pictures of `visitor` are of the last so many seconds; 0 if that is so."""
        made = select(ImageEntry.created_at).where(ImageEntry.visitor == visitor).order_by(ImageEntry.created_at.desc())
        return self._until_free_s(made, most, within_s)

    def sources_named(self) -> set[str]:
        """What images began from or kept to (see `studio.sources`), and what waiting and running jobs are to."""
        of_images = select(*(ImageEntry.recipe[field].as_string() for field in SOURCE_FIELDS)).distinct()
        of_jobs = select(JobEntry.payload).where(JobEntry.state.in_(WAITING_OR_RUNNING))
        with self._reading() as session:
            named = {name for row in session.execute(of_images) for name in row if name}
            return named.union(*(_HASH.findall(json.dumps(payload)) for payload in session.scalars(of_jobs)))

    def search(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        limit: int = 48,
        offset: int = 0,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> list[ImageRecord]:
        """Images that fit a search (see `studio.search`), newest first; of `visitor` only, if given, and without
        those of evaluations where `compared` is False.

        Raises:
            InvalidRequest: a filter that no picture can have.
        """
        wanted = select(ImageEntry).where(*conditions(text, filters, starred, visitor, compared))
        with self._reading() as session:
            found = session.scalars(wanted.order_by(ImageEntry.id.desc()).limit(limit).offset(offset))
            return [_image_record(entry) for entry in found]

    def count(
        self,
        text: str = "",
        filters: dict[str, Any] | None = None,
        starred: bool | None = None,
        visitor: str | None = None,
        compared: bool | None = None,
    ) -> int:
        """How many images `search` would give without its limit."""
        wanted = select(func.count()).select_from(ImageEntry)
        wanted = wanted.where(*conditions(text, filters, starred, visitor, compared))
        with self._reading() as session:
            return session.scalar(wanted) or 0

    def set_starred(self, image_id: str, is_starred: bool) -> None:
        """Raises NotFound for an id that no image has."""
        if not self._changes(update(ImageEntry).where(ImageEntry.id == image_id).values(is_starred=is_starred)):
            self.image(image_id)

    def remove_image(self, image_id: str) -> None:
        """Forget an image; nothing happens if it is not there."""
        self._changes(delete(ImageEntry).where(ImageEntry.id == image_id))

    # Scores

    def keep_score(self, image_id: str, score: Score) -> None:
        """Remember what a judge said of a picture, in place of what it said before; nothing if the picture is gone."""
        with self._writing() as session:
            if session.get(ImageEntry, image_id) is not None:
                session.merge(ScoreEntry(image_id=image_id, **asdict(score)))

    def scores(self, job_id: str) -> dict[str, list[Score]]:
        """What judges said of the pictures that a job made, by the id of the picture."""
        wanted = select(ScoreEntry).join(ImageEntry, ImageEntry.id == ScoreEntry.image_id)
        told: dict[str, list[Score]] = {}
        with self._reading() as session:
            for entry in session.scalars(wanted.where(ImageEntry.job_id == job_id)):
                values = {field.name: getattr(entry, field.name) for field in fields(Score)}
                told.setdefault(entry.image_id, []).append(Score(**values))
        return told

    # Weights

    def weights_sha256(self, stamp: str) -> str | None:
        """The hash of the weights that have this stamp, if they were read before."""
        with self._reading() as session:
            entry = session.get(WeightsEntry, stamp)
            return entry and entry.sha256

    def keep_weights_sha256(self, stamp: str, sha256: str) -> None:
        """Remember a hash: reading gigabytes takes seconds."""
        with self._writing() as session:
            session.merge(WeightsEntry(stamp=stamp, sha256=sha256))


def _image_entry(record: ImageRecord) -> ImageEntry:
    name = recipe_sha256(record.recipe, record.prompt_as_run, record.negative_as_run)
    return ImageEntry(**record.model_dump(mode="json"), search_text=search_text(record), recipe_sha256=name)


def _image_record(entry: ImageEntry) -> ImageRecord:
    return ImageRecord(**{field: getattr(entry, field) for field in ImageRecord.model_fields})
