"""Who asks over HTTP: a person by their token, or nobody but this one request."""

import base64

import pytest
from starlette.requests import Request

from studio.domain.errors import InvalidRequest, NotFound
from studio.settings import Settings
from studio.web.access import caller_of, idempotency_key, new_token, visitor_of


def request(**headers: str) -> Request:
    raw = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


def basic(name: str, password: str = "x") -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.mark.parametrize("how", ["header", "basic"])
def test_a_token_is_a_person_wherever_it_stands(how: str) -> None:
    token = new_token()
    asked = request(x_flash_visitor=token) if how == "header" else request(authorization=basic(token))
    for settings in (Settings(), Settings(share=True)):
        assert caller_of(asked, settings).visitor == visitor_of(token)


def test_an_idempotency_key_is_a_person_for_want_of_another() -> None:
    token, key = new_token(), "1f0c7d3e-9a52-4c0e-8f2f-0d3a5b6c7d8e"
    settings = Settings(share=True)
    assert caller_of(request(idempotency_key=key), settings) == caller_of(request(idempotency_key=key), settings)
    assert caller_of(request(idempotency_key=key, x_flash_visitor=token), settings).visitor == visitor_of(token)
    with pytest.raises(InvalidRequest, match="300 characters"):
        idempotency_key(request(idempotency_key="k" * 300))


@pytest.mark.parametrize("key", ["", "1f0c7d3e-9a52-4c0e-8f2f-0d3a5b6c7d8e"])
def test_on_a_page_of_ones_own_everybody_is_its_owner(key: str) -> None:
    caller = caller_of(request(idempotency_key=key), Settings())
    assert caller.visitor == "local" and caller.owner is None
    caller.check_may_see("somebody", "Not yours.")


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", basic("short"), basic(""), "Bearer abc"])
def test_elsewhere_a_request_without_a_token_stands_for_itself(header: str) -> None:
    callers = [caller_of(request(authorization=header), Settings(share=True)) for _ in range(2)]
    assert callers[0].visitor != callers[1].visitor
    assert all(caller.owner == caller.visitor and len(caller.visitor) == 32 for caller in callers)
    with pytest.raises(NotFound):
        callers[0].check_may_see(callers[1].visitor, "Not yours.")
