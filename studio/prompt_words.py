"""What `data/prompt_words.toml` says."""

import tomllib
from functools import cache
from typing import Any

from studio.settings import PROJECT_ROOT


@cache
def prompt_words() -> dict[str, Any]:
    """The whole file."""
    with (PROJECT_ROOT / "studio" / "data" / "prompt_words.toml").open("rb") as file:
        return tomllib.load(file)
