"""Pictures to begin from: what is given is looked at first, kept under its hash, and fitted to what is drawn."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest, parse_request
from studio.fitting import fitted, usual_size
from studio.sources import Sources, source_name
from tests.studio.records import picture, recipe


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "sources")


@pytest.fixture
def pocket(catalogue: Catalogue) -> Checkpoint:
    return catalogue.checkpoint("pocket-sd15")


def asked(**values: object) -> GenerationRequest:
    return parse_request({"prompt": "a red circle", **values})


def test_what_is_kept_comes_back_to_the_byte_under_one_name(sources: Sources, tmp_path: Path) -> None:
    name = sources.keep(picture(size=24), "me")
    assert sources.keep(picture(size=24), "me") == name
    assert sources.open(name).tobytes() == picture(size=24).tobytes()
    assert [path.name for path in (tmp_path / "sources" / "me").iterdir()] == [f"{name}.png"]


def test_pictures_of_other_forms_have_other_names_though_their_bytes_are_the_same() -> None:
    assert source_name(Image.new("RGB", (8, 16))) != source_name(Image.new("RGB", (16, 8)))


def test_a_picture_is_kept_upright_and_without_alpha_or_metadata(sources: Sources, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "b.png")
    assert sources.open(sources.take(tmp_path / "a.jpg", "me")).size == (20, 40)
    assert sources.open(sources.take(str(tmp_path / "b.png"), "me")).getpixel((0, 0)) == (255, 255, 255)


def huge_png() -> bytes:
    """A few bytes that say they are 60000 × 60000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"<html><script>alert(1)</script>", "no PNG, JPEG or WebP"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG or WebP"),
        ("a.png", huge_png(), "megapixels"),
        ("a.gif", b"GIF89a" + bytes(20), "no PNG, JPEG or WebP"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(
    sources: Sources, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    for field in ("init_image", "mask"):
        with pytest.raises(InvalidRequest, match=says) as caught:
            sources.take(tmp_path / name, "me", field)
        assert caught.value.field == field


def test_a_picture_that_is_cut_off_is_refused(sources: Sources, tmp_path: Path) -> None:
    picture(size=64).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-900])
    with pytest.raises(InvalidRequest, match="damaged"):
        sources.take(tmp_path / "a.jpg", "me")


@pytest.mark.parametrize("given", ["nowhere.png", "\0", "../../etc/passwd", "x" * 5000])
def test_a_file_that_is_not_there_is_a_sentence(sources: Sources, given: str) -> None:
    with pytest.raises(InvalidRequest):
        sources.take(given, "me")


def test_a_picture_larger_than_anything_drawn_is_scaled_down(sources: Sources) -> None:
    assert sources.open(sources.take(Image.new("RGB", (8192, 1024)), "me")).size == (4096, 512)


def test_what_is_gone_or_was_painted_over_is_told(sources: Sources, tmp_path: Path) -> None:
    name = sources.keep(picture(), "me")
    picture(seed=8).save(tmp_path / "sources" / "me" / f"{name}.png")
    for gone in (name, "0" * 64, "../../secret"):
        with pytest.raises(NotFound, match="not kept here"):
            sources.open(gone)


def test_names_of_visitors_lead_nowhere_else(sources: Sources, tmp_path: Path) -> None:
    sources.keep(picture(), "../../outside")
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["others"]


def test_a_picture_is_that_of_who_gave_it(sources: Sources) -> None:
    name = sources.keep(picture(), "me")
    assert sources.is_of("me", name)
    assert not sources.is_of("you", name) and not sources.is_of("me", "..")


def test_without_a_size_it_is_that_of_the_picture_as_far_as_the_model_draws_it() -> None:
    assert usual_size((130, 100), 64, (256, 256)) == (128, 96)
    assert usual_size((1024, 512), 64, (256, 256)) == (256, 128)
    assert usual_size((20, 10), 64, (256, 256)) == (128, 64)
    assert usual_size((4000, 100), 64, (256, 256)) == (256, 64)


