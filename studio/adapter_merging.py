"""Several adapters of the store made into one more."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lora_registry.export import write_adapter
from lora_registry.formats import read_adapter
from lora_registry.merging import LowRanks, Share, merged
from lora_registry.store import AdapterStore, Added
from lora_registry.unfitted import check_written, load_unfitted
from studio.domain.adapter import FAMILY_TITLES, Adapter, AdapterEntry, FamilyId, stated_base
from studio.domain.errors import CorruptModel, Incompatible, InvalidRequest
from studio.domain.merging import DENSITY, MERGE_KEY, MajoritySign, MergeMethod, MergeRequest, parse_merge
from studio.files import storage_errors

_MAX_WORDS = 50
"""As many as a card holds."""
_STATED_ALIKE = (
    "modelspec.architecture",
    "modelspec.prediction_type",
    "modelspec.resolution",
    "ss_base_model_version",
    "ss_resolution",
    "ss_sd_model_name",
)
"""What is still true of the merged adapter where all that it is made of say the same."""


def merge(
    store: AdapterStore,
    portions: Sequence[tuple[str, float]],
    name: str,
    method: MergeMethod = "svd",
    *,
    rank: int | None = None,
    density: float | None = None,
    majority_sign: MajoritySign = "total",
    seed: int = 0,
) -> Added:
    """Merge adapters, by id and weight, and keep the result in `store` as another, with what it came of on its card.

    `lora_registry.merging` says what the methods do. The file that is kept was read back and found to add what was
    worked out. Where the store has the same weights already, those are told instead.

    Raises:
        InvalidRequest: a value that is out of range, or a merger that changes nothing; `field` names it.
        NotFound: there is no adapter of an id.
        Incompatible: adapters of different families or sizes, or of a kind that `method` cannot merge.
        CorruptModel: a file is damaged, or the result cannot be written in float16.
        StorageFailed: a file cannot be read or written.
    """
    request = parse_merge(
        {
            "name": name,
            "portions": [{"adapter": adapter_id, "weight": weight} for adapter_id, weight in portions],
            "method": method,
            "rank": rank,
            "density": density,
            "majority_sign": majority_sign,
            "seed": seed,
        }
    )
    entries = [store.inspect(portion.adapter) for portion in request.portions]
    family = _family(entries)
    changes = merged(
        [_share(store, entry.id, portion.weight) for entry, portion in zip(entries, request.portions, strict=True)],
        request.method,
        rank=request.rank,
        density=DENSITY if request.density is None else request.density,
        majority_sign=request.majority_sign,
        seed=request.seed,
    )
    if not changes:
        raise InvalidRequest("The merged adapter would change nothing.", "Give other weights.", "portions")
    return _kept(store, request, entries, changes, family)


def _family(entries: Sequence[AdapterEntry]) -> FamilyId | None:
    """The family of all; None for miniatures, whose family no file tells."""
    known: dict[FamilyId, str] = {}
    for entry in entries:
        family = _adapter(entry).family
        if family is not None:
            known.setdefault(family, entry.id)
    if len(known) > 1:
        told = " and ".join(f"{adapter_id} for {FAMILY_TITLES[family]}" for family, adapter_id in known.items())
        raise Incompatible(f"These adapters are of different families: {told}.", "Merge adapters of one family.")
    return next(iter(known), None)


def _adapter(entry: AdapterEntry) -> Adapter:
    if entry.adapter is None:
        raise CorruptModel(f"{entry.id} cannot be merged: {entry.problem}", "Leave it out.")
    return entry.adapter


def _share(store: AdapterStore, adapter_id: str, weight: float) -> Share:
    path = store.path(adapter_id)
    with storage_errors(path):
        read = load_unfitted(read_adapter(path))
    return Share(name=adapter_id, weight=weight, changes=read.weights, shapes=read.shapes)


def _kept(
    store: AdapterStore,
    request: MergeRequest,
    entries: Sequence[AdapterEntry],
    changes: LowRanks,
    family: FamilyId | None,
) -> Added:
    """Write, read back and add. A card that cannot be written takes the adapter along."""
    words = tuple(dict.fromkeys(word for entry in entries for word in entry.trigger_words))[:_MAX_WORDS]
    naming: FamilyId = family or ("sdxl" if "text_encoder_2" in changes else "sd15")
    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "merged.safetensors"
        metadata = _metadata(request, entries, words, family) | _ranks(changes)
        write_adapter(file, changes, naming, metadata=metadata)
        check_written(file, changes)
        added = store.add(file, request.name)
    if not added.is_new:
        return added
    card = {"title": request.name, "notes": _notes(request, entries), "trigger_words": words}
    try:
        return Added(entry=store.update(added.entry.id, card), is_new=True)
    except BaseException:
        store.remove(added.entry.id)
        raise


def _metadata(
    request: MergeRequest, entries: Sequence[AdapterEntry], words: Iterable[str], family: FamilyId | None
) -> dict[str, str]:
    """What the file says of itself: what came of what, what it is called, and what its parts agree on."""
    came_of = [
        {"id": entry.id, "sha256": adapter.tensor_sha256, "weight": portion.weight}
        for entry, portion in zip(entries, request.portions, strict=True)
        if (adapter := entry.adapter) is not None
    ]
    made_by = request.model_dump(include={"method", "rank", "density", "majority_sign", "seed"}, exclude_none=True)
    stated = [_adapter(entry).metadata for entry in entries]
    licences = dict.fromkeys(text for each in stated if (text := each.get("modelspec.license")))
    known = {} if family is None else stated_base(family, is_v=False)
    return {
        **known,
        **{key: text for key in _STATED_ALIKE if (text := _said_by_all(stated, key))},
        MERGE_KEY: json.dumps({"adapters": came_of, **made_by}, ensure_ascii=False),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": request.name,
        "modelspec.description": _notes(request, entries),
        "modelspec.merged_from": ", ".join(dict.fromkeys(entry.title for entry in entries)),
        "modelspec.trigger_phrase": ", ".join(words),
        "ss_network_module": "networks.lora",
        "ss_output_name": request.name,
        **({"modelspec.license": "; ".join(licences)} if licences else {}),
    }


def _said_by_all(stated: Sequence[Mapping[str, str]], key: str) -> str | None:
    texts = {each.get(key) for each in stated}
    return texts.pop() if len(texts) == 1 else None


def _ranks(changes: LowRanks) -> dict[str, str]:
    largest = max(change.rank for of_part in changes.values() for change in of_part.values())
    return {"ss_network_dim": str(largest), "ss_network_alpha": str(largest)}


def _notes(request: MergeRequest, entries: Sequence[AdapterEntry]) -> str:
    parts = ", ".join(
        f"{entry.id} × {portion.weight:g}" for entry, portion in zip(entries, request.portions, strict=True)
    )
    rank = "" if request.rank is None else f", rank {request.rank}"
    density = "" if request.density is None else f", density {request.density:g}"
    return f"Merged by {request.method}{rank}{density}: {parts}."
