"""`python -m engines.pocket.build.accelerator sd15`: distil a pocket model, or go on where the last run was stopped.

The product is an adapter by which the model draws in two to eight steps without guidance what it draws in 25 with it.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from engines.devices import DTYPES, choose_device
from engines.distillation.objectives import Flash, Lcm, Objective, OwnPath
from engines.distillation.terms import Adversarial, Discriminator, DistributionMatching, Term
from engines.distillation.trainer import Batches, distil
from engines.distillation.unet_pair import UnetPair
from engines.pocket.accuracy import GUIDANCE
from engines.pocket.build.assemble import Parts, load_parts
from engines.pocket.build.denoiser import noise_schedule
from engines.pocket.build.latents import LatentSet, cache_latents, scene_at
from engines.pocket.build.recipes import RECIPES, Recipe
from engines.pocket.build.starting import new_parser, started
from engines.pocket.grammar import paraphrase
from engines.training.loop import Plan
from engines.training.lora import TrainableLora, reached
from engines.training.reach import REACHES
from engines.training.unet import Told, whole_picture
from lora_registry.export import write_adapter
from lora_registry.shrinking import shrunk
from studio.domain.distillation import FEW_STEPS, GRIDS
from studio.domain.sampling_rules import RULES_KEY, SamplingRules

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FLOAT16_BYTES = 2
NOTE = "Distilled from the model itself: two to eight steps, no guidance."


def main() -> None:
    """Distil from the command line."""
    parser = new_parser("engines.pocket.build.accelerator", __doc__)
    parser.add_argument("--teacher", type=Path, help="the finished pocket folder (engines/pocket/weights/…)")
    parser.add_argument("--out", type=Path, help="the finished adapter, a .safetensors file")
    parser.add_argument("--objective", choices=GRIDS, default="lcm")
    parser.add_argument("--start", type=Path, help="the checkpoint (lora.pt) of another objective to begin with")
    parser.add_argument("--distribution-matching", type=float, default=0.0, help="weight of this term; 0: without")
    parser.add_argument("--adversarial", type=float, default=0.0, help="weight of this term; 0: without")
    parser.add_argument("--guidance", type=float, nargs=2, default=(GUIDANCE, GUIDANCE), metavar=("LOW", "HIGH"))
    parser.add_argument("--reach", choices=REACHES, default="all", help="which layers are changed")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes whose latents are cached")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--max-mb", type=float, default=1.3, help="the adapter is made smaller until it fits")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="of the UNet's matrix products")
    options = started(parser)
    build(options)


def build(options: argparse.Namespace) -> None:
    """Distil as `options` say and write the adapter."""
    recipe = RECIPES[options.family]
    parts = load_parts(options.teacher or WEIGHTS / recipe.id, recipe)
    work = options.work or Path("data/pocket-build") / f"{recipe.id}-{options.objective}"
    work.mkdir(parents=True, exist_ok=True)
    parts.vae.eval().requires_grad_(False)
    batches = _batches(parts, recipe, options, work)
    parts.unet.set_attn_processor(AttnProcessor())
    parts.unet.to(memory_format=torch.channels_last)
    torch.manual_seed(options.seed)
    lora = TrainableLora(parts.unet, reached(parts.unet, options.reach), options.rank, options.rank)
    if options.start:
        lora.load_state_dict(torch.load(options.start, weights_only=True)["averages"]["lora"])
    dtype = choose_device("cpu", options.dtype).dtype
    pair = UnetPair(unet=parts.unet, lora=lora, prediction_type=recipe.prediction_type, dtype=dtype)
    plan = Plan(
        name="lora",
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=min(200, options.steps // 10),
        ema_decay=0.995,
    )
    terms = _terms(options, parts.unet.config.block_out_channels[-1])
    distil(pair, partial(_objective, options), batches, plan, work, terms_at=lambda step: terms)
    out = options.out or WEIGHTS / "accelerators" / f"flash-{recipe.id}.safetensors"
    factors = shrunk(lora.factors(), int(options.max_mb * 1e6 / FLOAT16_BYTES))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_adapter(out, {"unet": factors}, recipe.family, metadata=_metadata(recipe, options))


def _metadata(recipe: Recipe, options: argparse.Namespace) -> dict[str, str]:
    grid = GRIDS[options.objective]
    rules = SamplingRules(
        checkpoint=recipe.id, grid=grid, trained_steps=FEW_STEPS, max_guidance=1.0, licence="MIT", note=NOTE
    )
    return {
        RULES_KEY: rules.model_dump_json(),
        "modelspec.title": f"Pocket Flash for {recipe.id}",
        "modelspec.prediction_type": recipe.prediction_type,
        "modelspec.license": "MIT",
    }


def _objective(options: argparse.Namespace, step: int) -> Objective[Told]:
    guidance = tuple(options.guidance)
    if options.objective == "own_path":
        return OwnPath(schedule=noise_schedule(), guidance=guidance, grid=GRIDS[options.objective])
    if options.objective == "flash":
        return Flash(schedule=noise_schedule(), guidance=guidance, progress=step / options.steps)
    return Lcm(schedule=noise_schedule(), guidance=guidance)


def _terms(options: argparse.Namespace, channels: int) -> list[Term[Told]]:
    terms: list[Term[Told]] = []
    if weight := options.distribution_matching:
        guidance = sum(options.guidance) / 2
        terms.append(DistributionMatching(schedule=noise_schedule(), guidance=guidance, weight=weight))
    if weight := options.adversarial:
        terms.append(Adversarial(schedule=noise_schedule(), discriminator=Discriminator(channels), weight=weight))
    return terms


def _batches(parts: Parts, recipe: Recipe, options: argparse.Namespace, work: Path) -> Batches:
    size, seed, count = recipe.size_px, options.seed, options.batch_size
    is_own = options.objective == "own_path" and not options.adversarial
    if is_own:  # it goes by the prompts alone
        scenes = tuple(scene_at(seed, index) for index in range(options.scenes))
        shape = (count, parts.unet.config.in_channels, size // 8, size // 8)
        data = LatentSet(scenes=scenes, latents=torch.zeros(shape), seed=seed, size=size)
    else:
        data = cache_latents(parts.vae, work / "latents.pt", options.scenes, size, seed, is_framed=recipe.is_sdxl)

    def batch(step: int) -> tuple[Tensor, Told]:
        rng = np.random.default_rng([seed, 7, step])
        picks = rng.choice(len(data.scenes), size=count, p=data.shares)
        clean = data.latents if is_own else data.latents[torch.from_numpy(picks)].float()
        told = Told(
            prompt=parts.reader.read([paraphrase(data.scenes[i], rng) for i in picks]),
            negative=parts.reader.read([""]),
            time_ids=whole_picture(size, count, recipe.is_sdxl) if is_own else data.time_ids(picks),
        )
        return clean, told

    return batch


if __name__ == "__main__":
    main()
