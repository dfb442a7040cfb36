"""The training code: exact to resume, right by the authorities, and its product a standard folder of small files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from engines.pocket.build.assemble import save_pipeline
from engines.pocket.build.autoencoder import (
    LATENT_STD,
    new_autoencoder,
    normalise_latents,
    picture_batch,
    round_trip,
)
from engines.pocket.build.denoiser import new_unet, snr_weights, spread_timesteps, training_scheduler
from engines.pocket.build.loop import Plan, Trainee, train
from engines.pocket.build.text import build_tokenizer, new_text_encoder, reading
from engines.pocket.grammar import paraphrase, vocabulary
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, Thing


def small_trainee(folder: Path) -> tuple[Trainee, nn.Module]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return Trainee(Plan(name="small", steps=30, learning_rate=1e-2, warmup=5), {"net": module}, folder), module


def loss_of(module: nn.Module, step: int) -> Tensor:
    batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return (module(batch) - batch.sum(dim=1, keepdim=True)).square().mean()


def test_a_resumed_training_ends_in_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    straight, module = small_trainee(tmp_path / "straight")
    for _ in train(straight, lambda step: loss_of(module, step)):
        pass

    interrupted, stopped = small_trainee(tmp_path / "resumed")

    def stop_at_ten(step: int) -> Tensor:
        if step == 10:
            raise KeyboardInterrupt
        return loss_of(stopped, step)

    with pytest.raises(KeyboardInterrupt):
        list(train(interrupted, stop_at_ten))
    resumed, again = small_trainee(tmp_path / "resumed")
    torch.nn.init.zeros_(again[0].weight)
    assert resumed.resume()
    assert resumed.step == 10
    list(train(resumed, lambda step: loss_of(again, step)))

    for key, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert torch.equal(straight.averages["net"][key], resumed.averages["net"][key])


def test_gradients_that_are_not_finite_stop_the_training_with_its_name(tmp_path: Path) -> None:
    trainee, module = small_trainee(tmp_path)
    with pytest.raises(FloatingPointError, match="small"):
        list(train(trainee, lambda step: loss_of(module, step) * float("nan")))


def test_every_word_of_the_world_is_one_token_and_other_words_are_spelt(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    assert len(tokenizer("zebra").input_ids) > 3
    assert tokenizer.unk_token_id not in tokenizer("żółw 猫").input_ids[1:-1]
    assert tokenizer("A Yellow HEART").input_ids == tokenizer("a yellow heart").input_ids


def test_snr_weights_are_those_of_diffusers() -> None:
    scheduler = training_scheduler()
    timesteps = torch.tensor([0, 10, 250, 500, 999])
    snr = compute_snr(scheduler, timesteps)
    assert torch.allclose(snr_weights(scheduler.alphas_cumprod, floor=0.0)[timesteps], snr.clamp(max=5) / snr)


def test_spread_timesteps_cover_everything_evenly() -> None:
    drawn = torch.cat([spread_timesteps(32, torch.Generator().manual_seed(seed)) for seed in range(400)])
    assert drawn.min() == 0
    assert drawn.max() == 999
    counts = np.histogram(drawn.numpy(), bins=10, range=(0, 1000))[0]
    assert np.ptp(counts) < 0.05 * counts.mean()


def test_normalised_latents_leave_pictures_as_they_were() -> None:
    torch.manual_seed(0)
    vae = new_autoencoder().eval().requires_grad_(False)
    pixels = picture_batch(np.random.default_rng(0), 4, 64, None)
    before = round_trip(vae, pixels)
    normalise_latents(vae, size=64, batches=2)
    assert torch.allclose(round_trip(vae, pixels), before, atol=1e-4)
    rng = np.random.default_rng(1)
    latents = torch.cat([vae.encode(picture_batch(rng, 16, 64, None)).latent_dist.mode() for _ in range(2)])
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.tensor(LATENT_STD), rtol=1e-3)


def test_a_reading_names_what_stands_where() -> None:
    scene = Scene(
        background="navy",
        things=(Thing(colour="yellow", shape="heart"), Thing(colour="purple", shape="square")),
        relation="above",
    )
    answer = reading(scene, "a yellow heart above a purple square")
    assert answer["background"] == 0
    assert answer["top_colour"] > 0 and answer["bottom_shape"] > 0
    assert answer["left_colour"] == answer["centre_shape"] == 0


def test_captions_of_training_fit_the_shortened_text(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    rng = np.random.default_rng(0)
    longest = max(len(tokenizer(paraphrase(sample_scene(rng), rng)).input_ids) for _ in range(2000))
    assert longest <= 32


def test_the_folder_is_standard_and_its_files_are_small(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "pocket"
    save_pipeline(out, new_autoencoder(), new_unet(), new_text_encoder(tokenizer), tokenizer)
    pipeline = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32, safety_checker=None)
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size == 16
    assert pipeline.tokenizer("a red circle").input_ids == tokenizer("a red circle").input_ids
    assert max(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 10_000_000
