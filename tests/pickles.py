"""Files that run code when they are opened carelessly: here they only leave a canary. None of ours may be opened."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


class Canary:
    """Unpickling it makes a folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def raw(canary: Canary, protocol: int) -> bytes:
    return pickle.dumps({"unet": canary}, protocol=protocol)


def torch_saved(canary: Canary, *, as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"unet": canary}, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def numpy_saved(canary: Canary, save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, np.array([canary], dtype=object))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    """As torch saved before its version 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def script(canary: Canary) -> bytes:
    """TorchScript's layout."""
    parts = {"code/__torch__.py": b"", "data.pkl": raw(canary, 2), "constants.pkl": raw(canary, 2), "version": b"3\n"}
    return zipped({f"archive/{name}": content for name, content in parts.items()})


def all_kinds(path: Path) -> dict[str, bytes]:
    """File name → contents, each with a canary that would appear at `path`."""
    canary = Canary(path)
    by_protocol = {f"protocol-{number}.pkl": raw(canary, number) for number in range(pickle.HIGHEST_PROTOCOL + 1)}
    return {
        **by_protocol,
        "torch.ckpt": torch_saved(canary, as_zip=True),
        "legacy.pt": torch_saved(canary, as_zip=False),
        "ancient.pth": tarred(raw(canary, 2)),
        "script.pt": script(canary),
        "nested.bin": zipped({"model/data.pkl": torch_saved(canary, as_zip=True)}),
        "joblib.joblib": gzip.compress(raw(canary, 4)),
        "array.npy": numpy_saved(canary, np.save),
        "arrays.npz": numpy_saved(canary, np.savez),
    }


def open_carelessly(name: str, content: bytes) -> None:
    """What a program does that trusts the file."""
    file = io.BytesIO(content)
    match name.split("."):
        case _, "npy":
            np.load(file, allow_pickle=True)
        case _, "npz":
            np.load(file, allow_pickle=True)["arr_0"]
        case "ancient", _:
            with tarfile.open(fileobj=file) as archive:
                pickle.load(archive.extractfile("pickle"))
        case "script", _:
            pickle.loads(zipfile.ZipFile(file).read("archive/data.pkl"))
        case "nested", _:
            open_carelessly("torch.ckpt", zipfile.ZipFile(file).read("model/data.pkl"))
        case "joblib", _:
            pickle.loads(gzip.decompress(content))
        case "torch" | "legacy", _:
            torch.load(file, weights_only=False)
        case _:
            pickle.load(file)
