"""Adapters between the store and the Hugging Face hub: what would be put there, putting it there, fetching others'."""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from lora_registry.files import safe_stem
from lora_registry.publishing import write_layouts
from lora_registry.store import AdapterStore, Added
from studio.domain.adapter import FAMILY_TITLES, AdapterEntry, FamilyId
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, InvalidRequest
from studio.domain.hub import is_hub_id
from studio.domain.run_files import sample_name
from studio.domain.training import TrainingPlan
from studio.files import atomic_write, storage_errors
from studio.runs import Runs
from studio.settings import Settings

CARD = "README.md"
_SAMPLES = "samples"
_LICENCES = {
    "mit": "mit",
    "creativeml open rail-m": "creativeml-openrail-m",
    "creativeml open rail++-m": "openrail++",
    "openrail": "openrail",
    "openrail++": "openrail++",
    "apache-2.0": "apache-2.0",
    "cc by 4.0": "cc-by-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
    "cc by-nc-nd 4.0": "cc-by-nc-nd-4.0",
}
"""Licences as files and the catalogue name them → as the hub does."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture that shows what an adapter does, and the prompt that it was drawn of."""

    path: Path
    prompt: str


def write_publication(
    store: AdapterStore, catalogue: Catalogue, settings: Settings, adapter_id: str, hub_id: str, folder: Path
) -> tuple[str, ...]:
    """Write everything that would be put on the hub as `hub_id` into `folder`, which is new or empty: a model card, the
    adapter in both layouts where it has two, its preview, and samples of the training that it came of. Notes of its
    owner, and what its file tells of the machine where it was made, are left out. Gives the paths in the folder.

    Raises:
        InvalidRequest: no id of a repository, or a folder that holds something.
        NotFound: there is no such adapter.
        CorruptModel, Incompatible: it is damaged.
        StorageFailed: the folder cannot be written.
    """
    checked_repository(hub_id)
    entry = store.inspect(adapter_id)
    if entry.adapter is None:
        raise CorruptModel(f"{entry.id} cannot be published: {entry.problem}", "Fetch or export the file again.")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidRequest(f"The folder {folder.name!r} is not empty.", "Give a new one.", "to")
        files = write_layouts(store.path(adapter_id), folder, safe_stem(adapter_id))
        shown = [*_preview(store, entry), *_samples(settings, adapter_id)]
        if shown:
            (folder / _SAMPLES).mkdir()
        for number, sample in enumerate(shown):
            shutil.copyfile(sample.path, folder / _SAMPLES / f"{number}.png")
        atomic_write(
            folder / CARD, _card(entry, catalogue, hub_id, files, [sample.prompt for sample in shown]).encode()
        )
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def push(
    store: AdapterStore, catalogue: Catalogue, settings: Settings, adapter_id: str, hub_id: str, *, is_private: bool
) -> str:
    """Put an adapter on the hub; gives its address. See `write_publication` for what that is.

    Raises:
        UploadFailed: nobody is logged in, who is may not write there, or the hub does not answer.
        StudioError: as for `write_publication`.
    """
    from engines.hub_adapters import upload_folder

    checked_repository(hub_id)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "publication"
        write_publication(store, catalogue, settings, adapter_id, hub_id, folder)
        return upload_folder(folder, hub_id, is_private=is_private, offline=settings.offline)


