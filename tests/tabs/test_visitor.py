from collections.abc import Callable

from studio.domain.images import ImageRecord
from studio.services import Services
from tabs.visitor import new_token, visitor_of


def test_a_picture_that_is_passed_on_does_not_hold_the_token(
    services: Services, keep: Callable[[str], ImageRecord]
) -> None:
    token = new_token()
    record = keep(token)
    assert token.encode() not in services.gallery.path(record).read_bytes()
    assert token not in services.gallery.image(record.id).model_dump_json()


def test_a_token_has_one_owner_and_anything_else_has_none() -> None:
    token = new_token()
    assert visitor_of(token) == visitor_of(token) != visitor_of(new_token())
    assert visitor_of("short") == visitor_of(None) == visitor_of({"a": 1}) == ""
