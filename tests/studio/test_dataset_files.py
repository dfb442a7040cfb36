"""Pictures and captions as people keep them: found, paired, and what is wrong with the others said by name."""

import json
from pathlib import Path

import pytest
from PIL import Image

from studio.dataset_files import read_dataset
from studio.domain.errors import DatasetError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def found(folder: Path) -> list[tuple[str, str]]:
    return [(item.path.name, item.caption) for item in read_dataset(folder).items]


def test_text_files_beside_pictures_are_their_captions(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp", "d.png"):
        picture(tmp_path / name)
    (tmp_path / "a.txt").write_bytes("\ufeffa fox\r\nin snow \n".encode())
    (tmp_path / "b.caption").write_text("a hare")
    (tmp_path / "c.txt").write_text(" \n")
    (tmp_path / "notes.md").write_text("x")
    assert found(tmp_path) == [("a.jpg", "a fox in snow"), ("b.PNG", "a hare")]
    problems = read_dataset(tmp_path).problems
    assert [problem.split()[0] for problem in problems] == ["c.webp", "d.png"]


def test_images_and_captions_may_have_folders_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.png")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "1.txt").write_text("a fox")
    assert found(tmp_path) == [("1.png", "a fox")]


def test_metadata_lines_are_read_and_bad_ones_told_by_number(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "deep/3.png"):
        picture(tmp_path / name)
    picture(tmp_path.parent / "outside.png")
    lines = [
        json.dumps({"file_name": "1.png", "text": "a fox"}),
        "{broken",
        json.dumps({"file_name": "2.png", "caption": "a hare"}),
        json.dumps({"file_name": "deep/3.png", "prompt": "an owl"}),
        json.dumps({"file_name": "1.png", "text": "again"}),
        json.dumps({"file_name": "gone.png", "text": "nothing"}),
        json.dumps({"file_name": "../outside.png", "text": "out"}),
        json.dumps({"file_name": "2.png"}),
        json.dumps(["no", "object"]),
        "[" * 5000,
    ]
    (tmp_path / "metadata.jsonl").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    assert found(tmp_path) == [("1.png", "a fox"), ("2.png", "a hare"), ("3.png", "an owl")]
    told = " ".join(read_dataset(tmp_path).problems)
    for said in ("Line 2", "Line 5", "gone.png", "outside the folder", "Line 8", "Line 9", "Line 10"):
        assert said in told
    assert len(read_dataset(tmp_path).problems) == 7


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "x.png")
    folder = tmp_path / "set"
    picture(folder / "y.png")
    (folder / "x.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    for name in ("x", "y"):
        (folder / f"{name}.txt").write_text("a fox")
    assert found(folder) == [("y.png", "a fox")]


def test_no_folder_and_no_captions_are_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder 'gone'"):
        read_dataset(tmp_path / "gone")
    picture(tmp_path / "1.png")
    with pytest.raises(DatasetError, match=r"no picture with a caption\. The first of 1 problems: 1\.png has no"):
        read_dataset(tmp_path)
