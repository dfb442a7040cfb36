import json
import time

import pytest

from studio.domain.events import Held, Progress, Queued
from tabs import flash_views, run_grid_views, views
from tests.studio.records import record


def step(**values: object) -> Progress:
    known = {"step": 12, "total": 25, "image_index": 0, "num_images": 4, "eta_s": 3.2, "phase": "denoise"}
    return Progress(job_id="j", index=1, time=0.0, **{**known, **values})  # type: ignore[arg-type]


def test_progress_says_step_picture_and_time_left() -> None:
    value = json.loads(views.progress(step()))
    assert value["line"] == "Step 12 of 25 · picture 1 of 4 · 3.2 s left"
    assert value["percent"] == 12.0


def test_one_picture_is_not_counted_and_an_unknown_time_is_not_guessed() -> None:
    assert json.loads(views.progress(step(num_images=1, eta_s=None)))["line"] == "Step 12 of 25"


def test_a_preview_travels_inside_the_page() -> None:
    assert json.loads(views.progress(step(preview=b"\xff\xd8")))["image"] == "data:image/jpeg;base64,/9g="
    assert json.loads(views.progress(step()))["image"] is None


@pytest.mark.parametrize(
    ("ahead", "wait_s", "line"),
    [
        (0, 0.0, "Next in line …"),
        (1, None, "Waiting: 1 job before yours …"),
        (3, 42.4, "Waiting: 3 jobs before yours, about 42 s …"),
    ],
)
def test_the_place_in_the_queue(ahead: int, wait_s: float | None, line: str) -> None:
    event = Queued(job_id="a", index=0, time=0.0, ahead=ahead, wait_s=wait_s)
    assert json.loads(views.waiting(event))["line"] == line


def test_what_a_job_waits_for_is_said_wherever_jobs_are_followed() -> None:
    event = Held(job_id="a", index=3, time=0.0, message="The disk is full.", hint="Free some space.")
    line = "Waiting. The disk is full. Free some space. This goes on by itself then."
    assert json.loads(views.held(event))["line"] == line
    assert run_grid_views.progress([event])[0] == flash_views.progress([event])[0] == line


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (12.3, "12 s"), (200, "3 min 20 s")])
def test_durations_have_units(seconds: float, text: str) -> None:
    assert views.duration(seconds) == text


def test_stopped_says_what_is_kept() -> None:
    assert views.stopped(1, 4) == "Stopped. 1 of 4 pictures is kept."
    assert views.stopped(0, 4) == "Stopped before the first picture was done."


def test_what_was_made_before_is_said_with_its_day() -> None:
    made = time.mktime((2020, 11, 5, 14, 2, 0, 0, 0, -1))
    old, other, new = (record(job_id=job, created_at=made) for job in ("old", "older", "new"))
    assert views.made_before([old], "new") == "Made before, on 5 November 2020 at 14:02; nothing was drawn again."
    assert views.made_before([old, other], "new") == "All 2 pictures were made before; nothing was drawn again."
    assert views.made_before([old, new, new], "new") == "1 of 3 pictures was made before, and not drawn again."
    assert views.made_before([new], "new") == views.made_before([], "new") == ""


def test_the_present_year_is_not_said() -> None:
    year = time.localtime().tm_year
    made = time.mktime((year, 1, 1, 0, 5, 0, 0, 0, -1))
    assert record(created_at=made).made_on == "1 January at 00:05"


def test_tables_are_escaped() -> None:
    assert "<b>" not in views.definitions({"Prompt": "<b>"}, "facts")
