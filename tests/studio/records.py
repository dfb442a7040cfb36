"""Records and pictures for the tests of the persistence layer."""

import random
from typing import Any

from PIL import Image

from studio.domain.catalogue import Catalogue
from studio.domain.images import ImageRecord
from studio.domain.request import MAX_SEED, ResolvedRequest
from studio.domain.tags import without_tags
from studio.gallery import NewImage
from studio.settings import PROJECT_ROOT

CATALOGUE = Catalogue.load(PROJECT_ROOT / "studio" / "data" / "catalogue.toml")

PIECES = (
    "a red circle", "ÄÖÜ ß", "青い丸", "🟥🔵", "\n", ", ", ": ", '"quoted"', "\\", "Negative prompt: x", "Steps: 3",
    "Steps: 1, Sampler: Euler, Seed: 2", "(cat:1.3)", "<lora:name:0.8>", "\t", "'", "{}", "\u2028", "é" * 20, "%s",
)  # fmt: skip


def random_text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))


def recipe(**changes: Any) -> ResolvedRequest:
    values: dict[str, Any] = {
        "prompt": "a red circle",
        "negative_prompt": "",
        "checkpoint": "pocket-sd15",
        "style": "none",
        "width": 128,
        "height": 128,
        "num_inference_steps": 25,
        "guidance_scale": 5.0,
        "scheduler": "dpmpp_2m_karras",
        "seed": 7,
        "num_images": 1,
    }
    return ResolvedRequest(**(values | changes))


def random_recipe(rng: random.Random) -> ResolvedRequest:
    return recipe(
        prompt=random_text(rng) + "x",
        negative_prompt=rng.choice(("", random_text(rng))),
        checkpoint=rng.choice(CATALOGUE.checkpoints).id,
        style=rng.choice(CATALOGUE.styles).id,
        width=rng.randrange(64, 2049, 8),
        height=rng.randrange(64, 2049, 8),
        num_inference_steps=rng.randint(1, 150),
        guidance_scale=rng.choice((0.0, 1.0, 7.5, rng.uniform(0, 30))),
        scheduler=rng.choice(CATALOGUE.schedulers).id,
        decoder=rng.choice(("full", "half", "tiny")),
        seed=rng.choice((0, MAX_SEED, rng.randint(0, MAX_SEED))),
        num_images=rng.randint(1, 64),
    )


def picture(seed: int = 7, size: int = 16) -> Image.Image:
    return Image.frombytes("RGB", (size, size), random.Random(seed).randbytes(size * size * 3))


def as_run(made: ResolvedRequest) -> tuple[str, str]:
    """The prompts as the model reads them."""
    prompt, negative = CATALOGUE.styled(made)
    return without_tags(prompt), negative


def new_image(job_id: str = "job", image_index: int = 0, **changes: Any) -> NewImage:
    made = recipe(**changes)
    prompt, negative = as_run(made)
    return NewImage(
        job_id=job_id,
        visitor="local",
        image_index=image_index,
        recipe=made,
        prompt_as_run=prompt,
        negative_as_run=negative,
        environment={"device": "cpu", "checkpoint_sha256": "0123456789abcdef" * 4},
        seconds={"denoise": 0.5, "total": 0.625},
        peak_memory_mb=512.0,
    )


def record(image_id: str = "id", made: ResolvedRequest | None = None, **changes: Any) -> ImageRecord:
    values = vars(new_image()) | {"id": image_id, "created_at": 1.5, "path": f"2026-11-21/{image_id}.png"}
    values |= {"pixels_sha256": "00" * 32, "recipe": made or recipe()}
    values["prompt_as_run"], values["negative_as_run"] = as_run(values["recipe"])
    return ImageRecord(**(values | changes))
