"""The invisible mark: that nobody sees it, that it stays, and that nothing else is taken for it."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from engines.base import Engine
from studio.gallery import opened
from studio.generation import EngineHolder
from studio.reproduction import psnr_db
from studio.services import open_services
from studio.settings import Settings
from studio.watermark import SMALLEST_PX, VERSION, marked, read_mark

PROMPT = "a red circle on a white background"


def flat(colour: str, size: int = SMALLEST_PX) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def shapes() -> Image.Image:
    image = flat("white")
    ImageDraw.Draw(image).ellipse((30, 40, 90, 100), fill="red")
    return image


def clouds(seed: int, size: tuple[int, int] = (192, 264), softness: float = 4.0) -> Image.Image:
    """Something like a photograph: soft, in all colours, from black to white."""
    drawn = gaussian_filter(np.random.default_rng(seed).normal(size=(*size, 3)), (softness, softness, 0))
    low, high = np.percentile(drawn, (2, 98))
    return Image.fromarray((np.clip((drawn - low) / (high - low), 0, 1) * 255).astype(np.uint8))


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SMALLEST_PX, SMALLEST_PX, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(image: Image.Image, file_format: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "white": lambda: flat("white"),
    "black": lambda: flat("black"),
    "grey": lambda: flat("gray"),
    "red": lambda: flat("red"),
    "shapes": shapes,
    "clouds": lambda: clouds(1),
    "noise": lambda: noise(1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_mark_is_not_seen_and_is_still_there_after_a_jpeg_and_a_webp(name: str) -> None:
    image = PICTURES[name]()
    with_mark = marked(image)
    assert psnr_db(image, with_mark) >= 40
    found = read_mark(with_mark)
    assert found and found.version == VERSION and found.confidence > 0.9 and found.chance < 1e-100
    for file_format, quality in (("JPEG", 75), ("JPEG", 95), ("WEBP", 80), ("WEBP", 95)):
        found = read_mark(saved(with_mark, file_format, quality))
        assert found and found.chance < 1e-40, (file_format, quality)


def test_the_worst_picture_for_it_stays_above_40_db() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (256, 256, 1), dtype=np.uint8) * 255
    image = Image.fromarray(np.repeat(bits, 3, axis=2))
    assert psnr_db(image, marked(image)) >= 40


def test_it_is_read_from_a_part_and_from_another_size() -> None:
    image = marked(clouds(2, (320, 400)))
    for changed in (image.crop((53, 38, 300, 260)), scaled(image, 0.9), scaled(image, 1.1)):
        assert read_mark(changed) is not None, changed.size
    assert read_mark(saved(scaled(image, 0.95), "JPEG", 85)) is not None


def test_marks_do_not_add_up() -> None:
    once = marked(clouds(4))
    assert marked(once).tobytes() == once.tobytes()
    once = marked(shapes())  # at the ends of colours a few pixels go on moving
    assert psnr_db(once, marked(once)) > 60
    assert psnr_db(shapes(), marked(marked(once))) >= 40


def test_edges_that_fill_no_block_stay() -> None:
    image = clouds(3, (133, 138))
    with_mark = marked(image)
    assert with_mark.size == image.size and read_mark(with_mark) is not None
    edge = (136, 0, 138, 133)
    assert with_mark.crop(edge).tobytes() == image.crop(edge).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (15, 15), (16, 16)])
def test_pictures_too_small_for_it_do_no_harm(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    assert marked(image).size == size
    assert read_mark(image) is None


def test_nothing_else_is_taken_for_it() -> None:
    pictures = [flat(colour) for colour in ("white", "black", "red", "blue")]
    pictures += [clouds(seed, (128, 136), softness=0.5 + seed % 7) for seed in range(100)]
    pictures += [noise(seed) for seed in range(100)]
    stripes = np.indices((128, 128))[1]
    pictures += [Image.fromarray((stripes % period * (255 // period)).astype(np.uint8)) for period in range(2, 34)]
    assert [index for index, picture in enumerate(pictures) if read_mark(picture) is not None] == []


def test_a_picture_for_the_public_is_marked_says_so_and_can_be_made_again(settings: Settings, engine: Engine) -> None:
    with open_services(settings.model_copy(update={"mode": "space"}), engine=EngineHolder(lambda: engine)) as services:
        record = services.generate(PROMPT, seed=7, num_inference_steps=4)[0]
        found = read_mark(opened(services.gallery.path(record)))
        assert found and found.version == VERSION
        assert record.environment["watermark"] == str(VERSION)
        job = services.reproduction.submit(record.id)
        assert job.result()["judgement"] == "identical"
        assert services.generate(PROMPT, seed=7, num_inference_steps=4)[0].id == record.id


def test_a_picture_of_ones_own_is_not_and_neither_stands_for_the_other(settings: Settings, engine: Engine) -> None:
    holder = EngineHolder(lambda: engine)
    with open_services(settings, engine=holder) as services:
        plain = services.generate(PROMPT, seed=7, num_inference_steps=4)[0]
        assert "watermark" not in plain.environment
        assert read_mark(opened(services.gallery.path(plain))) is None
    with open_services(settings.model_copy(update={"watermark": "on"}), engine=holder) as services:
        with_mark = services.generate(PROMPT, seed=7, num_inference_steps=4)[0]
        assert with_mark.id != plain.id
        path = services.gallery.path(plain), services.gallery.path(with_mark)
        assert 40 <= psnr_db(opened(path[0]), opened(path[1])) < 60


def test_who_is_served_decides_unless_it_is_said(settings: Settings) -> None:
    def has(**values: str) -> bool:
        return Settings.model_validate({**settings.model_dump(), **values}).has_watermark

    assert [has(mode=mode) for mode in ("local", "lan", "shared", "space")] == [False, False, True, True]
    assert has(mode="local", watermark="on") and not has(mode="space", watermark="off")
