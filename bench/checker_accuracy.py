"""Measure how well the checker reads pictures whose content is known: `python -m bench.checker_accuracy --markdown`.

Pictures are fresh renders of random scenes, as drawn and spoilt in three ways, half of them of combinations that
training never sees. Each is judged against its own scene (right answer: correct) and against foils that differ from it
in one attribute (right answer: not correct, for that very reason).
"""

import engines  # noqa: F401  (before diffusers: see engines/torchvision_names.py)

# isort: split
import argparse
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter

from engines.pocket.build.autoencoder import round_trip, to_pixels
from engines.pocket.checker import SeenObject, compare, see
from engines.pocket.sampling import MIXTURE, sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, Scene, layout, render

Spoil = Callable[[Image.Image, np.random.Generator], Image.Image]
POCKET = Path(__file__).resolve().parent.parent / "engines/pocket/weights/pocket-sd15"
_FIRST_SEED = 50_000_000  # Far from the seeds of any training.


def degrade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add noise (standard deviation 12 of 255), blur by 1 pixel and squeeze through JPEG of quality 75."""
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 12, (image.height, image.width, 3))
    blurred = _to_image(noisy).filter(ImageFilter.GaussianBlur(1))
    file = io.BytesIO()
    blurred.save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


def drift(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Spoil as an autoencoder does: soft edges that ring, and colours that drift by up to 10 of 255, unevenly."""
    small = (image.width * 5 // 8, image.height * 5 // 8)
    soft = image.resize(small, Image.Resampling.LANCZOS).resize(image.size, Image.Resampling.LANCZOS)
    ringing = np.asarray(soft.filter(ImageFilter.UnsharpMask(1.5, 40, 0)), dtype=np.float32)
    patches = [Image.fromarray(rng.uniform(-6, 6, (4, 4)).astype(np.float32)) for _ in range(3)]
    uneven = np.stack([np.asarray(patch.resize(image.size, Image.Resampling.BICUBIC)) for patch in patches], axis=-1)
    return _to_image(ringing + uneven + rng.uniform(-4, 4, 3) + rng.normal(0, 2, ringing.shape))


def through_vae(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Encode with the VAE of pocket-sd15 and decode again."""
    decoded = round_trip(_pocket_vae(), to_pixels([np.asarray(image)]))
    return _to_image(decoded[0].add(1).mul(127.5).permute(1, 2, 0).numpy())


@cache
def _pocket_vae() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(POCKET, subfolder="vae", dtype=torch.float32)


CONDITIONS: dict[str, Spoil] = {
    "clean": lambda image, rng: image,
    "noise, blur, JPEG": degrade,
    "ringing, drift": drift,
    "VAE and back": through_vae,
}


def foils(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, Scene]]:
    """Yield `(skill, scene)`: scenes that differ from `scene` in one attribute, and the skill that tells them apart."""
    thing, rest = scene.things[0], scene.things[1:]
    taken = {(other.colour, other.shape) for other in rest}
    used = {other.colour for other in scene.things}

    def pick(options: list[str]) -> str:
        return options[int(rng.integers(len(options)))]

    def swap(**changes: object) -> Scene:
        return replace(scene, things=(replace(thing, **changes), *rest))  # type: ignore[arg-type]

    unlike = (thing.colour, scene.background)
    yield "colour", swap(colour=pick([c for c in COLOURS if c not in unlike and (c, thing.shape) not in taken]))
    yield "shape", swap(shape=pick([s for s in SHAPES if s != thing.shape and (thing.colour, s) not in taken]))
    others = [b for b in BACKGROUNDS if b != scene.background and b not in used]
    yield "background", replace(scene, background=pick(others))
    if scene.relation is not None:
        yield "relation", replace(scene, relation=pick([r for r in RELATIONS if r != scene.relation]))
    if rest:
        if thing.colour != rest[0].colour and thing.shape != rest[0].shape:
            swapped = (replace(thing, colour=rest[0].colour), replace(rest[0], colour=thing.colour))
            yield "presence", replace(scene, things=swapped)
        return
    number = int(rng.choice([n for n in (1, 2, 3) if n != thing.count]))
    yield "count", swap(count=number, size="medium", place=None)
    if thing.place is not None:
        yield "place", swap(place=pick([p for p in PLACES if p != thing.place]))
    if thing.count == 1:
        yield "size", swap(size=pick([s for s in ("small", "large") if s != thing.size]))


class Tally:
    """Counts of what the checker got right, under one condition."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.foils_right: Counter[str] = Counter()
        self.foils_asked: Counter[str] = Counter()
        self.shapes: Counter[tuple[str, str]] = Counter()
        self.colours: Counter[tuple[str, str]] = Counter()
        self.seconds = 0.0

    def add(self, kind: str, seed: int, spoil: Spoil, size: int) -> None:
        """Draw, spoil, see and judge one picture of `kind`."""
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, kind, held_out=bool(seed % 2))
        picture = spoil(render(scene, seed, size), rng)
        started = time.process_time()
        sighting = see(picture)
        self.right[kind] += compare(sighting, scene).correct
        self.seconds += time.process_time() - started
        self.asked[kind] += 1
        for skill, foil in foils(scene, rng):
            verdict = compare(sighting, foil)
            self.foils_right[skill] += not verdict.correct and verdict.asked[skill] is False
            self.foils_asked[skill] += 1
        for placed in layout(scene, seed):
            seen = _nearest(placed.x, placed.y, sighting.objects)
            self.shapes[placed.shape, "missed" if seen is None else seen.shape or "unknown"] += 1
            self.colours[placed.colour, "missed" if seen is None else seen.colour or "unknown"] += 1


def _nearest(x: float, y: float, objects: tuple[SeenObject, ...]) -> SeenObject | None:
    near = [seen for seen in objects if np.hypot(seen.x - x, seen.y - y) < 0.1]
    return min(near, key=lambda seen: np.hypot(seen.x - x, seen.y - y), default=None)


def _to_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _share(right: int, asked: int) -> str:
    """Percentage with its 95 % Wilson interval."""
    z2 = 1.96**2
    share = right / asked
    middle, half = share + z2 / (2 * asked), 1.96 * np.sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    low, high = (100 * (middle + sign * half) / (1 + z2 / asked) for sign in (-1, 1))
    return f"{100 * share:.2f} % [{low:.2f}, {high:.2f}]"


def _table(header: list[str], rows: list[list[str]], markdown: bool) -> str:
    if markdown:
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    )


