"""How a picture is to be made within the memory that is there, and how much that takes."""

from dataclasses import dataclass
from typing import Literal

Placement = Literal["resident", "mapped", "model_offload", "sequential_offload"]
"""Where weights are while they do nothing: in memory; in a file from which the system reads what is used and drops what
is not (CPU); in the computer's memory part by part, or layer by layer (GPU)."""
Attention = Literal["fused", "chunked"]
SCORES_BYTES = 4 * 2**20
"""Attention scores at a time where they are computed in pieces; they stay in the cache while they are used."""
SLICED_SCORES_BYTES = 2**19
"""The same where memory is short."""

PLACEMENT_WORDS: dict[Placement, str] = {
    "resident": "everything in memory",
    "mapped": "weights read from disk as needed",
    "model_offload": "one part on the GPU at a time",
    "sequential_offload": "one layer on the GPU at a time",
}
SHORTAGE_REMEDY = "Ask for a smaller picture, choose a smaller model, or close other programs."
_GB = 2**30


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How one picture is made. `needed_bytes` is the most that it takes at once beyond what the studio itself takes,
    and `free_bytes` what there is for it.

    `is_sliced`: attention looks at few queries at a time. `is_tiled`: the VAE decodes in tiles. `is_halved`: the two
    halves of guidance are computed one after the other. None of them changes what is drawn, but the last bits.
    """

    device: str
    dtype: str
    placement: Placement
    attention: Attention = "fused"
    is_sliced: bool = False
    is_tiled: bool = False
    is_halved: bool = False
    needed_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes

    @property
    def shortage(self) -> str:
        """What it takes against what there is, for where that is not enough."""
        needed, free = gigabytes(self.needed_bytes), gigabytes(self.free_bytes)
        return f"takes about {needed} of memory at the very least, and {free} is free"

    @property
    def savings(self) -> tuple[str, ...]:
        """What is done to save memory, in words; nothing where there is enough."""
        said = {
            PLACEMENT_WORDS[self.placement]: self.placement != "resident",
            "attention in slices": self.is_sliced,
            "decoding in tiles": self.is_tiled,
            "guidance in two halves": self.is_halved,
        }
        return tuple(words for words, is_so in said.items() if is_so)

    @property
    def manner(self) -> str:
        """How memory is dealt with, in words, also where nothing has to be saved."""
        return ", ".join(self.savings) or PLACEMENT_WORDS[self.placement]

    def __str__(self) -> str:
        """The plan in a sentence or two."""
        where = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}.get(self.device, self.device)
        needed, free = gigabytes(self.needed_bytes), gigabytes(self.free_bytes)
        how = f", with {', '.join(self.savings)}" if self.savings else ""
        return f"On the {where} in {self.dtype}{how}: about {needed} of the {free} that are free."


def gigabytes(count: int) -> str:
    """`count` bytes as people say it."""
    return f"{count / _GB:.1f} GB"
