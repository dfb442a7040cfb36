import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_registry.files import safe_stem
from lora_registry.store import AdapterStore
from studio.domain.errors import CorruptModel, Incompatible, InvalidRequest, NotFound, StorageFailed, StudioError
from studio.domain.tensors import read_header
from studio.settings import PROJECT_ROOT
from tests.lora_registry import making
from tests.lora_registry.making import ATTENTION

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + b"\xae\x42\x60\x82"  # one chunk without content or name
OUTSIDE = ["../secret", "..", ".", "", " ", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "c:d", ".hidden", "\ud800"]
OUTSIDE += ["a" * 300, "é" * 150]
KILLED = """
import os, signal, sys
from pathlib import Path
from lora_registry.store import AdapterStore
os.replace = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
AdapterStore(Path(sys.argv[1])).add(Path(sys.argv[2]))
"""


def python(program: str, *given: str) -> int:
    return subprocess.run([sys.executable, "-c", program, *given], cwd=PROJECT_ROOT, timeout=300).returncode


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    return made(tmp_path / "Blue dog.safetensors", seed=1)


def made(path: Path, seed: int, metadata: dict[str, str] | None = None) -> Path:
    torch.manual_seed(seed)
    factors = making.random_factors(making.tiny_target(), "unet", ATTENTION)
    return making.save(path, making.as_kohya(factors), metadata)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_that_is_not_there_yet_is_empty(store: AdapterStore) -> None:
    assert store.entries() == ()


def test_an_added_adapter_is_listed_and_whole(store: AdapterStore, upload: Path) -> None:
    added = store.add(upload)
    assert added.is_new and store.entries() == (added.entry,)
    assert (added.entry.id, added.entry.file_name, added.entry.problem) == ("Blue dog", "Blue dog.safetensors", "")
    assert added.entry.adapter.module_count == len(ATTENTION)
    assert store.path("Blue dog").read_bytes() == upload.read_bytes()
    assert names(store.path("Blue dog").parent) == ["Blue dog.json", "Blue dog.safetensors"]


def test_its_mode_follows_the_umask(store: AdapterStore, upload: Path) -> None:
    before = os.umask(0o027)
    try:
        store.add(upload)
    finally:
        os.umask(before)
    assert store.path("Blue dog").stat().st_mode & 0o777 == 0o640


def test_the_same_weights_are_pointed_out_whatever_their_metadata(
    store: AdapterStore, upload: Path, tmp_path: Path
) -> None:
    first = store.add(upload).entry
    again = store.add(made(tmp_path / "other.safetensors", seed=1, metadata={"ss_output_name": "renamed"}))
    assert not again.is_new and again.entry.id == first.id
    other = store.add(made(tmp_path / "x.safetensors", seed=2))
    assert other.is_new
    assert [entry.id for entry in store.entries()] == ["Blue dog", "x"]


def test_a_name_that_is_taken_gets_a_number(store: AdapterStore, upload: Path, tmp_path: Path) -> None:
    store.add(upload)
    assert store.add(made(tmp_path / "b.safetensors", seed=2), "blue DOG.safetensors").entry.id == "blue DOG-2"
    assert store.add(made(tmp_path / "c.safetensors", seed=3), "Blue dog").entry.id == "Blue dog-3"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("a\0b<c>:d", "a-b-c-d"),
        (".hidden", "hidden"),
        ("   ", "adapter"),
        ("", "adapter"),
        ("CON", "adapter-CON"),
        ("Фото (v1.2)", "Фото (v1.2)"),
        ("x" * 300, "x" * 100),
        ("é" * 300, "é" * 50),
    ],
)
def test_files_are_named_by_our_rules(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".pth", ".safetensors"])
def test_pickles_are_refused_unopened(store: AdapterStore, tmp_path: Path, suffix: str) -> None:
    canary = tmp_path / "canary"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (canary.touch, ())

    bad = tmp_path / f"bad{suffix}"
    for protocol in (2, 4):
        bad.write_bytes(pickle.dumps(Trap(), protocol))
        with pytest.raises(CorruptModel, match=r"is a pickle.*\.safetensors"):
            store.add(bad)
    torch.save({"a": 1}, bad)
    with pytest.raises(CorruptModel, match="is a pickle"):
        store.add(bad)
    assert not canary.exists() and store.entries() == ()


