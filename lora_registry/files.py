"""Files of the store: names that cannot leave its folder, and writes that are whole or absent."""

import logging
import os
import re
import secrets
import unicodedata
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from studio.domain.errors import NotFound, StorageFailed

logger = logging.getLogger(__name__)

_MAX_NAME_BYTES = 200
"""File systems allow 255; the longest suffix and a number against collisions come on top."""
_MAX_STEM_BYTES = 100
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


def checked_id(adapter_id: str) -> str:
    """The id, if a file of the store can have that name.

    Raises:
        NotFound: it is empty, hidden, too long, or would leave the folder.
    """
    is_plain = adapter_id.isprintable() and not set(adapter_id) & set('/\\:*?"<>|')
    if not is_plain or not adapter_id.strip() or adapter_id[0] == "." or len(adapter_id.encode()) > _MAX_NAME_BYTES:
        raise NotFound(f"There is no adapter called {adapter_id[:60]!r}.", "Choose one from the list.")
    return adapter_id


def safe_stem(name: str) -> str:
    """The file name, without its suffix, under which something called `name` is kept."""
    letters = "".join(
        sign if sign.isalnum() or sign in "-_. ()+" else "-" for sign in unicodedata.normalize("NFC", name)
    )
    stem = re.sub(r"[-\s]*-[-\s]*", "-", " ".join(letters.split())).strip(" .-")
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore").strip(" .-")
    return f"adapter-{stem}".rstrip("-") if not stem or _RESERVED.fullmatch(stem) else stem


def write_whole(path: Path, blocks: Iterable[bytes]) -> None:
    """Put `blocks` at `path` so that a reader, or a crash at any instant, meets the old file or the new one.

    Raises:
        StorageFailed: the disk is full or cannot be written; what was there is intact.
    """
    partial = path.with_name(f".tmp-{secrets.token_hex(8)}")
    with storage_errors(path.name):
        try:
            # 0o666 leaves the mode to the umask; tempfile would make the file private to this user.
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(blocks)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def storage_errors(name: str) -> Generator[None]:
    """Turn an OSError about the file `name` into a StorageFailed with a next step. Its path goes to the log only."""
    try:
        yield
    except OSError as error:
        logger.warning("the adapter store failed at %s: %s", name, error)
        raise StorageFailed(
            f"{name!r} could not be stored or read: {error.strerror or 'the system does not say why'}.",
            "Check the disk and the permissions of the adapters folder, then try again.",
        ) from error