@pytest.mark.parametrize(("mode", "left", "middle"), [("crop", "black", "white"), ("fill", "white", "white")])
def test_how_a_picture_is_fitted(mode: str, left: str, middle: str) -> None:
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (140, 0, 160, 100))
    wide.paste("white", (0, 0, 60, 100))
    made = fitted(wide, (96, 96), mode)  # type: ignore[arg-type]
    assert made.size == (96, 96)
    colours = {"black": (0, 0, 0), "white": (255, 255, 255)}
    assert (made.getpixel((8, 48)), made.getpixel((48, 48))) == (colours[left], colours[middle])


def test_a_picture_of_the_right_size_is_taken_as_it_is(sources: Sources, pocket: Checkpoint) -> None:
    name = sources.keep(picture(size=128), "me")
    made = sources.prepared(asked(init_image=name, width=128, height=128), pocket, "me")
    assert (made.init_image, made.width, made.height) == (name, 128, 128)


def test_a_mask_goes_with_its_picture(sources: Sources, pocket: Checkpoint) -> None:
    source, mask = Image.new("RGB", (200, 100), "red"), Image.new("L", (400, 200), 0)
    mask.paste(200, (200, 0, 400, 200))
    names = sources.taken({"init_image": source, "mask": mask}, "me")
    start = sources.start(recipe_from(sources.prepared(asked(**names, width=128, height=128), pocket, "me")))
    assert start is not None and start.mask is not None
    white = np.asarray(start.mask)
    assert set(np.unique(white)) == {0, 255}
    assert white[:, :60].max() == 0 and white[:, 68:].min() == 255


def recipe_from(request: GenerationRequest) -> object:
    chosen = {name: getattr(request, name) for name in ("init_image", "mask", "width", "height")}
    return recipe(**chosen)


def test_borders_grow_the_canvas_and_the_mask_is_what_is_new(sources: Sources, pocket: Checkpoint) -> None:
    name = sources.keep(picture(size=128), "me")
    made = sources.prepared(asked(init_image=name, outpaint_left=32, outpaint_down=16), pocket, "me")
    assert (made.width, made.height, made.outpaint_left, made.outpaint_down) == (160, 144, 0, 0)
    canvas, mask = np.asarray(sources.open(made.init_image)), np.asarray(sources.open(made.mask).convert("L"))
    assert np.array_equal(canvas[:128, 32:], np.asarray(picture(size=128)))
    assert np.array_equal(canvas[:128, 0], np.asarray(picture(size=128))[:, 0])
    assert mask[:128, 32:].max() == 0
    assert mask[:, :32].min() == 255 and mask[128:].min() == 255
    assert sources.prepared(made, pocket, "me") == made


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"mask": "0" * 64}, "mask", "no picture that it belongs to"),
        ({"outpaint_up": 8}, "outpaint_left", "no picture that could grow"),
        ({"init_image": "x"}, "init_image", "the name of a picture that is kept here"),
        ({"init_image": "0" * 64, "mask": "0" * 64, "hires_scale": 1.5}, "hires_scale", "is to stay as it is"),
        ({"hires_scale": 3}, "hires_scale", "more than the 256 px"),
        ({"init_image": "0" * 64, "width": 256, "outpaint_left": 8}, "width", "Width is 264 px"),
        ({"resize_mode": "cut"}, "resize_mode", "it must be crop or stretch or fill"),
        ({"strength": 0}, "strength", "Strength is 0; it must be a number from 0.05 to 1"),
        ({"outpaint_left": 7}, "outpaint_left", "multiple of 8"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    catalogue: Catalogue, values: dict[str, object], field: str, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        catalogue.resolve(asked(**values))
    assert caught.value.field == field


@pytest.mark.parametrize("size", [(100, 200), (64, 64)])
def test_a_mask_of_another_form_or_without_white_is_refused(
    sources: Sources, pocket: Checkpoint, size: tuple[int, int]
) -> None:
    name = sources.keep(picture(size=64), "me")
    with pytest.raises(InvalidRequest) as caught:
        mask = sources.take(Image.new("L", size, 255 if size != (64, 64) else 0), "me", "mask")
        sources.prepared(asked(init_image=name, mask=mask), pocket, "me")
    assert caught.value.field == "mask"
