"""Archives and files of anybody become a data set, or a sentence; never a file outside of the new folder."""

import io
import json
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from studio.dataset_files import read_dataset
from studio.dataset_import import Limits, import_files, import_zip
from studio.domain.errors import DatasetError, StorageFailed
from tests.rights import HAS_RIGHTS, as_nobody
from tests.studio.test_dataset_scan import as_bytes, scene

PICTURE = as_bytes(scene(1), "PNG")
OTHER = as_bytes(scene(2), "PNG")


def packed(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))}


def captions(folder: Path) -> dict[str, str]:
    return {item.path.name: item.caption for item in read_dataset(folder).items}


def refused(archive: Path, **options: Limits) -> str:
    """Why an archive is refused, once it is sure that nothing of it is left anywhere."""
    before = sorted(archive.parent.parent.rglob("*"))
    with pytest.raises(DatasetError) as caught:
        import_zip(archive, archive.parent / "in" / "set", **options)
    after = sorted(archive.parent.parent.rglob("*"))
    assert [path for path in after if path not in before and path.name != "in"] == []
    assert caught.value.hint and "\n" not in str(caught.value)
    return caught.value.message


def test_pictures_come_with_their_captions_and_everything_else_is_told(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "x.zip",
        ("mine/", b""),
        ("mine/a.png", PICTURE),
        ("mine/a.txt", "\ufeffa fox\r\nin snow".encode()),
        ("mine/b.JPG", OTHER),
        ("mine/b.caption", b"a hare"),
        ("mine/c.webp", PICTURE),
        ("mine/notes.txt", b"to do"),
        ("mine/more.zip", b"PK"),
        ("mine/run.exe", b"MZ"),
        ("__MACOSX/mine/._a.png", b"x"),
        ("mine/._b.JPG", b"x"),
        ("mine/.DS_Store", b"x"),
    )
    imported = import_zip(archive, tmp_path / "set")
    assert contents(tmp_path / "set") == {
        "a.png": PICTURE, "a.txt": b"a fox in snow\n", "b.jpg": OTHER, "b.txt": b"a hare\n", "c.webp": PICTURE,
    }  # fmt: skip
    assert imported.summary == "3 pictures taken in, 2 with a caption; 3 left out."
    assert sorted(imported.left_out) == [
        "'mine/more.zip' is an archive itself and was not opened.",
        "'mine/notes.txt' belongs to no picture.",
        "'mine/run.exe' is neither a picture nor a caption.",
    ]


def test_names_become_safe_and_each_picture_keeps_its_words(tmp_path: Path) -> None:
    stems = ["1/a", "2/a", "2/A", "<img onerror=x>", "CON", "...", "\u202egnp.x", "é" * 200, "a b (1)", "🦊"]
    entries = [(f"{stem}.png", PICTURE) for stem in stems] + [(f"{stem}.txt", stem.encode()) for stem in stems]
    folder = import_zip(packed(tmp_path / "x.zip", *entries), tmp_path / "set").folder
    found = captions(folder)
    assert sorted(found.values()) == sorted(stems)
    assert {name: caption for name, caption in found.items() if caption[-1] in "aA"} == {
        "a.png": "1/a", "a-2.png": "2/a", "A-3.png": "2/A",
    }  # fmt: skip
    assert {"_CON.png", "picture.png", "gnp.x.png", "a b (1).png", "picture-2.png", "img onerror-x.png"} <= set(found)
    assert all(len(name.encode()) <= 104 and name.isprintable() for name in found)


