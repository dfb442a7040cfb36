"""What clients of AUTOMATIC1111's API call models, samplers, styles and adapters: names to ours, and the lists of them.

No list tells where on this machine anything lies.
"""

import re
from collections.abc import Sequence
from typing import Any

from engines.identity import find_place, weights_sha256, weights_stamp
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.infotext import request_from_infotext
from studio.services import Services
from studio.settings import PROJECT_ROOT

SAMPLER_NOT_FOUND = "Sampler not found"
"""A1111's own words, which clients know."""
_HASH = re.compile(r"\s*\[[0-9a-f]+\]$")
_WEIGHTS = ".safetensors"
_AUTOMATIC = ("", "automatic")


def checkpoint_named(name: object, catalogue: Catalogue) -> Checkpoint:
    """The checkpoint of an id or a title, whether or not a hash in brackets or a suffix follows.

    Raises:
        InvalidRequest: there is none.
    """
    asked = _HASH.sub("", str(name)).strip().casefold()
    for row in catalogue.checkpoints:
        if asked.removesuffix(_WEIGHTS) in (row.id.casefold(), row.title.casefold()):
            return row
    known = ", ".join(row.id for row in catalogue.checkpoints)
    raise InvalidRequest(f"There is no model called {str(name)[:100]!r}.", f"Known: {known}.", "checkpoint")


def scheduler_named(sampler: str, schedule: str, checkpoint: Checkpoint, catalogue: Catalogue) -> str | None:
    """The id of the sampler that both names mean, or of `sampler` as we call it; a schedule alone is for the sampler of
    `checkpoint`. None where nothing is named.

    Raises:
        NotFound: there is no such sampler.
        InvalidRequest: there is, with other schedules.
    """
    if not sampler and schedule.casefold() in _AUTOMATIC:
        return None
    if sampler in (row.id for row in catalogue.schedulers):
        return sampler
    sampler = sampler or catalogue.scheduler(checkpoint.default_scheduler).a1111_sampler
    schedule = schedule.replace("_", " ")
    by_name = _read_as_in_pictures(sampler, "", catalogue)
    if by_name is None:
        known = ", ".join(dict.fromkeys(row.a1111_sampler for row in catalogue.schedulers))
        raise NotFound(SAMPLER_NOT_FOUND, f"There is no {sampler[:100]!r}; there are {known}.")
    named = catalogue.scheduler(by_name)
    if schedule.casefold() == named.a1111_schedule.casefold():
        return named.id
    found = _read_as_in_pictures(named.a1111_sampler, schedule, catalogue)
    if found is None:
        rows = (row for row in catalogue.schedulers if row.a1111_sampler == named.a1111_sampler)
        raise InvalidRequest(
            f"{named.a1111_sampler} is not offered with the schedule {schedule[:100]!r}.",
            f"There is {', '.join(row.a1111_schedule for row in rows)}.",
            "scheduler",
        )
    return by_name if schedule.casefold() in _AUTOMATIC else found


def style_named(names: Sequence[str], catalogue: Catalogue) -> str | None:
    """The id of the one style among `names`, ids or titles; None where none is named.

    Raises:
        InvalidRequest: there is no such style, or several are named.
    """
    wanted = [name for name in names if name.strip()]
    if not wanted:
        return None
    if len(wanted) > 1:
        raise InvalidRequest(f"{len(wanted)} styles are asked for; a picture takes one.", "Name one.", "style")
    asked = wanted[0].strip().casefold()
    for row in catalogue.styles:
        if asked in (row.id.casefold(), row.title.casefold()):
            return row.id
    known = ", ".join(row.id for row in catalogue.styles)
    raise InvalidRequest(f"There is no style called {wanted[0][:100]!r}.", f"Known: {known}.", "style")


def model_list(services: Services) -> list[dict[str, Any]]:
    """Every checkpoint. Its title is its id, so that a client that looks for the title nearest to what was typed finds
    it; the hash is that which pictures tell of, and null for large weights that were not read yet."""

    def told(row: Checkpoint) -> dict[str, Any]:
        sha256 = checkpoint_sha256(row.id, services)
        names = {"title": row.id, "model_name": row.id, "filename": row.id, "config": None}
        return {**names, "hash": sha256[:10] or None, "sha256": sha256 or None}

    return [told(row) for row in services.catalogue.checkpoints]


def checkpoint_sha256(checkpoint_id: str, services: Services) -> str:
    """The hash of a checkpoint's weights as far as it is known, or quickly read; else ""."""
    try:
        checkpoint = services.catalogue.checkpoint(checkpoint_id)
        place = find_place(checkpoint, PROJECT_ROOT, services.settings.models_dir)
        if place is None:
            return ""
        known = services.ledger.weights_sha256(weights_stamp(place))
        return known or (weights_sha256(place) if checkpoint.is_pocket else "")
    except (NotFound, OSError, ValueError):  # what is gone or damaged is told of when it is to draw
        return ""


def adapter_list(services: Services) -> list[dict[str, Any]]:
    """Every adapter that can be read; its name is what a tag in a prompt says."""
    return [
        {"name": entry.id, "alias": entry.id, "path": entry.file_name, "metadata": dict(entry.adapter.metadata)}
        for entry in services.adapters.store.entries()
        if entry.adapter is not None
    ]


def sampler_list(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every sampler once, whatever schedules it has."""
    names = dict.fromkeys(row.a1111_sampler for row in catalogue.schedulers)
    return [
        {"name": name, "aliases": [row.id for row in catalogue.schedulers if row.a1111_sampler == name], "options": {}}
        for name in names
    ]


def schedule_list(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every schedule that some sampler has, and that which leaves it to the program."""
    labels = ["Automatic", *dict.fromkeys(row.a1111_schedule for row in catalogue.schedulers)]
    common = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return [{"name": label.casefold().replace(" ", "_"), "label": label, **common} for label in labels]


def style_list(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Every style that changes something."""
    return [
        {"name": row.title, "prompt": row.template, "negative_prompt": row.negative}
        for row in catalogue.styles
        if row.template != "{prompt}"
    ]


def _read_as_in_pictures(sampler: str, schedule: str, catalogue: Catalogue) -> str | None:
    """What the names mean in the text of a picture, in which some signs would end them."""
    sampler, schedule = (re.sub(r'[\n\r,:"]', " ", name) for name in (sampler, schedule))
    text = f"-\nSteps: 1, Sampler: {sampler}, Schedule type: {schedule}, Seed: 0"
    return request_from_infotext(text, catalogue).request.scheduler
