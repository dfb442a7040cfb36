import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from studio.database import _BATCH
from studio.domain.errors import InvalidRequest, NotFound, StorageFailed
from studio.domain.images import ImageRecord
from studio.domain.scores import Score
from studio.job_ledger import MAX_STARTS
from studio.ledger import Ledger
from studio.processes import runner_id
from studio.settings import PROJECT_ROOT
from studio.tables import Once
from tests.studio.records import recipe, record

CLAIM_AND_DIE = """
import os, signal, sys
from studio.ledger import Ledger
from studio.processes import runner_id
print(Ledger(sys.argv[1]).claim("studio", runner_id()).id)
print(Ledger(sys.argv[1]).claim("cli-1", runner_id()).id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


SCHEMA_1 = """
CREATE TABLE schema_version (id INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (id));
CREATE TABLE jobs (
    position INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, payload JSON NOT NULL, visitor TEXT NOT NULL,
    queue TEXT NOT NULL, state TEXT NOT NULL, runner_id TEXT NOT NULL, is_cancel_requested BOOLEAN NOT NULL,
    starts INTEGER NOT NULL, message TEXT NOT NULL, hint TEXT NOT NULL, summary JSON, created_at DOUBLE NOT NULL,
    ended_at DOUBLE, PRIMARY KEY (position), UNIQUE (id)
);
CREATE INDEX jobs_in_line ON jobs (queue, state, position);
CREATE INDEX jobs_of_visitor ON jobs (visitor, state);
CREATE TABLE images (
    id TEXT NOT NULL, job_id TEXT NOT NULL, visitor TEXT NOT NULL, image_index INTEGER NOT NULL,
    created_at DOUBLE NOT NULL, path TEXT NOT NULL, recipe JSON NOT NULL, prompt_as_run TEXT NOT NULL,
    negative_as_run TEXT NOT NULL, environment JSON NOT NULL, seconds JSON NOT NULL, peak_memory_mb DOUBLE NOT NULL,
    pixels_sha256 TEXT NOT NULL, is_starred BOOLEAN NOT NULL, search_text TEXT NOT NULL,
    PRIMARY KEY (id), UNIQUE (job_id, image_index)
);
INSERT INTO schema_version VALUES (1, 1);
INSERT INTO jobs VALUES
    (1, 'j', 'generate', '{"seed": 7}', 'me', 'studio', 'queued', '', 0, 0, '', '', NULL, 1.5, NULL);
