"""Full-size families at their native sizes, ours against plain diffusers: time per step, of a picture, and memory.

`python bench/full_size.py --families sd15 sd21 sdxl`, on stand-ins with random weights (`python -m studio models
build-random FAMILY`), built where they are missing; neither speed nor memory depends on what weights know. A picture of
30 steps is reckoned from its parts: text + 30 steps + decoding. Both contenders compute in the number format that the
studio chooses here, with guidance.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from bench.contenders import ratio_words, serve, take_turns  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.request import GenerationRequest  # noqa: E402
from studio.services import CATALOGUE_PATH  # noqa: E402
from studio.settings import Settings  # noqa: E402

PROMPT = "a red fox asleep in fresh snow, soft evening light"
STEPS_OF_A_PICTURE = 30
GUIDANCE = 7.5
COLUMNS = (
    "family", "px", "", "text s", "step s", "decode s", "30 steps s", "ratio", "peak GB", "predicted GB",
    "share of the matrix peak",
)  # fmt: skip
Answer = dict[str, float]


def main() -> None:
    """Measure and print Markdown tables; with `--contender`, be one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["sd15", "sd21", "sdxl"])
    parser.add_argument("--size", type=int, help="px; the native size of each family by default")
    parser.add_argument("--steps", type=int, default=3, help="steps that are drawn; the first is not counted")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--one-at-a-time", action="store_true", help="where all contenders do not fit into memory")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(CONTENDERS[options.contender](options.families[0], options.size, options.steps))
        return
    settings, catalogue = Settings.from_environment(), Catalogue.load(CATALOGUE_PATH)
    peak = matrix_peak()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, matrix peak {peak / 1e9:.0f} GFLOP/s\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for family in options.families:
        build_if_missing(family, settings)
        size = options.size or catalogue.family(family).native_size
        arguments = ["--families", family, "--size", str(size), "--steps", str(options.steps)]
        together = [[name] for name in options.contenders] if options.one_at_a_time else [options.contenders]
        answers: dict[str, list[Answer]] = {}
        for names in together:
            answers |= take_turns(__file__, names, arguments, options.turns, options.warm_up)
        for line in rows(family, size, answers, peak):
            print(line, flush=True)


def rows(family: str, size: int, answers: dict[str, list[Answer]], peak: float) -> list[str]:
    """Lines of the table, ratios to the first; the share of the peak is that of the UNet's products alone."""
    flops = unet_flops(family, size)
    base = [whole(answer) for answer in next(iter(answers.values()))]
    lines = []
    for name, told in answers.items():
        middle = {key: float(np.median([answer[key] for answer in told])) for key in told[0]}
        totals = [whole(answer) for answer in told]
        lines.append(
            f"| {family} | {size} | {name} | {middle['text']:.2f} | {middle['step']:.2f} | {middle['decode']:.2f} "
            f"| {np.median(totals):.0f} | {ratio_words(totals, base)} | {middle['peak'] / 2**30:.2f} "
            f"| {middle['predicted'] / 2**30:.2f} | {100 * flops / middle['step'] / peak:.0f} % |"
        )
    return lines


def whole(answer: Answer) -> float:
    """Seconds of a whole picture."""
    return answer["text"] + STEPS_OF_A_PICTURE * answer["step"] + answer["decode"]


def matrix_peak(side: int = 4096) -> float:
    """FLOP/s of a square product in the number format that the studio chooses here, the best of five."""
    import torch

    from engines.devices import choose_device

    matrix = torch.randn(side, side).to(choose_device().dtype)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times[1:])


