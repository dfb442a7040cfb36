"""`/api/v1/pictures`: what the caller has drawn."""

from typing import Annotated

from pydantic import Field

from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.domain.request import Frozen
from studio.infotext import infotext
from studio.services import Services
from studio.web.own.answers import Asked, Operation
from studio.web.own.views import PictureList, PictureView, link_fields

MOST = 100
_FAR = 1_000_000_000


class PicturesQuery(Frozen):
    """Which pictures are listed."""

    q: Annotated[
        str,
        Field(
            max_length=1000,
            description="Words of the prompt, or settings such as steps:25 seed:7 is:starred. Those that were drawn to "
            "be compared show with is:compared.",
        ),
    ] = ""
    checkpoint: Annotated[str | None, Field(max_length=200, description="The id of a model.")] = None
    starred: Annotated[bool | None, Field(description="Only those with a star, or only those without.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST, description="How many at most.")] = 24
    offset: Annotated[int, Field(ge=0, le=_FAR, description="How many of the newest are left out.")] = 0


def picture_view(record: ImageRecord, services: Services) -> PictureView:
    """All that is known of `record`."""
    told = record.model_dump(include=PictureView.model_fields.keys() - {"recipe"})
    return PictureView.model_validate(
        {**told, **link_fields(record), "recipe": record.recipe, "infotext": infotext(record, services.catalogue)}
    )


def _listed(asked: Asked) -> PictureList:
    query, gallery = asked.query(PicturesQuery), asked.services.gallery
    filters, owner = {"checkpoint": query.checkpoint}, asked.caller.owner
    found = gallery.find(query.q, filters, query.starred, query.limit, query.offset, owner, compared=False)
    return PictureList(
        pictures=[picture_view(record, asked.services) for record in found],
        total=gallery.count(query.q, filters, query.starred, owner, compared=False),
        limit=query.limit,
        offset=query.offset,
    )


def _one(asked: Asked) -> PictureView:
    try:
        record = asked.services.gallery.image(asked.id_of("picture_id"))
        asked.caller.check_may_see(record.visitor, "")
    except NotFound:  # one sentence for both: nobody learns which ids there are
        raise NotFound("There is no such picture.", "It may be deleted, or somebody else's.") from None
    return picture_view(record, asked.services)


PICTURE_OPERATIONS = (
    Operation(
        method="GET", path="/pictures", title="Your pictures, newest first", run=_listed, answer=PictureList,
        query=PicturesQuery, refuses=(422,),
    ),
    Operation(
        method="GET", path="/pictures/{picture_id}", title="A picture, with its recipe", run=_one, answer=PictureView,
        refuses=(404,),
    ),
)  # fmt: skip
