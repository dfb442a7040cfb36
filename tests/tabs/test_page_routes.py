from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.domain.images import ImageRecord
from studio.services import Services
from studio.web.page_routes import page_routes


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=page_routes(services))) as opened:
        yield opened


def test_a_picture_is_its_very_file(client: TestClient, services: Services, keep: Callable[[str], ImageRecord]) -> None:
    record = keep("local")
    answer = client.get(f"/pictures/{record.id}.png", params={"download": "1"})
    assert answer.content == services.gallery.path(record).read_bytes()
    assert answer.headers["content-disposition"].startswith("attachment")
    assert client.get(f"/pictures/{record.id}/thumb").headers["content-type"] == "image/webp"


@pytest.mark.parametrize("path", ["/pictures/unknown.png", "/pictures/unknown/thumb", "/pictures/..%2f..%2fapp.py.png"])
def test_an_unknown_picture_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
