"""Which files of a Hugging Face repository make a pipeline: its words, and one set of weights for each part.

Names only: nothing here asks the network or reads a file.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INDEX_NAME = "model_index.json"
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")

_STEM = r"(diffusion_pytorch_model|model)"
_WHOLE = re.compile(rf"{_STEM}(\.fp16)?\.safetensors")
_SHARD = re.compile(rf"{_STEM}(\.fp16)?-\d{{5}}-of-(?P<count>\d{{5}})(\.fp16)?\.safetensors")
_SHARD_INDEX = re.compile(rf"{_STEM}\.safetensors(\.fp16)?\.index(\.fp16)?\.json")
_WORDS = re.compile(r"[\w.-]+\.(json|txt)")
_WEIGHTLESS = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "Extractor")


class Unusable(Exception):
    """Nothing can be fetched from a repository. The text says why, and follows its id in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A repository that holds a pipeline. `vae_hub_id` names one whose root holds a better autoencoder for it."""

    hub_id: str
    revision: str | None = None
    vae_hub_id: str | None = None

    def __str__(self) -> str:
        return self.hub_id if self.revision is None else f"{self.hub_id} ({self.revision})"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file by its path in the repository, and by the one it gets in the finished folder."""

    path: str
    target: str


def parts_of(index: Any) -> dict[str, str]:
    """The parts that model_index.json lists, each with its class. The safety checker is not one: the studio's
    pipelines run without it.

    Raises:
        Unusable: it is not the index of a pipeline.
    """
    if not isinstance(index, Mapping):
        raise Unusable("is not a diffusers pipeline")
    parts = {name: row[1] for name, row in index.items() if isinstance(row, list) and len(row) == 2 and row[1]}
    parts.pop("safety_checker", None)
    if not parts or not all(name.isidentifier() for name in parts):  # a name becomes a folder of this machine
        raise Unusable("is not a diffusers pipeline")
    return parts


def choose(names: Collection[str], parts: Mapping[str, str], *, prefer_half: bool) -> tuple[Wanted, ...]:
    """Pick from a repository's file names what its `parts` need.

    Raises:
        Unusable: a part is missing, incomplete, or there as a pickle only.
    """
    wanted = [Wanted(path=INDEX_NAME, target=INDEX_NAME)]
    for part, class_name in parts.items():
        wanted += choose_part(names, part, class_name, prefer_half=prefer_half)
    return tuple(wanted)


def choose_part(
    names: Iterable[str], part: str, class_name: str, *, prefer_half: bool, folder: str | None = None
) -> list[Wanted]:
    """The files of one part, which lies in `folder` ("" for the root; the part's own name unless told).

    Raises:
        Unusable: as for `choose`.
    """
    prefix = f"{part if folder is None else folder}/".removeprefix("/")
    inside = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    words = {name: name for name in inside if _WORDS.fullmatch(name) and ".index." not in name}
    has_weights = not class_name.endswith(_WEIGHTLESS)
    if not _is_readable(words, class_name, has_weights):
        raise Unusable(f"has no complete {part}")
    chosen = {**words, **(_weights(inside, part, prefer_half) if has_weights else {})}
    return [Wanted(path=prefix + name, target=f"{part}/{target}") for name, target in chosen.items()]


def _is_readable(words: Collection[str], class_name: str, has_weights: bool) -> bool:
    if has_weights:
        return "config.json" in words
    if "Tokenizer" in class_name:
        return "tokenizer.json" in words or {"vocab.json", "merges.txt"} <= set(words)
    return bool(words)


def _weights(inside: list[str], part: str, prefer_half: bool) -> dict[str, str]:
    """Name → name in the finished folder, for the preferred precision if it is there, else for the other."""
    for half in (prefer_half, not prefer_half):
        found = _one_set([name for name in inside if (".fp16" in name) == half])
        if found:
            return found
    if any(name.endswith(PICKLE_SUFFIXES) for name in inside):
        raise Unusable(f"has its {part} only as a pickle, which can run code")
    raise Unusable(f"has no complete {part}")


def _one_set(names: list[str]) -> dict[str, str]:
    """One file, or all shards with their index; empty when neither is complete.

    Diffusers asks for a variant by name, so what says fp16 is renamed to what it looks for without one. Shards keep
    their names: the index spells them out.
    """
    for name in names:
        if _WHOLE.fullmatch(name):
            return {name: name.replace(".fp16", "")}
    shards = {name: int(match["count"]) for name in names if (match := _SHARD.fullmatch(name))}
    indexes = [name for name in names if _SHARD_INDEX.fullmatch(name)]
    if not indexes or set(shards.values()) != {len(shards)}:
        return {}
    return {**{name: name for name in shards}, indexes[0]: indexes[0].replace(".fp16", "")}
