"""P5, P7, P8 and P10: a disk that is full, a database that is damaged, a power cut, and what a crash leaves behind."""

import os
import random
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.base import Engine
from studio.captions.shards import Reading, Shard
from studio.domain.captions import Row
from studio.domain.errors import StorageFailed
from studio.files import atomic_write
from studio.gallery import Gallery
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.metadata import pixels_sha256
from studio.processes import runner_id
from studio.services import Services, open_services
from studio.settings import Settings
from tests.reliability.conftest import Score
from tests.reliability.drawing import PROMPT
from tests.reliability.power import Disk
from tests.studio.captions.scenes import row
from tests.studio.records import CATALOGUE, new_image, picture

SEED = 20261127
LIMITS = (1, 100, 4096, 50_000)
"""Bytes that a file may have while the disk is full."""


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """While it lasts, no file of this process grows beyond `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def said_of(work: Callable[[], object]) -> str:
    """The sentence of a StorageFailed, "" where it succeeds."""
    try:
        work()
    except StorageFailed as error:
        return str(error)
    return ""


def fill_gallery(folder: Path, limit: int, said: Connection) -> None:
    """Save a picture, then one on a full disk, then one when there is room again."""
    ledger = Ledger(f"sqlite:///{folder / 'studio.db'}")
    gallery = Gallery(folder / "images", ledger, CATALOGUE)
    gallery.save(picture(1, 200), new_image("before"))
    with full_disk(limit):
        first = said_of(lambda: gallery.save(picture(2, 200), new_image("full")))
    said.send((first, said_of(lambda: gallery.save(picture(3, 200), new_image("after")))))


def fill_ledger(folder: Path, limit: int, said: Connection) -> None:
    """The same with jobs, of which each is some kilobytes large."""
    ledger = Ledger(f"sqlite:///{folder / 'studio.db'}")
    payload = {"text": "x" * 5000}
    ledger.add_job("before", payload, "a", "studio")
    with full_disk(limit):
        first = "".join(said_of(lambda: ledger.add_job("full", payload, "a", "studio")) for _ in range(50))
    said.send((first, said_of(lambda: ledger.add_job("after", payload, "a", "studio"))))


def fill_shard(folder: Path, limit: int, said: Connection) -> None:
    """The same with captions."""
    with Shard(folder / "a.jsonl", is_paid=True) as shard:
        shard.add(row("before"))
        with full_disk(limit + (folder / "a.jsonl").stat().st_size):
            sentences = [said_of(lambda: shard.add(long_row())) for _ in range(60)]
        said.send(("".join(sentences), said_of(lambda: shard.add(row("after")))))


def long_row() -> Row:
    return row("full", caption="long " * 200 + "end")


@pytest.fixture
def on_a_full_disk(forks: ForkServerContext) -> Callable[[Callable[..., None], Path, int], tuple[str, str]]:
    """What such work says on a full disk and afterwards; in a process of its own, since limits hold for a process."""

    def run(work: Callable[..., None], folder: Path, limit: int) -> tuple[str, str]:
        receiver, sender = forks.Pipe(duplex=False)
        child = forks.Process(target=work, args=(folder, limit, sender))
        child.start()
        sender.close()
        with receiver:
            told = receiver.recv()
        child.join(60)
        assert child.exitcode == 0
        return told

    return run


OnAFullDisk = Callable[[Callable[..., None], Path, int], tuple[str, str]]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_costs_the_picture_that_found_no_room_and_nothing_else(
    on_a_full_disk: OnAFullDisk, tmp_path: Path, score: Score, limit: int
) -> None:
    first, then = on_a_full_disk(fill_gallery, tmp_path, limit)
    assert "needs" in first and "MB" in first and str(tmp_path) not in first
    assert then == ""
    gallery, names = look(tmp_path), [path.name for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert [made.job_id for made in gallery.find()] == ["after", "before"]
    assert len(names) == 2 and all(gallery.is_whole(made) for made in gallery.find())
    score(faults=1, survived=1)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_leaves_the_ledger_whole(
    on_a_full_disk: OnAFullDisk, tmp_path: Path, score: Score, limit: int
) -> None:
    first, then = on_a_full_disk(fill_ledger, tmp_path, limit)
    assert "database" in first and then == ""
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kinds = [kind for (kind,) in connection.execute("SELECT kind FROM jobs ORDER BY position")]
    connection.close()
    assert kinds[0] == "before" and kinds[-1] == "after" and kinds.count("before") == kinds.count("after") == 1
    assert first.count("database") == 50 - kinds.count("full")  # what was not refused is there
    assert not list(tmp_path.glob("*.broken-*"))
    score(faults=1, survived=1)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_leaves_no_half_line_among_captions(
    on_a_full_disk: OnAFullDisk, tmp_path: Path, score: Score, limit: int
) -> None:
    first, then = on_a_full_disk(fill_shard, tmp_path, limit)
    assert "needs" in first and then == ""
    reading = Reading(folders=[tmp_path])
    rows = list(reading.rows())
    assert rows == [row("before"), *[long_row()] * (60 - first.count("needs")), row("after")] and reading.bad == []
    score(faults=1, survived=1)


def look(folder: Path) -> Gallery:
    """The gallery of a folder, as the studio's start finds it."""
    gallery = Gallery(folder / "images", Ledger(f"sqlite:///{folder / 'studio.db'}"), CATALOGUE)
    gallery.reconcile()
    return gallery


def fill(folder: Path, count: int) -> list[Any]:
    """So many pictures, and jobs beside them; their records, newest first."""
    ledger = Ledger(f"sqlite:///{folder / 'studio.db'}")
    gallery = Gallery(folder / "images", ledger, CATALOGUE)
    saved = [gallery.save(picture(n), new_image(f"job{n}", seed=n)) for n in range(count)]
    for _ in range(20):
        ledger.add_job("work", {"text": "x" * 1000}, "a", "studio")
    ledger.close()
    return saved[::-1]


