"""Opens the ledger's database: settings that make SQLite safe, older schemas brought up to date, damage set aside."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    JSON,
    URL,
    Connection,
    Engine,
    bindparam,
    column,
    create_engine,
    event,
    make_url,
    select,
    table,
    update,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from studio.domain.errors import StorageFailed
from studio.domain.images import recipe_sha256
from studio.domain.request import ResolvedRequest
from studio.files import storage_errors
from studio.tables import SCHEMA_VERSION, Base, SchemaEntry

logger = logging.getLogger(__name__)

_PRAGMAS = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_URL_HINT = "Such as sqlite:////data/studio.db, or postgresql+psycopg://user@host/name with that driver installed."
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BATCH = 1000


def open_database(url: str) -> Engine:
    """An engine whose tables exist and are of our version.

    Raises:
        StorageFailed: the database cannot be opened, or a newer studio made it.
    """
    with database_errors():
        parsed = _parsed(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if is_sqlite:
            _prepare_file(parsed.database)
        engine = _engine(parsed)
        if is_sqlite:
            event.listen(engine, "connect", _on_connect)
            event.listen(engine, "begin", _on_begin)
        try:
            _ensure_schema(writing(engine))
        except BaseException:
            engine.dispose()
            raise
    return engine


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # its text would show the password
        raise StorageFailed("FLASH_STUDIO_DATABASE_URL is no database URL.", _URL_HINT) from None


def _engine(url: URL) -> Engine:
    try:
        return create_engine(url)
    except (ImportError, NoSuchModuleError) as error:
        raise StorageFailed(f"There is no driver for {url.drivername} here: {error}.", _URL_HINT) from error


def writing(engine: Engine) -> Engine:
    """A view of `engine` whose transactions write."""
    return engine.execution_options(is_writing=True)


@contextmanager
def database_errors() -> Generator[None]:
    """Turn what SQLAlchemy raises into a StorageFailed with a next step."""
    try:
        yield
    except SQLAlchemyError as error:
        logger.warning("the database failed: %s", error)
        raise _explained(str(getattr(error, "orig", error))) from error


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, below
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A transaction that reads first and then writes would fail at once ("database is locked") when another one wrote in
    # between, without waiting for the busy timeout; one that takes the lock at its start waits.
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _ensure_schema(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        Base.metadata.tables[SchemaEntry.__tablename__].create(session.connection(), checkfirst=True)
        version = session.scalar(select(SchemaEntry.version))
        if version is not None and version > SCHEMA_VERSION:
            raise StorageFailed(
                f"A newer Flash Studio made this data folder (schema {version}; this one knows {SCHEMA_VERSION}).",
                "Update Flash Studio, or choose another folder with FLASH_STUDIO_DATA_DIR.",
            )
        if version is None:
            Base.metadata.create_all(session.connection())
            session.add(SchemaEntry(id=1, version=SCHEMA_VERSION))
        elif version < SCHEMA_VERSION:
            _bring_up_to_date(session.connection(), version)
            session.execute(update(SchemaEntry).values(version=SCHEMA_VERSION))


def _bring_up_to_date(connection: Connection, version: int) -> None:
    """Change the tables of an older studio, in the transaction of the caller: all of it happens, or nothing."""
    logger.info("the database is brought from schema %d to %d", version, SCHEMA_VERSION)
    for step in _STEPS[version - 1 :]:
        step(connection)
    Base.metadata.create_all(connection)


def _name_recipes(connection: Connection) -> None:
    """1 → 2: pictures are found by their recipe."""
    connection.exec_driver_sql("ALTER TABLE images ADD COLUMN recipe_sha256 TEXT NOT NULL DEFAULT ''")
    images = table(
        "images", column("id"), column("recipe", JSON()), *map(column, ("prompt_as_run", "negative_as_run")),
        column("recipe_sha256"),
    )  # fmt: skip
    told = select(images.c.id, images.c.recipe, images.c.prompt_as_run, images.c.negative_as_run)
    change = update(images).where(images.c.id == bindparam("row_id")).values(recipe_sha256=bindparam("name"))
    last = ""
    while rows := connection.execute(told.where(images.c.id > last).order_by(images.c.id).limit(_BATCH)).all():
        names = ((row.id, recipe_sha256(ResolvedRequest.model_validate(row[1]), row[2], row[3])) for row in rows)
        connection.execute(change, [{"row_id": row_id, "name": name} for row_id, name in names])
        last = rows[-1].id
    connection.exec_driver_sql("CREATE INDEX images_of_recipe ON images (recipe_sha256, visitor)")


def _keep_scores(connection: Connection) -> None:
    """2 → 3: what judges say is kept, in a table of its own, which is made with all that are missing."""


def _serve_in_turn(connection: Connection) -> None:
    """3 → 4: visitors are served in turn, and requests can be sent again."""
    for added in (
        "turn INTEGER NOT NULL DEFAULT 0",
        "started_at FLOAT",
        "once_key TEXT",
        "once_sha256 TEXT DEFAULT ''",
    ):
        connection.exec_driver_sql(f"ALTER TABLE jobs ADD COLUMN {added}")
    connection.exec_driver_sql("DROP INDEX IF EXISTS jobs_in_line")
    connection.exec_driver_sql("CREATE INDEX jobs_by_turn ON jobs (queue, state, turn, position)")
    connection.exec_driver_sql("CREATE INDEX images_of_visitor ON images (visitor, created_at)")
    connection.exec_driver_sql("CREATE UNIQUE INDEX jobs_asked_once ON jobs (visitor, once_key)")


_STEPS: tuple[Callable[[Connection], None], ...] = (_name_recipes, _keep_scores, _serve_in_turn)
"""What makes version 2 of 1, and so on. A step spells tables out as they were then, since `studio.tables` goes on."""


def _prepare_file(database: str | None) -> None:
    if not database or database == ":memory:":
        raise StorageFailed("The ledger needs a database file.", "Give a URL such as sqlite:///studio.db.")
    path = Path(database)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _is_damaged(path):
            _set_aside(path)


def _is_damaged(path: Path) -> bool:
    """Whether SQLite itself calls the file damaged. One that is locked or may not be read is not."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF in _DAMAGE


def _set_aside(path: Path) -> None:
    """Keep a damaged database under another name, with its log: a new one would read the old log into itself."""
    kept = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{kept}{suffix}")
    logger.warning("the database is damaged; it is kept as %s and a new one is begun", kept.name)


def _explained(problem: str) -> StorageFailed:
    if "is full" in problem:
        hint = "Free some space."
        return StorageFailed("The disk that holds the database is full.", hint, may_pass=True)
    if "locked" in problem:
        return StorageFailed("Another program holds the database.", "Close it.", may_pass=True)
    if "readonly" in problem or "unable to open" in problem:
        hint = "Check the data folder and its permissions."
        return StorageFailed("The database cannot be written.", hint, may_pass=True)
    return StorageFailed("The database failed; the log says how.", "Restart the studio: a damaged one is set aside.")
