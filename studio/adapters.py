"""Adapters as the services use them: which there are, whether those that a prompt names can be used, their previews."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from engines.base import ChosenAdapter
from engines.places import adapter_target, local_place
from lora_registry.store import AdapterStore, Added
from studio.domain.adapter import FAMILY_TITLES, AdapterEntry, Verdict
from studio.domain.catalogue import Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.tags import adapters_named
from studio.metadata import FORMATS, MAX_PIXELS
from studio.run_adapters import RunAdapters
from studio.settings import PROJECT_ROOT

PREVIEW_PX = 512
LICENCE_KEY = "modelspec.license"
"""In the metadata of an adapter's file (ModelSpec 1.0.1)."""


class AdapterService:
    """The store, and verdicts on what is in it. A prompt may also name what a training run has kept of its looks."""

    def __init__(self, store: AdapterStore, models_dir: Path, runs_dir: Path) -> None:
        self.store = store
        self._models_dir = models_dir
        self._of_runs = RunAdapters(runs_dir)

    def check(self, prompt: str, checkpoint: Checkpoint) -> None:
        """Refuse a prompt whose adapters are not there or do not fit `checkpoint`, before anything is drawn.

        Raises:
            InvalidRequest: naming the adapter and the reason.
        """
        for use in adapters_named(prompt):
            try:
                verdict = self.verdict(use.adapter, checkpoint)
            except NotFound as error:
                known = ", ".join(entry.id for entry in self.store.entries())
                hint = f"There are: {known}." if known else "None is there yet."
                raise InvalidRequest(error.message, hint, "prompt") from None
            if not verdict.is_ok:
                raise InvalidRequest(verdict.message, verdict.hint, "prompt")

    def chosen(self, prompt: str) -> tuple[ChosenAdapter, ...]:
        """The adapters that `prompt` names, with their files.

        Raises:
            NotFound: one went away since it was checked.
        """
        places = ((use, *self._place(use.adapter)) for use in adapters_named(prompt))
        return tuple(ChosenAdapter(use=use, path=store.path(name)) for use, store, name in places)

    def hashes(self, prompt: str) -> str:
        """`name: hash` of the adapters that `prompt` names, as A1111-family tools write them; "" for none."""
        places = ((use.adapter, *self._place(use.adapter)) for use in adapters_named(prompt))
        adapters = ((adapter_id, store.inspect(name).adapter) for adapter_id, store, name in places)
        return ", ".join(f"{adapter_id}: {adapter.short_hash}" for adapter_id, adapter in adapters if adapter)

    def licences(self, prompt: str) -> dict[str, str]:
        """What the files of the adapters that `prompt` names state as their licence, by adapter; "" where one states
        none.

        Raises:
            NotFound: one went away since it was checked.
        """
        places = ((use.adapter, *self._place(use.adapter)) for use in adapters_named(prompt))
        adapters = ((adapter_id, store.get(name).adapter) for adapter_id, store, name in places)
        return {
            adapter_id: (adapter.metadata.get(LICENCE_KEY, "") if adapter else "").strip()
            for adapter_id, adapter in adapters
        }

    def verdict(self, adapter_id: str, checkpoint: Checkpoint) -> Verdict:
        """Whether an adapter can be used with `checkpoint`: of one that is not on this machine yet, only the family is
        known.

        Raises:
            NotFound: there is no such adapter.
        """
        place = local_place(checkpoint, PROJECT_ROOT, self._models_dir)
        target = place and adapter_target(checkpoint, place)
        store, name = self._place(adapter_id)
        if target:
            return store.judge(name, target)
        entry = store.get(name)
        if entry.adapter is None:
            return Verdict(message=entry.problem)
        family = entry.adapter.family
        if family in (None, checkpoint.family):
            unknown = f"It was not compared with the layers of {checkpoint.title}, which are known once that draws."
            return Verdict(notes=(*entry.adapter.notes, unknown))
        return Verdict(
            message=f"{entry.adapter.file_name} is made for {FAMILY_TITLES[family]}; {checkpoint.title} is not.",
            hint=f"Choose a {FAMILY_TITLES[family]} model.",
        )

    def edit(self, adapter_id: str, typed: Mapping[str, Any]) -> AdapterEntry:
        """Change what an adapter's card says, from fields as a person types them: `title`, `notes`, `lora_scale`, and
        `trigger_words` with commas between. Words that are those of the file, or were not touched, follow the file.

        Raises:
            InvalidRequest: a value that a card cannot have; `field` names it.
            NotFound: there is no such adapter.
        """
        return self.store.update(adapter_id, _changes(self.store.get(adapter_id), typed))

    def merge(self, asked: Mapping[str, Any]) -> Added:
        """Make one adapter of several, from the arguments of `studio.adapter_merging.merge` by name."""
        from studio.adapter_merging import merge  # imported here: torch takes seconds that the page need not wait for

        return merge(self.store, **asked)

    def set_preview(self, adapter_id: str, picture: Path) -> None:
        """Keep a small copy of `picture` as an adapter's preview. What its file says of itself, such as the prompt, is
        left out: whoever may see the page may see previews.

        Raises:
            InvalidRequest: it is no picture that can be read, or one of more than 50 million pixels.
            NotFound: there is no such adapter.
        """
        self.store.set_preview(adapter_id, _small_png(picture))

    def preview_version(self, adapter_id: str) -> str:
        """What changes with an adapter's preview, for addresses whose pictures a browser keeps; "" without one."""
        path = self.store.preview_path(adapter_id)
        try:
            return f"{path.stat().st_mtime_ns:x}" if path else ""
        except OSError:  # removed a moment ago
            return ""

    def _place(self, adapter_id: str) -> tuple[AdapterStore, str]:
        """The folder of an adapter, and what it is called there."""
        return self._of_runs.find(adapter_id) or (self.store, adapter_id)


def _changes(entry: AdapterEntry, typed: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if "title" in typed:
        changes["title"] = (typed["title"] or "").strip() or None
    if "notes" in typed:
        changes["notes"] = typed["notes"] or ""
    if "lora_scale" in typed:
        changes["lora_scale"] = 1.0 if typed["lora_scale"] is None else typed["lora_scale"]
    text = typed.get("trigger_words", ", ".join(entry.trigger_words)) or ""
    if text != ", ".join(entry.trigger_words):
        words = [word.strip() for word in text.split(",") if word.strip()]
        suggested = entry.adapter.trigger_words if entry.adapter else ()
        changes["trigger_words"] = None if words == list(suggested) else words
    return changes


def _small_png(picture: Path) -> bytes:
    try:
        with Image.open(picture, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("too many pixels to decode")
            small = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's decoders fail in more ways than they document
        raise InvalidRequest(
            f"This is no PNG, JPEG or WebP picture of at most {MAX_PIXELS // 1_000_000} million pixels.",
            "Choose another one.",
            "preview",
        ) from error
    small.thumbnail((PREVIEW_PX, PREVIEW_PX))
    small.info.clear()
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
