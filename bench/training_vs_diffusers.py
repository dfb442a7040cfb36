"""A step of training a LoRA on a full-size SD 1.5, ours against diffusers' public example: seconds and memory.

`python bench/training_vs_diffusers.py`, on a stand-in with random weights that is made on the spot; neither speed nor
memory depends on what weights know. The example is `train_text_to_image_lora.py` with its defaults: at every step the
VAE encodes the pictures and CLIP reads the captions, PEFT's LoRA stands on the attention of the UNet, AdamW, no
gradient checkpointing. Ours does the same work with latents and texts that were made once. Both take turns, a process
each; with `--one-at-a-time` one is gone before the next begins, where memory does not hold both.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from PIL import Image  # noqa: E402

from bench.contenders import ratio_words, serve, take_turns  # noqa: E402
from studio.domain.catalogue import Catalogue  # noqa: E402
from studio.domain.training import TrainingPlan, parse_training, resolve_training  # noqa: E402
from studio.services import CATALOGUE_PATH, load_pool  # noqa: E402
from studio.settings import Settings  # noqa: E402

MODEL = "random-sd15"
RATE, RANK = 1e-4, 8
CAPTIONS = ("a red fox asleep in fresh snow", "a harbour in the evening", "an old lighthouse", "a bowl of plums")
Answer = dict[str, float]


def main() -> None:
    """Measure and print a Markdown table; with `--contender`, be one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["diffusers' example", "ours"])
    parser.add_argument("--one-at-a-time", action="store_true", help="where memory does not hold all contenders")
    parser.add_argument("--folder", type=Path, help="where the stand-in is, or is made; a temporary folder by default")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(CONTENDERS[options.contender](options))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print(
        "| | dtype | median s a step | times as many pictures a second | processor s | times as many | peak GB | n |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        prepare(options.folder, options.size)
        for dtype in options.dtypes:
            for line in rows(options, dtype):
                print(line, flush=True)


def rows(options: argparse.Namespace, dtype: str) -> list[str]:
    """Lines of the table, in one number format; how much faster, turn by turn, than the first contender."""
    arguments = ["--dtypes", dtype, "--size", options.size, "--batch", options.batch, "--folder", options.folder]
    together = [[name] for name in options.contenders] if options.one_at_a_time else [options.contenders]
    answers: dict[str, list[Answer]] = {}
    for names in together:
        answers |= take_turns(__file__, names, list(map(str, arguments)), options.turns, options.warm_up)
    base = next(iter(answers.values()))
    lines = []
    for name, told in answers.items():
        peak = max(answer["peak"] for answer in told) / 2**30
        columns = [name, dtype]
        for key in ("seconds", "cpu"):
            taken = [answer[key] for answer in told]
            columns += [f"{np.median(taken):.2f}", ratio_words([answer[key] for answer in base], taken)]
        lines.append(f"| {' | '.join(columns)} | {peak:.2f} | {len(told)} |")
    return lines


def prepare(folder: Path, size: int) -> None:
    """The stand-in and some pictures, where they are missing."""
    from engines.full_size import build_random

    settings = Settings(data_dir=folder, offline=True)
    if not (settings.models_dir / MODEL).is_dir():
        settings.models_dir.mkdir(parents=True, exist_ok=True)
        build_random("sd15", settings.models_dir / MODEL)
    (folder / "pictures").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for index, caption in enumerate(CAPTIONS):
        noise = Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8))
        noise.resize((size, size), Image.Resampling.BICUBIC).save(folder / "pictures" / f"{index}.png")
        (folder / "pictures" / f"{index}.txt").write_text(caption)


def ours(options: argparse.Namespace, *, is_checkpointed: bool = False) -> Callable[[int], Answer]:
    """The studio's trainer; nothing is drawn or looked at."""
    before = psutil.Process().memory_info().rss
    steps = own_steps(options, is_checkpointed=is_checkpointed)
    next(steps)  # what is made once, and a first step

    def answer(seed: int) -> Answer:
        return timed(partial(next, steps), before)

    return answer


def timed(step: Callable[[], object], before: int) -> Answer:
    """What `step` takes: seconds on the clock, and of the processor, which other work on the machine does not change;
    memory in bytes beyond `before`."""
    import torch

    from engines.memory import PeakMemory

    peak, started, worked = PeakMemory(torch.device("cpu")), time.perf_counter(), time.process_time()
    step()
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return {"seconds": seconds, "cpu": cpu, "peak": peak.megabytes() * 2**20 - before}


