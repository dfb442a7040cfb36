"""Pictures that programs send along, in whatever form; no address is fetched, nobody's picture is another's."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from studio.domain.errors import InvalidRequest, NotFound
from studio.sources import Sources
from studio.web.access import Caller
from studio.web.given_pictures import Unreadable, decoded, taken

ADA, BOB = (Caller(visitor=name, owner=name) for name in ("ada", "bob"))
OWNER = Caller(visitor="local", owner=None)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def test_it_is_the_same_picture_in_every_form(sources: Sources) -> None:
    text = base64.b64encode(png()).decode()
    wrapped = "\n".join(text[at : at + 40] for at in range(0, len(text), 40))
    forms = (png(), text, wrapped, f"data:image/png;base64,{text}", f" DATA:image/png;BASE64,{text}")
    names = {taken(sources, form, ADA, "init_image") for form in forms}
    (name,) = names
    assert sources.open(name).size == (16, 8)
    assert taken(sources, name, ADA, "init_image") == name


def test_names_are_ones_own(sources: Sources) -> None:
    name = taken(sources, png(), ADA, "init_image")
    for missing in (name, "0" * 64):
        with pytest.raises(NotFound, match="no such picture here"):
            taken(sources, missing, BOB, "init_image")
    assert taken(sources, name, OWNER, "init_image") == name
    with pytest.raises(NotFound):
        taken(sources, "0" * 64, OWNER, "init_image")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.png",
        "HTTPS://example.org/a.png",
        " file:///etc/passwd",
        "ftp://a/b",
        "gopher:x",
        "blob:http://a/b",
        "javascript:1",
    ],
)
def test_an_address_is_not_fetched(address: str) -> None:
    with pytest.raises(InvalidRequest, match="at an address is not fetched") as caught:
        decoded(address, "mask")
    assert caught.value.field == "mask" and not isinstance(caught.value, Unreadable)


@pytest.mark.parametrize("given", ["", "?", "/etc/passwd", "data:image/png,abc", "data:,", 5, None, ["x"], "\ud800"])
def test_what_is_no_picture_is_said_to_be_none(given: object) -> None:
    with pytest.raises(Unreadable, match=r"The shape to keep to .*Send a PNG"):
        decoded(given, "control_image")
