"""How often a job's watchers are told of its steps."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from engines.base import Step
from studio.step_reporter import PAUSE_S, StepReporter


class _Told(list[Any]):
    """The part of a job that its reporter sees."""

    is_watched = False
    held_s = 0.0

    def emit(self, event_type: type, **values: Any) -> None:
        self.append(SimpleNamespace(**values))


def _step(number: int) -> Step:
    return Step(step=number, total=4, preview=lambda: Image.new("RGB", (8, 8)))


def test_every_slow_step_is_told() -> None:
    told = _Told()
    reporter = StepReporter(told)  # pyright: ignore[reportArgumentType]
    for number in range(1, 5):
        reporter(_step(number))
        time.sleep(PAUSE_S * 1.2)
    assert [event.step for event in told] == [1, 2, 3, 4]
    assert told[-1].phase == "decode"
    assert told[-1].eta_s == 0


def two_pictures(monkeypatch: pytest.MonkeyPatch, step_s: float, hold_s: float = 0.0) -> tuple[_Told, StepReporter]:
    """What is told of two pictures whose steps take so long, and which are held so long after each."""
    now = 0.0
    monkeypatch.setattr("studio.step_reporter.time.monotonic", lambda: now)
    told = _Told()
    reporter = StepReporter(told, num_images=2)  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        for number in range(1, 5):
            reporter(_step(number))
            now += step_s
        reporter.image_done()
        now += hold_s
        told.held_s += hold_s
    return told, reporter


def test_of_steps_quicker_than_an_eye_the_first_of_each_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told, _ = two_pictures(monkeypatch, step_s=PAUSE_S * 0.4)
    assert [(event.image_index, event.step) for event in told] == [(0, 1), (0, 4), (1, 1), (1, 4)]
    assert told[-1].eta_s == 0


def test_time_in_which_it_was_held_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told, reporter = two_pictures(monkeypatch, step_s=1.0, hold_s=3600.0)
    assert told[-2].eta_s == 1.0 and reporter.elapsed_s == 8.0