"""
"""The database as the first version made it, with a job that waits."""


def add(ledger: Ledger, queue: str = "studio", visitor: str = "local") -> str:
    return ledger.add_job("generate", {"seed": 7}, visitor, queue).id


def test_a_job_from_line_to_end(ledger: Ledger) -> None:
    job_id = add(ledger)
    assert ledger.job(job_id).state == "queued" and ledger.job(job_id).payload == {"seed": 7}
    claimed = ledger.claim("studio", "me")
    assert claimed is not None and (claimed.id, claimed.state, claimed.runner_id) == (job_id, "running", "me")
    ended = ledger.finish_job(job_id, "done", summary={"n": 1})
    assert ended.is_over and ended.summary == {"n": 1}
    assert ledger.finish_job(job_id, "failed", "late").state == "done"
    assert ledger.claim("studio", "me") is None


def test_line_counts(ledger: Ledger) -> None:
    first, second, third = add(ledger), add(ledger), add(ledger, visitor="other")
    add(ledger, queue="cli")
    ledger.claim("studio", "me")
    assert [ledger.jobs_ahead(job_id) for job_id in (first, third, second)] == [0, 1, 2]
    assert ledger.waiting("studio") == 2
    assert [row.id for row in ledger.active_jobs("other")] == [third]
    assert (ledger.waiting("studio", "other"), ledger.waiting("studio", "nobody")) == (1, 0)
    ledger.finish_job(first, "done")
    assert ledger.jobs_ahead(second) == 1


def test_who_floods_the_line_waits_for_the_others_in_turn(ledger: Ledger) -> None:
    for _ in range(40):
        add(ledger, visitor="flood")
    order: list[str] = []

    def serve(count: int) -> None:
        for _ in range(count):
            row = ledger.claim("studio", "me")
            assert row is not None
            order.append(row.visitor)
            ledger.finish_job(row.id, "done")

    serve(3)
    for visitor in ("a", "b", "a", "c", "b", "a"):
        add(ledger, visitor=visitor)
    serve(10)
    assert order[3:] == ["flood", "a", "b", "c", "flood", "a", "b", "flood", "a", "flood"]
    late = add(ledger, visitor="late")
    assert ledger.jobs_ahead(late) == 1
    serve(34)
    assert order.count("flood") == 40 and ledger.claim("studio", "me") is None


def test_a_request_that_is_sent_again_is_done_once(ledger: Ledger) -> None:
    once = Once(key="k", sha256="a")
    rows = [ledger.add_job("generate", {"seed": n}, "me", "studio", once=once) for n in range(3)]
    assert {row.id for row in rows} == {rows[0].id} and rows[2].payload == {"seed": 0}
    assert ledger.waiting("studio") == 1
    other = ledger.add_job("generate", {"seed": 9}, "somebody", "studio", once=once)
    assert other.id != rows[0].id and other.payload == {"seed": 9}
    with pytest.raises(InvalidRequest, match="was used for another request"):
        ledger.add_job("generate", {}, "me", "studio", once=Once(key="k", sha256="b"))
    assert ledger.asked_once("me", once) == rows[0] and ledger.asked_once("nobody", once) is None
    add(ledger)
    add(ledger)  # without a key everything is new
    assert ledger.waiting("studio") == 4


def test_a_request_that_two_processes_put_there_at_once_is_there_once(url: str) -> None:
    ledgers, once = [Ledger(url) for _ in range(4)], Once(key="k", sha256="a")

    def ask(number: int) -> str:
        return ledgers[number % 4].add_job("generate", {"seed": number}, "me", "studio", once=once).id

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(ask, range(16)))
    assert len(ids) == 1 and ledgers[0].waiting("studio") == 1
    for ledger in ledgers:
        ledger.close()


def test_four_processes_claim_each_job_once(url: str) -> None:
    ledgers = [Ledger(url) for _ in range(4)]
    wanted = {add(ledgers[0], visitor=f"{number % 5}") for number in range(60)}

    def claim_all(ledger: Ledger) -> list[str]:
        claimed: list[str] = []
        while (row := ledger.claim("studio", "me")) or ledger.waiting("studio"):
            claimed += [row.id] if row else []
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [job_id for each in pool.map(claim_all, ledgers) for job_id in each]
    assert len(claimed) == 60 and set(claimed) == wanted
    for ledger in ledgers:
        ledger.close()


def test_how_long_a_job_takes_is_told_by_those_that_were_done(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.usual_job_s("studio") is None
    now = 1000.0
    monkeypatch.setattr("studio.job_ledger.time.time", lambda: now)
    for seconds in (2, 40, 3):
        job_id = add(ledger)
        ledger.claim("studio", "me")
        now += seconds
        ledger.finish_job(job_id, "done")
    assert ledger.usual_job_s("studio") == 3


def test_cancel_of_a_waiting_a_running_and_an_ended_job(ledger: Ledger) -> None:
    running, waiting = add(ledger), add(ledger)
    ledger.claim("studio", "me")
    assert ledger.request_cancel(waiting) and ledger.job(waiting).state == "cancelled"
    assert ledger.request_cancel(running) and ledger.job(running).state == "running"
    assert ledger.is_cancel_requested(running)
    ledger.finish_job(running, "cancelled")
    assert not ledger.request_cancel(running)
    assert not ledger.request_cancel("nobody")


def test_unknown_ids(ledger: Ledger) -> None:
    for call in (ledger.job, ledger.image, lambda image_id: ledger.set_starred(image_id, True)):
        with pytest.raises(NotFound):
            call("nobody")
    ledger.remove_image("nobody")


def test_each_job_is_claimed_once_and_in_order(ledger: Ledger) -> None:
    jobs = [add(ledger) for _ in range(500)]
    ready = threading.Barrier(16)

    def take_all(name: int) -> list[str]:
        ready.wait()
        taken: list[str] = []
        while row := ledger.claim("studio", str(name)):
            taken.append(row.id)
        return taken

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(take_all, range(16)))
    assert sorted(job for jobs_of_one in taken for job in jobs_of_one) == sorted(jobs)
    place = {job_id: n for n, job_id in enumerate(jobs)}
    assert all([place[job] for job in of_one] == sorted(place[job] for job in of_one) for of_one in taken)


def test_ids_sort_by_age_even_when_the_clock_goes_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((5_000, 5_000, 1_000, 9_000))
    monkeypatch.setattr("studio.ledger_base.time.time_ns", lambda: next(clock))
    ids = [ledger.new_id() for _ in range(4)]
    assert ids == sorted(set(ids))


def test_jobs_of_a_killed_process_wait_again(ledger: Ledger, url: str) -> None:
    job_id, next_id, of_cli, own = add(ledger), add(ledger), add(ledger, queue="cli-1"), add(ledger, queue="mine")
    ledger.claim("mine", runner_id())
    died = subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, url], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert died.returncode == -9 and died.stdout.split() == [job_id, of_cli]
    assert ledger.requeue_orphans("studio") == [job_id]
    assert (ledger.job(job_id).state, ledger.jobs_ahead(job_id), ledger.jobs_ahead(next_id)) == ("queued", 0, 1)
    assert (ledger.job(of_cli).state, ledger.job(of_cli).message) == (
        "cancelled",
        "The program that ran this job was closed.",
    )
    assert ledger.job(own).state == "running"


def test_a_command_line_leaves_the_jobs_of_a_killed_studio_to_the_studio(ledger: Ledger, url: str) -> None:
    job_id = add(ledger)
    add(ledger, queue="cli-1")
    subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, url], cwd=PROJECT_ROOT, capture_output=True)
    assert ledger.requeue_orphans("cli-2") == []
    assert ledger.job(job_id).state == "running"
    assert ledger.requeue_orphans("studio") == [job_id]


def dead_runner() -> str:
    return runner_id().rsplit(":", 1)[0] + ":1.0"  # this pid, of another time


def test_an_orphan_that_was_to_be_cancelled_is_cancelled(ledger: Ledger) -> None:
    job_id = add(ledger)
    ledger.claim("studio", dead_runner())
    ledger.request_cancel(job_id)
    assert ledger.requeue_orphans("studio") == []
    assert ledger.job(job_id).state == "cancelled"


def test_a_job_of_another_host_is_left_alone(ledger: Ledger) -> None:
    job_id = add(ledger)
    ledger.claim("studio", "another-host:1:1.0")
    assert ledger.requeue_orphans("studio") == []
    assert ledger.job(job_id).state == "running"


def test_a_job_that_kills_its_process_again_and_again_is_given_up(ledger: Ledger) -> None:
    job_id = add(ledger)
    for n in range(MAX_STARTS + 2):
        ledger.claim("studio", dead_runner())
        if n == 1:  # a job that gets somewhere has its tries back
            ledger.add_image(record(job_id=job_id))
        ledger.requeue_orphans("studio")
    assert ledger.job(job_id).state == "failed"
    assert "died 5 times" in ledger.job(job_id).message


def test_a_released_job_was_never_started(ledger: Ledger) -> None:
    job_id = add(ledger)
    for _ in range(MAX_STARTS + 1):
        ledger.claim("studio", dead_runner())
        ledger.release_job(job_id)
    assert ledger.job(job_id).state == "queued"


def test_an_image_comes_back_as_it_went_in(ledger: Ledger, url: str) -> None:
    made = record("a", recipe(prompt='é "\n,:', guidance_scale=7.1, seed=2**32 - 1))
    assert ledger.add_image(made) == made
    ledger.close()
    with closing(Ledger(url)) as again:
        assert again.image("a") == made


def test_one_image_per_job_and_index(ledger: Ledger) -> None:
    first = ledger.add_image(record("a", job_id="j", image_index=1))
    assert ledger.add_image(record("b", job_id="j", image_index=1)) == first
    assert ledger.add_image(record("a", job_id="other")) == first
    ledger.add_image(record("c", job_id="j", image_index=0))
    assert [image.id for image in ledger.images_of_job("j")] == ["c", "a"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('search') / 'studio.db'}")
    recipes = (
        recipe(prompt="a red CIRCLE"),
        recipe(prompt="ein ROTER Kreis, Ärger 100%", seed=70, scheduler="euler", num_inference_steps=30),
        recipe(prompt="a blue ring", negative_prompt="red_eyes", style="on_navy", width=192, guidance_scale=7.1),
    )
    for n, made in enumerate(recipes):
        ledger.add_image(record(f"{n}", made, job_id=f"{n}"))
    ledger.set_starred("1", True)
    return ledger


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "210"),
        ("circle RED", "0"),
        ("red", "20"),
        ("ärger", "1"),
        ("70", "1"),
        ("100%", "1"),
        ("1%0", ""),
        ("red_eyes", "2"),
        ("redXeyes", ""),
        ("on_navy pocket", "2"),
        ("seed:7", "20"),
        ("sampler:euler", "1"),
        ("model:Pocket-SD15 steps:25", "20"),
        ("size:192x128", "2"),
        ("size:128×128 e", "10"),
        ("cfg:7.1", "2"),
        ("is:starred", "1"),
        ("is:starred circle", ""),
        ("seed:", ""),
        ("steps:many", ""),
        ("seed:99999999999999999999999", ""),
        ("http://example.org", ""),
        ("' OR 1=1 --", ""),
        ("e n " * 20_000, "210"),
    ],
)
def test_search(filled: Ledger, text: str, found: str) -> None:
    assert "".join(image.id for image in filled.search(text)) == found
    assert filled.count(text) == len(found)


def test_search_by_values(filled: Ledger) -> None:
    assert [image.id for image in filled.search(filters={"seed": 7, "size": "128x128"})] == ["0"]
    assert [image.id for image in filled.search(filters={"guidance_scale": 7.1, "checkpoint": None})] == ["2"]
    assert [image.id for image in filled.search(filters={"prompt": "a blue ring"})] == ["2"]
    assert [image.id for image in filled.search(starred=False, limit=1, offset=1)] == ["0"]
    assert filled.count(starred=True) == 1
    for wrong in ({"colour": "red"}, {"seed": "x"}, {"width": 3}):
        with pytest.raises(InvalidRequest):
            filled.search(filters=wrong)


def test_stars_and_removal(ledger: Ledger) -> None:
    ledger.add_image(record("a"))
    for is_starred in (True, False):
        ledger.set_starred("a", is_starred)
        assert ledger.image("a").is_starred is is_starred
    assert ledger.image_paths() == {"2026-11-21/a.png": "a"}
    ledger.remove_image("a")
    assert ledger.count() == 0 and ledger.image_paths() == {}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_is_set_up_for_safety(ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        read = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
        assert read == {"journal_mode": "wal", "synchronous": 2}
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def database_path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.mark.parametrize("damage", ["garbage", "truncated", "overwritten"])
def test_a_damaged_database_is_kept_aside(sqlite_url: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(sqlite_url)
    for n in range(100):
        ledger.add_image(record(f"{n}", job_id=f"{n}"))
    ledger.close()
    path = database_path(sqlite_url)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"not a database" * 1000,
            "truncated": whole[: len(whole) // 2],
            "overwritten": whole[:100] + bytes(5000) + whole[5100:],
        }[damage]
    )
    assert Ledger(sqlite_url).count() == 0
    (kept,) = path.parent.glob("studio.db.broken-*")
    assert kept.stat().st_size > 0
    assert "damaged" in caplog.text


def test_an_empty_file_becomes_a_database(sqlite_url: str) -> None:
    database_path(sqlite_url).parent.mkdir()
    database_path(sqlite_url).touch()
    assert Ledger(sqlite_url).count() == 0
    assert not list(database_path(sqlite_url).parent.glob("*.broken-*"))


def test_a_newer_schema_is_refused_and_left_alone(sqlite_url: str) -> None:
    Ledger(sqlite_url).close()
    with sqlite3.connect(database_path(sqlite_url)) as connection:
        connection.execute("UPDATE schema_version SET version = 7")
    connection.close()
    with pytest.raises(StorageFailed, match="newer Flash Studio"):
        Ledger(sqlite_url)
    assert not list(database_path(sqlite_url).parent.glob("*.broken-*"))


def test_a_locked_database_is_not_damaged(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.database._PRAGMAS", ("busy_timeout=50",))
    ledger = Ledger(sqlite_url)
    holder = sqlite3.connect(database_path(sqlite_url), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageFailed, match="Another program holds the database"):
        add(ledger)
    holder.close()
    add(ledger)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_full_disk_is_said_and_survived(ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFailed, match="full"):
        for _ in range(500):
            add(ledger)
    kept = ledger.waiting("studio")
    with ledger._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    add(ledger)
    assert ledger.waiting("studio") == kept + 1


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "studio.db"):
        with pytest.raises(StorageFailed) as caught:
            Ledger(f"sqlite:///{path}")
        assert str(tmp_path) not in str(caught.value)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(StorageFailed, match="needs a database file"):
        Ledger("sqlite://")


@pytest.mark.parametrize("url", ["me:hunter2 at host", "postgresql://me:hunter2/db", "sqlite://me:hunter2@host:port/x"])
def test_what_is_no_database_url_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(StorageFailed, match="no database URL") as caught:
        Ledger(url)
    assert "hunter2" not in str(caught.value)


def alike(ledger: Ledger, made: ImageRecord, visitor: str = "local") -> list[str]:
    found = ledger.images_of_recipe(made.recipe, made.prompt_as_run, made.negative_as_run, visitor)
    return [image.id for image in found]


def test_pictures_are_found_by_recipe_texts_and_visitor(ledger: Ledger) -> None:
    made = ledger.add_image(record("a"))
    ledger.add_image(record("b", job_id="later"))
    ledger.add_image(record("c", job_id="theirs", visitor="they"))
    ledger.add_image(record("d", recipe(seed=8), job_id="other"))
    ledger.add_image(record("e", job_id="styled", prompt_as_run="a red circle on navy"))
    assert alike(ledger, made) == ["b", "a"]
    assert alike(ledger, made, "they") == ["c"]
    assert alike(ledger, made, "nobody") == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_recipe_is_found_without_looking_through_all_pictures(ledger: Ledger) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(ledger._engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    alike(ledger, record("a"))
    (statement, parameters) = asked[-1]
    with ledger._engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert "USING INDEX images_of_recipe (recipe_sha256=? AND visitor=?)" in str(plan)


def test_a_reused_picture_counts_for_its_job_until_it_is_deleted(ledger: Ledger) -> None:
    ledger.add_image(record("a", job_id="first", image_index=0))
    ledger.add_image(record("b", job_id="second", image_index=0))
    for _ in range(2):  # a job that was killed may say it once more
        assert ledger.reuse_image("second", 1, "a")
    assert [(image.id, image.image_index) for image in ledger.images_of_job("second")] == [("b", 0), ("a", 1)]
    assert [(image.id, image.image_index) for image in ledger.images_of_job("first")] == [("a", 0)]
    assert ledger.count() == 2
    ledger.remove_image("a")
    assert [image.id for image in ledger.images_of_job("second")] == ["b"]
    assert not ledger.reuse_image("third", 0, "a")


def test_a_score_is_kept_by_judge_and_goes_with_its_picture(ledger: Ledger, url: str) -> None:
    made = ledger.add_image(record("a", job_id="j"))
    ledger.add_image(record("b", job_id="other"))
    first = Score(judge="one", text="a star", cosine=0.25)
    second = Score(judge="two", text="a star", cosine=-0.5, is_truncated=True)
    for score in (replace(first, cosine=0.1), first, second):
        ledger.keep_score(made.id, score)
    ledger.keep_score("b", first)
    ledger.keep_score("gone", first)
    with closing(Ledger(url)) as again:
        told = again.scores("j")
    assert set(told) == {"a"} and sorted(told["a"], key=lambda score: score.judge) == [first, second]
    ledger.remove_image("a")
    assert ledger.scores("j") == {}


def test_a_hash_of_weights_is_remembered(ledger: Ledger, url: str) -> None:
    assert ledger.weights_sha256("stamp") is None
    for sha256 in ("old", "new"):
        ledger.keep_weights_sha256("stamp", sha256)
    ledger.close()
    with closing(Ledger(url)) as again:
        assert again.weights_sha256("stamp") == "new"


def write_schema_1(url: str, records: list[ImageRecord]) -> None:
    database_path(url).parent.mkdir()
    with sqlite3.connect(database_path(url)) as connection:
        connection.executescript(SCHEMA_1)
        for made in records:
            values = made.model_dump(mode="json") | {"search_text": made.recipe.prompt}
            values = {name: json.dumps(v) if isinstance(v, dict) else v for name, v in values.items()}
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(f"INSERT INTO images ({', '.join(values)}) VALUES ({marks})", values)
    connection.close()


def test_a_database_of_the_first_version_keeps_all_and_finds_its_recipes(sqlite_url: str) -> None:
    records = [record(f"{n:05}", recipe(seed=n), job_id=f"{n}", is_starred=n == 3) for n in range(2 * _BATCH + 1)]
    write_schema_1(sqlite_url, records)
    for is_again in (False, True):
        ledger = Ledger(sqlite_url)
        assert ledger.count() == len(records)
        assert [ledger.image(made.id) for made in records[::500]] == records[::500]
        assert [alike(ledger, made) for made in records[::500]] == [[made.id] for made in records[::500]]
        assert ledger.search("is:starred") == [records[3]]
        assert ledger.job("j").payload == {"seed": 7}
        assert add(ledger) and ledger.waiting("studio") == 2 + is_again
        assert ledger.reuse_image("j", 0, "00003")
        ledger.close()
    with pytest.raises(NotFound):
        Ledger(sqlite_url).image("nobody")


def test_an_old_database_that_cannot_be_brought_up_to_date_stays_as_it_was(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_schema_1(sqlite_url, [record("a")])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("studio.database.recipe_sha256", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        Ledger(sqlite_url)
    ledger = Ledger(sqlite_url)
    assert alike(ledger, record("a")) == ["a"]
