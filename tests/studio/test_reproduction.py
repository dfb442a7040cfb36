"""Reproduce says how near the new picture came, and what differs if it is not the same."""

import numpy as np
import pytest
from PIL import Image

from studio.domain.events import Failed, Finished, Progress
from studio.domain.images import ImageRecord
from studio.reproduction import compare, psnr_db, told_by
from studio.services import Services


@pytest.fixture
def record(services: Services) -> ImageRecord:
    return services.generate("a blue star on a cream background", seed=4, num_inference_steps=4)[0]


def shifted(image: Image.Image, amount: int) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image, dtype=int) + amount, 0, 255).astype(np.uint8))


def test_the_same_machine_makes_the_identical_picture(services: Services, record: ImageRecord) -> None:
    end = services.reproduction.submit(record.id).wait(timeout=60)
    assert isinstance(end, Finished)
    assert end.summary["judgement"] == "identical"
    assert end.summary["changed"] == {}


def test_a_lost_file_is_said(services: Services, record: ImageRecord) -> None:
    services.gallery.path(record).unlink()
    end = services.reproduction.submit(record.id).wait(timeout=60)
    assert isinstance(end, Failed)
    assert "gone" in end.message


def test_a_near_miss_is_close_and_names_the_field_that_differs(services: Services, record: ImageRecord) -> None:
    original = Image.new("RGB", (32, 32), (100, 100, 100))
    before = told_by(record)
    verdict = compare(original, shifted(original, 1), before, {**before, "dtype": "bfloat16"})
    assert verdict.judgement == "close"
    assert verdict.changed == {"dtype": ("float32", "bfloat16")}
    assert "dtype was float32, is now bfloat16" in verdict.sentence()


def test_another_picture_is_different(record: ImageRecord) -> None:
    original = Image.new("RGB", (32, 32), (100, 100, 100))
    verdict = compare(original, shifted(original, 60), told_by(record), told_by(record))
    assert verdict.judgement == "different"


def test_a_style_that_changed_since_is_named(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    record = services.generate("a blue star", style="on_cream", seed=4, num_inference_steps=4)[0]
    words = ("a blue star on a black background", "")
    monkeypatch.setattr(type(services.catalogue), "styled", lambda *_: words)
    end = services.reproduction.submit(record.id).wait(timeout=60)
    assert isinstance(end, Finished)
    assert end.summary["judgement"] == "different"
    assert end.summary["changed"] == {"prompt": ["“a blue star on a cream background”", f"“{words[0]}”"]}


def test_a_reproduction_tells_how_far_it_is(services: Services, record: ImageRecord) -> None:
    job = services.reproduction.submit(record.id)
    steps = [event for event in job.events(timeout=60) if isinstance(event, Progress)]
    assert (steps[-1].total, steps[-1].num_images) == (4, 1)


def test_psnr_is_the_textbook_one() -> None:
    black, gray = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (10, 10, 10))
    assert psnr_db(black, gray) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr_db(black, black) == float("inf")
    assert psnr_db(black, Image.new("RGB", (9, 9))) == 0.0
