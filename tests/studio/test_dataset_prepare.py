"""What a training is given: pictures upright, whole, in one size, with their words and nothing else about them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.dataset_files import read_dataset
from studio.dataset_prepare import Phase, prepare
from studio.domain.buckets import Bucket
from studio.domain.errors import DatasetError, InvalidRequest, JobCancelled, StorageFailed
from tests.rights import HAS_RIGHTS, as_nobody
from tests.studio.test_dataset_scan import put, scene


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three pictures with captions, one without, and one that is damaged."""
    folder = tmp_path / "source"
    put(folder / "a.png", scene(1, (200, 100)), "a fox")
    put(folder / "b.jpg", scene(2, (100, 200)), "a hare")
    put(folder / "c.webp", scene(3, (150, 150)), "an owl")
    put(folder / "d.png", scene(4, (150, 150)), None)
    put(folder / "e.png", b"no picture")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def quarters(width: int, height: int, *colours: str) -> Image.Image:
    """A picture with a colour in each corner: upper left, upper right, lower left, lower right."""
    small = Image.new("RGB", (2, 2))
    for number, colour in enumerate(colours):
        small.paste(colour, (number % 2, number // 2, number % 2 + 1, number // 2 + 1))
    return small.resize((width, height), Image.Resampling.NEAREST)


def corners(path: Path) -> list[tuple[int, ...]]:
    values = pixels(path)
    return [tuple(map(int, values[place])) for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))]


def test_squares_with_text_files(source: Path, tmp_path: Path) -> None:
    before = contents(source)
    made = prepare(source, tmp_path / "out", 64)
    assert sorted(contents(tmp_path / "out")) == [
        "0000.png", "0000.txt", "0001.png", "0001.txt", "0002.png", "0002.txt", "0003.png",
    ]  # fmt: skip
    assert [item.caption for item in read_dataset(tmp_path / "out").items] == ["a fox", "a hare", "an owl"]
    assert {pixels(path).shape for path in (tmp_path / "out").glob("*.png")} == {(64, 64, 3)}
    assert (made.num_pictures, made.summary) == (4, "4 pictures of 5 written: 64×64 (4).")
    assert made.notes == ("d.png has no caption.", "Left out: e.png is no PNG, JPEG or WebP picture.", *made.notes[2:])
    assert contents(source) == before
    with Image.open(source / "a.png") as image:
        expected = image.resize((128, 64), Image.Resampling.LANCZOS).crop((32, 0, 96, 64))
    assert (pixels(tmp_path / "out" / "0000.png") == np.asarray(expected)).all()


def test_buckets_with_metadata_and_a_trigger(source: Path, tmp_path: Path) -> None:
    made = prepare(source, tmp_path / "out", 64, "buckets", "metadata", trigger="ohwx")
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file_name": "0000.png", "text": "ohwx, a fox"},
        {"file_name": "0001.png", "text": "ohwx, a hare"},
        {"file_name": "0002.png", "text": "ohwx, an owl"},
        {"file_name": "0003.png", "text": "ohwx"},
    ]
    sizes = [pixels(tmp_path / "out" / f"000{number}.png").shape[:2] for number in range(4)]
    assert sizes == [(48, 80), (80, 48), (64, 64), (64, 64)]
    assert made.buckets == {Bucket(80, 48): 1, Bucket(48, 80): 1, Bucket(64, 64): 2}
    assert len(read_dataset(tmp_path / "out").items) == 4 and not list((tmp_path / "out").glob("*.txt"))


