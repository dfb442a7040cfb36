"""Adapters of the store worked into the weights of a checkpoint, which becomes one of one's own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from engines.base import ChosenAdapter
from engines.identity import find_place, weights_sha256
from studio.adapters import LICENCE_KEY, AdapterService
from studio.checkpoints import Added, OwnCheckpoints
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import Incompatible, InvalidRequest, NotFound
from studio.domain.merging import MergedCheckpoint, WorkedIn
from studio.domain.tags import AdapterUse
from studio.settings import PROJECT_ROOT, Settings


class CheckpointMerging:
    """What `models merge` and the page share."""

    def __init__(
        self, catalogue: Catalogue, own_checkpoints: OwnCheckpoints, adapters: AdapterService, settings: Settings
    ) -> None:
        self._catalogue = catalogue
        self._own = own_checkpoints
        self._adapters = adapters
        self._settings = settings

    def merge(
        self,
        checkpoint_id: str,
        uses: Sequence[AdapterUse],
        name: str,
        on_part: Callable[[str], None] = lambda part: None,
    ) -> Added:
        """Write a model with adapters worked in to the models folder, and offer it under `name` or nearly so. It draws
        what the first draws with these adapters in the prompt. `on_part` hears which part is being written.

        Raises:
            InvalidRequest: no name, or no adapter that would change anything; `field` names it.
            NotFound: the model or an adapter is not on this machine.
            Incompatible, CorruptModel: an adapter does not fit, or cannot be worked in as much.
            StorageFailed: the disk is too small, or cannot be written.
        """
        if not name.strip():
            raise InvalidRequest("The new model has no name.", "Give it a short one.", "name")
        if not any(use.lora_scale or use.text_encoder_scale for use in uses):
            raise InvalidRequest("The new model would be the old one.", "Work in some of an adapter.", "lora_scale")
        base = self._catalogue.checkpoint(checkpoint_id)
        place = find_place(base, PROJECT_ROOT, self._settings.models_dir)
        if place is None:
            raise NotFound(f"{base.title} is not on this machine.", "Draw one picture with it, which fetches it.")
        for use in uses:
            self._check(use, base)
        # Imported here: torch takes seconds that the other commands and the page need not wait for.
        from engines.merged_checkpoint import write_merged

        chosen = [ChosenAdapter(use=use, path=self._adapters.store.path(use.adapter)) for use in uses]
        about = self._about(base, place, uses).model_dump_json(indent=2, exclude_defaults=True)
        offline = self._settings.offline

        def write(target: Path) -> None:
            write_merged(base, place, chosen, target, about, on_part=on_part, offline=offline)

        return self._own.build(name.strip(), write)

    def _check(self, use: AdapterUse, base: Checkpoint) -> None:
        verdict = self._adapters.verdict(use.adapter, base)
        if not verdict.is_ok:
            raise Incompatible(verdict.message, verdict.hint)

    def _about(self, base: Checkpoint, place: Path, uses: Sequence[AdapterUse]) -> MergedCheckpoint:
        entries = [self._adapters.store.inspect(use.adapter) for use in uses]
        stated = [entry.adapter.metadata.get(LICENCE_KEY, "") for entry in entries if entry.adapter]
        return MergedCheckpoint(
            base=base.id,
            base_title=base.title,
            base_sha256=weights_sha256(place),
            adapters=tuple(
                WorkedIn(
                    adapter=use.adapter,
                    lora_scale=use.lora_scale,
                    text_encoder_scale=use.text_encoder_scale,
                    sha256=entry.adapter and entry.adapter.tensor_sha256,
                    trigger_words=entry.trigger_words,
                )
                for use, entry in zip(uses, entries, strict=True)
            ),
            licences=tuple(dict.fromkeys(text[:200] for text in (base.licence, *stated) if text)),
        )
