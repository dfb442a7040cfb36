"""A prompt as the text encoder reads it: in chunks of as many tokens as it takes, each token with its weight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.domain.prompt_syntax import Section, sections

_BACK = 20
"""So many tokens after its last comma a full chunk may give back, so that no phrase is torn."""


@dataclass(frozen=True)
class Chunk:
    """Tokens without those that begin and end every chunk, and what each counts."""

    tokens: list[int] = field(default_factory=list[int])
    weights: list[float] = field(default_factory=list[float])

    def __len__(self) -> int:
        return len(self.tokens)


def room(tokenizer: Any) -> int:
    """How many tokens a chunk takes, besides the two that begin and end it: 75 for all CLIP text encoders here."""
    return tokenizer.model_max_length - 2


def chunks_of(tokenizer: Any, prompt: str) -> list[Chunk]:
    """The chunks of a prompt, one at least. Each `BREAK` begins a new one, and so does what does not fit."""
    return [chunk for section in sections(prompt) for chunk in _of_section(tokenizer, section)]


def _of_section(tokenizer: Any, section: Section) -> Iterator[Chunk]:
    comma = _tokens(tokenizer, ",")[-1:]
    most = room(tokenizer)
    tokens, weights = _weighed(tokenizer, section)
    while len(tokens) > most:
        end = _end(tokens, most, comma)
        yield Chunk(tokens[:end], weights[:end])
        tokens, weights = tokens[end:], weights[end:]
    yield Chunk(tokens, weights)


def _weighed(tokenizer: Any, section: Section) -> tuple[list[int], list[float]]:
    tokens: list[int] = []
    weights: list[float] = []
    for span in section:
        new = _tokens(tokenizer, span.text)
        tokens += new
        weights += [span.weight] * len(new)
    return tokens, weights


def _end(tokens: Sequence[int], most: int, comma: Sequence[int]) -> int:
    """Where a full chunk ends: behind its last comma if that is near its end."""
    for end in range(most, max(0, most - _BACK), -1):
        if tokens[end - 1] in comma:
            return end
    return most


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
