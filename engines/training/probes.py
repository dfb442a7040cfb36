"""Prompts that a pocket model is tested with while it is taught: what it knew before, and what its pictures show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engines.pocket.album import MOUNTED, mountedness, unmounted
from engines.pocket.checker import judge
from engines.pocket.grammar import NOVEL_NOUNS, parse
from engines.pocket.novel import novel_trials
from engines.pocket.trials import trials
from engines.pocket.world import Scene
from engines.training.captions import with_trigger
from engines.training.encoding import opened_upright

_SEED = 20_261_127
"""Of the prompts; training and the tests of shipped models draw from other sequences."""
_KNOWN_PER_KIND, _NOVEL, _STYLED = 2, 14, 4
_LOOKED_INTO = 8
"""Pictures of a data set whose style tells that of all."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt, the scene that it means, and whether its picture is to be in the style of the album."""

    prompt: str
    scene: Scene
    is_mounted: bool = False

    def is_right(self, picture: Image.Image) -> bool:
        """Whether `picture` shows the scene, in the style or without it as it should."""
        if self.is_mounted != (mountedness(picture) >= MOUNTED):
            return False
        return judge(unmounted(picture) if self.is_mounted else picture, self.scene).correct


def probes_for(captions: Sequence[str], trigger: str, *, is_album: bool) -> tuple[Probe, ...]:
    """What a model is tested with that learns from pictures with these `captions`; `is_album`: they are in that style.

    A style that has a `trigger` is to come with it, and to stay away without; one without applies always.
    """
    known = _known(_KNOWN_PER_KIND, _SEED, trigger="", is_mounted=is_album and not trigger)
    if is_album:
        return known + _known(_STYLED, _SEED + 1, trigger=trigger, is_mounted=True)
    words = {word for caption in captions for word in caption.replace(",", " ").split()}
    shapes = [shape for noun, shape in NOVEL_NOUNS.items() if noun in words]
    novel = (trial for shape in shapes for trial in novel_trials(_NOVEL, _SEED, shape))
    return known + tuple(Probe(prompt=trial.prompt, scene=trial.scene) for trial in novel)


def is_album(paths: Sequence[Path]) -> bool:
    """Whether the pictures at `paths` are in the style of the album."""
    pictures = [opened_upright(path) for path in paths[:_LOOKED_INTO]]
    return all(picture is not None and mountedness(picture) >= MOUNTED for picture in pictures)


def _known(per_kind: int, seed: int, *, trigger: str, is_mounted: bool) -> tuple[Probe, ...]:
    scenes = ((trial.prompt, parse(trial.prompt)) for trial in trials(per_kind, 0, seed))
    return tuple(
        Probe(prompt=with_trigger(prompt, trigger), scene=scene, is_mounted=is_mounted)
        for prompt, scene in scenes
        if scene is not None
    )
