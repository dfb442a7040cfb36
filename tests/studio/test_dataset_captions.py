"""Captions are kept where a data set has them, whole or not at all, and changed many at a time."""

import json
import os
from pathlib import Path

import pytest

from studio.dataset_captions import prefixed, replaced, save_captions, with_trigger_removed
from studio.dataset_files import read_dataset
from studio.domain.errors import DatasetError, InvalidRequest
from tests.studio.test_dataset_files import picture


def captions(folder: Path) -> dict[str, str]:
    return {item.path.name: item.caption for item in read_dataset(folder).items}


def test_a_caption_is_a_text_file_beside_its_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "b.caption").write_text("old")
    (tmp_path / "c.txt").write_text("stays")
    save_captions(tmp_path, {"a.png": " a fox\nin snow ", "b.jpg": "a hâre"})
    assert (tmp_path / "a.txt").read_bytes() == b"a fox in snow\n"
    assert (tmp_path / "b.caption").read_bytes() == "a hâre\n".encode()
    assert captions(tmp_path) == {"a.png": "a fox in snow", "b.jpg": "a hâre", "c.png": "stays"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png", "a.txt", "b.caption", "b.jpg", "c.png", "c.txt",
    ]  # fmt: skip


def test_folders_of_captions_keep_them(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.png")
    (tmp_path / "captions").mkdir()
    save_captions(tmp_path, {"images/1.png": "a fox"})
    assert (tmp_path / "captions" / "1.txt").read_text() == "a fox\n"


def test_a_list_keeps_what_else_it_says(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    lines = [
        json.dumps({"file_name": "a.png", "caption": "old", "rating": 5}),
        "{broken",
        json.dumps({"file_name": "b.png", "text": "stays"}),
    ]
    (tmp_path / "metadata.jsonl").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    save_captions(tmp_path, {"a.png": "a fox", "c.png": "ein Häher"})
    written = (tmp_path / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(written[0]) == {"file_name": "a.png", "caption": "a fox", "rating": 5}
    assert written[1:3] == lines[1:]
    assert written[3:] == ['{"file_name": "c.png", "text": "ein Häher"}', ""]
    assert captions(tmp_path) == {"a.png": "a fox", "b.png": "stays", "c.png": "ein Häher"}
    save_captions(tmp_path, {"a.png": ""})
    assert captions(tmp_path) == {"b.png": "stays", "c.png": "ein Häher"}
    save_captions(tmp_path, {"a.png": "again"})
    assert captions(tmp_path)["a.png"] == "again"
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("between", [",", ";"])
def test_a_table_keeps_its_columns(tmp_path: Path, between: str) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    rows = [["rating", "file", "caption"], ["5", "a.png", "old"]]
    (tmp_path / "captions.csv").write_text("".join(f"{between.join(row)}\n" for row in rows))
    save_captions(tmp_path, {"a.png": 'a "fox", in snow; red', "b.png": "a hare"})
    assert captions(tmp_path) == {"a.png": 'a "fox", in snow; red', "b.png": "a hare"}
    written = (tmp_path / "captions.csv").read_text().splitlines()
    assert written[0] == between.join(rows[0]) and written[1].startswith("5") and len(written) == 3


@pytest.mark.parametrize("name", ["gone.png", "../x.png", "notes.md", "", "a\0.png", "/etc/passwd"])
def test_one_wrong_name_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "x.png")
    folder = tmp_path / "set"
    picture(folder / "a.png")
    (folder / "notes.md").write_text("x")
    with pytest.raises(DatasetError, match="no picture of 'set'"):
        save_captions(folder, {"a.png": "a fox", name: "words"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "notes.md"]
    assert not (tmp_path / "x.txt").exists()


def test_too_long_a_caption_or_one_file_for_two_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match="20,000 characters; at most 10,000"):
        save_captions(tmp_path, {"a.png": "x" * 20_000})
    with pytest.raises(DatasetError, match=r"a\.jpg shares a\.txt"):
        save_captions(tmp_path, {"a.png": "a fox", "a.jpg": "a hare"})
    assert not (tmp_path / "a.txt").exists()
    save_captions(tmp_path, {"a.png": "a fox", "a.jpg": "a fox"})
    assert captions(tmp_path) == {"a.png": "a fox", "a.jpg": "a fox"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "outside.txt"
    target.write_text("mine")
    folder = tmp_path / "set"
    picture(folder / "a.png")
    (folder / "a.txt").symlink_to(target)
    save_captions(folder, {"a.png": "a fox"})
    assert target.read_text() == "mine" and (folder / "a.txt").read_text() == "a fox\n"
    picture(tmp_path / "two" / "images" / "1.png")
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "two" / "captions")
    with pytest.raises(DatasetError, match="lie outside"):
        save_captions(tmp_path / "two", {"images/1.png": "a fox"})
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red dog", "ohwx, a red dog"),
        ("ohwx, a red dog", "ohwx, a red dog"),
        ("OHWX dog", "OHWX dog"),
        ("ohwxs run", "ohwx, ohwxs run"),
        ("a dog by ohwx", "ohwx, a dog by ohwx"),
        ("", "ohwx"),
    ],
)
def test_a_trigger_is_put_first_once(caption: str, expected: str) -> None:
    once = prefixed({"a.png": caption}, " ohwx, ")
    assert once == {"a.png": expected}
    assert prefixed(once, "ohwx") == once


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("ohwx, a red dog", "a red dog"),
        ("a photo of Ohwx dog", "a photo of dog"),
        ("red, ohwx, dog", "red, dog"),
        ("a red dog, ohwx", "a red dog"),
        ("ohwxs,  as typed, ", "ohwxs,  as typed, "),
        ("ohwx", ""),
    ],
)
def test_a_trigger_is_removed_wherever_it_stands(caption: str, expected: str) -> None:
    assert with_trigger_removed({"a.png": caption}, "ohwx") == {"a.png": expected}


def test_removing_undoes_putting_first() -> None:
    given = {"a.png": "a red dog", "b.png": "red, dog", "c.png": ""}
    for trigger in ("ohwx", "ohwx man", "c++", "(x)"):
        assert with_trigger_removed(prefixed(given, trigger), trigger) == given


def test_words_are_replaced_as_plain_text() -> None:
    given = {"a.png": "a Cat. a cat.", "b.png": "a dog,  as typed"}
    assert replaced(given, "cat.", r"\1fox") == {"a.png": r"a Cat. a \1fox", "b.png": "a dog,  as typed"}
    assert replaced(given, "cat", "fox", is_case_sensitive=False)["a.png"] == "a fox. a fox."
    assert replaced(given, "a ", "")["a.png"] == "Cat. cat."


def test_nothing_to_find_or_to_put_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="nothing to find"):
        replaced({"a.png": "x"}, "", "y")
    for change in (prefixed, with_trigger_removed):
        with pytest.raises(InvalidRequest, match="trigger word is empty"):
            change({"a.png": "x"}, " , ")
