"""What a client of OpenAI's Images API asks for, in our words."""

import re
import reprlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.domain.beginning import SOURCE_FIELDS
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.request import GenerationRequest, parse_request
from studio.services import Services
from studio.web.access import Caller
from studio.web.openai.errors import UnknownModel
from studio.web.openai.pictures import kept_picture

_ALIAS = re.compile(r"(gpt-image|chatgpt-image|dall-e)-[\w.-]+")
"""Models of OpenAI's, which clients ask for unless told otherwise."""
_OUR_NAMES = {
    "model": "checkpoint",
    "n": "num_images",
    "steps": "num_inference_steps",
    "studio_style": "style",
    "image": "init_image",
}
_AUTO = "auto"

OutputFormat = Literal["png", "webp", "jpeg"]


class Wishes(BaseModel):
    """How the answer is to look. What each field must be is said by its description."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    n: Annotated[int, Field(ge=1, le=10, description="a whole number from 1 to 10")] = 1
    size: Annotated[
        str, Field(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", description="a width and a height like 128x128, or auto")
    ] = _AUTO
    quality: Annotated[str, Field(description="a text")] = _AUTO
    background: Annotated[
        Literal["auto", "opaque"], Field(description="opaque or auto; pictures without a ground are not drawn here")
    ] = _AUTO
    response_format: Annotated[Literal["b64_json", "url"], Field(description="b64_json or url")] = "b64_json"
    output_format: Annotated[OutputFormat, Field(description="png, webp or jpeg")] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100, description="a whole number from 0 to 100")] = 100
    stream: Annotated[bool, Field(description="true or false")] = False
    partial_images: Annotated[int, Field(ge=0, le=3, description="a whole number from 0 to 3")] = 0

    @property
    def told_quality(self) -> str:
        """What the answer says of quality, which is the same whatever was asked for."""
        return self.quality if self.quality in ("low", "medium", "high", "xhigh", "max") else "high"


def wishes_of(values: Mapping[str, Any]) -> Wishes:
    """How the answer to these loose values is to look.

    Raises:
        InvalidRequest: naming the first field that is wrong, what it was and what it may be.
    """
    try:
        wishes = Wishes.model_validate(_said(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = str(problem["loc"][0])
        expected = Wishes.model_fields[field].description
        message = f"The value of {field} is {reprlib.repr(problem['input'])}; it must be {expected}."
        raise InvalidRequest(message, "", field) from None
    if wishes.response_format == "url" and wishes.output_format != "png":
        raise InvalidRequest(
            f"An address leads to a PNG file, and output_format is {wishes.output_format}.",
            "Ask for b64_json, or for png.",
            "output_format",
        )
    return wishes


def request_of(values: Mapping[str, Any], services: Services, caller: Caller) -> GenerationRequest:
    """What is to be drawn, with the pictures that came along kept for `caller`.

    Raises:
        UnknownModel: no checkpoint is called so.
        InvalidRequest: naming the first field that is wrong, as the client calls it.
        StorageFailed: a picture cannot be kept.
    """
    said = _said(values)
    ours = {field: said[name] for field, name in _their_names(values).items() if name != "size"}
    if said.get("size", _AUTO) != _AUTO:
        ours["width"], ours["height"] = map(int, said["size"].split("x"))
    if "checkpoint" in ours:
        ours["checkpoint"] = checkpoint_id(ours["checkpoint"], services.catalogue)
    given = {field: ours.pop(field) for field in SOURCE_FIELDS if field in ours}
    with in_their_words(values):
        request = parse_request(ours)
        kept = {field: kept_picture(services.sources, each, caller, field) for field, each in given.items() if each}
        return request.model_copy(update=kept)


def checkpoint_id(model: Any, catalogue: Catalogue) -> str:
    """The checkpoint that a client means by `model`.

    Raises:
        UnknownModel: there is none, with those that there are.
    """
    known = [row.id for row in catalogue.checkpoints]
    if model in known:
        return str(model)
    if isinstance(model, str) and _ALIAS.fullmatch(model):
        return catalogue.default_checkpoint
    raise UnknownModel(f"There is no model called {reprlib.repr(model)}.", f"Known: {', '.join(known)}.")


@contextmanager
def in_their_words(values: Mapping[str, Any]) -> Generator[None]:
    """Errors from inside name their field as the client does."""
    try:
        yield
    except InvalidRequest as error:
        field = error.field or ""
        raise InvalidRequest(error.message, error.hint, _their_names(values).get(field, field)) from None


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null: that is as good as missing."""
    return {name: value for name, value in values.items() if value is not None}


def _their_names(values: Mapping[str, Any]) -> dict[str, str]:
    """Each field of a request with the name under which `values` have it. Their `style` is none of ours."""
    said = _said(values)
    names = {field: field for field in GenerationRequest.model_fields if field in said and field != "style"}
    names |= {field: name for name, field in _OUR_NAMES.items() if name in said}
    return names | (dict.fromkeys(("width", "height"), "size") if said.get("size", _AUTO) != _AUTO else {})
