"""`python -m engines.pocket.build.control sd15`: teach a pocket model to draw along given edges, or go on where the
last run was stopped. The product is a ControlNet kept as what it adds to the model's own UNet."""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from engines.devices import DTYPES, choose_device
from engines.edges import edges
from engines.pocket.build.assemble import Parts, load_parts
from engines.pocket.build.denoiser import CAPTION_DROPOUT, SNR_FLOOR, SNR_GAMMA, diffuse, noise_schedule
from engines.pocket.build.latents import cache_latents, draw_scene
from engines.pocket.build.recipes import RECIPES
from engines.pocket.build.starting import new_parser, started
from engines.pocket.grammar import paraphrase
from engines.small_controls import handing_over, new_control, own_modules, packed
from engines.training.diffusion import spread_indices
from engines.training.loop import Plan, Trainee, train
from engines.training.lora import TrainableLora, reached
from lora_registry.shrinking import shrunk
from lora_registry.weights import LowRank

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
VAGUE = 0.4
"""How often a caption says nothing of place, size or relation, so that these are learnt from the edges."""


def main() -> None:
    """Train from the command line."""
    parser = new_parser("engines.pocket.build.control", __doc__)
    parser.add_argument("--out", type=Path, help="the finished file (engines/pocket/weights/controls/…)")
    parser.add_argument("--rank", type=int, default=2, help="of what is changed of the copied encoder")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=8000, help="scenes whose latents are cached")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--max-values", type=int, default=105_000, help="numbers that changes of weights may take")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="of matrix products")
    options = started(parser)
    build(options)


def build(options: argparse.Namespace) -> None:
    """Train as `options` say and write the file."""
    recipe = RECIPES[options.family]
    parts = load_parts(WEIGHTS / recipe.id, recipe)
    work = options.work or Path("data/pocket-build") / f"{recipe.id}-edges"
    work.mkdir(parents=True, exist_ok=True)
    parts.vae.eval().requires_grad_(False)
    parts.unet.eval().requires_grad_(False).set_attn_processor(AttnProcessor())
    torch.manual_seed(options.seed)
    control = new_control(parts.unet).requires_grad_(False)
    control.set_attn_processor(AttnProcessor())
    own = own_modules(control)
    for module in own.values():
        module.requires_grad_(True)
    lora = TrainableLora(control, reached(control, "all"), options.rank, options.rank, in_weights=True)
    plan = Plan(
        name="control",
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=min(200, options.steps // 10),
        ema_decay=0.995,
        seed=options.seed,
        dtype=choose_device("cpu", options.dtype).dtype,
    )
    trainee = Trainee(plan, {"lora": lora, **{name.replace(".", "_"): each for name, each in own.items()}}, work)
    trainee.resume()
    lesson = _Lesson(parts, control, plan, options, work)
    for _ in train(trainee, lesson.loss, log_every=100):
        pass
    trainee.use_averages()
    changes = shrunk({**lora.factors(), **_handed_over(control)}, options.max_values)
    lora.detach()
    scaled = {path: (low.down, low.up * (low.alpha / len(low.down))) for path, low in changes.items()}
    out = options.out or WEIGHTS / "controls" / f"edges-{recipe.id}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(packed(control, scaled), out, metadata={"modelspec.title": f"Pocket edges for {recipe.id}"})
    out.chmod(0o644)  # safetensors writes files that only their owner can read


def _handed_over(control: ControlNetModel) -> dict[str, LowRank]:
    """The weights of the convolutions that hand over, as changes of the nothing that they began as."""
    return {
        path: LowRank(
            down=torch.eye(module.in_channels)[..., None, None],
            up=module.weight.detach().clone(),
            alpha=module.in_channels,
        )
        for path, module in handing_over(control).items()
    }


class _Lesson:
    """The loss of a step: what the UNet makes of noisy latents with the edges of the picture, against the noise."""

    def __init__(
        self, parts: Parts, control: ControlNetModel, plan: Plan, options: argparse.Namespace, work: Path
    ) -> None:
        recipe = parts.recipe
        self._parts, self._control, self._plan, self._batch = parts, control, plan, options.batch_size
        self._data = cache_latents(parts.vae, work / "latents.pt", options.scenes, recipe.size_px, options.seed)
        self._schedule = noise_schedule()
        self._weights = self._schedule.snr_weights(recipe.prediction_type, SNR_GAMMA, SNR_FLOOR)

    def loss(self, step: int) -> Tensor:
        plan, data, parts = self._plan, self._data, self._parts
        rng = np.random.default_rng([plan.seed, 11, step])
        picks = rng.choice(len(data.scenes), size=self._batch, p=data.shares)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clean = data.latents[torch.from_numpy(picks)].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = spread_indices(len(self._schedule), self._batch, generator)
        noisy = diffuse(clean, noise, timesteps)
        told = parts.reader.read([self._caption(int(index), rng) for index in picks]).embeds
        with torch.autocast("cpu", plan.dtype, enabled=plan.dtype != torch.float32):
            down, middle = self._control(noisy, timesteps, told, self._hints(picks), return_dict=False)
            predicted = parts.unet(
                noisy, timesteps, told, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
        target = self._schedule.target(noisy, clean, timesteps, parts.recipe.prediction_type)
        per_image = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        return (self._weights[timesteps] * per_image).mean()

    def _caption(self, index: int, rng: np.random.Generator) -> str:
        if rng.random() < CAPTION_DROPOUT:
            return ""
        scene = self._data.scenes[index]
        if rng.random() < VAGUE:
            things = " and ".join(f"a {thing.colour} {thing.shape}" for thing in scene.things)
            return f"{things} on a {scene.background} background"
        return paraphrase(scene, rng)

    def _hints(self, picks: np.ndarray) -> Tensor:
        data = self._data
        drawn = (draw_scene(data.scenes[index], data.seed, int(index), data.size) for index in picks)
        lines = np.stack([np.asarray(edges(Image.fromarray(pixels))) for pixels in drawn])
        return torch.from_numpy(lines).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
