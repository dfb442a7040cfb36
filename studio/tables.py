"""The ledger's tables. A column has the name of the field that it holds; see `ImageRecord` and `JobRow`."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 4
"""A higher one needs a step in `studio.database`."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
WAITING_OR_RUNNING: tuple[JobState, ...] = ("queued", "running")

_LongInteger = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only plain INTEGER keys


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy declares it so)
        dict[str, Any]: JSON(none_as_null=True),
        dict[str, str]: JSON(),
        dict[str, float]: JSON(),
        str: Text(),
    }


class SchemaEntry(Base):
    """One row: which version of these tables the database holds."""

    __tablename__ = "schema_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]


class JobEntry(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_turn", "queue", "state", "turn", "position"),
        Index("jobs_of_visitor", "visitor", "state"),
        Index("jobs_asked_once", "visitor", "once_key", unique=True),
    )

    position: Mapped[int] = mapped_column(_LongInteger, primary_key=True)
    """The place among jobs of one turn. Counted by the database, since a clock may jump."""
    turn: Mapped[int] = mapped_column(default=0)
    """Lower ones come first; the jobs that one visitor waits for have different ones, counting up."""
    id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    visitor: Mapped[str]
    queue: Mapped[str]
    state: Mapped[str]
    runner_id: Mapped[str] = mapped_column(default="")
    is_cancel_requested: Mapped[bool] = mapped_column(default=False)
    starts: Mapped[int] = mapped_column(default=0)
    """How often a runner took it since it last made an image. A job that always kills its process is given up."""
    message: Mapped[str] = mapped_column(default="")
    hint: Mapped[str] = mapped_column(default="")
    summary: Mapped[dict[str, Any] | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    once_key: Mapped[str | None]
    """What the visitor calls the request, so that it can be sent again without being done twice."""
    once_sha256: Mapped[str] = mapped_column(default="")


class ImageEntry(Base):
    """No foreign key to the jobs: images found again after a database was lost have none."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("job_id", "image_index"),
        Index("images_of_recipe", "recipe_sha256", "visitor"),
        Index("images_of_visitor", "visitor", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    visitor: Mapped[str]
    image_index: Mapped[int]
    created_at: Mapped[float]
    path: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    prompt_as_run: Mapped[str]
    negative_as_run: Mapped[str]
    environment: Mapped[dict[str, str]]
    seconds: Mapped[dict[str, float]]
    peak_memory_mb: Mapped[float]
    pixels_sha256: Mapped[str]
    is_starred: Mapped[bool]
    search_text: Mapped[str]
    """What a search looks through, case-folded: SQLite's own comparison ignores case in ASCII only."""
    recipe_sha256: Mapped[str]
    """See `studio.domain.images.recipe_sha256`."""


class ReusedEntry(Base):
    """A picture that a job did not draw, because an earlier job had. It goes with the picture."""

    __tablename__ = "reused_images"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    image_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)


class ScoreEntry(Base):
    """What a judge said of a picture; see `studio.domain.scores.Score`. It goes with the picture."""

    __tablename__ = "scores"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    judge: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    cosine: Mapped[float]
    is_truncated: Mapped[bool]


class WeightsEntry(Base):
    """The hash of weights that were read once; `stamp` changes with their files (see `engines.identity`)."""

    __tablename__ = "weights"

    stamp: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]


@dataclass(frozen=True, kw_only=True)
class Once:
    """A request that may be sent again without being done twice: the key that its sender gave it, and the hash of what
    it asks for."""

    key: str
    sha256: str

    @classmethod
    def of(cls, key: str, asked: BaseModel) -> "Once | None":
        """What is `asked` under `key`; None where its sender gave it none."""
        return cls(key=key, sha256=hashlib.sha256(asked.model_dump_json().encode()).hexdigest()) if key else None


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as the ledger has it. `runner_id` is empty while it waits; `summary` is there when it is done."""

    id: str
    kind: str
    payload: dict[str, Any]
    visitor: str
    queue: str
    state: JobState
    runner_id: str
    is_cancel_requested: bool
    message: str
    hint: str
    summary: dict[str, Any] | None
    created_at: float
    ended_at: float | None

    @property
    def is_over(self) -> bool:
        return self.state not in WAITING_OR_RUNNING
