"""What drawing pictures at once gains: `python bench/batching.py [CHECKPOINT ...]`, pocket models by default.

Eight pictures with words and seeds of their own, singly and by 2, 4 and 8, through the engine, after one of each to
warm up; best of three. It gives rows of a table: seconds a picture (of processor time, so that they can be told on a
machine that does other things as well), how much faster that is than singly, and by how many of 256 levels a pixel
differs at most.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engines.base import Engine, Order, Picture  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402
from studio.services import CATALOGUE_PATH, load_engine  # noqa: E402
from studio.settings import Settings  # noqa: E402

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "black", "white")
TRIES = 3


def orders(checkpoint: str, catalogue: Catalogue) -> list[Order]:
    """Eight pictures that may be made at once."""
    made: list[Order] = []
    for seed, colour in enumerate(COLOURS):
        prompt = f"a large {colour} circle on a grey background"
        recipe = catalogue.resolve(GenerationRequest(prompt=prompt, checkpoint=checkpoint, seed=seed))
        made.append(Order(request=recipe, prompts=(prompt, "")))
    return made


def drawn(engine: Engine, wanted: list[Order], size: int) -> list[Picture]:
    """All of them, so many at once."""
    quiet = {"cancelled": lambda: False, "on_step": lambda step: None}
    if size == 1:
        return [engine.generate(order.request, order.prompts, **quiet) for order in wanted]
    batches = [wanted[first : first + size] for first in range(0, len(wanted), size)]
    return [picture for batch in batches for picture in engine.generate_batch(batch, **quiet)]


def main() -> None:
    """Print the rows."""
    catalogue = Catalogue.load(CATALOGUE_PATH)
    with tempfile.TemporaryDirectory() as folder:
        engine = load_engine(Settings(data_dir=Path(folder), offline=True, batching="fast"), catalogue)
        for checkpoint in sys.argv[1:] or ["pocket-sd15", "pocket-sd21", "pocket-sdxl"]:
            wanted = orders(checkpoint, catalogue)
            alone: list[np.ndarray] = []
            first = 0.0
            for size in (1, 2, 4, 8):
                drawn(engine, wanted[:size], size)
                seconds = []
                for _ in range(TRIES):
                    started = time.process_time()
                    pictures = drawn(engine, wanted, size)
                    seconds.append((time.process_time() - started) / len(wanted))
                pixels = [np.asarray(picture.image, dtype=int) for picture in pictures]
                alone, first = alone or pixels, first or min(seconds)
                differ = max(int(np.abs(one - other).max()) for one, other in zip(alone, pixels, strict=True))
                print(
                    f"| {checkpoint} | {size} | {min(seconds):.3f} | {first / min(seconds):.2f} | {differ} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