@pytest.mark.parametrize("listing", ["metadata.jsonl", "metadata.csv"])
def test_author_and_licence_come_along_again_and_again(tmp_path: Path, listing: str) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        put(source / name, scene(number + 1, (150, 150)), None)
    rows = [
        {"file_name": "a.png", "text": "a fox", "author": "Ada", "licence": "CC BY 4.0"},
        {"file_name": "b.png", "text": "", "author": "Ben", "licence": "CC0"},
        {"file_name": "c.png", "text": "an owl"},
    ]
    if listing.endswith(".csv"):
        lines = ["file_name,text,author,licence", *(",".join(str(v) for v in row.values()) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (source / listing).write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(source, tmp_path / "texts", 64, trigger="zoo")
    prepare(tmp_path / "texts", tmp_path / "list", 64, layout="metadata")
    prepare(tmp_path / "list", tmp_path / "texts", 64, replace=True)
    told = [json.loads(line) for line in (tmp_path / "texts" / "about.jsonl").read_text().splitlines()]
    assert told == [
        {"file_name": "0000.png", "author": "Ada", "licence": "CC BY 4.0"},
        {"file_name": "0001.png", "author": "Ben", "licence": "CC0"},
    ]
    listed = [json.loads(line) for line in (tmp_path / "list" / "metadata.jsonl").read_text().splitlines()]
    assert listed[:2] == [
        {"file_name": "0000.png", "author": "Ada", "licence": "CC BY 4.0", "text": "zoo, a fox"},
        {"file_name": "0001.png", "author": "Ben", "licence": "CC0", "text": "zoo"},
    ]
    assert [item.caption for item in read_dataset(tmp_path / "texts").items] == ["zoo, a fox", "zoo", "zoo, an owl"]


@pytest.mark.parametrize(
    ("orientation", "order"),
    [(1, "rgby"), (2, "gryb"), (3, "ybgr"), (4, "byrg"), (5, "rbgy"), (6, "bryg"), (7, "ygbr"), (8, "gyrb")],
)
def test_pictures_are_turned_upright_and_say_nothing_of_where_they_were_taken(
    tmp_path: Path, orientation: int, order: str
) -> None:
    names = {"r": "red", "g": "lime", "b": "blue", "y": "yellow"}
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Secret camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0)})
    put(
        tmp_path / "in" / "a.png", quarters(80, 64, *(names[each] for each in "rgby")), exif=exif, dpi=(300, 300),
        icc_profile=b"a profile",
    )  # fmt: skip
    prepare(tmp_path / "in", tmp_path / "out", 64)
    values = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "y": (255, 255, 0)}
    path = tmp_path / "out" / "0000.png"
    assert corners(path) == [values[each] for each in order]
    with Image.open(path) as image:
        assert image.info == {} and dict(image.getexif()) == {}
    assert b"Secret" not in path.read_bytes() and b"profile" not in path.read_bytes()


def test_transparency_is_put_on_white_and_every_mode_becomes_rgb(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (64, 64), (255, 0, 0, 128))
    layer.paste((0, 0, 0, 0), (0, 0, 32, 64))
    put(tmp_path / "in" / "a.png", layer)
    palette = Image.new("P", (64, 64), 1)
    palette.putpalette([0, 0, 0, 0, 128, 0])
    palette.paste(0, (0, 0, 32, 64))
    put(tmp_path / "in" / "b.png", palette, transparency=0)
    put(tmp_path / "in" / "c.jpg", Image.new("CMYK", (64, 64), (0, 255, 255, 0)), quality=100)
    put(tmp_path / "in" / "d.png", Image.fromarray(np.full((64, 64), 0x8000, dtype=np.uint16)))
    prepare(tmp_path / "in", tmp_path / "out", 64)
    found = [corners(tmp_path / "out" / f"000{number}.png") for number in range(4)]
    white = (255, 255, 255)
    assert found[0][:2] == [white, (255, 127, 127)]
    assert found[1][:2] == [white, (0, 128, 0)]
    assert found[2][0] == pytest.approx((255, 0, 0), abs=3)
    assert found[3] == [(128, 128, 128)] * 4