PARTS = 20


def test_a_database_that_is_cut_or_spoilt_anywhere_is_rebuilt_from_the_pictures(tmp_path: Path, score: Score) -> None:
    saved, path, rng = fill(tmp_path, 6), tmp_path / "studio.db", random.Random(SEED)
    whole = path.read_bytes()
    damages = [whole[: len(whole) * part // PARTS] for part in range(PARTS)]
    damages += [b"", bytes(len(whole)), rng.randbytes(len(whole)), rng.randbytes(100), whole[:100] + bytes(4000)]
    for part in range(PARTS):
        place = len(whole) * part // PARTS
        damages.append(whole[:place] + rng.randbytes(4096) + whole[place + 4096 :])
    for number, damage in enumerate(damages):
        for old in tmp_path.glob("studio.db*"):
            old.unlink()
        path.write_bytes(damage)
        gallery = look(tmp_path)
        kept = [
            old.read_bytes() for old in tmp_path.glob("studio.db.broken-*") if old.suffix[-4:] not in ("-wal", "-shm")
        ]
        assert gallery.find() == saved, f"damage {number}, seed {SEED}"
        assert kept in ([damage], [])
        assert kept or damage in (b"", whole) or number >= PARTS + 5  # unused bytes may be anything
        gallery._ledger.close()
    score(faults=len(damages), survived=len(damages))


def test_a_log_that_is_lost_costs_no_picture(tmp_path: Path, score: Score) -> None:
    """The newest rows lie in the log until it is brought into the database."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'studio.db'}")
    gallery = Gallery(tmp_path / "images", ledger, CATALOGUE)
    gallery.save(picture(0), new_image("early"))
    with sqlite3.connect(tmp_path / "studio.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    saved = [gallery.save(picture(n), new_image(f"job{n}")) for n in range(1, 5)]
    copy = tmp_path / "copy"
    (tmp_path / "images").rename(copy)  # what is on the disk while the studio still runs, without the log
    (copy / "images").mkdir()
    for day in [path for path in copy.iterdir() if path.name != "images"]:
        day.rename(copy / "images" / day.name)
    (copy / "studio.db").write_bytes((tmp_path / "studio.db").read_bytes())
    ledger.close()
    assert [made.id for made in look(copy).find()][: len(saved)] == [made.id for made in saved[::-1]]
    assert look(copy).count() == 5
    score(faults=1, survived=1)


def test_a_row_is_written_when_its_picture_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    disk = Disk(tmp_path, monkeypatch)
    ledger = Ledger(f"sqlite:///{tmp_path / 'studio.db'}")
    gallery, add_image, looked = Gallery(tmp_path / "data" / "images", ledger, CATALOGUE), ledger.add_image, 0

    def add_and_look(made: Any) -> Any:
        nonlocal looked
        looked += 1
        path = tmp_path / "data" / "images" / made.path
        assert disk.after_a_power_cut(path) == path.read_bytes(), "its row would outlive it"
        return add_image(made)

    monkeypatch.setattr(ledger, "add_image", add_and_look)
    for n in range(5):
        gallery.save(picture(n), new_image(f"job{n}"))
    assert looked == 5
    score(faults=looked, survived=looked)


def test_what_is_written_over_is_whole_after_a_power_cut_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Score
) -> None:
    path, disk = tmp_path / "state.json", Disk(tmp_path, monkeypatch)
    atomic_write(path, b"old" * 1000)
    found: list[bytes | None] = []
    disk.on_change = lambda: found.append(disk.after_a_power_cut(path))
    atomic_write(path, b"new" * 1000)
    assert len(found) >= 3 and set(found) == {b"old" * 1000, b"new" * 1000}
    score(faults=len(found), survived=len(found))


def test_what_a_crash_left_is_swept_and_taken_up_at_the_next_start(
    settings: Settings, engine: Engine, score: Score, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = left_behind(settings)
    caplog.set_level("INFO")
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        services.runner.job(job_id).wait(60)
        assert services.runner.row(job_id).state == "done"
        assert [made.image_index for made in services.gallery.of_job(job_id)] == [0]
        check_pixels(services, job_id)
    left = sorted(path.name for path in settings.images_dir.rglob("*") if path.is_file())
    assert [name for name in left if name.startswith(".tmp")] == [".tmp-young"] and len(left) == 2
    assert "300000 bytes freed" in caplog.text and caplog.text.count("waits again") == 1
    score(faults=4, survived=4)


def left_behind(settings: Settings) -> str:
    """A job that a dead process ran, and files of which three nobody writes any more; gives the job's id."""
    ledger = Ledger(settings.ledger_url)
    payload = {**new_image(num_inference_steps=2).recipe.model_dump(mode="json"), "prompt": PROMPT}
    job_id = ledger.add_job("generate", payload, "local", "studio").id
    ledger.claim("studio", runner_id().rsplit(":", 1)[0] + ":1.0")
    ledger.close()
    folder = settings.images_dir / "2026-11-27"
    folder.mkdir(parents=True)
    for name in (".tmp-a", ".tmp-b", ".tmpSafe", ".tmp-young"):
        (folder / name).write_bytes(bytes(100_000))
        if name != ".tmp-young":
            os.utime(folder / name, (0, 0))
    return job_id


def check_pixels(services: Services, job_id: str) -> None:
    (made,) = services.gallery.of_job(job_id)
    with Image.open(services.gallery.path(made)) as image:
        assert pixels_sha256(image) == made.pixels_sha256
