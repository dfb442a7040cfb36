"""The training code: exact to resume, right by the authorities, and its product a standard folder of small files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from engines.pocket.build.assemble import load_parts, save_pipeline
from engines.pocket.build.autoencoder import (
    new_autoencoder,
    normalise_latents,
    picture_batch,
    round_trip,
    spread_excess,
    to_pixels,
    train_autoencoder,
)
from engines.pocket.build.borrowing import borrow_unet
from engines.pocket.build.decoder import estimate, train_decoder
from engines.pocket.build.denoiser import (
    PURE_NOISE_FROM,
    Denoiser,
    diffuse,
    hidden_weights,
    noise_schedule,
    train_denoiser,
    training_scheduler,
)
from engines.pocket.build.latents import cache_latents, draw_scene, framing_at
from engines.pocket.build.recipes import RECIPES
from engines.pocket.build.text import (
    Reader,
    build_tokenizer,
    new_text_encoder,
    pretrain_text_encoder,
    reading,
    tokenize,
)
from engines.pocket.checker import judge
from engines.pocket.grammar import paraphrase, vocabulary
from engines.pocket.sampling import sample_scene
from engines.pocket.world import Scene, Thing, render
from engines.training.loop import Plan, Trainee, train
from engines.training.muon import orthogonal
from studio.settings import PROJECT_ROOT
from tests.engines.small import untrained

SEED = 31_000
POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
SD15 = RECIPES["sd15"]
LATENT_STD = 1 / SD15.scaling_factor


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


def test_rough_directions_in_short_numbers_lead_the_same_way(tmp_path: Path) -> None:
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        trainee, module = small_trainee(tmp_path)
        trainee.optimizers[1]._dtype = dtype
        for step in range(30):
            trainee.update(loss_of(module, step))
        ends.append(float(loss_of(module, 99).detach()))
    first = float(loss_of(small_trainee(tmp_path)[1], 99).detach())
    assert max(ends) < 0.9 * first and abs(ends[0] - ends[1]) < 0.01 * first


def test_the_first_and_last_convolution_are_not_hidden_weights() -> None:
    unet = SD15.new_unet()
    hidden = hidden_weights(unet)
    assert unet.mid_block is not None
    assert any(weight is unet.mid_block.resnets[0].conv1.weight for weight in hidden)
    assert not any(weight is unet.conv_in.weight or weight is unet.conv_out.weight for weight in hidden)


def test_noisy_latents_are_those_of_diffusers_until_only_noise_is_left() -> None:
    scheduler = training_scheduler()
    clean, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 400, PURE_NOISE_FROM - 1, PURE_NOISE_FROM])
    noisy = diffuse(clean, noise, timesteps)
    torch.testing.assert_close(noisy[:3], scheduler.add_noise(clean, noise, timesteps)[:3])
    assert torch.equal(noisy[3], noise[3])


def test_targets_are_those_of_diffusers_and_lead_back_to_the_clean_latents() -> None:
    scheduler = training_scheduler()
    clean, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([20, 400, PURE_NOISE_FROM - 1, PURE_NOISE_FROM])
    noisy = diffuse(clean, noise, timesteps)
    velocity = scheduler.get_velocity(clean, noise, timesteps)
    schedule = noise_schedule()
    of_noise = schedule.target(noisy, clean, timesteps, "epsilon")
    torch.testing.assert_close(of_noise[:3], noise[:3], atol=1e-4, rtol=0)
    of_velocity = schedule.target(noisy, clean, timesteps, "v_prediction")
    torch.testing.assert_close(of_velocity[:3], velocity[:3], atol=1e-4, rtol=0)
    torch.testing.assert_close(schedule.clean_from(noisy, of_noise, timesteps, "epsilon"), clean, atol=1e-4, rtol=0)
    again = schedule.clean_from(noisy, of_velocity, timesteps, "v_prediction")
    torch.testing.assert_close(again, clean, atol=1e-4, rtol=0)


def test_every_word_of_the_world_is_one_token_and_other_words_are_spelt(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    assert len(tokenizer("zebra").input_ids) > 3
    assert tokenizer.unk_token_id not in tokenizer("żółw 猫").input_ids[1:-1]
    assert tokenizer("A Yellow HEART").input_ids == tokenizer("a yellow heart").input_ids


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
    vae = load_parts(POCKET, SD15).vae.eval().requires_grad_(False)
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
    vae = load_parts(POCKET, SD15).vae
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


@pytest.mark.parametrize("family", RECIPES)
def test_the_folder_is_standard_and_its_files_are_small(tmp_path: Path, family: str) -> None:
    parts = untrained(RECIPES[family], tmp_path)
    told = parts.reader.read(["a red circle", ""])
    out = tmp_path / "pocket"
    save_pipeline(out, parts)
    pipeline = DiffusionPipeline.from_pretrained(out, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size * 8 == parts.recipe.size_px
    assert pipeline.scheduler.config.prediction_type == parts.recipe.prediction_type
    embeds = pipeline.encode_prompt(
        "a red circle", device=torch.device("cpu"), do_classifier_free_guidance=False, num_images_per_prompt=1
    )
    # Half the precision of a float16 file.
    torch.testing.assert_close(embeds[0], told.embeds[:1], atol=2e-2, rtol=0)
    if told.pooled is not None:
        torch.testing.assert_close(embeds[2], told.pooled[:1], atol=2e-2, rtol=0)
    picture = pipeline("a red circle", num_inference_steps=1, height=64, width=64).images[0]
    assert picture.size == (64, 64)
    assert max(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 10_000_000


def test_sd21_reads_the_penultimate_layer_by_leaving_the_last_out(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    (plan,) = RECIPES["sd21"].encoders
    torch.manual_seed(0)
    whole = new_text_encoder(tokenizer, plan).eval()
    ids = tokenize(tokenizer, ["a red circle"])
    with torch.no_grad():
        expected = whole.final_layer_norm(whole(ids, output_hidden_states=True).hidden_states[-2])
        read = pretrain_text_encoder(tokenizer, plan, tmp_path / "work", steps=0).eval()(ids).last_hidden_state
    torch.testing.assert_close(read, expected)


def test_a_borrowed_reader_says_what_it_said(tmp_path: Path) -> None:
    lender = load_parts(POCKET, SD15).reader
    (plan,) = RECIPES["sd21"].encoders
    encoder = pretrain_text_encoder(
        lender.tokenizer, plan, tmp_path, steps=2, reader=lender.encoders[0], batch_size=4
    ).eval()
    reader = Reader(tokenizer=lender.tokenizer, encoders=(encoder,))
    captions = ["a yellow heart above a purple square on a navy background"]
    assert torch.equal(reader.read(captions).embeds, lender.read(captions).embeds)


@pytest.mark.parametrize(("family", "least"), [("sd21", 0.99), ("sdxl", 0.75)])
def test_most_of_a_unet_is_borrowed(family: str, least: float) -> None:
    lender = load_parts(POCKET, SD15).unet
    unet = RECIPES[family].new_unet()
    assert borrow_unet(unet, lender) > least
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    mine, theirs = unet.state_dict()[name], lender.state_dict()[name]
    kept = torch.arange(len(mine)) * len(theirs) // len(mine)
    assert torch.equal(mine[:, : theirs.shape[1]], theirs[kept])
    assert not mine[:, theirs.shape[1] :].any()


def test_a_narrower_unet_takes_of_joined_inputs_each_parts_own_channels() -> None:
    lender, unet = load_parts(POCKET, SD15).unet, RECIPES["sd21"].new_unet()
    borrow_unet(unet, lender)
    name = "up_blocks.1.resnets.0.conv1.weight"  # hidden states of 160 channels, 192 there; 128 from the way down
    mine, theirs = unet.state_dict()[name], lender.state_dict()[name]
    assert (mine.shape[1], theirs.shape[1]) == (160 + 128, 192 + 128)
    assert torch.equal(mine[:, 160:], theirs[:, 192:])
    assert torch.equal(mine[:, :160], theirs[:, torch.arange(160) * 192 // 160])


def test_further_blocks_of_a_transformer_add_nothing_at_first() -> None:
    unet = RECIPES["sdxl"].new_unet()
    borrow_unet(unet, load_parts(POCKET, SD15).unet)
    block = unet.mid_block.attentions[0].transformer_blocks[1]
    hidden, told = torch.randn(1, 9, 128), torch.randn(1, 5, 224)
    with torch.no_grad():
        assert torch.equal(block(hidden, encoder_hidden_states=told), hidden)


def test_a_borrowed_unet_predicts_what_its_lender_does_when_told_the_same() -> None:
    lender = load_parts(POCKET, SD15)
    unet = replace(RECIPES["sd21"], deepest_width=SD15.deepest_width).new_unet()
    borrow_unet(unet, lender.unet)
    told = lender.reader.read(["a red circle"]).embeds
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = lender.unet(noisy, 500, told).sample
        torch.testing.assert_close(unet(noisy, 500, told).sample, expected, atol=1e-4, rtol=0)


def test_what_sdxl_is_told_of_a_picture_is_how_it_was_cut() -> None:
    frames = [framing_at(3, index, 192) for index in range(400)]
    assert 0.4 < np.mean([frame.original_px == 192 for frame in frames]) < 0.6
    enlarged = [frame for frame in frames if frame.original_px < 192]
    cropped = [frame for frame in frames if frame.original_px > 192]
    assert len(enlarged) > 50 and len(cropped) > 50
    assert all(frame.top == frame.left == 0 for frame in enlarged)
    assert all(0 <= max(frame.top, frame.left) <= frame.original_px - 192 for frame in cropped)
    index = next(index for index, frame in enumerate(frames) if frame.original_px > 192)
    scene = sample_scene(np.random.default_rng(0), "single")
    frame, whole = frames[index], render(scene, 3 * 10_000_000 + index, frames[index].original_px)
    box = (frame.left, frame.top, frame.left + 192, frame.top + 192)
    assert np.array_equal(draw_scene(scene, 3, index, 192, is_framed=True), np.asarray(whole.crop(box)))


@pytest.mark.parametrize("family", RECIPES)
def test_a_denoiser_learns_from_framed_pictures_too(tmp_path: Path, family: str) -> None:
    recipe = RECIPES[family]
    parts = untrained(recipe, tmp_path)
    data = cache_latents(parts.vae, tmp_path / "latents.pt", 4, 64, is_framed=recipe.is_sdxl)
    before = {key: value.clone() for key, value in parts.unet.state_dict().items()}
    plan = Plan(name="unet", steps=2, learning_rate=1e-3, warmup=1)
    train_denoiser(parts.denoiser, data, tmp_path, plan, batch_size=2)
    after = parts.unet.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["conv_out.weight"], before["conv_out.weight"])
    again = cache_latents(parts.vae, tmp_path / "latents.pt", 4, 64, is_framed=recipe.is_sdxl)
    assert torch.equal(again.latents, data.latents)


def test_a_folder_that_was_loaded_is_written_as_it_was(tmp_path: Path) -> None:
    parts = load_parts(POCKET, SD15)
    tokenize(parts.reader.tokenizer, ["a red circle"])
    save_pipeline(tmp_path / "again", parts)
    written = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        before = POCKET / path.relative_to(tmp_path / "again")
        if path.suffix == ".json":
            assert said_in(path) == said_in(before), path.name
        else:
            assert path.read_bytes() == before.read_bytes(), path.name


def said_in(path: Path) -> dict[str, Any]:
    """What a file says, but for the version of the library that wrote it."""
    values = json.loads(path.read_text())
    return {key: value for key, value in values.items() if not key.endswith("_version")}


def test_the_decoder_learns_from_estimates_and_the_encoder_stays(tmp_path: Path) -> None:
    parts = load_parts(POCKET, SD15)
    vae = parts.vae.requires_grad_(False)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    data = cache_latents(vae, tmp_path / "latents.pt", 8, 128)
    denoiser = Denoiser(unet=parts.unet.eval(), reader=parts.reader)
    error = estimate(denoiser, data, np.arange(4), np.random.default_rng(0)) - data.latents[:4].float()
    assert 0 < error.square().mean().sqrt() < 0.5
    plan = Plan(name="decoder", steps=2, learning_rate=1e-3, warmup=1)
    train_decoder(vae, denoiser, data, tmp_path, plan, batch_size=2)
    moved = {key.split(".")[0] for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"post_quant_conv", "decoder"}
    assert not any(parameter.requires_grad for parameter in vae.parameters())
