"""What the page says of an adapter: whether it can be used, what its file holds, what its maker wrote into it.

Pure functions that give HTML. Every text comes from a file of unknown origin and is escaped.
"""

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from studio.domain.adapter import FAMILY_TITLES, Adapter, AdapterEntry, Algorithm, Layout, Part, Verdict
from studio.domain.catalogue import Checkpoint, PredictionType
from tabs import controls, views

_KINDS: Mapping[Algorithm, str] = {
    "lora": "LoRA: small factors beside the model's weights",
    "locon": "LoCon: a LoRA that changes convolutions too",
    "dora": "DoRA: a LoRA that keeps direction and strength of a change apart",
    "loha": "LoHa: products of two LoRAs",
    "lokr": "LoKr: very small factors that are repeated",
}
_LAYOUTS: Mapping[Layout, str] = {
    "kohya": "as kohya's trainer names tensors",
    "diffusers": "as diffusers names tensors",
    "peft": "as PEFT names tensors",
}
_PARTS: Mapping[Part, str] = {
    "unet": "how the picture is drawn (UNet)",
    "text_encoder": "how the prompt is read (text encoder)",
    "text_encoder_2": "how the prompt is read a second time (text encoder 2)",
}
_PREDICTIONS: Mapping[PredictionType, str] = {
    "epsilon": "models that predict noise (epsilon)",
    "v_prediction": "models that predict velocity (v)",
}


def preview_url(adapter_id: str, version: str) -> str | None:
    """Where the page finds an adapter's preview; None without one. Another picture has another address."""
    return f"adapters/{quote(adapter_id, safe='')}/preview?v={version}" if version else None


def verdict_html(verdict: Verdict, checkpoint: Checkpoint, notes: Sequence[str] = ()) -> str:
    """Whether the adapter can be used with `checkpoint`, and what is odd about it: `notes` and the verdict's own."""
    if verdict.is_ok:
        said = views.verdict(f"It can be used with {checkpoint.title}.", "fits")
    else:
        said = controls.warning_html(f"{verdict.message} {verdict.hint}".strip())
    return said + "".join(map(controls.note, dict.fromkeys((*verdict.notes, *notes))))


def facts_html(entry: AdapterEntry, keys: Sequence[str], *, is_owner: bool) -> str:
    """What the file of `entry` holds; `keys` are the names of its tensors. What its maker wrote into it can tell
    folders and captions of the machine where it was trained, and notes are private: both are for the owner."""
    adapter = entry.adapter
    if adapter is None:
        return ""
    rows = {
        "Name in prompts": entry.id,
        "Made for": FAMILY_TITLES[adapter.family] if adapter.family else "a family that its shapes do not tell",
        "Trained on": adapter.base_model or "",
        "Trained for": _PREDICTIONS[adapter.prediction_type] if adapter.prediction_type else "",
        "Kind": _KINDS.get(adapter.algorithm, adapter.algorithm),
        "Changes": ", ".join(_PARTS[part] for part in adapter.parts),
        "Layers changed": f"{_counted(adapter.module_count, 'module')}, by {_counted(len(keys), 'tensor')}",
        "Rank": _rank(adapter),
        "Alpha": _alpha(adapter),
        "Trigger words": ", ".join(entry.trigger_words),
        "Scale in its tag": f"{entry.card.lora_scale:g}",
        "Your notes": entry.card.notes if is_owner else "",
        "Layout": _LAYOUTS[adapter.layout],
        "First tensor": keys[0][:200] if keys else "",
        "File": f"{adapter.file_name}, {size(adapter.size_bytes)}",
        "Short hash": f"{adapter.short_hash}, as pictures name it" if adapter.short_hash else "",
        "Weights (SHA-256)": adapter.tensor_sha256 or "",
    }
    table = views.definitions({name: value for name, value in rows.items() if value}, "facts facts-all")
    return table + (_metadata(adapter.metadata) if is_owner else "")


def size(size_bytes: int) -> str:
    """Bytes for a person: 2.5 kB, 19 MB, 1.2 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes / 1e3:.3g} kB"


def picture(entry: AdapterEntry, version: str) -> str:
    """The preview, if there is one."""
    url = preview_url(entry.id, version)
    alt = html.escape(f"Preview of {entry.title}")
    return f'<img class="adapter-preview" src="{html.escape(url)}" alt="{alt}">' if url else ""


def _rank(adapter: Adapter) -> str:
    ranks = ", ".join(map(str, adapter.ranks))
    return f"{ranks} (more holds finer detail, in a larger file)" if ranks else ""


def _alpha(adapter: Adapter) -> str:
    if not adapter.alphas:
        return "not stated, so its rank is taken" if adapter.ranks else ""
    alphas = ", ".join(f"{alpha:g}" for alpha in adapter.alphas)
    if len(adapter.alphas) == len(adapter.ranks) == 1:
        return f"{alphas} (alpha ÷ rank is how strongly it acts: {adapter.alphas[0] / adapter.ranks[0]:.3g})"
    return f"{alphas} (alpha ÷ rank is how strongly it acts)"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _metadata(metadata: Mapping[str, str]) -> str:
    if not metadata:
        return controls.note("Its maker wrote nothing into the file.")
    table = views.definitions(metadata, "facts facts-all")
    title = f"What its maker wrote into the file ({len(metadata)})"
    return f'<details class="adapter-metadata"><summary>{title}</summary><div tabindex="0">{table}</div></details>'
