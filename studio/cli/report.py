"""How a command ended, for a person and for a program."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from studio.cli.delivery import Picture
from studio.domain.request import ResolvedRequest

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130
"""Exit codes: done, failed, asked wrongly, stopped by Ctrl+C (128 and the number of SIGINT, as shells have it)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`is_stopped`: by Ctrl+C. `is_abandoned`: the job did not come to its end while we waited."""

    status: Literal["finished", "failed", "cancelled"]
    error: str = ""
    is_stopped: bool = False
    is_abandoned: bool = False

    @property
    def exit_code(self) -> int:
        if self.is_stopped:
            return STOPPED
        return DONE if self.status == "finished" else FAILED


@dataclass(frozen=True)
class Report:
    """What was asked, what came of it and what it took; `seconds` include the loading of the model."""

    outcome: Outcome
    recipe: ResolvedRequest
    pictures: tuple[Picture, ...]
    seconds: float

    @property
    def peak_memory_mb(self) -> float:
        """Of the pictures that were drawn; 0 if none was."""
        return max((picture.record.peak_memory_mb for picture in self._drawn), default=0.0)

    @property
    def _drawn(self) -> list[Picture]:
        return [picture for picture in self.pictures if not picture.is_earlier]

    def document(self) -> str:
        """The report as JSON."""
        values = {
            "status": self.outcome.status,
            "error": self.outcome.error or None,
            "recipe": self.recipe.model_dump(),
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": self.peak_memory_mb,
            "pictures": [_values(picture) for picture in self.pictures],
        }
        return json.dumps(values, indent=2, ensure_ascii=False)

    def summary(self) -> str:
        """The report as one sentence."""
        made, asked = len(self.pictures), self.recipe.num_images
        if self.outcome.status != "finished":
            return f"{self.outcome.status.capitalize()}: {made} of {asked} pictures are finished and kept."
        told = f"{made} {'picture' if made == 1 else 'pictures'} in {self.seconds:.1f} s"
        if not self._drawn:
            return f"{told}; nothing was drawn again (--again draws it)."
        earlier = made - len(self._drawn)
        tail = f"; {earlier} of them made before (--again draws all)" if earlier else ""
        return f"{told}, peak memory {self.peak_memory_mb:,.0f} MB{tail}."


def _values(picture: Picture) -> dict[str, Any]:
    record = picture.record
    return {
        "path": str(picture.path),
        "gallery_path": str(picture.gallery_path),
        "id": record.id,
        "seed": record.recipe.seed,
        "made_before": picture.is_earlier,
        "recipe": record.recipe.model_dump(),
        "seconds": record.seconds,
        "peak_memory_mb": record.peak_memory_mb,
    }