def test_what_could_never_be_used_is_refused_at_the_door(store: AdapterStore, tmp_path: Path) -> None:
    ia3 = making.save(tmp_path / "ia3.safetensors", {"lora_unet_x.on_input": torch.ones(1)})
    with pytest.raises(Incompatible, match="IA³"):
        store.add(ia3)
    tensors = making.as_kohya(making.tiny_factors())
    next(iter(tensors.values())).fill_(torch.nan)
    with pytest.raises(CorruptModel, match="not finite"):
        store.add(making.save(tmp_path / "nan.safetensors", tensors))
    with pytest.raises(StorageFailed, match="gone"):
        store.add(tmp_path / "gone.safetensors")
    assert store.entries() == ()


def test_a_broken_file_is_listed_with_its_problem(store: AdapterStore, upload: Path) -> None:
    folder = store.path(store.add(upload).entry.id).parent
    (folder / "a broken one.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    (folder / "a.tmp").touch()
    (folder / ".tmp-0123.safetensors").touch()
    (folder / "a folder.safetensors").mkdir()
    broken, sound = store.entries()
    assert broken.id == "a broken one" and "does not fit the file" in broken.problem and broken.adapter is None
    assert sound.adapter is not None
    with pytest.raises(NotFound):
        store.get("a folder")


def test_a_file_is_read_again_when_it_has_changed(store: AdapterStore, upload: Path) -> None:
    path = store.path(store.add(upload).entry.id)
    made(path, seed=2, metadata={"ss_output_name": "newer"})
    assert store.get("Blue dog").title == "newer"
    path.unlink()
    assert store.entries() == ()


@pytest.mark.parametrize("adapter_id", OUTSIDE)
def test_no_id_leads_out_of_the_folder(store: AdapterStore, upload: Path, tmp_path: Path, adapter_id: str) -> None:
    store.add(upload)
    made(tmp_path / "secret.safetensors", seed=3)
    before = names(tmp_path)
    calls = (
        lambda: store.get(adapter_id),
        lambda: store.path(adapter_id),
        lambda: store.inspect(adapter_id),
        lambda: store.keys(adapter_id),
        lambda: store.judge(adapter_id, making.tiny_target()),
        lambda: store.rename(adapter_id, "stolen"),
        lambda: store.remove(adapter_id),
        lambda: store.update(adapter_id, {"notes": "x"}),
        lambda: store.set_preview(adapter_id, PNG),
        lambda: store.preview_path(adapter_id),
    )
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert names(tmp_path) == before
    assert [entry.id for entry in store.entries()] == ["Blue dog"]


def test_a_link_that_leaves_the_folder_is_not_followed(store: AdapterStore, upload: Path, tmp_path: Path) -> None:
    folder = store.path(store.add(upload).entry.id).parent
    secret = made(tmp_path / "secret.safetensors", seed=3)
    (folder / "link.safetensors").symlink_to(secret)
    (folder / "Blue dog.preview.png").symlink_to(secret)
    with pytest.raises(NotFound, match="leaves the adapters folder"):
        store.get("link")
    assert [entry.id for entry in store.entries() if "leaves" in entry.problem] == ["Blue dog", "link"]
    with pytest.raises(NotFound):
        store.set_preview("Blue dog", PNG)
    assert secret.read_bytes()[:8] != PNG[:8]


def test_renaming_takes_everything_along(store: AdapterStore, upload: Path, tmp_path: Path) -> None:
    store.add(upload)
    store.add(made(tmp_path / "taken.safetensors", seed=2))
    store.update("Blue dog", {"notes": "mine"})
    store.set_preview("Blue dog", PNG)
    with pytest.raises(InvalidRequest, match="already"):
        store.rename("Blue dog", "TAKEN.safetensors")
    entry = store.rename("Blue dog", "../red/dog")
    assert (entry.id, entry.card.notes, entry.has_preview) == ("red-dog", "mine", True)
    assert store.rename("red-dog", "Red-dog").id == "Red-dog"
    folder = store.path("Red-dog").parent
    assert [name for name in names(folder) if "og" in name] == [
        f"Red-dog{end}" for end in (".json", ".preview.png", ".safetensors")
    ]


def test_removing_leaves_nothing(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    store.set_preview("Blue dog", PNG)
    folder = store.path("Blue dog").parent
    store.remove("Blue dog")
    assert names(folder) == [] and store.entries() == ()
    with pytest.raises(NotFound):
        store.remove("Blue dog")


def test_the_card_keeps_what_its_owner_wrote(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    card = {"title": "My dog", "notes": "a\nb", "trigger_words": ["sks"], "lora_scale": 0.7}
    entry = store.update("Blue dog", card)
    assert (entry.title, entry.card.notes, entry.trigger_words, entry.card.lora_scale) == (
        "My dog",
        "a\nb",
        ("sks",),
        0.7,
    )
    assert store.update("Blue dog", {"lora_scale": 1.0}).card.notes == "a\nb"
    assert AdapterStore(store.path("Blue dog").parent).get("Blue dog") == store.get("Blue dog")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lora_scale": 99}, "lora_scale"),
        ({"lora_scale": float("nan")}, "lora_scale"),
        ({"title": "x" * 1000}, "title"),
        ({"trigger_words": [""]}, "trigger_words"),
        ({"tensor_sha256": "forged"}, "tensor_sha256"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_a_card_cannot_hold_is_refused(
    store: AdapterStore, upload: Path, changes: dict[str, object], field: str
) -> None:
    before = store.add(upload).entry
    with pytest.raises(InvalidRequest) as caught:
        store.update("Blue dog", changes)
    assert caught.value.field == field and caught.value.hint
    assert store.get("Blue dog") == before


def test_what_other_tools_keep_in_the_card_stays(store: AdapterStore, upload: Path) -> None:
    card = store.path(store.add(upload).entry.id).with_suffix(".json")
    card.write_text(json.dumps({"activation text": "sks", "notes": "theirs"}), encoding="utf-8")
    assert store.update("Blue dog", {"lora_scale": 0.5}).card.notes == "theirs"
    assert json.loads(card.read_text(encoding="utf-8"))["activation text"] == "sks"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"lora_scale": "x"}', b"{" + b" " * 2_000_000 + b"}"]
)
def test_a_card_that_cannot_be_read_is_an_empty_one(store: AdapterStore, upload: Path, text: bytes) -> None:
    store.path(store.add(upload).entry.id).with_suffix(".json").write_bytes(text)
    (entry,) = store.entries()
    assert entry.adapter is not None and entry.card.lora_scale == 1.0


def test_a_preview_is_a_png(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    assert store.preview_path("Blue dog") is None
    store.set_preview("Blue dog", PNG)
    assert store.preview_path("Blue dog").read_bytes() == PNG
    assert store.get("Blue dog").has_preview
    for other in (b"", b"GIF89a", PNG + bytes(9_000_000)):
        with pytest.raises(InvalidRequest, match="PNG"):
            store.set_preview("Blue dog", other)
    store.set_preview("Blue dog", None)
    assert store.preview_path("Blue dog") is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing_behind(
    store: AdapterStore, upload: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageFailed, match="No space left") as caught:
        store.add(upload)
    assert str(upload.parent) not in str(caught.value)
    assert names(upload.parent / "adapters") == []
    monkeypatch.undo()
    assert store.add(upload).is_new


def test_a_writer_killed_at_the_last_instant_leaves_no_half_adapter(store: AdapterStore, upload: Path) -> None:
    folder = upload.parent / "adapters"
    assert python(KILLED, str(folder), str(upload)) == -signal.SIGKILL
    (left,) = names(folder)
    assert left.startswith(".tmp-")
    assert store.entries() == ()
    assert store.add(upload).is_new


def test_the_list_needs_no_torch() -> None:
    assert python("import lora_registry.store, sys; sys.exit('torch' in sys.modules)") == 0


def test_the_hash_is_that_of_the_tensors_alone(store: AdapterStore, upload: Path, tmp_path: Path) -> None:
    store.add(upload)
    adapter = store.inspect("Blue dog").adapter
    start = min(tensor.begin for tensor in read_header(upload).tensors.values())
    assert adapter.tensor_sha256 == hashlib.sha256(upload.read_bytes()[start:]).hexdigest()
    assert adapter.short_hash == adapter.tensor_sha256[:12]
    assert adapter.notes == ()


def test_a_flipped_bit_is_told_by_the_recorded_hash(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    path = store.path("Blue dog")
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)
    assert "changed since it was added" in " ".join(store.inspect("Blue dog").adapter.notes)
    assert "changed since it was added" in " ".join(store.judge("Blue dog", making.tiny_target()).notes)


def test_a_file_dropped_in_is_checked_against_its_own_word(store: AdapterStore, upload: Path) -> None:
    folder = store.path(store.add(upload).entry.id).parent
    made(folder / "silent.safetensors", seed=4)
    made(folder / "false.safetensors", seed=5, metadata={"sshs_model_hash": "ab" * 32})
    assert "no recorded hash" in store.inspect("silent").adapter.notes[-1]
    assert "metadata name" in store.inspect("false").adapter.notes[-1]
    assert store.judge("silent", making.tiny_target()).notes == ()
    assert "metadata name" in store.judge("false", making.tiny_target()).notes[-1]


def test_every_refusal_is_meant_to_be_read(store: AdapterStore, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    with pytest.raises(StudioError) as caught:
        store.add(bad)
    assert str(tmp_path) not in str(caught.value) and caught.value.hint


def test_the_second_verdict_on_an_unchanged_file_reads_none_of_it(
    store: AdapterStore, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.domain.stamps._COARSEST_NS", -1)  # as if it had been added long ago
    store.add(upload)
    first = store.judge("Blue dog", making.tiny_target())
    assert first.is_ok
    monkeypatch.setattr("lora_registry.store.judge", pytest.fail)
    monkeypatch.setattr("lora_registry.store.tensor_sha256", pytest.fail)
    assert store.judge("Blue dog", making.tiny_target()) == first


def test_two_writes_within_one_tick_of_the_clock_are_two_files(store: AdapterStore, upload: Path) -> None:
    """What a file system says of a file need not change when it does: size, and the time on a slow clock."""
    path = store.path(store.add(upload).entry.id)
    assert store.judge("Blue dog", making.tiny_target()).is_ok
    before = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not store.judge("Blue dog", making.tiny_target()).is_ok


def test_every_target_gets_a_verdict_of_its_own(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    tiny = making.tiny_target()
    others = [replace(tiny, title=f"Tiny {number}", modules={}) for number in range(12)]
    for _ in range(2):
        assert store.judge("Blue dog", tiny).is_ok
        for other in others:
            assert f"that {other.title} does not have" in store.judge("Blue dog", other).message


def test_a_changed_file_is_judged_anew(store: AdapterStore, upload: Path) -> None:
    path = store.path(store.add(upload).entry.id)
    assert store.judge("Blue dog", making.tiny_target()).is_ok
    torch.manual_seed(1)
    factors = making.random_factors(making.tiny_target(), "unet", ATTENTION)
    factors[0].down.fill_(torch.nan)
    making.save(path, making.as_kohya(factors))
    assert "not finite" in store.judge("Blue dog", making.tiny_target()).message
    made(path, seed=1)
    assert store.judge("Blue dog", making.tiny_target()).is_ok


def test_a_verdict_names_the_file_as_it_is_called_now(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    other = replace(making.tiny_target(), modules={})
    assert store.judge("Blue dog", other).message.startswith("Blue dog.safetensors")
    store.rename("Blue dog", "Red dog")
    assert store.judge("Red dog", other).message.startswith("Red dog.safetensors")


def test_the_names_of_tensors_are_those_of_the_file(store: AdapterStore, upload: Path) -> None:
    store.add(upload)
    assert store.keys("Blue dog") == tuple(sorted(load_file(upload)))
    with pytest.raises(NotFound):
        store.keys("../Blue dog")
