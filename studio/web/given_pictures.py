"""Pictures that programs send along: files of a form, base64 in JSON, or the name of one that is kept. No address is
fetched."""

import base64
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from studio.domain.errors import InvalidRequest, NotFound
from studio.sources import Sources
from studio.web.access import Caller

_NAME = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_SPACES = b" \t\r\n\f\v"
_CALLED = {"mask": "The mask", "control_image": "The shape to keep to"}


class Unreadable(InvalidRequest):
    """What is given as a picture is no base64."""


def taken(
    sources: Sources,
    given: object,
    caller: Caller,
    field: str,
    read: Callable[[Path], Path | Image.Image] = lambda path: path,
) -> str:
    """Keep a picture that `caller` gives for `field` of our request; gives the name that a recipe has for it. The file
    is `read` as what it is to be kept as, unless the name of an earlier one was given.

    Raises:
        InvalidRequest: it is none, or lies at an address.
        NotFound: no picture of theirs has that name.
        StorageFailed: it cannot be kept.
    """
    if isinstance(given, str) and _NAME.fullmatch(given):
        return _kept_before(sources, given, caller, field)
    with as_file(given if isinstance(given, bytes) else decoded(given, field), field) as path:
        return sources.take(read(path), caller.visitor, field)


def decoded(given: object, field: str) -> bytes:
    """The file in a JSON value: base64, bare or in a `data:` address.

    Raises:
        Unreadable: it is no such text.
        InvalidRequest: it is another address.
    """
    what, hint = called(field), "Send a PNG, JPEG or WebP picture, as a file or in base64."
    if not isinstance(given, str):
        raise Unreadable(f"{what} is no file and no base64.", hint, field)
    if _ADDRESS.match(given):
        raise InvalidRequest("A picture at an address is not fetched.", "Send the picture itself, in base64.", field)
    text = given
    if given.lstrip()[:5].lower() == "data:":
        header, _, text = given.partition(",")
        text = text if header.lower().endswith(";base64") else ""
    try:
        content = base64.b64decode(text.encode("ascii").translate(None, _SPACES), validate=True)
    except ValueError:
        raise Unreadable(f"{what} is no base64.", hint, field) from None
    if not content:
        raise Unreadable(f"{what} is empty, or no base64.", hint, field)
    return content


@contextmanager
def as_file(content: bytes, field: str) -> Generator[Path]:
    """A file of `content`, for as long as it is looked at. What is wrong with one is said by its name."""
    with TemporaryDirectory() as folder:
        path = Path(folder, called(field))
        path.write_bytes(content)
        yield path


def called(field: str) -> str:
    """What a sentence calls the picture of `field`."""
    return _CALLED.get(field, "The picture")


def _kept_before(sources: Sources, name: str, caller: Caller, field: str) -> str:
    missing = NotFound("There is no such picture here.", "Send the picture itself.")
    if caller.owner is not None and not sources.is_of(caller.visitor, name):
        raise missing
    try:
        return sources.take(name, caller.visitor, field)
    except NotFound:
        raise missing from None