def _confusions(counts: Counter[tuple[str, str]], names: list[str], markdown: bool) -> str:
    seen = [*names, *(extra for extra in ("unknown", "missed") if any(counts[name, extra] for name in names))]
    rows = [[name, *(str(counts[name, other] or "·") for other in seen)] for name in names]
    return _table(["drawn \\ seen", *seen], rows, markdown)


def _percent(right: int, asked: int) -> str:
    return f"{100 * right / asked:.2f} %" if asked else "-"


def report(tallies: dict[str, Tally], markdown: bool) -> str:
    """Lay out what was counted, as text or Markdown."""
    head = "### " if markdown else ""
    rows = []
    for condition, tally in tallies.items():
        total, right = tally.asked.total(), tally.right.total()
        kinds = [_percent(tally.right[kind], tally.asked[kind]) for kind in MIXTURE]
        pace = f"{1000 * tally.seconds / total:.1f}"
        rows.append([condition, str(total), _share(right, total), *kinds, pace])
    parts = [f"{head}Pictures judged correct against their own scene (the kinds share n equally)"]
    parts.append(_table(["pictures", "n", "all [95 % interval]", *MIXTURE, "ms each"], rows, markdown))
    parts.append(f"{head}Foils that differ in one attribute, rejected for that very reason")
    asked = next(iter(tallies.values())).foils_asked
    rows = [
        [skill, str(asked[skill]), *(_percent(t.foils_right[skill], t.foils_asked[skill]) for t in tallies.values())]
        for skill in asked
    ]
    parts.append(_table(["differs in", "n", *tallies], rows, markdown))
    for condition, tally in tallies.items():
        parts += [f"{head}Shapes, {condition}", _confusions(tally.shapes, list(SHAPES), markdown)]
        parts += [f"{head}Colours, {condition}", _confusions(tally.colours, list(COLOURS), markdown)]
    return "\n\n".join(parts)


def main() -> None:
    """Run the measurement that the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="pictures per condition")
    parser.add_argument("--size", type=int, default=128, help="side of each picture in pixels")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    arguments = parser.parse_args()
    tallies = {condition: Tally() for condition in CONDITIONS}
    for condition, tally in tallies.items():
        for number in range(arguments.pictures):
            # Ten in a row: every kind once of seen and once of unseen combinations.
            kind = list(MIXTURE)[number // 2 % len(MIXTURE)]
            tally.add(kind, _FIRST_SEED + number, CONDITIONS[condition], arguments.size)
    print(report(tallies, arguments.markdown))


if __name__ == "__main__":
    main()
