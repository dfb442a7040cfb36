"""Shards: whole lines, one writer, parts that hold each picture once, and merging in whatever order."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from studio.captions.merging import Chosen, conflict_report, merge
from studio.captions.parts import Range, Share, parse_part, ranges
from studio.captions.pictures import names_in, pictures_in
from studio.captions.shards import Shard, Tail
from studio.captions.verifying import read_redo_list, redo_list, verify
from studio.domain.captions import Picture, Status, row_of
from studio.domain.errors import CaptionsInUse, DatasetError, InvalidRequest
from studio.processes import child_environment
from tests.studio.captions.scenes import chosen_in, digest, row, scenes, written


def test_a_row_reads_as_it_was_written() -> None:
    given = row("a", caption="ein roter Ring\u2028 größer", prompt_tokens=7, completion_tokens=9)
    read = row_of(given.line())
    assert read.caption == "ein roter Ring größer" and read.prompt_tokens == 7
    assert row_of(row("\udcff").line()).name == "\udcff.png"


def test_a_line_that_was_cut_is_removed_and_the_others_stay(tmp_path: Path) -> None:
    path = written(tmp_path / "s" / "all.jsonl", [row("a"), row("b")])
    whole = path.read_bytes()
    for cut in range(1, len(row("b").line())):
        path.write_bytes(whole[:-cut])
        with Shard(path, is_paid=True) as shard:
            shard.add(row("c"))
        names = [row_of(line).name for line in path.read_bytes().splitlines()]
        assert names == (["a.png", "b.png", "c.png"] if cut == 1 else ["a.png", "c.png"]), cut


def test_who_reads_meanwhile_takes_whole_lines_only(tmp_path: Path) -> None:
    path, tail = tmp_path / "all.jsonl", Tail(tmp_path)
    line = row("b").line()
    path.write_bytes(row("a").line() + line[:20])
    assert [each.name for each in tail.rows()] == ["a.png"]
    assert list(tail.rows()) == []
    with path.open("ab") as file:
        file.write(line[20:])
    assert [each.name for each in tail.rows()] == ["b.png"]


def test_two_processes_do_not_write_one_shard_and_a_killed_one_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom studio.captions.shards import Shard\n"
        "with Shard(Path(sys.argv[1]), is_paid=True):\n    print('mine', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(CaptionsInUse, match="at work on 'all'"):
            Shard(path, is_paid=True)
        other.kill()
        other.wait()
    with Shard(path, is_paid=True) as shard, pytest.raises(CaptionsInUse):
        shard.add(row("a"))
        Shard(path, is_paid=True)


@pytest.mark.parametrize("seed", range(40))
def test_parts_hold_each_picture_once_whatever_their_bounds(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"{number:05}.png" for number in range(chance.choice((0, 1, 2, 7, 100, 257)))]
    workers = chance.randint(1, 12)
    found = [name for part in ranges(len(names), workers) for name in part.of(names)]
    assert found == names
    shared = [name for index in range(1, workers + 1) for name in Share(index=index, count=workers).of(names)]
    assert sorted(shared) == names
    bounds = sorted({0, *(chance.randint(0, len(names) + 9) for _ in range(workers))})
    gaps = [parse_part(start, end, None) for start, end in zip(bounds, [*bounds[1:], None], strict=True)]
    assert [name for part in gaps for name in part.of(names)] == names
    kept = [name for name in names if chance.random() < 0.7]  # a share stays as it is when others go
    assert Share(index=1, count=workers).of(kept) == [
        name for name in Share(index=1, count=workers).of(names) if name in kept
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((5, 2, None), "backwards"), ((-1, None, None), "counted from 0"), ((0, None, "1/2"), "not by both"),
        ((None, None, "0/4"), "no part"), ((None, None, "5/4"), "no part"), ((None, None, "x"), "no part"),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused(given: tuple[int | None, int | None, str | None], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_part(*given)


def test_a_range_may_be_empty_or_reach_too_far() -> None:
    assert Range(start=3, end=3).of(list("abc")) == [] and Range(start=1, end=99).of(list("abc")) == ["b", "c"]


@pytest.mark.parametrize("seed", range(30))
def test_merging_is_the_same_in_any_order_and_again(seed: int) -> None:
    chance = random.Random(seed)
    words = ["a red ring on white ground", "a blue star on black ground", "no", "I'm sorry, I can't help with that."]
    rows = [
        row(chance.choice("abcdef"), chance.choice(words), chance.randint(0, 3), captioner=chance.choice("xy"))
        for _ in range(40)
    ]

    def outcome(order: list) -> tuple:
        chosen = Chosen()
        for each in order:
            chosen.add(each)
        taken = sorted((chosen.row(each).line() for each in chosen.digests()), key=str)
        return taken, conflict_report(chosen.conflicts(), chosen)

    first = outcome(rows)
    for _ in range(5):
        chance.shuffle(rows)
        assert outcome(rows) == first
    assert outcome([*rows, *rows]) == first


def test_what_passes_the_checks_goes_before_what_is_later() -> None:
    chosen = Chosen()
    for each in (row("a", "a red ring on white", 1), row("a", "I'm sorry, I can't do that", 3), row("a", "no", 4)):
        chosen.add(each)
    chosen.add(row("a", "a large red ring on white", 2))
    assert chosen.row(digest("a")).caption == "a large red ring on white"
    (conflict,) = chosen.conflicts()
    assert [each.caption for each in conflict.rows][:2] == ["a large red ring on white", "a red ring on white"]
    assert json.loads(conflict_report([conflict], chosen))[0]["taken"] == "a large red ring on white"


def test_a_shard_of_all_kinds_of_lines_adds_up(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + row("a").line().rstrip() + b"\r\n", b"\r\n", row("b").line(), b"{oops\n", b"[]\n",
        b'{"sha256": "00"}\n', row("c").line().replace(b"red", b"r\xffd"), row("a").line(), b"[" * 5000 + b"\n",
        row("d", caption="x" * 300_000).line(), row("e").line().replace(b'"done"', b'"perhaps"'),
        row("f", caption=" ").line(), row("g").line().rstrip(),
    ]  # fmt: skip
    (tmp_path / "all.jsonl").write_bytes(b"".join(lines))
    chosen, reading = chosen_in(tmp_path)
    assert (reading.num_lines, len(reading.bad), chosen.num_rows) == (12, 8, 4)
    assert [each.line for each in reading.bad] == [4, 5, 6, 7, 9, 10, 11, 12]
    assert len(list(chosen.digests())) == 3
    assert "no JSON" in str(reading.bad[0]) and "UTF-8" in str(reading.bad[3])


def test_a_folder_that_changed_is_told_of_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    paths = scenes(folder, 6)
    names = names_in(folder)
    written(
        tmp_path / "s" / "all.jsonl",
        [row(each.name, name=each.name, digest=digest(each)) for each in paths[:4]]
        + [
            row(paths[4].name, name="0004.png", digest=digest(paths[4]), status=Status.FAILED, caption="", reason="dim")
        ],
    )
    paths[0].rename(folder / "renamed.png")
    paths[1].unlink()
    (folder / "copy.png").write_bytes(paths[2].read_bytes())
    paths[3].write_bytes(paths[5].read_bytes())  # other content under the same name: its caption is of what is gone
    chosen, reading = chosen_in(tmp_path / "s")
    found = verify(pictures_in(folder, names_in(folder)), chosen, reading)
    assert found.renamed == [("0000.png", "renamed.png")]
    assert found.gone == ["0001.png", "0003.png"]
    assert [each.picture.name for each in found.missing] == ["0003.png", "0005.png"]
    assert [(each.picture.name, each.why) for each in found.failed] == [("0004.png", "dim")]
    assert found.num_pictures == 6 == found.num_captioned + len(found.failed) + len(found.missing)
    assert found.copies == [("0005.png", "0003.png"), ("copy.png", "0002.png")]
    assert not found.is_whole and len(names) == 6


def test_a_merge_keeps_what_a_list_says_besides(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    paths = scenes(folder, 3)
    (folder / "metadata.jsonl").write_bytes(
        b'\xef\xbb\xbf{"file_name": "0001.png", "licence": "CC0"}\r\nno json\n{"file_name": "gone.png", "text": "x"}\n'
    )
    pictures = [Picture(path.name, digest(path)) for path in paths]
    chosen = Chosen()
    for path in paths[:2]:
        chosen.add(row(path.name, f"a ring in {path.stem}", digest=digest(path)))
    chosen.add(row("elsewhere"))
    for _ in range(2):
        merged = merge(folder, pictures, chosen, "metadata")
        assert (merged.num_captions, merged.num_missing, merged.num_orphans) == (2, 1, 1)
        assert (folder / "metadata.jsonl").read_text().splitlines() == [
            '{"file_name": "0001.png", "licence": "CC0", "text": "a ring in 0001"}',
            "no json",
            '{"file_name": "gone.png", "text": "x"}',
            '{"file_name": "0000.png", "text": "a ring in 0000"}',
        ]
    with pytest.raises(DatasetError, match=r"has its captions in metadata\.jsonl"):
        merge(folder, pictures, chosen, "text_files")
    (folder / "metadata.jsonl").unlink()
    merge(folder, pictures, chosen, "text_files")
    assert (folder / "0001.txt").read_text() == "a ring in 0001\n"


def test_what_is_to_be_done_again_is_done_once(tmp_path: Path) -> None:
    chosen, pictures = Chosen(), [Picture("a.png", digest("a")), Picture("b.png", digest("b"))]
    chosen.add(row("a", "ring", 5))
    (tmp_path / "s").mkdir()
    _, reading = chosen_in(tmp_path / "s")
    found = verify(pictures, chosen, reading, mismatched={digest("a")})
    path = tmp_path / "redo.jsonl"
    path.write_bytes(redo_list(found.to_do))
    assert read_redo_list(path) == {digest("a"): "2026-11-27T12:00:05.000000Z", digest("b"): ""}
    assert found.doubtful[0].why == "too_short, mismatch"
    path.write_text("[]\n")
    with pytest.raises(InvalidRequest, match="no list of pictures"):
        read_redo_list(path)
