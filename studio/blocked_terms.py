"""Words that a host does not have drawn. A fence and no wall: it knows words, not what they mean."""

import re
import unicodedata

from studio.domain.errors import InvalidRequest
from studio.domain.prompt_syntax import plain_words

_WORD = re.compile(r"\w+")


class BlockedTerms:
    """Refuses prompts that have one of `terms` in them, each a word or several that follow each other.

    Compared are whole words without regard to case, accents that are written apart, signs that nobody sees, weights and
    brackets: `(Cat:1.3)` is "cat", and "category" is not.
    """

    def __init__(self, terms: tuple[str, ...]) -> None:
        self._terms: tuple[str, ...] = tuple(words for words in map(_words, terms) if words)

    def allow(self, prompt: str) -> bool:
        """Whether `prompt` has none of them."""
        if not self._terms:
            return True
        texts = [f" {_words(plain_words(prompt))} ", f" {_words(prompt)} "]
        return not any(f" {term} " in text for text in texts for term in self._terms)

    def check(self, *prompts: str) -> None:
        """Raises InvalidRequest, which does not say what the terms are, where one of `prompts` has one."""
        if not all(map(self.allow, prompts)):
            raise InvalidRequest(
                "This prompt has a word that the host of this studio does not have drawn, so say it without.",
                field="prompt",
            )


def _words(text: str) -> str:
    seen = "".join(sign for sign in unicodedata.normalize("NFKC", text) if unicodedata.category(sign) != "Cf")
    return " ".join(found[0] for found in _WORD.finditer(seen.casefold()))
