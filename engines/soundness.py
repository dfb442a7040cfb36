"""Whether a folder or file is a checkpoint that may be opened, told by its names and headers. Needs no torch.

Asked for safetensors only, diffusers and transformers (0.42, 5.24) still open a pickle that an index of shards or a
part's config names. So what those name is looked at here, before the libraries are asked to open anything.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from engines.detection import Detected, detect_file, detect_folder
from engines.hub_files import INDEX_NAME, PICKLE_SUFFIXES, Unusable, parts_of
from engines.parts import OPTIONAL_PARTS, PART_CLASSES, TINY_VAE_FOLDER
from engines.places import WEIGHTS_SUFFIX
from studio.domain.catalogue import PredictionType
from studio.domain.errors import CorruptModel, Incompatible, NotFound, StorageFailed
from studio.domain.tensors import MAX_HEADER_BYTES, read_header

logger = logging.getLogger(__name__)

PARTS = (*PART_CLASSES, TINY_VAE_FOLDER, "scheduler")
"""Folders whose files tell what a checkpoint is."""
_CONFIG_WEIGHTS = "transformers_weights"
"""A key of transformers' configs that names the file to open, whatever else is there."""
_ELSEWHERE = "adapter_config.json"
"""Beside a text encoder it makes transformers open another model, wherever that is, with an adapter on it."""
FOLDER_HINT = "A checkpoint is a diffusers folder with model_index.json and .safetensors weights."
_HINT = "Only .safetensors weights are loaded."


def inspect(place: Path) -> Detected:
    """Refuse what is no checkpoint, or could make a library open anything but sound safetensors files; gives its family
    and what it says of its prediction.

    Raises:
        CorruptModel: naming what is missing, unsafe or damaged.
        Incompatible: it is something else, such as an adapter.
        NotFound, StorageFailed: it is not there, or cannot be read.
    """
    try:
        if place.is_file():
            return _inspect_file(place)
        if place.is_dir():
            return _inspect_folder(place)
    except OSError as error:
        logger.warning("%s cannot be read: %s", place, error)
        why = error.strerror or "the system does not say why"
        raise StorageFailed(f"{place.name} cannot be read: {why}.", "Check the disk and the permissions.") from error
    raise NotFound(f"{place.name} leads to no file or folder.", "Put back what it leads to, or remove it.")


def json_object(path: Path) -> Mapping[str, Any]:
    """The JSON object that a file holds; an empty one where there is none to be read."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_HEADER_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _inspect_file(path: Path) -> Detected:
    if path.suffix != WEIGHTS_SUFFIX:  # by the suffix, diffusers decides whether to unpickle
        raise CorruptModel(
            f"{path.name} is no .safetensors file.", f"{_HINT} A pickle (.ckpt, .pt, .bin) can run code when opened."
        )
    return detect_file(path)


def _inspect_folder(folder: Path) -> Detected:
    for part in _parts(folder):
        for path in _weight_files(folder / part, f"{folder.name}/{part}"):
            read_header(path)
    said = json_object(folder / "scheduler" / "scheduler_config.json").get("prediction_type")
    return Detected(family=detect_folder(folder), prediction_type=said if said in get_args(PredictionType) else None)


def _parts(folder: Path) -> list[str]:
    if not (folder / INDEX_NAME).is_file():
        raise CorruptModel(f"{folder.name} has no {INDEX_NAME}.", FOLDER_HINT)
    try:
        classes = parts_of(json_object(folder / INDEX_NAME))
    except Unusable as error:
        raise CorruptModel(f"{folder.name} {error}.", FOLDER_HINT) from None
    for part, expected in PART_CLASSES.items():
        found = classes.get(part, None if part in OPTIONAL_PARTS else "missing")
        if found not in (None, expected):
            raise Incompatible(f"The {part} of {folder.name} is {found}; the studio needs {expected}.", FOLDER_HINT)
    parts = [part for part in PART_CLASSES if part in classes]
    return [*parts, TINY_VAE_FOLDER] if (folder / TINY_VAE_FOLDER).is_dir() else parts


def _weight_files(folder: Path, name: str) -> list[Path]:
    """The files that the libraries will open for a part; `name` is what people call it."""
    _check_config(folder, name)
    there = sorted(path.name for path in folder.glob(f"*{WEIGHTS_SUFFIX}"))
    if not there:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
        what = f"only has {pickles[0]}, a pickle, which can run code" if pickles else "has no weights"
        raise CorruptModel(f"{name} {what}.", _HINT)
    stem = "model" if folder.name in ("text_encoder", "text_encoder_2") else "diffusion_pytorch_model"
    whole = folder / f"{stem}{WEIGHTS_SUFFIX}"
    index = folder / f"{whole.name}.index.json"
    files = _shards(index, name) if index.is_file() else []
    files += [whole] if whole.is_file() else []
    if not files:
        raise CorruptModel(f"{name} has no {whole.name}.", f"If {there[0]} holds its weights, give it that name.")
    return files


def _check_config(folder: Path, name: str) -> None:
    config = json_object(folder / "config.json")
    if not config:
        raise CorruptModel(f"{name} has no config.json that can be read.", "Fetch or copy the folder again.")
    inner = config.get("text_config")
    if _CONFIG_WEIGHTS in {*config, *(inner if isinstance(inner, dict) else ())}:
        raise CorruptModel(f"{name}/config.json names a file of weights to open instead.", _HINT)
    if (folder / _ELSEWHERE).exists():
        raise CorruptModel(f"{name} has {_ELSEWHERE}, which leads to another model.", "Remove that file.")


def _shards(index: Path, name: str) -> list[Path]:
    named = json_object(index).get("weight_map")
    files = sorted({str(file) for file in named.values()}) if isinstance(named, dict) else []
    if not files:
        raise CorruptModel(f"{name}/{index.name} names no weights.", _HINT)
    for file in files:
        if not file.endswith(WEIGHTS_SUFFIX) or set(file) & set("/\\\0"):
            raise CorruptModel(f"{name}/{index.name} names {file[:60]!r}, no .safetensors file beside it.", _HINT)
        if not (index.parent / file).is_file():
            raise CorruptModel(f"{name} lacks {file[:200]}, one of its shards.", "Fetch or copy the folder again.")
    return [index.parent / file for file in files]
