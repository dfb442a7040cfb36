"""Time per picture, ours against plain diffusers: same folder, prompt, steps and seeds, a process each.

`python bench/generation_vs_diffusers.py --repeats 15`. The contenders take turns: one works at a time, and all meet
the machine in the same moods. The ratio is the median over turns; its interval is a bootstrap. The whole studio is
timed from handing in a request to its picture being saved and recorded, with somebody watching the previews.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.contenders import ratio_words, serve, take_turns  # noqa: E402
from engines.pocket.accuracy import GUIDANCE  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402

PROMPT = "a yellow heart above a purple square on a navy background"
FOLDER = ROOT / "engines/pocket/weights/pocket-sd15"

Make = Callable[[int], object]


def main() -> None:
    """Measure and print a Markdown table; with `--contender`, be one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(timed(CONTENDERS[options.contender](options.steps)))
        return
    times = take_turns(__file__, list(CONTENDERS), ["--steps", str(options.steps)], options.repeats)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print("\n| | median s | ratio to plain diffusers [95 %] | n |\n|---|---|---|---|")
    for name, values in times.items():
        ratio = ratio_words(values, times["plain diffusers"])
        print(f"| {name} | {np.median(values):.3f} | {ratio} | {len(values)} |")


def timed(make: Make) -> Callable[[int], float]:
    """Seconds that the picture of a seed takes."""

    def seconds(seed: int) -> float:
        started = time.perf_counter()
        make(seed)
        return time.perf_counter() - started

    return seconds


def plain(steps: int, threads: int | None = None) -> Make:
    """What a diffusers user writes, on all cores or on `threads`."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    torch.set_num_threads(threads or torch.get_num_threads())
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
    )

    def make(seed: int) -> object:
        generator = torch.Generator("cpu").manual_seed(seed)
        return pipeline(PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator).images[0]

    return make


def request_of(steps: int, seed: int) -> GenerationRequest:
    return GenerationRequest(prompt=PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE, seed=seed)


def engine(steps: int) -> Make:
    """The engine alone."""
    from studio.domain.catalogue import Catalogue
    from studio.services import CATALOGUE_PATH, load_engine
    from studio.settings import Settings

    catalogue = Catalogue.load(CATALOGUE_PATH)
    loaded = load_engine(Settings(offline=True), catalogue)

    def make(seed: int) -> object:
        recipe = catalogue.resolve(request_of(steps, seed))
        prompts = catalogue.styled(recipe)
        return loaded.generate(recipe, prompts, cancelled=lambda: False, on_step=lambda step: None).image

    return make


def studio(steps: int) -> Make:
    """Queue, engine, previews, file and database."""
    from studio.services import open_services
    from studio.settings import Settings

    services = open_services(Settings(offline=True, data_dir=Path(tempfile.mkdtemp())))

    def make(seed: int) -> object:
        return list(services.generation.submit(request_of(steps, seed)).events())

    return make


CONTENDERS: dict[str, Callable[[int], Make]] = {
    "plain diffusers": plain,
    "plain diffusers on one thread": lambda steps: plain(steps, 1),
    "our engine": engine,
    "the whole studio, previews on": studio,
}

if __name__ == "__main__":
    main()
