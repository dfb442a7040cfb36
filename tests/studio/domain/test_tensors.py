"""A safetensors file is known by its header, and refused before a tensor is touched when the header cannot be true."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.domain.errors import CorruptModel
from studio.domain.tensors import MAX_TENSORS, read_header


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.safetensors"
    tensors = {"a.weight": torch.ones(3, 4), "b": torch.zeros(5, dtype=torch.float16), "c": torch.tensor(1.0)}
    save_file(tensors, path, metadata={"format": "pt", "ss_bucket_info": '{"buckets": {"0": {"resolution": [[1]]}}}'})
    return path


def written(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_header_names_every_tensor_with_its_shape_and_bytes(sound: Path) -> None:
    header = read_header(sound)
    assert header.shape("a.weight") == (3, 4)
    assert header.shape("c") == ()
    assert header.shape("nothing") is None
    assert header.metadata["format"] == "pt"
    assert header.tensors["b"].dtype == "F16"
    info = header.tensors["a.weight"]
    assert sound.read_bytes()[info.begin : info.end] == torch.ones(12).numpy().tobytes()


def test_a_file_cut_anywhere_is_refused(sound: Path, tmp_path: Path) -> None:
    whole = sound.read_bytes()
    for part in range(64):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[: len(whole) * part // 64])
        with pytest.raises(CorruptModel, match=r"cut\.safetensors"):
            read_header(path)


def test_bytes_behind_the_tensors_are_refused(sound: Path) -> None:
    sound.write_bytes(sound.read_bytes() + b"more")
    with pytest.raises(CorruptModel, match="4 bytes too many"):
        read_header(sound)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"{" * 1_000_000, "nested too deeply|does not fit"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        ({f"t{i}": {} for i in range(MAX_TENSORS + 1)}, "20,001 tensors"),
        ([], "does not fit"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "longer or shorter"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, "no whole number"),
        ({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, "PICKLE"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "data_offsets"),
        ({"__metadata__": {"a": 1}}, "not texts"),
        (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}', "twice"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path, header: object, said: str) -> None:
    with pytest.raises(CorruptModel, match=said):
        read_header(written(tmp_path / "odd.safetensors", header))


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path = written(tmp_path / "shared.safetensors", {"a": one, "b": one}, b"\0" * 8)
    with pytest.raises(CorruptModel, match="overlap"):
        read_header(path)


@pytest.mark.parametrize("length", [2**63, 50_000_000])
def test_a_giant_header_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "giant.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(60_000_000)
    with pytest.raises(CorruptModel):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip archive", b"\x80\x02a pickle, which can run code"])
def test_other_files_are_refused_whatever_their_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptModel, match=r"no \.safetensors file"):
        read_header(path)
