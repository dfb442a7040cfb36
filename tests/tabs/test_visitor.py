from collections.abc import Callable

import pytest

from studio.domain.images import ImageRecord
from studio.services import Services
from studio.settings import Settings
from studio.web.access import new_token, visitor_of


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


@pytest.mark.parametrize(
    ("settings", "space", "expected"),
    [({}, "", True), ({"host": "0.0.0.0"}, "", False), ({"share": True}, "", False), ({}, "me/studio", False)],
)
def test_only_a_page_that_nobody_else_can_reach_shows_every_picture(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], space: str, expected: bool
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", space)
    assert Settings.model_validate(settings).is_local is expected