def unet_flops(family: str, size: int) -> int:
    """Of one step with guidance: matrix products, convolutions and attention of a batch of two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet: Any = empty_unet(family)
        added = {"text_embeds": torch.empty(2, 1280), "time_ids": torch.empty(2, 6)} if family == "sdxl" else None
        noisy, told = torch.empty(2, 4, size // 8, size // 8), torch.empty(2, 77, unet.config.cross_attention_dim)
        unet(noisy, torch.tensor(500), told, added_cond_kwargs=added)
    return counter.get_total_flops()


def empty_unet(family: str) -> Any:
    """The UNet of a family, without numbers in a `meta` context."""
    from diffusers import UNet2DConditionModel

    from engines.full_size import family_folder

    config: Any = UNet2DConditionModel.load_config(family_folder(family) / "unet")
    return UNet2DConditionModel.from_config(config)


def folder_of(family: str, settings: Settings) -> Path:
    return settings.models_dir / f"random-{family}"


def build_if_missing(family: str, settings: Settings) -> None:
    from engines.full_size import build_random

    if not folder_of(family, settings).is_dir():
        settings.models_dir.mkdir(parents=True, exist_ok=True)
        build_random(family, folder_of(family, settings))


def plain(family: str, size: int, steps: int) -> Callable[[int], Answer]:
    """What a diffusers user writes, in the number format that suits this machine."""
    import torch
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

    from engines.devices import choose_device
    from engines.memory import PeakMemory

    before = psutil.Process().memory_info().rss
    folder = folder_of(family, Settings.from_environment())
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, dtype=choose_device().dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)

    def answer(seed: int) -> Answer:
        peak, marks = PeakMemory(torch.device("cpu")), [time.perf_counter()]
        handle = pipeline.unet.register_forward_pre_hook(lambda *_: marks.append(time.perf_counter()))
        generator = torch.Generator("cpu").manual_seed(seed)
        ends: list[float] = []

        def after(_: object, index: int, timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            ends.append(time.perf_counter())
            return {}

        pipeline(
            PROMPT, height=size, width=size, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=generator,
            callback_on_step_end=after,
        )  # fmt: skip
        handle.remove()
        return {
            "text": marks[1] - marks[0],
            "step": float(np.mean(np.diff(ends))),
            "decode": time.perf_counter() - ends[-1],
            "peak": peak.megabytes() * 2**20 - before,
            "predicted": float("nan"),
        }

    return answer


def ours(family: str, size: int, steps: int, lora_rank: int = 0) -> Callable[[int], Answer]:
    """The studio's engine, with an adapter for every attention of the UNet where `lora_rank` is not 0."""
    from engines.base import Step
    from studio.checkpoints import OwnCheckpoints
    from studio.services import load_engine

    settings, catalogue = Settings.from_environment(), Catalogue.load(CATALOGUE_PATH)
    OwnCheckpoints(settings.models_dir, catalogue).refresh()
    engine = load_engine(settings, catalogue)
    asked = GenerationRequest(
        prompt=PROMPT, checkpoint=f"random-{family}", width=size, height=size, num_inference_steps=steps,
        guidance_scale=GUIDANCE,
    )  # fmt: skip
    before = psutil.Process().memory_info().rss
    plan = engine.plan(catalogue.resolve(asked).single(0))
    engine.preload(catalogue.checkpoint(f"random-{family}"))
    adapters = [attention_lora(family, lora_rank)] if lora_rank else []

    def answer(seed: int) -> Answer:
        recipe = catalogue.resolve(asked.model_copy(update={"seed": seed}))
        ends: list[float] = []

        def on_step(step: Step) -> None:
            ends.append(time.perf_counter())

        picture = engine.generate(recipe, (PROMPT, ""), adapters, cancelled=lambda: False, on_step=on_step)
        return {
            "text": picture.seconds["text"],
            "step": float(np.mean(np.diff(ends))),
            "decode": picture.seconds["decode"],
            "peak": picture.peak_memory_mb * 2**20 - before,
            "predicted": float(plan.needed_bytes),
        }

    return answer


def attention_lora(family: str, rank: int) -> Any:
    """A random adapter in kohya's layout, in a temporary file."""
    import torch
    from safetensors.torch import save_file

    from engines.base import ChosenAdapter
    from studio.domain.tags import AdapterUse

    with torch.device("meta"):
        unet: Any = empty_unet(family)
    tensors = {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = torch.randn(rank, module.in_features) * 1e-3
            tensors[f"{key}.lora_up.weight"] = torch.randn(module.out_features, rank) * 1e-3
    path = Path(tempfile.mkdtemp()) / "random.safetensors"
    save_file(tensors, path)
    return ChosenAdapter(use=AdapterUse(adapter="random"), path=path)


CONTENDERS: dict[str, Callable[[str, int, int], Callable[[int], Answer]]] = {
    "plain diffusers": plain,
    "ours": ours,
    "ours, a LoRA of rank 16": lambda family, size, steps: ours(family, size, steps, 16),
}

if __name__ == "__main__":
    main()