def test_two_pictures_of_one_name_and_one_caption_both_have_it(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", ("a.png", PICTURE), ("a.jpg", OTHER), ("a.txt", b"a fox"))
    import_zip(archive, tmp_path / "set")
    assert captions(tmp_path / "set") == {"a.png": "a fox", "a-2.jpg": "a fox"}


def test_folders_of_images_and_captions_are_joined(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", ("d/images/1.png", PICTURE), ("d/captions/1.txt", b"a fox"))
    assert import_zip(archive, tmp_path / "set").left_out == ()
    assert captions(tmp_path / "set") == {"1.png": "a fox"}


def test_a_list_follows_its_pictures_to_their_new_names(tmp_path: Path) -> None:
    rows = [{"file_name": f"{folder}/a.png", "text": f"words of {folder}"} for folder in ("1", "2")]
    lines = "\n".join(map(json.dumps, [*rows, {"file_name": "gone.png", "text": "x"}, ["no"]]))
    archive = packed(
        tmp_path / "x.zip",
        ("d/1/a.png", PICTURE), ("d/2/a.png", OTHER), ("d/metadata.jsonl", lines.encode()),
        ("e/b.png", PICTURE), ("e/labels.csv", b"file,caption\nb.png,words of b\n"),
        ("e/c.png", OTHER), ("e/c.txt", b"words of c"), ("stats.csv", b"loss,step\n1,2\n"),
    )  # fmt: skip
    imported = import_zip(archive, tmp_path / "set")
    expected = {"a.png": "words of 1", "a-2.png": "words of 2", "b.png": "words of b", "c.png": "words of c"}
    assert captions(tmp_path / "set") == expected
    assert imported.num_captions == 4 and (tmp_path / "set" / "a-2.png").read_bytes() == OTHER
    assert set(imported.left_out) == {
        "Line 3 of metadata.jsonl names 'gone.png', which did not come with it.",
        "Line 4 of metadata.jsonl names no picture with a caption.",
        "'stats.csv' names no picture with a caption.",
    }


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/a.png", "a/../../b.png", "..\\a.png", "\\a.png", "C:/a.png", "c:a.png", "x\\..\\..\\a.png", ".."],
)
def test_no_entry_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", ("good.png", PICTURE), (name, OTHER))
    assert "'x.zip' holds " in refused(archive)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    link = zipfile.ZipInfo("a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "is a link" in refused(packed(tmp_path / "d" / "x.zip", (link, b"/etc/passwd"), ("b.png", PICTURE)))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", ("a.png", PICTURE))
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    archive.write_bytes(data)
    assert "'a.png', which is encrypted" in refused(archive)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    zeros = bytes(5_000_000)
    archive = packed(tmp_path / "d" / "x.zip", ("a.png", zeros))
    assert "more than 100 times its size" in refused(archive)
    loose = Limits(ratio=1e9, file_bytes=4_000_000)
    assert "'a.png' has more than 4 MB" in refused(archive, limits=loose)
    archive = packed(tmp_path / "d" / "x.zip", *((f"{number}.png", zeros) for number in range(4)))
    assert "holds more than 0.0 GB" in refused(archive, limits=Limits(ratio=1e9, total_bytes=18_000_000))
    noise = [(f"{number}.png", os.urandom(500_000)) for number in range(4)]
    archive = packed(tmp_path / "d" / "x.zip", *noise, ("bomb.png", bytes(30_000_000)))
    assert "more than 100 times its size" in refused(archive)


def test_the_size_that_a_header_tells_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", ("a.png", bytes(5_000_000)))
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    archive.write_bytes(data)
    said = refused(archive, limits=Limits(ratio=1e9, file_bytes=4_000_000))
    assert "damaged" in said or "more than 4 MB" in said


def test_many_small_files_that_unpack_to_too_much_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", *((f"{number}.png", bytes(900_000)) for number in range(20)))
    assert "more than 100 times its size" in refused(archive)


@pytest.mark.parametrize("is_zip64", [False, True])
def test_a_table_of_contents_that_would_fill_the_memory_is_not_read(tmp_path: Path, is_zip64: bool) -> None:
    (tmp_path / "d").mkdir()
    length = 1 << 31
    end_64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, length, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF if is_zip64 else length, 0, 0)
    archive = tmp_path / "d" / "x.zip"
    archive.write_bytes(b"x" * 100 + (end_64 + locator if is_zip64 else b"") + end)
    assert refused(archive) == "'x.zip' holds more than 20,000 files."


@pytest.mark.parametrize("is_told", [True, False])
def test_too_many_files_are_refused_before_they_are_listed(tmp_path: Path, is_told: bool) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", *((f"{number}.png", b"") for number in range(300)))
    if not is_told:
        data = bytearray(archive.read_bytes())
        struct.pack_into("<HH", data, len(data) - 14, 1, 1)  # one file, it says
        archive.write_bytes(data)
    assert refused(archive, limits=Limits(files=10)) == "'x.zip' holds more than 10 files."
    assert refused(archive, limits=Limits(files=299)) == "'x.zip' holds more than 299 files."


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_an_archive_that_is_cut_or_none_is_said(tmp_path: Path, part: float) -> None:
    (tmp_path / "d").mkdir()
    archive = packed(tmp_path / "d" / "x.zip", ("a.png", PICTURE), ("b.png", OTHER))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * part)])
    assert "damaged, or no zip file" in refused(archive)


