"""Time per picture, ours against plain diffusers: same folder, steps, seeds and process, turn and turn about.

`python bench/generation_vs_diffusers.py --repeats 15`. The ratio is the median over pairs; its interval is a bootstrap.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline  # noqa: E402
from scipy.stats import bootstrap  # noqa: E402

from engines.base import Step  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402
from studio.services import CATALOGUE_PATH, load_engine  # noqa: E402
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
        "plain diffusers": plain(options.steps),
        "flash studio": ours(options.steps, with_previews=False),
        "flash studio, previews on": ours(options.steps, with_previews=True),
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


def plain(steps: int) -> Callable[[int], object]:
    """What a diffusers user writes."""
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
    )

    def make(seed: int) -> object:
        generator = torch.Generator("cpu").manual_seed(seed)
        return pipeline(PROMPT, num_inference_steps=steps, guidance_scale=5.0, generator=generator).images[0]

    return make


def ours(steps: int, *, with_previews: bool) -> Callable[[int], object]:
    """The engine as the studio drives it."""
    catalogue = Catalogue.load(CATALOGUE_PATH)
    engine = load_engine(Settings(offline=True), catalogue)

    def on_step(step: Step) -> None:
        if with_previews:
            step.preview()

    def make(seed: int) -> object:
        request = GenerationRequest(prompt=PROMPT, num_inference_steps=steps, guidance_scale=5.0, seed=seed)
        recipe = catalogue.resolve(request)
        return engine.generate(recipe, catalogue.styled(recipe), cancelled=lambda: False, on_step=on_step).image

    return make


if __name__ == "__main__":
    main()
