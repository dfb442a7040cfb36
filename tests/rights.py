"""Tests without the rights of root, who may read and write anything and so never meets what others do."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534
HAS_RIGHTS = hasattr(os, "seteuid")


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder that anybody may write; until the end, root is nobody, and everybody else stays who they are."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        before = os.geteuid()
        if before == 0:
            os.seteuid(_NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)
