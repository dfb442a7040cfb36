"""Small checkpoints of every family: the shapes of the pocket models, with weights that know nothing."""

from pathlib import Path

import torch

from engines.pocket.build.assemble import Parts, save_pipeline
from engines.pocket.build.autoencoder import new_autoencoder
from engines.pocket.build.recipes import RECIPES, Recipe
from engines.pocket.build.text import Reader, build_tokenizer, pretrain_text_encoder


def untrained(recipe: Recipe, folder: Path) -> Parts:
    """The parts of a model before any training; `folder` is for its tokenizer."""
    tokenizer = build_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    encoders = tuple(
        pretrain_text_encoder(tokenizer, plan, folder, steps=0).eval().requires_grad_(False) for plan in recipe.encoders
    )
    reader = Reader(tokenizer=tokenizer, encoders=encoders, is_sdxl=recipe.is_sdxl)
    vae = new_autoencoder(recipe.size_px, recipe.scaling_factor).eval().requires_grad_(False)
    return Parts(recipe=recipe, vae=vae, unet=recipe.new_unet(), reader=reader)


def save_untrained(family: str, folder: Path) -> None:
    """Write a checkpoint of `family` to `folder` whose UNet does not answer with zeros alone."""
    parts = untrained(RECIPES[family], folder.with_name(f"{folder.name}-work"))
    torch.manual_seed(1)
    torch.nn.init.normal_(parts.unet.conv_out.weight, std=0.05)
    save_pipeline(folder, parts)
