"""How much an organisation may ask of a service, shared by all processes of this machine through a small database.

Every request is entered before it is sent, so that the limits hold whoever asks: not more in any 60 seconds, and not
more in any day, than is allowed. What the service says itself, in headers or by a refusal, counts for all as well.
"""

import re
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from studio.domain.errors import StorageFailed

_SLACK_S = 1.0
"""A request may take that much longer to arrive than another one."""
_DAY_S = 86_400
_PATIENCE_S, _AGAIN_S = 30.0, 0.05
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d*)?)s)?(?:(\d+(?:\.\d*)?)ms)?\Z", re.ASCII)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, at REAL NOT NULL, tokens INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS calls_at ON calls (at);
CREATE TABLE IF NOT EXISTS minutes (minute INTEGER PRIMARY KEY, requests INTEGER NOT NULL, tokens INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS told (what TEXT PRIMARY KEY, value REAL NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Requests and tokens that are allowed in a minute and in a day; 0 where there is no limit."""

    requests_per_minute: int = 0
    requests_per_day: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0

    @property
    def images_per_minute(self) -> float:
        """For the plan that is shown: requests alone."""
        return self.requests_per_minute or float("inf")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Leave to ask now, where `wait_s` is 0; `id` is for `settle`. Else how long to wait, and why."""

    id: int = 0
    wait_s: float = 0.0
    why: str = ""


class Limiter:
    """Gives turns. May be used from several threads and processes."""

    def __init__(self, path: Path, limits: Limits, window_s: float = 60.0) -> None:
        """`window_s` is how long a minute is, which only tests change."""
        self._path = path
        self._limits = limits
        self._window_s = window_s + _SLACK_S
        self._is_ready = False

    def take(self, tokens: int) -> Turn:
        """Leave to send a request of about so many tokens, or how long to wait before asking for it again.

        Raises:
            StorageFailed: the database cannot be used.
        """
        with self._transaction() as database:
            now = time.time()
            until, why = self._told(database, "pause_until"), "The service asked to wait."
            if until <= now:
                until, why = self._full_until(database, now, tokens)
            if until > now:
                return Turn(wait_s=until - now, why=why)
            entered = database.execute("INSERT INTO calls (at, tokens) VALUES (?, ?)", (now, tokens))
            self._count(database, now, 1, tokens)
            return Turn(id=int(entered.lastrowid or 0))

    def settle(self, turn: Turn, tokens: int) -> None:
        """Enter what a request really took."""
        with self._transaction() as database:
            row = database.execute("SELECT tokens FROM calls WHERE id = ?", (turn.id,)).fetchone()
            if row is not None:
                database.execute("UPDATE calls SET tokens = ? WHERE id = ?", (tokens, turn.id))
                self._count(database, time.time(), 0, tokens - int(row[0]))

    def pause(self, seconds: float) -> None:
        """Have nobody ask for so long."""
        with self._transaction() as database:
            self._tell(database, "pause_until", max(time.time() + seconds, self._told(database, "pause_until")))

    def heed(self, headers: Mapping[str, str], tokens: int) -> None:
        """Take in what a response says of the limits, `tokens` being what the next request takes: `limit-requests` is
        by day, `limit-tokens` by minute."""
        with self._transaction() as database:
            for what in ("limit-requests", "limit-tokens"):
                if (limit := _number(headers.get(f"x-ratelimit-{what}"))) is not None and limit >= 1:
                    self._tell(database, what, limit)
            wait = max(_wait(headers, "requests", 1), _wait(headers, "tokens", tokens))
            if wait > 0:
                self._tell(database, "pause_until", max(time.time() + wait, self._told(database, "pause_until")))

    def _full_until(self, database: sqlite3.Connection, now: float, tokens: int) -> tuple[float, str]:
        """When so many tokens are allowed, and what stands against it; 0 where nothing does."""
        database.execute("DELETE FROM calls WHERE at <= ?", (now - self._window_s,))
        database.execute("DELETE FROM minutes WHERE minute < ?", ((now - _DAY_S) // 60,))
        calls = database.execute("SELECT at + ?, 1, tokens FROM calls ORDER BY at", (self._window_s,)).fetchall()
        minutes = database.execute(
            "SELECT (minute + 1) * 60.0 + ?, requests, tokens FROM minutes ORDER BY minute", (_DAY_S,)
        ).fetchall()
        by_day = _least(self._limits.requests_per_day, self._told(database, "limit-requests"))
        by_minute = _least(self._limits.tokens_per_minute, self._told(database, "limit-tokens"))
        return max(
            (_free_at(calls, 1, self._limits.requests_per_minute, 1), "The limit of requests in a minute is reached."),
            (_free_at(calls, 2, by_minute, tokens), "The limit of tokens in a minute is reached."),
            (_free_at(minutes, 1, by_day, 1), "The limit of requests in a day is reached."),
            (_free_at(minutes, 2, self._limits.tokens_per_day, tokens), "The limit of tokens in a day is reached."),
        )

    def _count(self, database: sqlite3.Connection, at: float, requests: int, tokens: int) -> None:
        database.execute(
            "INSERT INTO minutes VALUES (?, ?, ?) ON CONFLICT (minute) DO UPDATE SET "
            "requests = requests + excluded.requests, tokens = tokens + excluded.tokens",
            (int(at // 60), requests, tokens),
        )

    def _told(self, database: sqlite3.Connection, what: str) -> float:
        row = database.execute("SELECT value FROM told WHERE what = ?", (what,)).fetchone()
        return float(row[0]) if row else 0.0

    def _tell(self, database: sqlite3.Connection, what: str, value: float) -> None:
        database.execute("INSERT OR REPLACE INTO told VALUES (?, ?)", (what, value))

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        database: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = self._begun()
            yield database
            database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(
                f"The count of requests, {self._path.name!r}, cannot be kept: {error}.",
                "Check the data folder; the file may be removed, and is made anew.",
            ) from error
        finally:
            if database is not None:
                database.close()  # and what was not committed is not done

    def _begun(self) -> sqlite3.Connection:
        """A connection that has the write lock."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            database = sqlite3.connect(self._path, timeout=_PATIENCE_S, isolation_level=None)
            try:
                if not self._is_ready:
                    database.execute("PRAGMA journal_mode = WAL")  # whole after a kill
                    database.executescript(_SCHEMA)
                    self._is_ready = True
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                database.close()
                # SQLite does not wait where another process mends what a killed one has left.
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_S)
            else:
                return database


def seconds_of(text: str) -> float | None:
    """A span as headers have it, `2m59.56s`, in seconds; None where it is none."""
    match = _SPAN.match(text.strip())
    if not text.strip() or match is None:
        return _number(text)
    days, hours, minutes, seconds, thousandths = (float(part or 0) for part in match.groups())
    return days * _DAY_S + hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _free_at(entries: list[tuple[float, int, int]], column: int, limit: float, wanted: int) -> float:
    """When enough of `entries`, (when it counts no more, requests, tokens), is over that `wanted` more fit a limit."""
    if not limit:
        return 0.0
    held = sum(entry[column] for entry in entries)
    until = 0.0
    for entry in entries:
        if held + min(wanted, limit) <= limit:
            break
        held -= entry[column]
        until = entry[0]
    return until


def _wait(headers: Mapping[str, str], what: str, wanted: int) -> float:
    """Seconds until `wanted` are there, of what refills evenly until its reset."""
    left = _number(headers.get(f"x-ratelimit-remaining-{what}"))
    reset = seconds_of(headers.get(f"x-ratelimit-reset-{what}", ""))
    if left is None or reset is None or left >= wanted:
        return 0.0
    limit = _number(headers.get(f"x-ratelimit-limit-{what}")) or 0.0
    share = (min(wanted, limit) - left) / (limit - left) if limit > left else 1.0
    return max(0.0, reset * min(1.0, share))


def _least(*limits: float) -> float:
    return min((limit for limit in limits if limit), default=0.0)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None
