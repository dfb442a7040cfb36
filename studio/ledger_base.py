"""The database behind the ledger: its transactions, and the names that it gives."""

import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import CursorResult, UpdateBase
from sqlalchemy.orm import Session

from studio.database import database_errors, open_database, writing


class LedgerBase:
    """The database behind `url` (any that SQLAlchemy knows; SQLite needs a file)."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self._writing_engine = writing(self._engine)
        # SQLite has one writer at a time. Threads that wait here are served at once; its own waiting is by polling.
        self._write_lock = threading.Lock()
        self._last_id = 0

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def new_id(self) -> str:
        """A name that sorts after all earlier ones of this ledger and that nobody can guess (128 random bits)."""
        with self._write_lock:
            self._last_id = max(self._last_id + 1, time.time_ns())
            return f"{self._last_id:016x}{secrets.token_hex(16)}"

    @contextmanager
    def _reading(self) -> Generator[Session]:
        with database_errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Generator[Session]:
        with self._write_lock, database_errors(), Session(self._writing_engine) as session, session.begin():
            yield session

    def _changes(self, statement: UpdateBase) -> bool:
        """Run a statement in a transaction of its own; whether it found a row."""
        with self._writing() as session:
            return cast(CursorResult[Any], session.execute(statement)).rowcount > 0
