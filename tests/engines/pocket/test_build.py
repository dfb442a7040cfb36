"""The training code: exact to resume, right by the authorities, and its product a standard folder of small files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from PIL import Image
from torch import Tensor, nn

from engines.pocket.build.assemble import load_parts, save_pipeline
from engines.pocket.build.autoencoder import (
    LATENT_STD,
    new_autoencoder,
    normalise_latents,
    picture_batch,
    round_trip,
    spread_excess,
    to_pixels,
    train_autoencoder,
)
from engines.pocket.build.decoder import Denoiser, train_decoder
from engines.pocket.build.denoiser import (
    PURE_NOISE_FROM,
    cache_latents,
    diffuse,
    hidden_weights,
    new_unet,
    snr_weights,
    spread_timesteps,
    training_scheduler,
)
from engines.pocket.build.loop import Plan, Trainee, train
from engines.pocket.build.muon import orthogonal
from engines.pocket.build.text import build_tokenizer, new_text_encoder, reading, tokenize
from engines.pocket.checker import judge
from engines.pocket.grammar import paraphrase, vocabulary
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, Thing, render
from studio.settings import PROJECT_ROOT

SEED = 31_000
POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


def small_trainee(folder: Path) -> tuple[Trainee, nn.Module]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    plan = Plan(name="small", steps=30, learning_rate=1e-2, warmup=5)
    return Trainee(plan, {"net": module}, folder, muon=[module[0].weight]), module


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


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
def test_an_orthogonal_direction_keeps_its_singular_vectors_and_levels_their_strength(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    strengths = torch.diagonal(left.mT @ orthogonal(matrices) @ right.mT, dim1=1, dim2=2)
    assert 0.6 < strengths.min() <= strengths.max() < 1.3


def test_the_first_and_last_convolution_are_not_hidden_weights() -> None:
    unet = new_unet()
    hidden = hidden_weights(unet)
    assert unet.mid_block is not None
    assert any(weight is unet.mid_block.resnets[0].conv1.weight for weight in hidden)
    assert not any(weight is unet.conv_in.weight or weight is unet.conv_out.weight for weight in hidden)


def test_noisy_latents_are_those_of_diffusers_until_only_noise_is_left() -> None:
    scheduler = training_scheduler()
    clean, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 400, PURE_NOISE_FROM - 1, PURE_NOISE_FROM])
    noisy, target = diffuse(clean, noise, timesteps, scheduler.alphas_cumprod)
    torch.testing.assert_close(noisy[:3], scheduler.add_noise(clean, noise, timesteps)[:3])
    assert torch.equal(target[:3], noise[:3])
    assert torch.equal(noisy[3], noise[3])
    alpha = scheduler.alphas_cumprod[PURE_NOISE_FROM]
    torch.testing.assert_close((noisy[3] - (1 - alpha).sqrt() * target[3]) / alpha.sqrt(), clean[3], atol=1e-5, rtol=0)


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


def test_latents_may_not_grow_to_drown_the_noise() -> None:
    latents = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents /= latents.std(dim=(0, 2, 3), keepdim=True)
    assert spread_excess(0.5 * latents + 3) == 0
    assert spread_excess(2 * latents).item() == pytest.approx(math.log(4) ** 2, rel=1e-4)


def test_pictures_survive_noise_on_their_latents() -> None:
    vae = load_parts(POCKET)[0].eval().requires_grad_(False)
    rng = np.random.default_rng(SEED)
    scenes = [sample_scene(rng) for _ in range(40)]
    pixels = to_pixels([np.asarray(render(scene, SEED + i, 128)) for i, scene in enumerate(scenes)])
    latents = vae.encode(pixels).latent_dist.mode()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    decoded = vae.decode(latents + 0.15 * LATENT_STD * noise).sample.clamp(-1, 1)
    pictures = decoded.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    verdicts = [judge(Image.fromarray(picture), scene) for picture, scene in zip(pictures, scenes, strict=True)]
    assert np.mean([verdict.correct for verdict in verdicts]) >= 0.95


def test_an_autoencoder_is_trained_further_from_where_it_is(tmp_path: Path) -> None:
    vae = load_parts(POCKET)[0]
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    train_autoencoder(vae, tmp_path, steps=1)
    changed = {key for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[0] for key in changed} >= {"encoder", "decoder"}
    assert max((value - before[key]).abs().max().item() for key, value in vae.state_dict().items()) < 1e-3
    assert not vae.training and not any(parameter.requires_grad for parameter in vae.parameters())


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


def test_a_folder_that_was_loaded_is_written_as_it_was(tmp_path: Path) -> None:
    vae, unet, encoder, tokenizer = load_parts(POCKET)
    tokenize(tokenizer, ["a red circle"])
    save_pipeline(tmp_path / "again", vae, unet, encoder, tokenizer)
    written = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        assert path.read_bytes() == (POCKET / path.relative_to(tmp_path / "again")).read_bytes(), path.name


def test_the_decoder_learns_from_estimates_and_the_encoder_stays(tmp_path: Path) -> None:
    vae, unet, encoder, tokenizer = load_parts(POCKET)
    vae.requires_grad_(False)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    data = cache_latents(vae, tmp_path / "latents.pt", 8, 128)
    denoiser = Denoiser(unet=unet.eval(), encoder=encoder.eval(), tokenizer=tokenizer)
    clean = data.latents[:4].float()
    estimate = denoiser.estimate(clean, list(data.scenes[:4]), np.random.default_rng(0))
    assert 0 < (estimate - clean).square().mean().sqrt() < 0.5
    plan = Plan(name="decoder", steps=2, learning_rate=1e-3, warmup=1)
    train_decoder(vae, denoiser, data, tmp_path, plan, 128, batch_size=2)
    moved = {key.split(".")[0] for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"post_quant_conv", "decoder"}
    assert not any(parameter.requires_grad for parameter in vae.parameters())
