"""What a second pass, a strength and a mask do to what pocket models draw: `python bench/beginnings.py`.

A second pass is compared with drawing at the larger size at once, and with plain enlargement.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from engines.base import Start
from engines.pocket.checker import judge, see
from engines.pocket.grammar import parse
from studio.domain.catalogue import Catalogue
from studio.domain.request import GenerationRequest
from studio.services import CATALOGUE_PATH, load_engine
from studio.settings import Settings

CHECKPOINTS = ("pocket-sd15", "pocket-sd21", "pocket-sdxl")
PROMPTS = (
    "a red circle on a white background",
    "a blue star on a cream background",
    "a yellow heart above a purple square on a navy background",
    "a green triangle left of an orange ring on a black background",
    "three blue stars on a cream background",
    "a large pink diamond on a mint background",
)
SCALE = 1.5
STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
SOME_NAME = "0" * 64
CIRCLE = "a red circle on the left on a white background"
SQUARE = "a blue square on the right on a white background"
BOTH = "a red circle left of a yellow heart on a white background"

Draw = Callable[..., Image.Image]


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=12, help="pictures for each way")
    options = parser.parse_args()
    catalogue = Catalogue.load(CATALOGUE_PATH)
    with tempfile.TemporaryDirectory() as folder:
        engine = load_engine(Settings(data_dir=Path(folder), offline=True), catalogue)

        def draw(start: Start | None = None, **values: Any) -> Image.Image:
            named: dict[str, Any] = {
                "init_image": SOME_NAME if start else "",
                "mask": SOME_NAME if start and start.mask else "",
            }
            recipe = catalogue.resolve(GenerationRequest(**values, **named))
            return engine.generate(
                recipe, (recipe.prompt, ""), start=start, cancelled=lambda: False, on_step=lambda step: None
            ).image

        for checkpoint in CHECKPOINTS:
            side = round(catalogue.checkpoint(checkpoint).native_size * SCALE / 8) * 8
            second_pass(checkpoint, draw, options.num, side)
            strengths(checkpoint, draw, options.num)
            masks(checkpoint, draw, options.num)


def second_pass(checkpoint: str, draw: Draw, num: int, side: int) -> None:
    """How many pictures are right in each way of making one `SCALE` times as large, `side` pixels."""
    right: dict[str, int] = {}
    for index in range(num):
        prompt, common = PROMPTS[index % len(PROMPTS)], {"checkpoint": checkpoint, "seed": 20 + index}
        scene = parse(prompt)
        assert scene is not None
        small = draw(prompt=prompt, **common)
        ways = {
            "native size": small,
            "enlarged, not refined": small.resize((side, side), Image.Resampling.LANCZOS),
            "large at once": draw(prompt=prompt, width=side, height=side, **common),
        }
        for upscaler, strength in (
            ("lanczos", 0.3),
            ("lanczos", 0.5),
            ("lanczos", 0.7),
            ("latent", 0.5),
            ("latent", 0.7),
        ):
            again = {"hires_scale": SCALE, "hires_strength": strength, "hires_upscaler": upscaler}
            ways[f"second pass, {upscaler}, {strength:g}"] = draw(prompt=prompt, **common, **again)
        for name, image in ways.items():
            right[name] = right.get(name, 0) + judge(image, scene).correct
    for name, count in right.items():
        print(f"{checkpoint}: {name}: {count} of {num} right", flush=True)


def strengths(checkpoint: str, draw: Draw, num: int) -> None:
    """Of a red circle on the left, drawn over as a blue square on the right: how many are blue, square, moved."""
    for strength in STRENGTHS:
        blue = square = moved = 0
        for seed in range(num):
            source = draw(prompt=CIRCLE, checkpoint=checkpoint, seed=seed)
            objects = see(
                draw(Start(image=source), prompt=SQUARE, checkpoint=checkpoint, seed=seed + 50, strength=strength)
            ).objects
            blue += any(each.colour == "blue" for each in objects)
            square += any(each.shape == "square" for each in objects)
            moved += any(each.x > 0.5 for each in objects)
        print(f"{checkpoint}: strength {strength:g}: {blue} blue, {square} square, {moved} moved, of {num}", flush=True)


def masks(checkpoint: str, draw: Draw, num: int) -> None:
    """How often a yellow heart comes where a mask lies over the right half, beside a red circle that stays."""
    for strength in (0.75, 0.9, 1.0):
        found = 0
        for seed in range(num):
            source = draw(prompt=CIRCLE, checkpoint=checkpoint, seed=seed)
            mask = Image.new("L", source.size, 0)
            mask.paste(255, (source.width // 2, 0, *source.size))
            start = Start(image=source, mask=mask)
            drawn = draw(start, prompt=BOTH, checkpoint=checkpoint, seed=seed + 50, strength=strength)
            seen = {(each.colour, each.shape) for each in see(drawn).objects}
            found += {("red", "circle"), ("yellow", "heart")} <= seen
        print(f"{checkpoint}: mask, strength {strength:g}: {found} of {num} show both", flush=True)


if __name__ == "__main__":
    main()
