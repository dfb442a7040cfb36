"""Files that were made to do harm, at both doors for weights: nothing runs, and each is refused in one sentence."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lora_registry.store import AdapterStore
from studio.checkpoints import OwnCheckpoints
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, StudioError
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT
from tests import pickles
from tests.engines.test_detection import original, saved
from tests.engines.test_soundness import POCKET, copy_of_pocket

KINDS = sorted(pickles.all_kinds(Path("nowhere")))
SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", "")
PARTS = 64
MEASURE = """
import sys, time
from pathlib import Path
from engines.soundness import inspect
from lora_registry.store import AdapterStore
from studio.domain.errors import CorruptModel

def peak_mb():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent had before it started us
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

before = peak_mb()
for door in (inspect, AdapterStore(Path(sys.argv[2])).add):
    started = time.process_time()
    try:
        door(Path(sys.argv[1]))
    except CorruptModel as error:
        print(f"{time.process_time() - started} {peak_mb() - before} {error}")
"""


@pytest.fixture
def own(tmp_path: Path) -> OwnCheckpoints:
    return OwnCheckpoints(tmp_path / "models", Catalogue.load(CATALOGUE_PATH))


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def refusals(own: OwnCheckpoints, store: AdapterStore, path: Path) -> list[str]:
    """What the doors say of a file: picked as a checkpoint, and as an adapter."""
    said = []
    for door in (own.add, store.add):
        with pytest.raises(StudioError) as caught:
            door(path)
        said.append(str(caught.value))
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_would_do_its_harm_if_it_were_opened(canary: Path, kind: str) -> None:
    pickles.open_carelessly(kind, pickles.all_kinds(canary)[kind])
    assert canary.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_no_pickle_is_opened_whatever_it_is_called(
    own: OwnCheckpoints, store: AdapterStore, canary: Path, tmp_path: Path, kind: str
) -> None:
    content = pickles.all_kinds(canary)[kind]
    for name in (kind, *(f"model{suffix}" for suffix in SUFFIXES)):
        path = tmp_path / name
        path.write_bytes(content)
        for sentence in refusals(own, store, path):
            assert ".safetensors" in sentence and len(sentence.splitlines()) == 1
    assert not canary.exists()
    assert not (tmp_path / "models").exists() and not (tmp_path / "adapters").exists()


def test_a_pickle_dropped_into_the_folder_is_left_out(
    own: OwnCheckpoints, store: AdapterStore, canary: Path, tmp_path: Path
) -> None:
    for folder in ("models", "adapters"):
        (tmp_path / folder).mkdir()
        for kind, content in pickles.all_kinds(canary).items():
            (tmp_path / folder / kind).write_bytes(content)
            (tmp_path / folder / f"{kind}.safetensors").write_bytes(content)
    assert sorted(row.name for row in own.refresh()) == [f"{kind}.safetensors" for kind in KINDS]
    assert all(entry.adapter is None and ".safetensors" in entry.problem for entry in store.entries())
    assert len(store.entries()) == len(KINDS) and not canary.exists()


def test_a_pickle_in_the_place_of_weights_is_refused(own: OwnCheckpoints, canary: Path, tmp_path: Path) -> None:
    for kind, content in pickles.all_kinds(canary).items():
        folder = tmp_path / f"instead-{kind}"
        copy_of_pocket(folder)
        for path in (folder / "unet").glob("*.safetensors*"):
            path.unlink()
        for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"):
            (folder / "unet" / name).write_bytes(content)
        with pytest.raises(CorruptModel, match=r"\.safetensors"):
            own.add(folder)
    assert not canary.exists() and not (tmp_path / "models").exists()


def test_weights_with_a_pickle_behind_or_inside_them_are_not_taken_for_one(
    own: OwnCheckpoints, store: AdapterStore, canary: Path, tmp_path: Path
) -> None:
    archive = pickles.all_kinds(canary)["torch.ckpt"]
    sound = saved(tmp_path / "sound.safetensors", original("sd15")).read_bytes()
    header = json.dumps({"x": {"dtype": "U8", "shape": [len(archive)], "data_offsets": [0, len(archive)]}}).encode()
    both = struct.pack("<Q", len(header)) + header + archive
    for name, content in (("behind", sound + archive), ("inside", both)):
        for suffix in (".safetensors", ".ckpt"):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            refusals(own, store, path)
    assert not canary.exists() and not (tmp_path / "models").exists() and not (tmp_path / "adapters").exists()


def test_a_file_cut_anywhere_or_padded_is_refused(own: OwnCheckpoints, store: AdapterStore, tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.safetensors", original("sd15"))
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"more")
    assert all("4 bytes too many" in sentence for sentence in refusals(own, store, path))
    for part in reversed(range(PARTS)):
        os.truncate(path, whole * part // PARTS)
        assert all("cut.safetensors" in sentence for sentence in refusals(own, store, path))
    assert not (tmp_path / "models").exists() and not (tmp_path / "adapters").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tiny_vae"])
def test_a_folder_with_weights_cut_anywhere_is_refused(own: OwnCheckpoints, tmp_path: Path, part: str) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    weights = sorted((folder / part).glob("*.safetensors"))[-1]
    weights.unlink()
    shutil.copyfile(POCKET / part / weights.name, weights)
    whole = weights.stat().st_size
    for size in (whole + 1, *(whole * number // PARTS for number in reversed(range(PARTS)))):
        os.truncate(weights, size)
        with pytest.raises(CorruptModel, match=weights.name):
            own.add(folder)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1])
def test_a_length_that_cannot_be_true_is_refused(
    own: OwnCheckpoints, store: AdapterStore, tmp_path: Path, length: int
) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    assert all("no .safetensors file" in sentence for sentence in refusals(own, store, path))


def many_tensors(count: int = 100_000) -> bytes:
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(b'"%x":%s' % (number, entry) for number in range(count)) + b"}"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("header", "said"),
    [
        (many_tensors, "100,000 tensors; at most 20,000"),
        (lambda: b'{"__metadata__":{"a":"' + b"x" * 50_000_000 + b'"}}', "header of 50 MB"),
        (lambda: b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000, "nested too deeply"),
        (lambda: b"[" * 1_000_000 + b"]" * 1_000_000, "nested too deeply"),
        (lambda: b'{"a":{"shape":[' + b"9," * 2_000_000 + b"9]}}", "does not fit"),
        (lambda: b'{"a":{"dtype":"F32","shape":[' + b"9" * 5_000_000 + b"]}}", "does not fit"),
    ],
)
def test_a_bloated_header_costs_neither_time_nor_memory(tmp_path: Path, header: object, said: str) -> None:
    text = header()
    path = tmp_path / "bloated.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    given = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "adapters")]
    done = subprocess.run(given, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    for line in lines:
        seconds, growth_mb, sentence = line.split(" ", 2)
        assert said in sentence
        assert float(seconds) < 2 and float(growth_mb) < 200, line
