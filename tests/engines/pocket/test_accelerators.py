"""The accelerators that come with the pocket models, as any diffusers program uses them: by its own LCM sampler."""

import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, LCMScheduler

from engines.parts import TINY_VAE_FOLDER
from engines.pocket.accuracy import Sampling, measure
from engines.pocket.trials import trials
from studio.domain.catalogue import Accelerator, Catalogue
from studio.domain.timesteps import lcm_timesteps
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT

SHIPPED = [row for row in Catalogue.load(CATALOGUE_PATH).accelerators if row.file]
SEED = 7
PER_KIND = 12


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.id)
def test_two_steps_are_far_better_than_the_models_own_and_four_are_good_by_either_decoder(row: Accelerator) -> None:
    assert row.file is not None and row.checkpoint is not None
    folder = PROJECT_ROOT / "engines/pocket/weights" / row.checkpoint
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    size = pipeline.unet.config.sample_size * 8

    def right(steps: int) -> float:
        sampling = Sampling(steps=steps, guidance=1.0, timesteps=lcm_timesteps(steps))
        report = measure(pipeline, list(trials(PER_KIND, 0, SEED)), size=size, sampling=sampling)
        return report.pooled(report.seen).rate

    floor = right(2)
    pipeline.load_lora_weights(PROJECT_ROOT / row.file)
    assert right(2) >= floor + 0.1
    assert right(4) >= 0.8
    pipeline.vae = AutoencoderTiny.from_pretrained(folder / TINY_VAE_FOLDER, dtype=torch.float32)
    assert right(4) >= 0.65


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.id)
def test_its_timesteps_are_those_that_diffusers_chooses_by_itself(row: Accelerator) -> None:
    assert row.checkpoint is not None
    config = LCMScheduler.load_config(PROJECT_ROOT / "engines/pocket/weights" / row.checkpoint / "scheduler")
    for steps in row.trained_steps:
        scheduler = LCMScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        assert tuple(scheduler.timesteps.tolist()) == row.timesteps(steps)