def test_what_is_enlarged_is_told_and_too_much_of_it_left_out(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", scene(1, (50, 40)))
    put(tmp_path / "in" / "b.png", scene(2, (90, 31)))
    put(tmp_path / "in" / "c.png", scene(3, (64, 64)))
    made = prepare(tmp_path / "in", tmp_path / "out", 64)
    assert made.num_pictures == 2
    assert made.notes == (
        "Enlarged: a.png has 50×40 pixels, and was made 1.60 times as large for 64×64.",
        "Left out: b.png has 90×31 pixels, and 64×64 would take 2.1 times that; at most 2.",
    )
    with pytest.raises(DatasetError, match=r"No picture of 'in' can be used\. The first of 3 reasons: Left out: a"):
        prepare(tmp_path / "in", tmp_path / "large", 512)
    assert not (tmp_path / "large").exists()


def test_duplicates_come_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.webp"):
        put(tmp_path / "in" / name, scene(1), **({"lossless": True} if name == "c.webp" else {}))
    made = prepare(tmp_path / "in", tmp_path / "out", 64)
    assert made.num_pictures == 1
    assert made.notes == ("Left out: b.png is the same as a.png.", "Left out: c.webp is the same as a.png.")


@pytest.mark.parametrize("phase", ["scan", "write"])
def test_stopped_in_the_middle_it_leaves_nothing(source: Path, tmp_path: Path, phase: Phase) -> None:
    told: list[tuple[str, int, int]] = []

    def stop(at: Phase, done: int, total: int) -> None:
        told.append((at, done, total))
        if (at, done) == (phase, 2):
            raise JobCancelled

    with pytest.raises(JobCancelled):
        prepare(source, tmp_path / "out", 64, on_progress=stop)
    assert told[-1] == (phase, 2, 5 if phase == "scan" else 4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_picture_that_changes_meanwhile_ends_it(source: Path, tmp_path: Path) -> None:
    def change(at: Phase, done: int, total: int) -> None:
        if (at, done) == ("write", 1):
            scene(9, (70, 90)).save(source / "b.jpg")

    with pytest.raises(DatasetError, match=r"b\.jpg was changed"):
        prepare(source, tmp_path / "out", 64, on_progress=change)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_data_set_is_replaced_only_when_told_and_as_a_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(source, out, 64, "centre", "metadata")
    before = contents(out)
    told: list[int] = []
    with pytest.raises(DatasetError, match=r"'out' holds '0000\.png' already"):
        prepare(source, out, 128, on_progress=lambda phase, done, total: told.append(done))
    assert told == []  # it is said before minutes go into looking at the pictures
    with pytest.raises(DatasetError, match="No picture"):
        prepare(source, out, 1024, replace=True)
    assert contents(out) == before
    prepare(source, out, 128, replace=True)
    assert pixels(out / "0000.png").shape == (128, 128, 3) and not (out / "metadata.jsonl").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("name", ["thesis.docx", "photos/1.png", ".ssh/id"])
def test_a_folder_of_other_things_is_never_replaced(source: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "home"
    put(out / "a.png", scene(1))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(DatasetError, match="it is not replaced"):
        prepare(source, out, 64, replace=True)
    assert (out / name).read_text() == "mine" and (out / "a.png").exists()


@pytest.mark.parametrize("place", ["source", "source/out", ".", "link", "link/out"])
def test_the_source_is_never_written_into(source: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(source)
    before = contents(source)
    with pytest.raises(DatasetError, match="lie in each other"):
        prepare(source, tmp_path / place, 64, replace=True)
    assert contents(source) == before


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs users")
def test_a_place_that_cannot_be_written_is_said() -> None:
    with as_nobody() as folder:
        put(folder / "in" / "a.png", scene(1))
        (folder / "closed").mkdir(mode=0o500)
        with pytest.raises(StorageFailed, match="cannot be written"):
            prepare(folder / "in", folder / "closed" / "out", 64)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 0}, "0 px"),
        ({"size": 500}, "500 px"),
        ({"size": 4096}, "4096 px"),
        ({"size": 64, "crop": "middle"}, "no crop 'middle'"),
        ({"size": 64, "layout": "zip"}, "no layout 'zip'"),
        ({"size": 64, "trigger": " , "}, "trigger word is empty"),
    ],
)
def test_wrong_values_are_said_before_anything_is_written(
    source: Path, tmp_path: Path, given: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        prepare(source, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [64, 72, 128, 192, 256, 320, 512, 768, 1000, 1024, 2048])
def test_every_size_has_buckets(source: Path, tmp_path: Path, size: int) -> None:
    put(tmp_path / "in" / "a.png", scene(1, (1600, 1400)))
    (bucket,) = prepare(tmp_path / "in", tmp_path / "out", size, "buckets").buckets
    assert 0.8 * size * size < bucket.area <= size * size


def test_masks_come_along_cut_as_their_pictures_are(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg", scene(1, (200, 100)), "a fox")
    put(tmp_path / "in" / "b.png", scene(2, (100, 100)), "a hare")
    mask = Image.new("L", (200, 100))
    mask.paste(255, (0, 0, 100, 100))
    put(tmp_path / "in" / "a-masklabel.png", mask, None)
    prepare(tmp_path / "in", tmp_path / "out", 64)
    assert sorted(contents(tmp_path / "out")) == ["0000.mask.png", "0000.png", "0000.txt", "0001.png", "0001.txt"]
    with Image.open(tmp_path / "out" / "0000.mask.png") as image:
        assert image.size == (64, 64) and image.mode == "L"
        values = np.asarray(image)
    assert values[:, :31].min() == 255 and values[:, 33:].max() == 0
