"""One's own accelerators: adapter files in a folder become rows of the catalogue, with the rules that they state."""

import logging
from pathlib import Path

from pydantic import ValidationError

from lora_registry.store import AdapterStore
from studio.domain.adapter import AdapterEntry
from studio.domain.catalogue import Accelerator, Catalogue
from studio.domain.errors import Incompatible, NotFound
from studio.domain.sampling_rules import RULES_KEY, SamplingRules

logger = logging.getLogger(__name__)


class OwnAccelerators:
    """Looks into the folder of accelerators; what has the name of a row of the catalogue takes that row's place and is
    none of its own."""

    def __init__(self, store: AdapterStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    def refresh(self) -> None:
        """Let the catalogue offer what is there now."""
        shipped = {row.id for row in self._catalogue.accelerator_rows}
        entries = [entry for entry in self._store.entries() if entry.id not in shipped]
        rows = [row for entry in entries if (row := self._row(entry))]
        self._catalogue.set_own_accelerators(tuple(rows))

    def add(self, path: Path, name: str | None = None) -> Accelerator:
        """Copy an adapter file into the folder, under `name` or its own, and offer it; one that is there already keeps
        its place.

        Raises:
            NotFound: there is no file at `path`.
            CorruptModel, StorageFailed: it is no adapter, or cannot be copied.
            Incompatible: nothing says for which models it was made.
        """
        if not path.is_file():
            raise NotFound(f"There is no file at {path.name!r}.", "Give the path of an adapter in .safetensors form.")
        added = self._store.add(path, name)
        self.refresh()
        for row in self._catalogue.accelerators:
            if row.id == added.entry.id:
                return row
        if added.is_new:
            self._store.remove(added.entry.id)
        raise Incompatible(
            f"{path.name} does not say for which models it was made, and its layers fit none that is known.",
            "Choose an accelerator for SD 1.5, SD 2.1 or SDXL.",
        )

    def remove(self, accelerator_id: str) -> None:
        """Delete one of the folder's.

        Raises:
            NotFound: there is none of that id.
        """
        self._store.remove(accelerator_id)
        self.refresh()

    def _row(self, entry: AdapterEntry) -> Accelerator | None:
        adapter = entry.adapter
        if adapter is None:
            logger.info("%s is left out: %s", entry.file_name, entry.problem)
            return None
        rules = self._rules(entry, adapter.metadata.get(RULES_KEY, "{}"))
        family = adapter.family
        if rules.checkpoint is not None:  # a miniature's widths tell nothing
            known = [row for row in self._catalogue.checkpoints if row.id == rules.checkpoint]
            family = known[0].family if known else None
        if family is None:
            return None
        return Accelerator(
            id=entry.id,
            title=entry.title,
            family=family,
            is_commercial=True,
            file=str(self._store.path(entry.id)),
            **rules.model_dump(),
        )

    def _rules(self, entry: AdapterEntry, stated: str) -> SamplingRules:
        try:
            rules = SamplingRules.model_validate_json(stated)
            self._catalogue.scheduler(rules.scheduler)
        except (ValidationError, NotFound) as error:
            logger.warning("what %s says of itself is not understood: %s", entry.file_name, error)
            return SamplingRules()
        return rules
