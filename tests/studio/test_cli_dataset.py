"""`python -m studio dataset scan | prepare` on the command line."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.studio.conftest import Cli
from tests.studio.test_dataset_scan import as_bytes, put, scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path / "mine" / "a.png", scene(1), "a fox")
    put(tmp_path / "mine" / "b.png", scene(2), "a \x1b[31mhare")
    put(tmp_path / "mine" / "c.png", b"no picture")
    put(tmp_path / "mine" / "d.webp", scene(1), None, lossless=True)
    return tmp_path / "mine"


def test_a_scan_is_a_table_and_a_sentence(cli: Cli, folder: Path) -> None:
    code, out, err = cli("dataset", "scan", str(folder), "--min-size", "64")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "SIZE", "CAN", "BE", "USED", "REMARKS", "CAPTION"],
        ["a.png", "96×64", "yes", "a", "fox"],
        ["b.png", "96×64", "yes", "a", "?[31mhare"],
        ["c.png", "no", "corrupt", "a", "fox"],
        ["d.webp", "96×64", "no", "duplicate", "of", "a.png,", "no", "caption"],
    ]
    assert err == "4 pictures: 2 can be used, 1 is corrupt, 1 is a duplicate, 1 has no caption.\n"


def test_a_scan_as_json(cli: Cli, folder: Path) -> None:
    code, out, err = cli("dataset", "scan", str(folder), "--min-size", "64", "--json", "--quiet")
    document = json.loads(out)
    assert (code, err, document["num_usable"]) == (0, "", 2)
    last = document["pictures"][-1]
    assert (last["name"], last["is_usable"], last["remarks"][0]) == (
        "d.webp", False, {"finding": "duplicate", "message": "d.webp is the same as a.png.", "twin": "a.png"},
    )  # fmt: skip


def test_a_scan_in_which_nothing_can_be_used_fails(cli: Cli, folder: Path) -> None:
    code, out, err = cli("dataset", "scan", str(folder))
    assert code == 1 and out.count(" no ") >= 4 and "0 can be used" in err


def test_prepare_writes_a_data_set_and_prints_its_folder(cli: Cli, folder: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "out")
    given = ("dataset", "prepare", "--src", str(folder), "--dst", target, "--size", "64")
    code, out, err = cli(*given, "--crop", "buckets", "--layout", "metadata", "--trigger", "ohwx")
    assert (code, out) == (0, f"{target}\n")
    assert err.splitlines() == [
        "Left out: c.png is no PNG, JPEG or WebP picture.",
        "Left out: d.webp is the same as a.png.",
        "2 pictures of 4 written: 80×48 (2).",
    ]
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert rows[0] == {"file_name": "0000.png", "text": "ohwx, a fox"}
    code, out, err = cli(*given)
    assert (code, out) == (1, "") and "already" in err and err.startswith("error: ")
    assert cli(*given, "--replace", "--quiet") == (0, f"{target}\n", "")
    assert (tmp_path / "out" / "0000.txt").read_text() == "a fox\n"


def test_both_take_a_zip(cli: Cli, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("d/a.png", as_bytes(scene(1), "PNG"))
        archive.writestr("d/a.txt", "a fox")
        archive.writestr("d/b.exe", "MZ")
    code, out, err = cli("dataset", "scan", str(tmp_path / "x.zip"), "--min-size", "64")
    assert code == 0 and "a fox" in out and "'d/b.exe' is neither a picture nor a caption." in err
    given = ("--src", str(tmp_path / "x.zip"), "--dst", str(tmp_path / "out"), "--size", "64")
    assert cli("dataset", "prepare", *given)[0] == 0
    assert (tmp_path / "out" / "0000.txt").read_text() == "a fox\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ((), 2, "scan | prepare"),
        (("scan",), 2, "FOLDER"),
        (("scan", "gone"), 1, "There is no folder 'gone'."),
        (("scan", "README.md"), 1, "'README.md' is damaged, or no zip file"),
        (("scan", "studio", "--min-size", "0"), 2, "A side of 0 px is none."),
        (("scan", "studio", "--min-size", "x"), 2, "--min-size"),
        (("prepare", "--src", "studio", "--size", "64"), 2, "--dst"),
        (("prepare", "--src", "docs", "--dst", "nowhere/x", "--size", "65"), 2, "65 px"),
        (("prepare", "--src", "docs", "--dst", "nowhere/x", "--size", "64", "--crop", "left"), 2, "centre"),
        (("prepare", "--src", "docs", "--dst", "docs/x", "--size", "64"), 1, "lie in each other"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(cli: Cli, given: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = cli("dataset", *given)
    assert (found, out) == (code, "")
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not Path("nowhere").exists()
