"""How many tokens a prompt takes and where a long one is parted, before any model is loaded. No torch."""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from engines.prompt_chunks import chunks_of, room
from studio.domain.catalogue import Checkpoint
from studio.domain.choices import settled
from studio.domain.prompt_syntax import plain_words
from studio.domain.tags import without_tags
from studio.settings import PROJECT_ROOT

_MERGES = 48_894
"""Of CLIP's vocabulary (Radford et al., 2021), which Stable Diffusion's text encoders read all with."""
_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_FIRST = 6
"""Tokens by which the beginning of a chunk is shown."""


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """`total` tokens in chunks of `room` at most, and how each chunk but the first begins."""

    total: int
    room: int
    beginnings: tuple[str, ...]

    @property
    def words(self) -> str:
        """What is said of it."""
        if not self.beginnings:
            return f"{self.total} of {self.room} tokens"
        told = ", then ".join(f"“{beginning} …”" for beginning in self.beginnings)
        return (
            f"{self.total} tokens, read in {len(self.beginnings) + 1} chunks of up to {self.room}: parted before {told}"
        )


def count_tokens(checkpoint: Checkpoint, prompt: str) -> TokenCount:
    """How `checkpoint` reads a prompt; tags of adapters take none, and of what is left open the first is counted."""
    reader = _reader(checkpoint.folder if checkpoint.is_pocket else None)
    chunks = chunks_of(reader, without_tags(settled(prompt)))
    return TokenCount(
        total=sum(map(len, chunks)),
        room=room(reader),
        beginnings=tuple(plain_words(reader.words(chunk.tokens[:_FIRST])) for chunk in chunks[1:]),
    )


class _Reader:
    """A tokenizer of the `tokenizers` library, as `engines.prompt_chunks` asks for one."""

    model_max_length = 77

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.input_ids: list[int] = []

    def __call__(self, text: str, **_: object) -> "_Reader":
        read = _Reader(self._tokenizer)
        read.input_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return read

    def words(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens).strip()


@lru_cache(maxsize=8)
def _reader(folder: str | None) -> _Reader:
    """That of a pocket model, which has a vocabulary of its own, else CLIP's."""
    path = PROJECT_ROOT / (folder or "") / "tokenizer" / "tokenizer.json"
    tokenizer: Any = Tokenizer.from_file(str(path)) if folder and path.is_file() else _clip()
    tokenizer.decoder = decoders.BPEDecoder(suffix=_END)
    return _Reader(tokenizer)


def _clip() -> Any:
    """CLIP's tokenizer, of the merges that come with open_clip."""
    pairs = [(first, second) for first, second in (line.split() for line in _merges())]
    signs = list(_byte_signs())
    names = [*signs, *(sign + _END for sign in signs), *(first + second for first, second in pairs)]
    vocabulary = {name: place for place, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    made: Any = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix=_END, unk_token="<|endoftext|>")
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return made


def _merges() -> list[str]:
    found = find_spec("open_clip")  # finding it does not load it
    assert found is not None and found.origin is not None
    with gzip.open(Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as file:
        return file.read().split("\n")[1 : _MERGES + 1]


def _byte_signs() -> list[str]:
    """The sign that stands for each byte, in the order of the vocabulary: printable ones are themselves (GPT-2)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return [*map(chr, kept), *(chr(256 + place) for place in range(len(others)))]
