"""Draw scenes at random: the training mixture, and the combinations that training never sees."""

from collections.abc import Sequence

import numpy as np

from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, Scene, Thing

MIXTURE = {"single": 0.16, "size": 0.30, "place": 0.06, "pair": 0.38, "count": 0.10}
"""Share of each kind of scene in training. Binding is learnt last, and thin arms, small or large,
are the hardest to draw, so those weigh most."""

_COLOUR_NAMES, _BACKGROUND_NAMES = tuple(COLOURS), tuple(BACKGROUNDS)


def is_held_out(colour: str, shape: str, background: str) -> bool:
    """Tell whether this combination is kept out of training (one in ten).

    The pattern leaves every colour × shape, colour × background and shape × background pair in training.
    """
    index = 3 * _COLOUR_NAMES.index(colour) + 4 * SHAPES.index(shape) + 7 * _BACKGROUND_NAMES.index(background)
    return index % 10 == 0


def has_held_out(scene: Scene) -> bool:
    """Tell whether any object of `scene` is a combination that training never sees."""
    return any(is_held_out(thing.colour, thing.shape, scene.background) for thing in scene.things)


def sample_scene(rng: np.random.Generator, kind: str | None = None, held_out: bool = False) -> Scene:
    """Draw a scene of `kind` (by default from `MIXTURE`) whose combinations are all seen in training,
    or, with `held_out`, one that holds at least one unseen combination."""
    kind = kind or str(rng.choice(list(MIXTURE), p=list(MIXTURE.values())))
    while True:
        scene = _draw(rng, kind)
        if scene is not None and has_held_out(scene) == held_out:
            return scene


def _draw(rng: np.random.Generator, kind: str) -> Scene | None:
    background = choose(_BACKGROUND_NAMES, rng)
    colours = [name for name in _COLOUR_NAMES if name != background]
    colour, shape = choose(colours, rng), choose(SHAPES, rng)
    if kind == "pair":
        second = Thing(colour=choose(colours, rng), shape=choose(SHAPES, rng))
        if (second.colour, second.shape) == (colour, shape):
            return None
        relation = None if rng.random() < 0.1 else choose(tuple(RELATIONS), rng)
        return Scene(background=background, things=(Thing(colour=colour, shape=shape), second), relation=relation)
    thing = Thing(
        colour=colour,
        shape=shape,
        size=choose(("small", "large"), rng) if kind == "size" else "medium",
        place=choose(tuple(PLACES), rng) if kind == "place" else None,
        count=int(rng.integers(2, 4)) if kind == "count" else 1,
    )
    return Scene(background=background, things=(thing,))


def choose(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of `options`, each as likely."""
    return options[int(rng.integers(len(options)))]
