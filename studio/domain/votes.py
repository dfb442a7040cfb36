"""What a person says of two pictures of the same prompt, without being told which system drew which."""

import secrets
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

VoteOutcome = Literal["first", "second", "tie", "both bad", "skip"]
"""`first` and `second` name the better picture; "skip" is no vote, but the pair is not shown to that person again."""
OUTCOMES: tuple[VoteOutcome, ...] = get_args(VoteOutcome)


class VoteLine(BaseModel):
    """A vote as it is kept. `place` is that of the prompt, `image` counts its pictures; `first` and `second` are the
    names of the systems in the order in which they were shown; `at` is in seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    place: int = Field(ge=0)
    image: int = Field(ge=0)
    first: str
    second: str
    outcome: VoteOutcome
    rater: str
    at: float

    @model_validator(mode="after")
    def _two_systems(self) -> Self:
        if self.first == self.second:
            raise ValueError("a vote is between two systems")
        return self

    @property
    def systems(self) -> frozenset[str]:
        return frozenset((self.first, self.second))

    @property
    def is_vote(self) -> bool:
        return self.outcome != "skip"


@dataclass(frozen=True, kw_only=True)
class VotePair:
    """Two pictures that are shown together, `first` left; the indexes are those of the evaluation's cells. `token` is
    random: a page names the pair by it, and reads nothing of the systems from it."""

    place: int
    image: int
    first: str
    second: str
    first_index: int
    second_index: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def systems(self) -> frozenset[str]:
        return frozenset((self.first, self.second))