def test_a_picture_that_does_not_fit_its_checksum_ends_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    archive = tmp_path / "d" / "x.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.png", PICTURE)
        opened.writestr("b.png", OTHER)
    data = bytearray(archive.read_bytes())
    data[data.index(OTHER) + 500] ^= 0xFF
    archive.write_bytes(data)
    assert "damaged" in refused(archive) and "b.png" in refused(archive)


def test_an_archive_without_pictures_or_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    said = refused(packed(tmp_path / "d" / "x.zip", ("a.pdf", b"%PDF"), ("b.txt", b"words")))
    assert said == (
        "'x.zip' holds no pictures. The first of 1 files left out: 'a.pdf' is neither a picture nor a caption."
    )
    assert "no such file" in refused(tmp_path / "d" / "gone.zip")


def test_a_folder_in_use_is_left_as_it_is(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.zip", ("a.png", PICTURE))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "own.png").write_bytes(b"own")
    with pytest.raises(DatasetError, match=r"'set' holds 'own\.png' already"):
        import_zip(archive, tmp_path / "set")
    assert contents(tmp_path / "set") == {"own.png": b"own"}
    (tmp_path / "set" / "own.png").unlink()
    import_zip(archive, tmp_path / "set")
    assert list(contents(tmp_path / "set")) == ["a.png"]


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs users")
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with as_nobody() as folder:
        archive = packed(folder / "x.zip", ("a.png", PICTURE))
        (folder / "closed").mkdir(mode=0o500)
        with pytest.raises(StorageFailed, match="cannot be written"):
            import_zip(archive, folder / "closed" / "set")
        assert sorted(path.name for path in folder.rglob("*")) == ["closed", "x.zip"]


def test_files_from_anywhere_are_copied_together(tmp_path: Path) -> None:
    for name, content in (("1/a.png", PICTURE), ("2/a.txt", b"a fox"), ("3/b.png", OTHER), ("3/x.zip", b"PK")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "3" / "metadata.jsonl").write_text('{"file_name": "images/b.png", "text": "a hare"}')
    imported = import_files(sorted(tmp_path.glob("?/*")), tmp_path / "set")
    assert captions(tmp_path / "set") == {"a.png": "a fox", "b.png": "a hare"}
    assert imported.left_out == ("'x.zip' is an archive itself and was not opened.",)
    assert (tmp_path / "1" / "a.png").read_bytes() == PICTURE


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder, content in (("1", PICTURE), ("2", OTHER)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(content)
        (tmp_path / folder / "a.txt").write_text(f"words of {folder}")
    import_files(sorted(tmp_path.glob("?/*")), tmp_path / "set")
    assert captions(tmp_path / "set") == {"a.png": "words of 1", "a-2.png": "words of 2"}


def test_files_that_are_gone_or_too_many_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    with pytest.raises(DatasetError, match=r"'gone\.png' cannot be read: no such file"):
        import_files([tmp_path / "a.png", tmp_path / "gone.png"], tmp_path / "set")
    with pytest.raises(DatasetError, match="2 files were chosen; at most 1"):
        import_files([tmp_path / "a.png"] * 2, tmp_path / "set", limits=Limits(files=1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_caption_of_many_megabytes_is_not_read_whole(tmp_path: Path) -> None:
    text = io.BytesIO(b"word " * 1_000_000).getvalue()
    archive = packed(tmp_path / "x.zip", ("a.png", PICTURE), ("a.txt", text))
    assert import_zip(archive, tmp_path / "set").num_captions == 0
    assert list(contents(tmp_path / "set")) == ["a.png"]


def test_masks_follow_their_pictures_to_their_new_names(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "x.zip",
        ("1/a.png", PICTURE), ("1/a.mask.png", b"of the first"),
        ("2/a.jpg", OTHER), ("2/a-masklabel.png", b"of the second"),
        ("2/lone.mask.png", b"of none"), ("2/odd.mask?.png", PICTURE),
    )  # fmt: skip
    imported = import_zip(archive, tmp_path / "set")
    assert contents(tmp_path / "set") == {
        "a.png": PICTURE, "a.mask.png": b"of the first", "a-2.jpg": OTHER, "a-2.mask.png": b"of the second",
        "odd.mask_.png": PICTURE,
    }  # fmt: skip
    assert imported.num_pictures == 3 and imported.left_out == ("'2/lone.mask.png' is a mask without a picture.",)
