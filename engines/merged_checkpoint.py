"""A checkpoint with adapters worked into its weights, written as a diffusers folder of its own.

W' = W + Σ lora_scale · ΔW, in float32, then in the type of W. That is what `engines.attaching` computes beside the
weights while a picture is made, so the new checkpoint draws the same: to the last bits where its weights are float32,
and where they are float16 within the rounding of each weight, a 2⁻¹¹ of its size.

One tensor is in memory at a time, and what no adapter changes is copied as it is.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from engines.adapters import ready
from engines.attaching import AttachedAdapter
from engines.base import ChosenAdapter
from engines.downloads import MARGIN_BYTES
from engines.hub_files import INDEX_NAME
from engines.loading import load
from engines.parts import TINY_VAE_FOLDER
from engines.places import WEIGHTS_SUFFIX, adapter_target
from engines.soundness import inspect, json_object
from lora_registry.tensor_data import FLOATS, TensorReader
from lora_registry.weights import Change, delta, load_weights
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import Incompatible, StorageFailed
from studio.domain.merging import MERGED_FILE
from studio.domain.tensors import TensorHeader, TensorInfo, header_bytes, read_header

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_KEPT = (".json", ".txt", WEIGHTS_SUFFIX)
_LEFT_OUT = ("safety_checker",)
"""The studio's pipelines run without it."""
_BLOCK_BYTES = 1 << 24

Changes = Mapping[str, Sequence[tuple[Change, float]]]
"""By the name of the tensor, what is added to it and how much of that."""


def write_merged(
    base: Checkpoint,
    place: Path,
    chosen: Sequence[ChosenAdapter],
    target: Path,
    about: str,
    *,
    on_part: Callable[[str], None] = lambda part: None,
    offline: bool = False,
) -> None:
    """Write `base`, which lies at `place`, with the `chosen` adapters worked in to the folder `target`, whole or not
    at all; `about` is the JSON text that it keeps of its making. `on_part` hears which part is being written.

    Raises:
        Incompatible, CorruptModel: an adapter does not fit, or weights become larger than their type holds.
        StorageFailed: the disk is too small.
        OSError: it cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a crash left
    part.mkdir(parents=True)
    try:
        _check_room(place, target)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".", suffix=".part") as unpacked:
            source = _unpacked(base, place, Path(unpacked), offline) if place.is_file() else place
            _write(base, source, chosen, part, about, on_part)
        os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_room(place: Path, target: Path) -> None:
    """A single file is unpacked first, which takes its size twice."""
    files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place, place]
    needed = sum(path.stat().st_size for path in files) + MARGIN_BYTES
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StorageFailed(
            f"The disk is too full for {target.name}: it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another data folder (FLASH_STUDIO_DATA_DIR).",
        )


def _unpacked(base: Checkpoint, place: Path, folder: Path, offline: bool) -> Path:
    """A single file as a diffusers folder, its numbers in the type that most of them have."""
    types = [info.dtype for info in read_header(place).tensors.values() if info.dtype in _DTYPES]
    loaded = load(base, place, "cpu", _DTYPES[max(set(types), key=types.count)], offline=offline)
    pipeline = loaded.pipeline
    pipeline.scheduler.register_to_config(prediction_type=loaded.prediction_type)
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = folder / INDEX_NAME
    usual = StableDiffusionXLPipeline if base.family == "sdxl" else StableDiffusionPipeline
    index.write_text(json.dumps({**json_object(index), "_class_name": usual.__name__}, indent=2), encoding="utf-8")
    return folder


def _write(
    base: Checkpoint,
    source: Path,
    chosen: Sequence[ChosenAdapter],
    part: Path,
    about: str,
    on_part: Callable[[str], None],
) -> None:
    target = adapter_target(base, source)
    assert target is not None, "a folder"
    adapters = [ready(item.use, load_weights(item.path, target)) for item in chosen]
    index = dict(json_object(source / INDEX_NAME))
    for name, row in index.items():
        if isinstance(row, list) and (name in _LEFT_OUT or not (source / name).is_dir()):
            index[name] = [None, None]
    if "requires_safety_checker" in index:
        index["requires_safety_checker"] = False
    folders = [name for name, row in index.items() if isinstance(row, list) and any(row)]
    for name in [*folders, TINY_VAE_FOLDER]:
        on_part(name)
        changes = _changes(name, adapters)
        for path in sorted((source / name).glob("*")):
            _put(path, part / name / path.name, changes)
    if base.prediction_type is not None:
        scheduler = part / "scheduler" / "scheduler_config.json"
        said = {**json_object(scheduler), "prediction_type": base.prediction_type}
        _write_text(scheduler, json.dumps(said, indent=2))
    _write_text(part / MERGED_FILE, about)
    _write_text(part / INDEX_NAME, json.dumps(index, indent=2))
    inspect(part)


def _changes(part: str, adapters: Sequence[AttachedAdapter]) -> Changes:
    found: dict[str, list[tuple[Change, float]]] = {}
    for adapter in adapters:
        for name, changes in adapter.weights.items():
            scale = adapter.scale_of(name)
            for path, change in changes.items() if name == part and scale else ():
                found.setdefault(f"{path}.weight", []).append((change, scale))
    return found


def _put(source: Path, target: Path, changes: Changes) -> None:
    """Copy a file, changed where it holds weights that are; pickles and whatever else is there stay behind."""
    if not source.is_file() or source.suffix not in _KEPT:
        return
    target.parent.mkdir(exist_ok=True)
    with target.open("wb") as out:
        if source.suffix == WEIGHTS_SUFFIX:
            out.writelines(_rewritten(source, read_header(source), changes))
        else:
            out.write(source.read_bytes())
        _sync(out)


def _rewritten(path: Path, header: TensorHeader, changes: Changes) -> Iterator[bytes]:
    """The safetensors file at `path`, with `changes`, block by block."""
    yield header_bytes(header, {"format": "pt", **header.metadata})
    tensors = sorted(header.tensors.items(), key=lambda item: item[1].begin)
    with TensorReader(path) as reader, path.open("rb") as file:
        for name, info in tensors:
            if name in changes:
                yield _changed(name, info, reader, changes[name])
            else:
                yield from _raw(file, info)


def _raw(file: BinaryIO, info: TensorInfo) -> Iterator[bytes]:
    file.seek(info.begin)
    left = info.end - info.begin
    while left and (block := file.read(min(left, _BLOCK_BYTES))):
        left -= len(block)
        yield block


def _changed(name: str, info: TensorInfo, reader: TensorReader, added: Sequence[tuple[Change, float]]) -> bytes:
    if info.dtype not in FLOATS:
        raise Incompatible(
            f"The model keeps {name[:100]} as {info.dtype}, which no adapter can be worked into.",
            "Choose its float16, bfloat16 or float32 version.",
        )
    weight = torch.tensor(reader.numbers(info)).reshape(info.shape).float()
    whole = weight.clone()
    for change, scale in added:
        whole += scale * delta(change, weight)
    numbers = whole.to(_DTYPES[info.dtype])
    if not numbers.isfinite().all():
        raise Incompatible(
            f"With this much of it, {name[:100]} becomes larger than {info.dtype} numbers can be.",
            "Take a smaller scale, or a model in float32.",
        )
    return _bytes(numbers)


def _bytes(numbers: Tensor) -> bytes:
    if numbers.dtype == torch.bfloat16:  # numpy has none
        numbers = numbers.view(torch.int16)
    return numbers.numpy().tobytes()


def _write_text(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