def own_steps(options: argparse.Namespace, *, is_checkpointed: bool) -> Iterator[int]:
    """Steps of a real run."""
    from engines.devices import DTYPES
    from engines.training.control import Control
    from engines.training.lora_run import LoraTraining
    from engines.training.preparing import Compute
    from studio.checkpoints import OwnCheckpoints
    from studio.training import training_items

    (dtype,) = options.dtypes
    settings = Settings(data_dir=options.folder, offline=True, device="cpu", dtype=dtype)
    catalogue = Catalogue.load(CATALOGUE_PATH)
    OwnCheckpoints(settings.models_dir, catalogue).refresh()
    plan = plan_of(options, catalogue)
    control = Control(check=lambda: None, tell=lambda event: None)
    with tempfile.TemporaryDirectory() as run, load_pool(settings).lease(catalogue.checkpoint(MODEL)) as loaded:
        items = training_items(options.folder / "pictures")
        cache = settings.cache_dir / dtype
        compute = Compute(dtype=DTYPES[dtype], is_checkpointed=is_checkpointed)
        training = LoraTraining(loaded, plan, items, Path(run), cache, control, compute)
        learnt, _ = training._gathered()
        yield from training._steps(training._trainee(), learnt)


def plan_of(options: argparse.Namespace, catalogue: Catalogue) -> TrainingPlan:
    """What the example does by default, as the studio is asked for it."""
    asked = {
        "name": "bench", "folder": str(options.folder / "pictures"), "checkpoint": MODEL, "num_steps": 100_000,
        "batch_size": options.batch, "size": options.size, "crop": "centre", "rank": RANK, "reach": "attention",
        "learning_rate": RATE, "text_learning_rate": 0.0, "schedule": "constant", "snr_gamma": 0.0,
        "caption_dropout": 0.0, "look_every": 100_000,
    }  # fmt: skip
    return resolve_training(parse_training(asked), catalogue, len(CAPTIONS))


def example(options: argparse.Namespace) -> Callable[[int], Answer]:
    """What diffusers' example does at a step, by the same calls of diffusers, PEFT and accelerate."""
    before = psutil.Process().memory_info().rss
    step = example_step(options)
    step()

    def answer(seed: int) -> Answer:
        return timed(step, before)

    return answer


def example_step(options: argparse.Namespace) -> Callable[[], None]:
    """Opens everything as the example does; gives what it does once a batch."""
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig
    from transformers import CLIPTextModel

    (dtype,) = options.dtypes
    is_mixed = dtype != "float32"
    accelerator = Accelerator(mixed_precision="bf16" if is_mixed else "no", cpu=True)
    weight_dtype = torch.bfloat16 if is_mixed else torch.float32
    place = Settings(data_dir=options.folder).models_dir / MODEL
    noise_scheduler: Any = DDPMScheduler.from_pretrained(place, subfolder="scheduler")
    text_encoder: Any = CLIPTextModel.from_pretrained(place, subfolder="text_encoder", dtype=torch.float32)
    vae: Any = AutoencoderKL.from_pretrained(place, subfolder="vae", torch_dtype=torch.float32)
    unet: Any = UNet2DConditionModel.from_pretrained(place, subfolder="unet", torch_dtype=torch.float32)
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False)
        part.to(accelerator.device, dtype=weight_dtype)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets))
    layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer: Any = torch.optim.AdamW(layers, lr=RATE, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    rates: Any = get_scheduler("constant", optimizer=optimizer, num_warmup_steps=500, num_training_steps=15_000)
    loader: Any = torch.utils.data.DataLoader(examples(options, place), shuffle=True, batch_size=options.batch)
    unet, optimizer, loader, rates = accelerator.prepare(unet, optimizer, loader, rates)
    unet.train()
    batches = (batch for _ in range(100_000) for batch in loader)

    def step() -> None:
        pixels, tokens = next(batches)
        with accelerator.accumulate(unet):
            latents = vae.encode(pixels.to(dtype=weight_dtype)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (len(latents),)).long()
            noisy = noise_scheduler.add_noise(latents, noise, timesteps)
            told = text_encoder(tokens, return_dict=False)[0]
            said = unet(noisy, timesteps, told, return_dict=False)[0]
            loss = F.mse_loss(said.float(), noise.float(), reduction="mean")
            accelerator.gather(loss.repeat(len(latents))).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(layers, 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()

    return step


def examples(options: argparse.Namespace, place: Path) -> Any:
    """Pictures as tensors in [-1, 1] and captions as tokens: opening them is left out of the example's time."""
    import torch
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer")
    made = []
    for index, caption in enumerate(CAPTIONS):
        array = np.asarray(Image.open(options.folder / "pictures" / f"{index}.png").convert("RGB"))
        pixels = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
        told: Any = tokenizer(caption, max_length=77, padding="max_length", truncation=True, return_tensors="pt")
        made.append((pixels, told.input_ids[0]))
    return made


CONTENDERS: dict[str, Callable[[argparse.Namespace], Callable[[int], Answer]]] = {
    "diffusers' example": example,
    "ours": ours,
    "ours, parts computed twice": partial(ours, is_checkpointed=True),
}

if __name__ == "__main__":
    main()
