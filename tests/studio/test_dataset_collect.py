"""Folders laid out as FFHQ, EasyPortrait and LAION-Face are, gathered with whose each picture is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from studio.dataset_collect import Filters, collect, sharpness
from studio.dataset_layouts import LAYOUTS
from studio.domain.errors import DatasetError, InvalidRequest
from tests.studio.conftest import Cli


def face(path: Path, seed: int, size: tuple[int, int] = (96, 96), blur: float = 0) -> Path:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)
    image.filter(ImageFilter.GaussianBlur(blur)).save(path)
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    root = tmp_path / "ffhq"
    for number in (0, 1, 1000):
        face(root / "images1024x1024" / f"{number // 1000 * 1000:05}" / f"{number:05}.png", number)
        face(root / "thumbnails128x128" / "00000" / f"{number:05}.png", number + 50)
    about = {
        "author": "Jeanne Müller", "license": "Attribution License", "license_url": "https://example.org/by/2.0/",
        "photo_url": "https://example.org/1", "photo_title": "x",
    }  # fmt: skip
    listing = {"0": {"category": "training", "metadata": about, "image": {"face_landmarks": [[1.5, 2.5]] * 68}}}
    listing |= {"1": {"metadata": {**about, "author": ""}}, "x": {}, "1000": []}
    (root / "ffhq-dataset-v2.json").write_text(json.dumps(listing, indent=1), encoding="utf-8")
    return root


def test_ffhq_with_authors_and_licences(ffhq: Path, tmp_path: Path) -> None:
    made = collect(ffhq, tmp_path / "out", "ffhq")
    assert made.num_pictures == 3 and made.left_out == {}
    first, second, third = rows(made.folder)
    assert first == {
        "file_name": "000000.png", "original": "images1024x1024/00000/00000.png", "dataset": "FFHQ",
        "licence": "Attribution License", "licence_url": "https://example.org/by/2.0/", "author": "Jeanne Müller",
        "source_url": "https://example.org/1",
    }  # fmt: skip
    assert "author" not in second and second["licence"] == "Attribution License"
    assert third["licence"] == LAYOUTS["ffhq"].licence and third["original"].endswith("01000/01000.png")
    original = ffhq / first["original"]
    assert (made.folder / "000000.png").read_bytes() == original.read_bytes()


def test_a_list_of_authors_that_is_damaged_is_not_passed_over(ffhq: Path, tmp_path: Path) -> None:
    listing = ffhq / "ffhq-dataset-v2.json"
    text = listing.read_text()
    for damaged in (text[:-20], "[]", "", text.replace(":", ";", 1)):
        listing.write_text(damaged)
        with pytest.raises(DatasetError, match="whose the pictures are"):
            collect(ffhq, tmp_path / "out", "ffhq")
    assert not (tmp_path / "out").exists()


def test_easyportrait_without_its_masks(tmp_path: Path) -> None:
    root = tmp_path / "EasyPortrait"
    for number, part in enumerate(("train", "val", "test")):
        face(root / "images" / part / f"{number}f.jpg", number)
        face(root / "annotations" / part / f"{number}f.png", number + 9)
    made = collect(root, tmp_path / "out", "easyportrait")
    assert [row["original"] for row in rows(made.folder)] == [
        "images/test/2f.jpg", "images/train/0f.jpg", "images/val/1f.jpg",
    ]  # fmt: skip
    assert {row["licence"] for row in rows(made.folder)} == {"CC BY-SA 4.0"}


def test_laion_face_with_its_words_and_detectors(tmp_path: Path) -> None:
    root = tmp_path / "laion"

    def put(number: int, about: Any, text: str | None = None) -> None:
        path = face(root / "00000" / f"{number:09}.jpg", number)
        if about is not None:
            path.with_suffix(".json").write_text(about if isinstance(about, str) else json.dumps(about))
        if text is not None:
            path.with_suffix(".txt").write_text(text)

    put(0, {"caption": "a man in a hat\n", "url": "https://example.org/0.jpg", "status": "success", "LICENSE": "?"})
    put(1, {"url": "https://example.org/1.jpg", "pwatermark": 0.9})
    put(2, {"url": "https://example.org/2.jpg", "punsafe": 0.7})
    put(3, "{no json", "from the text file")
    put(4, None)
    put(5, {"status": "failed_to_download"})
    made = collect(root, tmp_path / "out", "laion-face")
    assert made.left_out == {"it was not fetched whole": 1, "probably a watermark": 1, "probably unfit to be shown": 1}
    first, second, third = rows(made.folder)
    assert (first["text"], first["source_url"], first["licence"]) == (
        "a man in a hat",
        "https://example.org/0.jpg",
        "unknown",
    )
    assert second["text"] == "from the text file" and "text" not in third
    assert (made.num_pictures, made.num_captions) == (3, 2)


def test_what_is_small_long_blurred_damaged_or_a_copy_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    face(root / "a" / "good.png", 1)
    face(root / "a" / "b" / "again.png", 1)
    face(root / "small.png", 2, (60, 90))
    face(root / "long.png", 3, (400, 96))
    face(root / "blurred.png", 4, blur=20)
    (root / "damaged.png").write_bytes(b"no picture")
    (root / "good.mask.png").write_bytes(b"a mask")
    (root / "elsewhere.png").symlink_to(face(tmp_path / "else.png", 5))
    made = collect(root, tmp_path / "out", "folder", Filters(min_size=64, min_sharpness=5), licence="mine")
    assert made.left_out == {
        "corrupt": 1,
        "not sharp": 1,
        "the same as another": 1,
        "too long or too wide": 1,
        "too small": 1,
    }
    (row,) = rows(made.folder)
    assert row == {"file_name": "000000.png", "original": "a/good.png", "licence": "mine"}
    assert sharpness(root / "blurred.png")[1] < 5 < sharpness(root / "a" / "good.png")[1]
    assert "1 the same as another" in made.summary


def test_a_sample_is_the_same_again_and_another_by_another_seed(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for number in range(60):
        face(root / f"{number % 7}" / f"{number}.png", number, (16, 16))

    def drawn(name: str, count: int, seed: int) -> list[str]:
        made = collect(root, tmp_path / name, "folder", Filters(sample=count, seed=seed))
        return [row["original"] for row in rows(made.folder)]

    first = drawn("one", 20, 7)
    assert drawn("two", 20, 7) == first and len(set(first)) == 20
    assert drawn("three", 20, 8) != first
    assert set(drawn("four", 10, 7)) < set(first)
    (root / "0" / "0.png").unlink()
    assert len(set(first) - set(drawn("five", 20, 7))) <= 1


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"layout": "celeba"}, InvalidRequest, "no layout 'celeba'"),
        ({"filters": Filters(min_size=0)}, InvalidRequest, "0 does not work"),
        ({"filters": Filters(min_sharpness=float("nan"))}, InvalidRequest, "nan does not work"),
        ({"filters": Filters(sample=0)}, InvalidRequest, "0 does not work"),
        ({"filters": Filters(min_size=5000)}, DatasetError, "1 too small"),
        ({"inside": True}, DatasetError, "lies in"),
    ],
)
def test_what_cannot_be_gathered_is_said(tmp_path: Path, change: dict, error: type[Exception], said: str) -> None:
    face(tmp_path / "mine" / "a.png", 1)
    to = tmp_path / ("mine/out" if change.get("inside") else "out")
    with pytest.raises(error, match=said):
        collect(tmp_path / "mine", to, change.get("layout", "folder"), change.get("filters"))
    assert not to.exists()


def test_on_the_command_line_from_gathering_to_parts(cli: Cli, tmp_path: Path) -> None:
    from tests.studio.captions.scenes import scenes

    scenes(tmp_path / "mine" / "deep" / "down", 8)
    out = str(tmp_path / "out")
    code, told, err = cli("dataset", "collect", "--src", str(tmp_path / "mine"), "--dst", out, "--licence", "CC0")
    assert (code, told, err) == (0, f"{out}\n", "8 pictures gathered, 0 with a caption.\n")
    assert cli("dataset", "caption", out)[0] == 0
    assert cli("dataset", "merge", out, "--quiet")[0] == 0
    first = rows(Path(out))[0]
    assert first["licence"] == "CC0" and "background" in first["text"]
    parts = str(tmp_path / "parts")
    code, told, err = cli("dataset", "split", out, "--parts", "train=0.75,test=0.25", "--dst", parts)
    assert (code, told) == (0, f"{parts}\n")
    there = [row for name in ("train", "test") for row in rows(tmp_path / "parts" / name)]
    assert sorted(row["file_name"] for row in there) == [f"{number:06}.png" for number in range(8)]
    assert all(row["licence"] == "CC0" and row["text"] for row in there)
    code, _, err = cli("dataset", "download", "no id")
    assert code == 2 and "no id of a data set" in err
    code, _, err = cli("dataset", "download", "owner/name")
    assert code == 1 and "offline" in err
