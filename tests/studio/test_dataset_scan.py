"""What a scan says of pictures before a training: every flaw by name, and nothing that stops it."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.dataset_scan import scan
from studio.domain.datasets import Finding, Scan, Verdict
from studio.domain.errors import DatasetError, JobCancelled
from tests.rights import HAS_RIGHTS, as_nobody


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture with large and small shapes, its own for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def put(path: Path, image: Image.Image | bytes, caption: str | None = "a fox", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def verdicts(folder: Path, **options: int) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in look(folder, **options).verdicts}


def look(folder: Path, **options: int) -> Scan:
    return scan(folder, **{"min_size": 32, **options})


def as_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims to have so many pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"0" * 1000)
    chunks = [struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_good_picture_is_told_with_its_size_and_caption(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1), "a fox\nin snow")
    (verdict,) = look(tmp_path).verdicts
    assert (verdict.name, verdict.caption, verdict.width, verdict.height) == ("a.png", "a fox in snow", 96, 64)
    assert verdict.is_usable and verdict.remarks == ()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("half.jpg", as_bytes(scene(1), "JPEG")[:-900], "damaged or cut off"),
        ("half.png", as_bytes(scene(1), "PNG")[:3000], "damaged or cut off"),
        ("none.png", b"", "is empty"),
        ("page.png", b"<html><body>not found</body></html>", "no PNG, JPEG or WebP"),
        ("moving.png", as_bytes(scene(1), "GIF"), "no PNG, JPEG or WebP"),
        ("bitmap.jpg", as_bytes(scene(1), "BMP"), "no PNG, JPEG or WebP"),
    ],
)
def test_what_is_no_picture_is_corrupt_and_the_others_are_seen(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    put(tmp_path / name, content)
    put(tmp_path / "zebra.png", scene(2))
    found = verdicts(tmp_path)
    assert found[name].findings == (Finding.CORRUPT,) and said in found[name].remarks[0].message
    assert not found[name].is_usable and found["zebra.png"].is_usable


@pytest.mark.parametrize("side", [60_000, 13_500, 9_500, 7_100])
def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, side: int) -> None:
    put(tmp_path / "bomb.png", png_header(side, side))
    assert verdicts(tmp_path)["bomb.png"].findings == (Finding.TOO_LARGE,)


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs users")
def test_a_file_without_permission_does_not_stop_the_scan() -> None:
    with as_nobody() as folder:
        put(folder / "a.png", scene(1)).chmod(0)
        put(folder / "b.png", scene(2)).with_suffix(".txt").chmod(0)
        found = verdicts(folder)
    assert "a.png cannot be read: permission denied." in found["a.png"].remarks[0].message
    assert found["b.png"].is_usable and found["b.png"].findings == (Finding.NO_CAPTION,)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1))
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c.txt")
    put(tmp_path / "c.png", scene(2), None)
    assert list(verdicts(tmp_path)) == ["a.png", "c.png"]


def test_the_shorter_side_decides_whether_it_is_too_small(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1, (300, 63)))
    put(tmp_path / "b.png", scene(2, (64, 64)))
    found = verdicts(tmp_path, min_size=64)
    assert found["a.png"].findings == (Finding.TOO_SMALL,) and "300×63" in found["a.png"].remarks[0].message
    assert found["b.png"].is_usable


def test_the_same_pixels_are_a_duplicate_in_whatever_file(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1))
    put(tmp_path / "b.webp", scene(1), lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "c.png", scene(1).transpose(Image.Transpose.ROTATE_90), exif=exif)
    put(tmp_path / "d.png", Image.new("RGB", (64, 96), "navy"))
    put(tmp_path / "e.png", Image.new("RGB", (96, 64), "navy"))
    found = verdicts(tmp_path)
    for name in ("b.webp", "c.png"):
        assert not found[name].is_usable
        assert (found[name].remarks[0].finding, found[name].remarks[0].twin) == (Finding.DUPLICATE, "a.png")
    assert found["a.png"].is_usable and found["d.png"].is_usable
    assert Finding.DUPLICATE not in found["e.png"].findings  # as many pixels of one colour, in another shape


def test_a_copy_in_another_size_or_quality_is_told_and_stays_usable(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1, (400, 300)))
    put(tmp_path / "b.jpg", scene(1, (400, 300)), quality=40)
    put(tmp_path / "c.png", scene(1, (400, 300)).resize((200, 150)))
    for seed in range(2, 30):
        put(tmp_path / f"other-{seed}.png", scene(seed, (400, 300)))
    found = verdicts(tmp_path)
    for name in ("b.jpg", "c.png"):
        assert (found[name].findings, found[name].remarks[0].twin) == ((Finding.NEAR_DUPLICATE,), "a.png")
        assert found[name].is_usable
    assert all(not verdict.remarks for name, verdict in found.items() if name.startswith(("a", "other")))


def test_plain_pictures_of_different_colours_are_not_alike(tmp_path: Path) -> None:
    for colour in ("red", "navy", "white", "green"):
        put(tmp_path / f"{colour}.png", Image.new("RGB", (64, 64), colour))
    assert [verdict.findings for verdict in look(tmp_path).verdicts] == [()] * 4


def test_a_rotated_picture_has_the_size_that_it_will_have(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "a.jpg", scene(1, (96, 64)), exif=exif)
    (verdict,) = look(tmp_path).verdicts
    assert verdict.findings == (Finding.ROTATED,) and verdict.is_usable
    assert (verdict.width, verdict.height) == (64, 96)


def test_what_changes_the_picture_is_remarked_and_does_not_hinder(tmp_path: Path) -> None:
    layer = scene(1).convert("RGBA")
    put(tmp_path / "opaque.png", layer)
    layer.putpixel((0, 0), (0, 0, 0, 0))
    put(tmp_path / "holes.png", layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    frames = [scene(3), scene(4)]
    put(tmp_path / "moving.webp", frames[0], save_all=True, append_images=frames[1:])
    put(tmp_path / "really.png", as_bytes(scene(5), "JPEG"))
    found = verdicts(tmp_path)
    assert found["opaque.png"].findings == ()
    assert found["holes.png"].findings == (Finding.TRANSPARENT,)
    assert found["moving.webp"].findings == (Finding.ANIMATED,)
    assert found["really.png"].findings == (Finding.WRONG_SUFFIX,) and "JPEG" in found["really.png"].remarks[0].message
    assert all(verdict.is_usable for verdict in found.values())


def test_damaged_exif_and_the_preview_of_a_camera_are_no_flaws(tmp_path: Path) -> None:
    orientation = struct.pack(">HHHI4sI", 1, 0x0112, 2, 4, b"side", 0)  # a word where a number belongs
    put(tmp_path / "exif.jpg", scene(1), exif=b"Exif\0\0MM\0*\0\0\0\x08" + orientation)
    put(tmp_path / "camera.jpg", as_bytes(scene(2), "MPO", save_all=True, append_images=[scene(3, (24, 16))]))
    assert [verdict.findings for verdict in look(tmp_path).verdicts] == [(), ()]


def test_captions_that_are_missing_or_empty_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1), None)
    put(tmp_path / "b.png", scene(2), " \n")
    put(tmp_path / "c.png", scene(3), "x" * 20_000)
    found = verdicts(tmp_path)
    kinds = [Finding.NO_CAPTION, Finding.EMPTY_CAPTION, Finding.EMPTY_CAPTION]
    assert [verdict.findings for verdict in found.values()] == [(kind,) for kind in kinds]
    assert all(verdict.is_usable and verdict.caption == "" for verdict in found.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,text\na.png,"a fox, in snow"\ngone.png,nothing\n'),
        ("captions.csv", '\ufefffile,caption\r\na.png,"a fox, in snow"\r\ngone.png,nothing\r\n'),
        ("captions.csv", "caption;file\na fox, in snow;a.png\nnothing;gone.png\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "a fox, in snow"}\n{"file_name": "gone.png", "text": "x"}\n',
        ),
    ],
)
def test_captions_come_from_a_list_and_pictures_it_leaves_out_are_told(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path / "a.png", scene(1), None)
    put(tmp_path / "b.png", scene(2), None)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    found = look(tmp_path)
    assert [(verdict.name, verdict.caption) for verdict in found.verdicts] == [
        ("a.png", "a fox, in snow"),
        ("b.png", ""),
    ]
    assert found.verdicts[1].findings == (Finding.NO_CAPTION,)
    assert found.notes == ("gone.png is no picture that is there.",)


def test_a_caption_with_a_line_separator_in_json_is_one_line_of_the_list(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1), None)
    line = json.dumps({"file_name": "a.png", "text": "a fox\u2028in snow"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8")
    assert verdicts(tmp_path)["a.png"].caption == "a fox in snow"


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    secret = put(tmp_path / "elsewhere" / "x.png", scene(1), "a secret")
    folder = tmp_path / "set"
    put(folder / "a.png", scene(2), None)
    (folder / "a.txt").symlink_to(secret.with_suffix(".txt"))
    (folder / "b.png").symlink_to(secret)
    found = verdicts(folder)
    assert found["a.png"].caption == "" and "outside" in found["a.png"].remarks[0].message
    assert found["b.png"].findings == (Finding.OUTSIDE,) and found["b.png"].width == 0
    assert "secret" not in repr(found)


@pytest.mark.parametrize("name", ["a\0.png", "x" * 300 + ".png", "/etc/x.png", "../elsewhere/x.png"])
def test_a_name_that_cannot_be_does_not_stop_the_scan(tmp_path: Path, name: str) -> None:
    put(tmp_path / "elsewhere" / "x.png", scene(1))
    folder = tmp_path / "set"
    put(folder / "a.png", scene(2), None)
    rows = [{"file_name": name, "text": "no"}, {"file_name": "a.png", "text": "a fox"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = look(folder)
    assert [verdict.name for verdict in found.usable] == ["a.png"]
    assert len(found.verdicts) + len(found.notes) == 2


def test_the_summary_counts_in_one_sentence(tmp_path: Path) -> None:
    for seed in range(3):
        put(tmp_path / f"{seed}.png", scene(seed))
    put(tmp_path / "bad.png", b"no picture")
    put(tmp_path / "again.png", scene(0), None)
    put(tmp_path / "small.png", scene(7, (20, 20)))
    expected = "6 pictures: 3 can be used, 1 is corrupt, 1 is too small, 1 is a duplicate, 1 has no caption."
    assert look(tmp_path).summary == expected


def test_pictures_deeper_inside_are_told_not_forgotten(tmp_path: Path) -> None:
    put(tmp_path / "10_fox" / "a.png", scene(1))
    with pytest.raises(DatasetError, match="1 picture in the folder '10_fox'"):
        look(tmp_path)
    put(tmp_path / "b.png", scene(2))
    (note,) = look(tmp_path).notes
    assert "10_fox" in note


def test_progress_is_told_and_may_end_it(tmp_path: Path) -> None:
    for seed in range(3):
        put(tmp_path / f"{seed}.png", scene(seed))
    told: list[tuple[int, int]] = []
    scan(tmp_path, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise JobCancelled

    with pytest.raises(JobCancelled):
        scan(tmp_path, on_progress=stop)
    assert told[3:] == [(1, 3)]


def test_masks_are_no_pictures_and_those_that_have_one_say_so(tmp_path: Path) -> None:
    white = Image.new("L", (96, 64), "white")
    put(tmp_path / "a.jpg", scene(1))
    put(tmp_path / "a.mask.png", white, None)
    put(tmp_path / "b.png", scene(2))
    put(tmp_path / "b-masklabel.png", white.resize((48, 32)), None)
    put(tmp_path / "c.png", scene(3))
    put(tmp_path / "d.mask.png", white, None)
    found = look(tmp_path)
    assert [(each.name, each.findings) for each in found.verdicts] == [
        ("a.jpg", (Finding.MASKED,)), ("b.png", (Finding.MASKED,)), ("c.png", ()),
    ]  # fmt: skip
    assert found.verdicts[1].remarks[0].message == "b.png has a mask, b-masklabel.png."
    assert found.summary == "3 pictures: 3 can be used, 2 have a mask."
    assert found.notes == ("1 mask without a picture of that name, the first is d.mask.png.",)


def test_masks_are_no_pictures_in_a_folder_with_a_list_either(tmp_path: Path) -> None:
    put(tmp_path / "a.png", scene(1), None)
    put(tmp_path / "a.mask.png", Image.new("L", (96, 64), "white"), None)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a fox"}))
    (verdict,) = look(tmp_path).verdicts
    assert verdict.findings == (Finding.MASKED,)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (96, 96), "white"), "another shape than 96×64"),
        (Image.new("L", (96, 64)), "all black"),
        (b"nothing", "no PNG, JPEG or WebP"),
    ],
)
def test_a_mask_that_cannot_be_used_is_told_and_its_picture_can(
    tmp_path: Path, mask: Image.Image | bytes, said: str
) -> None:
    put(tmp_path / "a.png", scene(1))
    put(tmp_path / "a.mask.png", mask, None)
    (verdict,) = look(tmp_path).verdicts
    assert verdict.is_usable and verdict.findings == (Finding.BAD_MASK,) and said in verdict.remarks[0].message


def test_a_mask_outside_the_folder_is_none(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", scene(1))
    (tmp_path / "in" / "a.mask.png").symlink_to(put(tmp_path / "out.png", Image.new("L", (96, 64), "white"), None))
    (verdict,) = look(tmp_path / "in").verdicts
    assert verdict.findings == ()
