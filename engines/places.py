"""Where a checkpoint lies on this machine. Needs no torch: the page and the command line ask too."""

from collections.abc import Mapping
from pathlib import Path

from engines.hub_files import Source
from studio.domain.adapter import PARTS, AdapterTarget
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import NotFound
from studio.domain.tensors import read_header

WEIGHTS_SUFFIX = ".safetensors"
_KERNEL_DIMENSIONS = (2, 4)


def local_place(checkpoint: Checkpoint, root: Path, models_dir: Path) -> Path | None:
    """A folder or file of its name in the models folder, or its catalogue folder, which is relative to `root`.

    Raises:
        NotFound: the catalogue names a folder that is not there, or one's own file went away.
    """
    dropped = models_dir / checkpoint.id
    for place in (dropped, dropped.with_name(dropped.name + WEIGHTS_SUFFIX)):
        if place.exists():
            return place
    if checkpoint.is_own:
        raise NotFound(f"{checkpoint.title} is no longer in the models folder.", "Choose another model.")
    if checkpoint.folder is None:
        return None
    folder = root / checkpoint.folder
    if not folder.is_dir():
        raise NotFound(
            f"{checkpoint.title} is not in {checkpoint.folder}.", "Build it: python -m engines.pocket.build."
        )
    return folder


def sources_of(checkpoint: Checkpoint) -> tuple[Source, ...]:
    """Where the hub has a checkpoint, in the order to try."""
    if checkpoint.hub_id is None:
        return ()
    places = [(checkpoint.hub_id, checkpoint.revision), *((mirror, None) for mirror in checkpoint.mirrors)]
    return tuple(Source(hub_id=i, revision=revision, vae_hub_id=checkpoint.vae_hub_id) for i, revision in places)


def adapter_target(checkpoint: Checkpoint, place: Path) -> AdapterTarget | None:
    """The checkpoint at `place` as adapters see it, read off the headers of a diffusers folder; None for a single file,
    whose names are others.

    Raises:
        CorruptModel: a file is damaged.
    """
    if place.is_file():
        return None
    modules = {part: _modules(place / part) for part in PARTS if (place / part).is_dir()}
    return AdapterTarget(
        title=checkpoint.title,
        family=checkpoint.family,
        modules=modules,
        prediction_type=checkpoint.prediction_type or "epsilon",
    )


def _modules(folder: Path) -> Mapping[str, tuple[int, ...]]:
    headers = (read_header(path) for path in sorted(folder.glob(f"*{WEIGHTS_SUFFIX}")))
    return {
        name.removesuffix(".weight"): tensor.shape
        for header in headers
        for name, tensor in header.tensors.items()
        if name.endswith(".weight") and len(tensor.shape) in _KERNEL_DIMENSIONS
    }