def pull(
    store: AdapterStore,
    settings: Settings,
    source: str,
    name: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Added:
    """Fetch an adapter of the hub into the store, with the checks of every adapter. `source` is OWNER/REPO, or with a
    file of it OWNER/REPO:FILE.

    Raises:
        InvalidRequest: no id of a repository.
        NotFound: it has no such file, none at all, or several of which none was named.
        DownloadFailed: it may not be had, the hub does not answer, or the studio is offline.
        CorruptModel, Incompatible: the file is no adapter that can be used.
        StorageFailed: the disk is too full or cannot be written.
    """
    from engines.hub_adapters import fetch_adapter

    hub_id, _, path = source.partition(":")
    checked_repository(hub_id)
    place = settings.cache_dir / "adapters" / hub_id.replace("/", "--") / safe_stem(path or "only")
    file = fetch_adapter(hub_id, path or None, place, offline=settings.offline, on_progress=on_progress)
    is_named_alike = file.name == "pytorch_lora_weights.safetensors"
    added = store.add(file, name or (hub_id.partition("/")[2] if is_named_alike else None))
    shutil.rmtree(place, ignore_errors=True)
    if not added.is_new:
        return added
    notes = f"From {hub_id} on the Hugging Face hub: {path or file.name}."
    return Added(entry=store.update(added.entry.id, {"notes": notes}), is_new=True)


def checked_repository(hub_id: str) -> None:
    """Raises InvalidRequest for what is no id of a repository on the hub."""
    if not is_hub_id(hub_id):
        raise InvalidRequest(
            f"{hub_id[:100]!r} is no id of a repository on the Hugging Face hub.",
            "Give it as its page does: owner/name.",
            "repository",
        )


def _preview(store: AdapterStore, entry: AdapterEntry) -> list[Sample]:
    path = store.preview_path(entry.id)
    return [Sample(path=path, prompt=", ".join(entry.trigger_words[:1]) or entry.title)] if path else []


def _samples(settings: Settings, adapter_id: str) -> list[Sample]:
    """What the training drew with it that it came of, when it was best."""
    runs = Runs(settings.runs_dir, TrainingPlan).that_made(adapter_id)
    best = next(((run, run.best) for run in runs if run.best), None)
    if best is None:
        return []
    run, look = best
    places = [(run.sample(sample_name(look.step, 0, index)), prompt) for index, prompt in enumerate(look.prompts)]
    return [Sample(path=path, prompt=prompt) for path, prompt in places if path]


def _card(entry: AdapterEntry, catalogue: Catalogue, hub_id: str, files: Sequence[str], prompts: Sequence[str]) -> str:
    adapter = entry.adapter
    assert adapter is not None, "was looked at"
    trigger = ", ".join(entry.trigger_words)
    sdxl = ["stable-diffusion-xl", "stable-diffusion-xl-diffusers"] if adapter.family == "sdxl" else []
    told: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": _base_model(adapter.metadata.get("ss_sd_model_name", ""), adapter.family, catalogue),
        "tags": ["text-to-image", "diffusers", "lora", "stable-diffusion", *sdxl],
        **_licence(adapter.metadata.get("modelspec.license", "")),
    }
    if trigger:
        told["instance_prompt"] = trigger
    if prompts:
        shown = enumerate(prompts)
        told["widget"] = [{"text": text, "output": {"url": f"{_SAMPLES}/{number}.png"}} for number, text in shown]
    data: Any = ModelCardData(**told)
    made_for = FAMILY_TITLES[adapter.family] if adapter.family else "models of the size that it was trained on"
    ranks = f", rank {adapter.ranks[-1]}" if adapter.ranks else ""
    say = f"\nSay `{_code(trigger)}` in the prompt.\n" if trigger else ""
    title = _text(entry.title)
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{'<Gallery />' if prompts else ''}\n",
        f"An adapter ({adapter.algorithm}{ranks}) for {made_for}.\n{say}",
        f"\n## Files\n\n{_files(files)}\n",
        f"\n## In Flash Studio\n\n```sh\npython -m studio adapters pull {hub_id}\n```\n",
        _in_diffusers(hub_id, entry) if "pytorch_lora_weights.safetensors" in files else "",
    ]
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


def _in_diffusers(hub_id: str, entry: AdapterEntry) -> str:
    scale = entry.card.lora_scale
    return (
        "\n## In diffusers\n\n```python\n"
        f'pipeline.load_lora_weights("{hub_id}", weight_name="pytorch_lora_weights.safetensors", '
        f'adapter_name="it")\npipeline.set_adapters("it", {scale:g})\n```\n'
    )


def _files(files: Sequence[str]) -> str:
    what = {True: "for diffusers", False: "for A1111, Forge, ComfyUI and other programs that read kohya's layout"}
    return "\n".join(f"- `{name}`: {what[name == 'pytorch_lora_weights.safetensors']}" for name in files)


def _base_model(stated: str, family: FamilyId | None, catalogue: Catalogue) -> str | None:
    """The repository of the model that it was trained on, or else of the family's usual one; None for a miniature."""
    rows = {row.id: row for row in catalogue.rows}
    row = rows.get(stated) or rows.get(family or "")  # the usual one has the id of the family
    return row.hub_id if row else None


def _licence(stated: str) -> dict[str, str]:
    if not stated.strip():
        return {}
    known = _LICENCES.get(stated.strip().lower())
    return {"license": known} if known else {"license": "other", "license_name": _text(stated)[:200]}


def _text(text: str) -> str:
    """One line that Markdown takes for nothing else than text."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
