"""What decides the pixels of a picture besides its recipe, told without loading a model: no torch here."""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from engines.base import EngineState
from engines.downloads import cached
from engines.hub_files import INDEX_NAME
from engines.parts import OPTIONAL_PARTS, PART_CLASSES
from engines.places import WEIGHTS_SUFFIX, local_place, sources_of
from studio.domain.catalogue import Checkpoint

_WORD_SUFFIXES = (".json", ".txt")
_LIBRARIES = ("torch", "diffusers", "transformers")
_BLOCK_BYTES = 1 << 20


def find_place(checkpoint: Checkpoint, root: Path, models_dir: Path) -> Path | None:
    """Where `checkpoint` lies, looked for as `PipelinePool` does; None while it is not on this machine.

    Raises:
        NotFound: the catalogue names a folder that is not there.
    """
    place = local_place(checkpoint, root, models_dir)
    return place or next(filter(None, map(cached, sources_of(checkpoint))), None)


def weights_sha256(place: Path) -> str:
    """The hash that `engines.loading` records of the weights at `place`. Reads all of them, once in a process.

    Raises:
        OSError, ValueError: files are missing or damaged.
    """
    return _hashed(place, weights_stamp(place))


def weights_stamp(place: Path) -> str:
    """What changes when the weights at `place` are written to or exchanged, told by the file system alone. A copy that
    keeps its time of change is given away by the other time, which no program sets.

    Raises:
        OSError, ValueError: as `weights_sha256`.
    """
    digest = hashlib.sha256()
    for path in weight_files(place):
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0".encode())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _hashed(place: Path, stamp: str) -> str:
    digest = hashlib.sha256()
    for path in weight_files(place):
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def described_at(place: Path) -> float:
    """When the settings and word lists at `place` were last written to: they are not in the hash of the weights."""
    if place.is_file():
        return 0.0
    files = (path for path in place.rglob("*") if path.suffix in _WORD_SUFFIXES)
    return max((path.stat().st_mtime for path in files), default=0.0)


def foreseen(checkpoint: Checkpoint, device: str, dtype: str) -> EngineState | None:
    """How an engine that is not loaded yet will draw `checkpoint` under these settings; None where only torch knows."""
    if device == "auto" and version("torch").endswith("+cpu"):  # a build that has no other device
        device = "cpu"
    dtype = checkpoint.number_format(dtype)
    return None if "auto" in (device, dtype) else EngineState(device=device, dtype=dtype, loaded=())


def conditions(checkpoint: Checkpoint, state: EngineState) -> dict[str, str]:
    """What a picture's `environment` would say if `checkpoint` drew it now, as far as it decides the pixels and can be
    told without the weights. Threads, and what is done to save memory, are left out: they move the last bits, and
    depend on what else the machine does."""
    return {
        "device": state.device,
        "dtype": checkpoint.number_format(state.dtype),
        "machine": platform.machine(),
        **{library: version(library) for library in _LIBRARIES},
    }


def agree(environment: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a picture's `environment` says all that `now` does; of a device counts the kind, not its number."""
    said = {**environment, "device": environment.get("device", "").partition(":")[0]}
    return all(said.get(name) == value for name, value in now.items())


def weight_files(place: Path) -> list[Path]:
    """The files that make a picture, part by part and in order of name: all but the decoder for previews."""
    if place.is_file():
        return [place]
    index = json.loads((place / INDEX_NAME).read_text(encoding="utf-8"))
    parts = [part for part in PART_CLASSES if part in index or part not in OPTIONAL_PARTS]
    return [path for part in parts for path in sorted((place / part).glob(f"*{WEIGHTS_SUFFIX}"))]
