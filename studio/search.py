"""The little language of the gallery's search box: `red circle steps:25 sampler:euler size:128x128 is:starred`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, select

from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.tables import ImageEntry, JobEntry

COMPARING = ("evaluation", "probe")
"""Kinds of jobs whose pictures, hundreds at a time, were drawn for numbers."""
MAX_TEXT = 1000
"""Characters of a search that are looked at: SQLite refuses conditions that are thousands deep."""

_FIELD_OF_NAME = {
    "steps": "num_inference_steps",
    "model": "checkpoint",
    "sampler": "scheduler",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "negative": "negative_prompt",
    **{field: field for field in ResolvedRequest.model_fields},
}
_SIZE = re.compile(r"(\d+)[x×](\d+)")


@dataclass(frozen=True, kw_only=True)
class Query:
    """Words that all must occur, recipe fields that must be equal, whether only starred images count, and whether only
    those do that were drawn to be compared."""

    words: tuple[str, ...]
    filters: dict[str, Any]
    is_starred: bool | None
    is_compared: bool | None = None


def parse_query(text: str) -> Query:
    """Read a search box. `name:value` with an unknown name, or a value that cannot be, is a word like any other."""
    words: list[str] = []
    filters: dict[str, Any] = {}
    is_starred: bool | None = None
    is_compared: bool | None = None
    for token in text[:MAX_TEXT].split():
        name, _, value = token.partition(":")
        if token.casefold() == "is:starred":
            is_starred = True
        elif token.casefold() == "is:compared":
            is_compared = True
        elif recipe_filter := _recipe_filter(name.casefold(), value.casefold()) if value else None:
            filters |= recipe_filter
        else:
            words.append(token.casefold())
    return Query(words=tuple(dict.fromkeys(words)), filters=filters, is_starred=is_starred, is_compared=is_compared)


def conditions(
    text: str,
    filters: Mapping[str, Any] | None,
    is_starred: bool | None,
    visitor: str | None = None,
    is_compared: bool | None = None,
) -> list[ColumnElement[bool]]:
    """The WHERE of a search: a text as typed, exact values by recipe field (or by a name of the little language), whose
    images count (None for everybody's), and whether those of evaluations do (None: like all others), unless the text
    asks for them.

    Raises:
        InvalidRequest: a filter that no picture can have.
    """
    query = parse_query(text)
    wanted = query.filters | _exact(filters or {})
    starred = query.is_starred if is_starred is None else is_starred
    found = [ImageEntry.search_text.contains(word, autoescape=True) for word in query.words]
    found += [_recipe_equals(field, value) for field, value in wanted.items()]
    found += [] if starred is None else [ImageEntry.is_starred.is_(starred)]
    compared = query.is_compared if query.is_compared is not None else is_compared
    if compared is not None:
        drawn = ImageEntry.job_id.in_(select(JobEntry.id).where(JobEntry.kind.in_(COMPARING)))
        found.append(drawn if compared else ~drawn)
    return found + ([] if visitor is None else [ImageEntry.visitor == visitor])


def search_text(record: ImageRecord) -> str:
    """What the words of a search are looked for in."""
    recipe = record.recipe
    prompts = (recipe.prompt, recipe.typed_prompt, recipe.original_prompt, recipe.negative_prompt)
    texts = (*filter(None, prompts), recipe.checkpoint, recipe.scheduler, recipe.style, str(recipe.seed))
    return "\n".join(texts).casefold()


def _exact(filters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in filters.items():
        if value is None:  # "any", as in a request
            continue
        if (recipe_filter := _recipe_filter(name, value)) is None:
            raise InvalidRequest(f"Pictures cannot be searched by {name} = {value!r}.", "See the search help.", name)
        found |= recipe_filter
    return found


def _recipe_filter(name: str, value: Any) -> dict[str, Any] | None:
    """The recipe fields and values that `name` = `value` stands for; None if no recipe can have them."""
    if name == "size":
        size = _SIZE.fullmatch(str(value))
        values = {"width": size[1], "height": size[2]} if size else {}
    else:
        values = {_FIELD_OF_NAME[name]: value} if name in _FIELD_OF_NAME else {}
    try:
        return {field: _value(field, given) for field, given in values.items()} or None
    except ValidationError:
        return None


def _value(field: str, given: Any) -> Any:
    return getattr(GenerationRequest.model_validate({"prompt": "any", field: given}), field)


def _recipe_equals(field: str, value: Any) -> ColumnElement[bool]:
    stored = ImageEntry.recipe[field]
    if isinstance(value, str):
        return stored.as_string() == value
    return (stored.as_float() if isinstance(value, float) else stored.as_integer()) == value
