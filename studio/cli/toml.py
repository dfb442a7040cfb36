"""TOML files that a person gives."""

import tomllib
from pathlib import Path
from typing import Any

from studio.domain.errors import InvalidRequest


def read_toml(path: str, field: str, example: str) -> dict[str, Any]:
    """What the file at `path` says; `field` names the flag that it was given with.

    Raises:
        InvalidRequest: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        raise InvalidRequest(f"{path} cannot be read.", "Give a TOML file in UTF-8.", field) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{path} is no TOML: {error}.", f"Write lines such as {example}.", field) from None
