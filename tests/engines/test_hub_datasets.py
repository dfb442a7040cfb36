"""Data sets of the hub become folders of pictures with captions, over real HTTP, and what goes wrong is a sentence."""

import errno
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from huggingface_hub import close_session
from PIL import Image

from engines import hub as hub_module
from engines import hub_datasets, hub_repository, hub_rows
from engines.hub_datasets import fetch_dataset
from studio.dataset_files import read_dataset
from studio.domain.errors import DatasetError, DownloadFailed, StorageFailed, StudioError
from tests.engines.hub import FakeHub, forget_the_machine, served
from tests.rights import HAS_RIGHTS, as_nobody

SET = "datasets/owner/set"
CONVERTED = f"{SET}@refs/convert/parquet"
TOKEN = "hf_canary"


class Stopped(Exception):
    """As a training's own."""


def picture(seed: int, size: int = 16, kind: str = "PNG") -> bytes:
    """Noise, which no format makes smaller."""
    pixels = np.random.default_rng(seed).integers(256, size=(size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def table(pictures: Sequence[bytes | None], captions: Sequence[Any], **more: Sequence[Any]) -> pa.Table:
    images = [{"bytes": data, "path": "../../x.png"} for data in pictures]
    return pa.table({"id": list(range(len(images))), "image": images, "caption": list(captions), **more})


def parquet(rows: pa.Table, group: int = 1000) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out, row_group_size=group, use_dictionary=False, data_page_size=50_000, write_batch_size=4)
    return out.getvalue()


def words(count: int) -> list[str]:
    return [f"picture {number}" for number in range(count)]


def simple(count: int = 6, **changes: bytes) -> dict[str, bytes]:
    return {"README.md": b"x", "data/train-0.parquet": parquet(table(list(map(picture, range(count))), words(count)))}


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_the_machine(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield
    close_session()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with served({SET: simple()}) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data" / "datasets"


def get(hub: FakeHub, place: Path, count: int = 4, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "offline": False,
        "on_progress": lambda *_: None,
        "check": lambda: None,
        "endpoint": hub.endpoint,
    }
    return fetch_dataset("owner/set", count, place, **{**settings, **changes})


def pairs(folder: Path) -> list[tuple[bytes, str]]:
    """What a training reads of the folder."""
    return [(item.path.read_bytes(), item.caption) for item in read_dataset(folder).items]


def expected(numbers: Sequence[int]) -> list[tuple[bytes, str]]:
    return [(picture(number), f"picture {number}") for number in numbers]


def refusal(kind: type[StudioError], place: Path, ask: Callable[[], object]) -> str:
    """What a person reads when `ask` fails: never a folder of this machine, an address with a seal, or the token."""
    with pytest.raises(kind) as caught:
        ask()
    text = str(caught.value)
    assert caught.value.hint
    assert not any(secret in text for secret in (str(place.parent), "Signature", TOKEN, "Traceback"))
    assert not (place / "owner--set--4").exists()
    return text


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_first_so_many_of_a_parquet_set_arrive_in_order(hub: FakeHub, place: Path) -> None:
    told: list[tuple[int, int]] = []
    folder = get(hub, place, on_progress=lambda done, total: told.append((done, total)))
    assert folder == place / "owner--set--4"
    assert pairs(folder) == expected(range(4))
    assert told[-1] == (4, 4) and told == sorted(told)
    assert [path.name for path in place.iterdir()] == [folder.name]


def test_of_a_large_set_little_is_read(place: Path) -> None:
    pictures = [picture(number, 64) for number in range(160)]
    whole = table(pictures, words(160))
    with served({SET: {f"{part}.parquet": parquet(whole, group=8) for part in "abc"}}) as hub:
        assert [data for data, _ in pairs(get(hub, place, 20))] == pictures[:20]
        assert hub.large_bytes < 0.15 * sum(map(len, hub.repositories[SET].values()))


def test_of_a_large_group_of_rows_little_is_read_and_other_columns_are_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_rows, "BLOCK_BYTES", 200_000)
    pictures = [picture(number, 100) for number in range(160)]
    whole = table(pictures, words(160), mask=pictures[::-1])
    with served({SET: {"train.parquet": parquet(whole)}}) as hub:
        assert [data for data, _ in pairs(get(hub, place, 4))] == pictures[:4]
        assert hub.large_bytes < 0.2 * len(hub.repositories[SET]["train.parquet"])


def test_only_the_training_split_is_taken_and_a_file_with_other_columns_left_out(place: Path) -> None:
    def of(*numbers: int) -> bytes:
        return parquet(table([picture(number) for number in numbers], [f"picture {number}" for number in numbers]))

    files = {
        "data/test-0.parquet": of(9),
        "data/train-0.parquet": of(0, 1),
        "data/train-1.parquet": parquet(pa.table({"id": [1, 2]})),
        "data/train-2.parquet": of(2),
    }
    with served({SET: files}) as hub:
        assert pairs(get(hub, place, 50)) == expected([0, 1, 2])


@pytest.mark.parametrize(
    "captions",
    [
        pa.array([["picture 0", "other"], ["", "picture 1"]]),
        pa.array(["picture 0", "picture 1"]).dictionary_encode(),
        pa.array(["picture 0", "picture 1"], pa.large_string()),
    ],
    ids=["lists", "dictionary", "large"],
)
def test_the_only_column_of_words_is_the_caption_whatever_it_is_called(place: Path, captions: pa.Array) -> None:
    rows = pa.table({"raw": [picture(0), picture(1)], "what_it_shows": captions})
    with served({SET: {"a.parquet": parquet(rows)}}) as hub:
        assert pairs(get(hub, place)) == expected([0, 1])


def test_text_goes_before_caption_and_rows_without_use_are_left_out(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gif, jpeg = picture(3, kind="GIF"), picture(4, kind="JPEG")
    pictures = [picture(0), None, b"%!PS-Adobe-3.0 EPSF-3.0", gif, jpeg, picture(5), picture(6)]
    text = ["zero", "one", "two", " three\n3 ", "four", " ", None]
    with served({SET: {"a.parquet": parquet(table(pictures, words(7), text=text))}}) as hub:
        folder = get(hub, place)
    found = read_dataset(folder)
    assert [item.caption for item in found.items] == ["zero", "three 3", "four"]
    assert [item.path.name for item in found.items] == ["00000000.png", "00000003.png", "00000004.jpg"]
    assert found.items[2].path.read_bytes() == jpeg
    with Image.open(found.items[1].path) as drawn, Image.open(io.BytesIO(gif)) as given:
        assert drawn.format == "PNG" and drawn.tobytes() == given.convert("RGB").tobytes()
    assert "4 rows without a usable picture and a caption are left out" in caplog.text


LISTED = [
    {"file_name": "train/a.png", "text": "picture 0"},
    {"file_name": "../../../etc/passwd", "text": "no"},
    {"file_name": "/etc/passwd", "text": "no"},
    {"file_name": "gone.png", "text": "no"},
    {"file_name": "train/../train/b.png", "text": "picture 1"},
    {"file_name": "c.png"},
    {"file_name": "c.png", "text": "picture 2"},
]
FILES = {"train/a.png": picture(0), "train/b.png": picture(1), "c.png": picture(2), "script.py": b"1/0"}


def test_pictures_with_a_list_arrive_and_no_name_leads_out_of_the_set(place: Path) -> None:
    lines = "\n".join(map(json.dumps, LISTED)) + "\nno json\n[]\n"
    with served({SET: {**FILES, "metadata.jsonl": lines.encode()}}) as hub:
        hub.page = 2
        assert pairs(get(hub, place, 9)) == expected([0, 1, 2])
        asked = {ask.path.rpartition("/")[2] for ask in hub.asked if "/resolve/" in ask.path}
    assert asked == {"metadata.jsonl", "a.png", "b.png", "c.png"}
    assert {path.name for path in place.parent.rglob("*") if path.suffix == ".png"} == {
        "00000000.png", "00000004.png", "00000006.png"
    }  # fmt: skip


def test_pictures_with_a_table_in_the_folder_of_their_split_arrive(place: Path) -> None:
    listed = 'file_name,size,caption\na.png,1,"picture 0"\nb.png,2,picture 1\n'
    with served({SET: {**FILES, "train/metadata.csv": listed.encode(), "test/metadata.csv": b"x\n1"}}) as hub:
        assert pairs(get(hub, place)) == expected([0, 1])


def test_pictures_with_text_files_arrive(place: Path) -> None:
    texts = {"a/x.txt": b"picture 0", "a/y.caption": b"picture 1\n"}
    with served({SET: {"a/x.png": picture(0), "a/y.png": picture(1), "a/z.png": picture(2), **texts}}) as hub:
        assert pairs(get(hub, place)) == expected([0, 1])


def test_what_is_neither_is_read_as_the_hub_converted_it(place: Path) -> None:
    converted = {"default/train/0000.parquet": simple()["data/train-0.parquet"], "default/test/0000.parquet": b""}
    with served({SET: {"pictures.tar": b"tar"}, CONVERTED: converted}) as hub:
        assert pairs(get(hub, place)) == expected(range(4))
        assert not any(ask.path.endswith(".tar") for ask in hub.asked)


def many(kind: str) -> dict[str, bytes]:
    """A set that takes many requests."""
    if kind == "parquet":
        return {"a.parquet": parquet(table(list(map(picture, range(40))), words(40)), group=4)}
    listed = "".join(json.dumps({"file_name": f"{n}.png", "text": f"picture {n}"}) + "\n" for n in range(40))
    return {"metadata.jsonl": listed.encode(), **{f"{n}.png": picture(n) for n in range(40)}}


@pytest.mark.parametrize("kind", ["parquet", "pictures"])
def test_what_broke_off_goes_on_after_the_last_pair(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(hub_module, "STALL_S", 0.5)

    def come() -> int:
        return len(list(place.glob("*.part/*.txt")))

    def break_off() -> None:
        hub.faults.status = 503 if come() >= 10 else None

    def stop() -> None:
        if come() >= 20:
            raise Stopped

    with served({SET: many(kind)}) as hub:
        text = refusal(DownloadFailed, place, lambda: get(hub, place, 30, check=break_off))
        assert "127.0.0.1 answers 503" in text and "what has arrived is kept" in text
        hub.faults.status = None
        assert 10 <= come() < 15
        with pytest.raises(Stopped):
            get(hub, place, 30, check=stop)
        part = place / "owner--set--30.part"
        kept = {path.name: path.stat().st_mtime_ns for path in part.iterdir()}
        (part / "00000020.png").write_bytes(b"half")
        hub.asked.clear()
        told: list[int] = []
        folder = get(hub, place, 30, on_progress=lambda done, _: told.append(done))
        assert told[0] > 20 and not any(ask.path.endswith("/3.png") for ask in hub.asked)
        assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
        assert tree(folder) == tree(get(hub, tmp_path / "other", 30))
    assert pairs(folder) == expected(range(30))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(place: Path) -> None:
    pictures = [picture(number, 100) for number in range(20)]
    with served({SET: {"a.parquet": parquet(table(pictures, words(20)))}}) as hub:
        hub.faults.cut_after = 150_000
        assert [data for data, _ in pairs(get(hub, place, 20))] == pictures


def test_another_commit_starts_anew(hub: FakeHub, place: Path) -> None:
    def stop() -> None:
        if list(place.glob("*.part/*.txt")):
            raise Stopped

    with pytest.raises(Stopped):
        get(hub, place, check=stop)
    hub.edition = "2"
    rows = table([picture(number) for number in range(10, 16)], [f"picture {number}" for number in range(10, 16)])
    hub.repositories[SET]["data/train-0.parquet"] = parquet(rows)
    assert pairs(get(hub, place)) == expected(range(10, 14))


def test_what_is_there_is_not_asked_for_again(hub: FakeHub, place: Path) -> None:
    folder = get(hub, place)
    hub.asked.clear()
    assert get(hub, place, offline=True) == folder
    assert hub.asked == []


def test_offline_is_said_with_what_to_do(hub: FakeHub, place: Path) -> None:
    text = refusal(DownloadFailed, place, lambda: get(hub, place, offline=True))
    assert text == (
        "owner/set is not on this machine and the studio is offline. "
        "Switch offline mode off, or give a folder of pictures with captions."
    )
    assert hub.asked == []


def test_a_set_that_is_gone_gated_or_forbidden_is_said_with_the_next_step(hub: FakeHub, place: Path) -> None:
    hub.faults.gated = {SET}
    assert refusal(DownloadFailed, place, lambda: get(hub, place)) == (
        "owner/set asks you to accept its licence. Accept it on its page, then log in with `hf auth login`."
    )
    hub.faults.status = 403
    assert "does not let you read owner/set" in refusal(DownloadFailed, place, lambda: get(hub, place))
    hub.faults.status = None
    hub.faults.portal = True
    assert "is not from the hub" in refusal(DownloadFailed, place, lambda: get(hub, place))
    hub.faults.portal = False
    hub.repositories.clear()
    assert refusal(DownloadFailed, place, lambda: get(hub, place)) == (
        "There is no data set owner/set on the hub that you may read. "
        "Check its id; if it is private, log in with `hf auth login`."
    )


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
def test_a_silent_hub_is_given_up(hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(hub_module, "STALL_S", 1.0)
    monkeypatch.setattr(hub_repository, "ANSWER_S", 0.5)
    endpoint = hub.endpoint
    hub.faults.hangs = kind == "hangs"
    if kind == "refuses":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    text = refusal(DownloadFailed, place, lambda: get(hub, place, endpoint=endpoint))
    assert time.monotonic() - begun < 5
    assert "owner/set could not be fetched: 127.0.0.1 does not answer." in text


def test_being_held_is_not_the_hubs_silence(hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STALL_S", 1.5)
    hub.faults.statuses = [503]
    pauses = iter([0.0, 2.0, 2.0, 2.0])
    assert len(pairs(get(hub, place, check=lambda: time.sleep(next(pauses, 0.0))))) == 4


def test_a_set_without_captions_or_pictures_is_told_its_columns(place: Path) -> None:
    rows = pa.table({"image": [{"bytes": picture(0)}], "a": ["x"], "b": ["y"]})
    with served({SET: {"a.parquet": parquet(rows)}}) as hub:
        assert refusal(DatasetError, place, lambda: get(hub, place)) == (
            "owner/set has no column of captions (text, caption or prompt); its columns are 'image', 'a', 'b'. "
            "Choose another data set, or give a folder of pictures with captions."
        )
        hub.repositories[SET]["a.parquet"] = parquet(pa.table({"url": ["x"], "text": ["y"]}))
        text = refusal(DatasetError, place, lambda: get(hub, place))
        assert "no column of pictures (bytes); its columns are 'url', 'text'" in text
        hub.repositories[SET] = {"README.md": b""}
        assert "no pictures with captions in a form" in refusal(DatasetError, place, lambda: get(hub, place))
        hub.repositories[SET] = {"a.parquet": b"PAR1 and then nothing of it PAR1"}
        text = refusal(DatasetError, place, lambda: get(hub, place))
        assert "a.parquet of owner/set cannot be read" in text


def test_a_set_without_a_usable_row_is_given_up_soon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_datasets, "MAX_USELESS", 10)
    with served({SET: {"a.parquet": parquet(table([b"sound"] * 50, words(50)))}}) as hub:
        text = refusal(DatasetError, place, lambda: get(hub, place))
    assert "None of the first 10 rows of owner/set has a picture and a caption" in text
    assert not list(place.glob("*.part"))


def test_a_hub_without_parts_of_files_is_said(hub: FakeHub, place: Path) -> None:
    hub.faults.ignores_ranges = True
    assert "sends no parts of files" in refusal(DownloadFailed, place, lambda: get(hub, place))


def test_the_token_goes_to_the_hub_alone(hub: FakeHub, place: Path) -> None:
    hub.page = 1
    hub.faults.foreign_links = True
    get(hub, place)
    large = [ask for ask in hub.asked if ask.path.startswith("/cdn/")]
    assert large and not any(ask.authorization for ask in large)
    assert all(ask.authorization == f"Bearer {TOKEN}" for ask in hub.asked if ask not in large)


def test_a_full_disk_is_said_and_what_has_come_is_kept(
    hub: FakeHub, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = hub_datasets._write

    def full(path: Path, data: bytes) -> None:
        if path.name == "00000002.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(hub_datasets, "_write", full)
        assert "The disk is too full for owner/set" in refusal(StorageFailed, place, lambda: get(hub, place))
    assert len(list(place.glob("*.part/*.txt"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(hub_datasets, "MARGIN_BYTES", 1 << 60)
        assert "are to stay free" in refusal(StorageFailed, place, lambda: get(hub, place))
    assert pairs(get(hub, place)) == expected(range(4))


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs Unix permissions")
def test_a_folder_that_cannot_be_written_is_said(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_nobody() as root:
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(root / "token"))
        place = root / "data" / "datasets"
        place.mkdir(parents=True)
        place.chmod(0o500)
        text = refusal(StorageFailed, place, lambda: get(hub, place))
    assert "The folder 'datasets' cannot be written." in text


def test_two_at_once_fetch_it_once(hub: FakeHub, place: Path) -> None:
    place.mkdir(parents=True)
    held = FileLock(place / "owner--set--4.lock", thread_local=False)
    held.acquire()
    checks: list[float] = []
    waiting = threading.Thread(target=lambda: get(hub, place, check=lambda: checks.append(0.0)))
    waiting.start()
    while len(checks) < 3:
        time.sleep(0.01)
    assert hub.asked == []
    held.release()
    waiting.join(20)
    assert pairs(place / "owner--set--4") == expected(range(4))
