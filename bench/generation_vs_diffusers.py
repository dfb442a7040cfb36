"""Time per picture, ours against plain diffusers: same folder, prompt, steps, seeds and process, turn and turn about.

`python bench/generation_vs_diffusers.py --repeats 15`. The ratio is the median over pairs; its interval is a bootstrap.
The whole studio is timed from handing in a request to its picture being saved and recorded, with somebody watching the
previews.
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
import torch  # noqa: E402
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline  # noqa: E402
from scipy.stats import bootstrap  # noqa: E402

from engines.devices import cpu_threads  # noqa: E402
from engines.pocket.accuracy import GUIDANCE  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402
from studio.services import CATALOGUE_PATH, load_engine, open_services  # noqa: E402
from studio.settings import Settings  # noqa: E402

PROMPT = "a yellow heart above a purple square on a navy background"
FOLDER = ROOT / "engines/pocket/weights/pocket-sd15"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    contenders = {
        "plain diffusers": plain(options.steps, None),
        "plain diffusers on one thread": plain(options.steps, 1),
        "our engine": engine(options.steps),
        "the whole studio, previews on": studio(options.steps),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 2):
        for name, make in contenders.items():
            started = time.perf_counter()
            make(repeat)
            if repeat >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - started)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print("\n| | median s | ratio to plain diffusers [95 %] | n |\n|---|---|---|---|")
    base = np.array(times["plain diffusers"])
    for name, values in times.items():
        ratios = np.array(values) / base
        interval = bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
        print(
            f"| {name} | {np.median(values):.3f} | {np.median(ratios):.3f} "
            f"[{interval.low:.3f}, {interval.high:.3f}] | {len(values)} |"
        )


def plain(steps: int, threads: int | None) -> Callable[[int], object]:
    """What a diffusers user writes, on all cores or on `threads`."""
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
    )

    def make(seed: int) -> object:
        generator = torch.Generator("cpu").manual_seed(seed)
        with cpu_threads(threads):
            return pipeline(PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator).images[0]

    return make


def request_of(steps: int, seed: int) -> GenerationRequest:
    return GenerationRequest(prompt=PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE, seed=seed)


def engine(steps: int) -> Callable[[int], object]:
    """The engine alone."""
    catalogue = Catalogue.load(CATALOGUE_PATH)
    loaded = load_engine(Settings(offline=True), catalogue)

    def make(seed: int) -> object:
        recipe = catalogue.resolve(request_of(steps, seed))
        prompts = catalogue.styled(recipe)
        return loaded.generate(recipe, prompts, cancelled=lambda: False, on_step=lambda step: None).image

    return make


def studio(steps: int) -> Callable[[int], object]:
    """Queue, engine, previews, file and database."""
    services = open_services(Settings(offline=True, data_dir=Path(tempfile.mkdtemp())))

    def make(seed: int) -> object:
        return list(services.generation.submit(request_of(steps, seed)).events())

    return make


if __name__ == "__main__":
    main()
