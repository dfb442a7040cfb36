"""The lists that prompts may draw from as `__name__`: the studio's own, and text files in the data folder, which go
first. A file has one choice a line; empty lines and those that begin with `#` are none."""

import difflib
import tomllib
from functools import cache
from pathlib import Path

from studio.dataset_files import is_file, is_within
from studio.domain.choices import chosen, leaves_open, lists_named
from studio.domain.errors import InvalidRequest
from studio.domain.request import ResolvedRequest
from studio.files import storage_errors
from studio.settings import PROJECT_ROOT

FOLDER = "wildcards"
"""In the data folder."""
_OWN = PROJECT_ROOT / "studio" / "data" / "wildcards.toml"
_MAX_BYTES = 1_000_000


class Wildcards:
    """Finds lists by name in `folder` (`styles/ink` is `styles/ink.txt` there) and among the studio's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """Every list that there is, in order of name."""
        files = self._folder.rglob("*.txt") if self._folder.is_dir() else ()
        own = (path.relative_to(self._folder).with_suffix("").as_posix() for path in files)
        return tuple(sorted({*_lists(), *own}))

    def lines(self, name: str) -> tuple[str, ...]:
        """The choices of a list.

        Raises:
            InvalidRequest: there is no such list, or nothing in it.
            StorageFailed: its file cannot be read.
        """
        path = self._folder / f"{name}.txt"
        if is_file(path) and is_within(self._folder.resolve(), path):
            with storage_errors(path):
                text = path.read_bytes()[:_MAX_BYTES].decode("utf-8-sig", errors="replace")
            told = (line.strip() for line in text.splitlines())
            lines = tuple(line for line in told if line and not line.startswith("#"))
        else:
            lines = _lists().get(name, ())
        if not lines:
            raise InvalidRequest(f"There is no list __{name}__ to choose from.", self._instead(name), "prompt")
        return lines

    def check(self, prompt: str) -> None:
        """Refuse a prompt that draws from a list that is not there.

        Raises:
            InvalidRequest: naming it, and one that may be meant.
        """
        for name in lists_named(prompt):
            self.lines(name)

    def decided(self, recipe: ResolvedRequest) -> ResolvedRequest:
        """The recipe of one picture with nothing left open: `prompt` is what its seed chose, `typed_prompt` what it
        chose from. One that leaves nothing open is itself."""
        if not leaves_open(recipe.prompt):
            return recipe
        prompt = chosen(recipe.prompt, recipe.seed, self.lines)
        return recipe.model_copy(update={"prompt": prompt or recipe.prompt, "typed_prompt": recipe.prompt})

    def _instead(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1)
        if close:
            return f"Is __{close[0]}__ meant?"
        known = ", ".join(self.names()[:20])
        return f"There are {known}; for one of your own, put a text file, a choice a line, into the folder {FOLDER}."


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    with _OWN.open("rb") as file:
        return {name: tuple(lines) for name, lines in tomllib.load(file).items()}
