"""What an adapter is taught: what was known before stays, and part of a gradual one does a part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.training.adapter import AdapterInTraining
from engines.training.before import Before, Preservation
from engines.training.diffusion import NoiseSchedule
from engines.training.latents import TrainingPicture
from engines.training.lessons import Lessons
from engines.training.objective import Denoising
from engines.training.processes import Processes
from engines.training.text import KeptTexts
from engines.training.unet import Denoiser
from studio.domain.catalogue import Catalogue
from studio.domain.training import TrainingPlan, parse_training, resolve_training
from studio.services import CATALOGUE_PATH
from tests.engines.training.test_adapter import PLAN, pipeline_of, stirred

CATALOGUE = Catalogue.load(CATALOGUE_PATH)
GRADUAL = PLAN.model_copy(
    update={"gradual": True, "text_learning_rate": 0.0, "caption_dropout": 0.0, "num_prior": 0, "batch_size": 2}
)


def pictures(count: int, seed: int) -> list[TrainingPicture]:
    latents = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed)).half()
    captions = [f"a {colour} star on a white background" for colour in ("red", "blue", "green", "black")]
    return [
        TrainingPicture(latents=each, time_ids=(), caption=captions[index % 4]) for index, each in enumerate(latents)
    ]


class Taught:
    """An adapter that has learnt something, and what teaches it."""

    def __init__(self, folder: Path, plan: TrainingPlan) -> None:
        pipeline = pipeline_of("sd15")
        self.adapter = AdapterInTraining(pipeline, plan)
        stirred(self.adapter)
        self.denoiser = Denoiser(unet=pipeline.unet, prediction_type="epsilon")
        self.texts = KeptTexts(pipeline, folder, "pocket")
        self.before = Before(denoiser=self.denoiser, adapter=self.adapter, texts=self.texts, is_sdxl=False)
        self.objective = Denoising(schedule=NoiseSchedule.of(pipeline.scheduler.config), prediction_type="epsilon")
        self.lessons = Lessons(plan, self.before, self.texts, self.objective, Processes())

    def gradients(self) -> torch.Tensor:
        parameters = list(self.adapter.unet.parameters())
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        for parameter in parameters:
            parameter.grad = None
        return flat


def test_part_of_a_gradual_adapter_is_taught_to_do_that_part(tmp_path: Path) -> None:
    taught, batch = Taught(tmp_path, GRADUAL), pictures(2, 4)
    captions, ids = [each.caption for each in batch], [each.time_ids for each in batch]
    clean, full = torch.stack([each.latents for each in batch]).float(), 0
    for place in range(6):
        rng = np.random.default_rng([GRADUAL.seed, 13, place])
        strength = 1.0 if rng.random() < 0.5 else rng.random()
        full += strength == 1
        generator = torch.Generator().manual_seed(GRADUAL.seed * 10_000_019 + place)
        asked = taught.objective.question(clean, generator)
        told = taught.lessons.told(captions, ids)
        with torch.no_grad():
            with taught.adapter.off():
                was = taught.denoiser.predict(*asked.asked, told)
            with taught.adapter.at(strength):
                said = taught.denoiser.predict(*asked.asked, told)
        was_share = (1 - strength) ** 3
        wanted = was_share * was + (1 - was_share) * asked.wanted
        weights = taught.objective.schedule.snr_weights("epsilon", 5.0)[asked.timesteps]
        expected = ((said - wanted).square().flatten(1).mean(dim=1) * weights).mean()
        assert taught.lessons.learn(batch, place) == pytest.approx(float(expected), rel=1e-4)
    assert 0 < full < 6


@pytest.mark.parametrize("decompose", [False, True], ids=["lora", "dora"])
def test_strength_is_the_scale_of_the_finished_adapter(tmp_path: Path, decompose: bool) -> None:
    plan = GRADUAL.model_copy(update={"decompose": decompose})
    taught = Taught(tmp_path, plan)
    told = taught.lessons.told(["a red star"], [()])
    noisy, at = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5)), torch.tensor([600])
    outputs = {}
    for strength in (0.0, 0.5, 1.0):
        with taught.adapter.at(strength), torch.no_grad():
            outputs[strength] = taught.denoiser.predict(noisy, at, told)
    with taught.adapter.off(), torch.no_grad():
        torch.testing.assert_close(outputs[0.0], taught.denoiser.predict(noisy, at, told), rtol=0, atol=0)
    half, whole = (float((outputs[key] - outputs[0.0]).norm()) for key in (0.5, 1.0))
    assert 0.3 * whole < half < 0.7 * whole


def test_what_is_to_stay_is_asked_ahead_and_is_the_same_from_any_place_on(tmp_path: Path) -> None:
    taught, known = Taught(tmp_path, GRADUAL), pictures(12, 6)

    def preservation(ahead: int) -> Preservation:
        return Preservation(GRADUAL, taught.objective, taught.before, Processes(), known, ahead)

    whole, resumed, alone = preservation(4), preservation(4), preservation(1)
    for place in range(8):
        batch = whole.batch(place)
        assert batch.weight == 1 and len(batch.captions) == len(batch.question.noisy) == GRADUAL.batch_size
        one = alone.batch(place)
        assert one.captions == batch.captions and torch.equal(one.question.noisy, batch.question.noisy)
        torch.testing.assert_close(one.said, batch.said, atol=1e-5, rtol=1e-5)
        if place >= 6:
            assert torch.equal(resumed.batch(place).said, batch.said)


def test_processes_share_what_is_to_stay(tmp_path: Path) -> None:
    taught, known = Taught(tmp_path, GRADUAL), pictures(12, 6)
    whole, *parts = (
        Preservation(GRADUAL, taught.objective, taught.before, processes, known, 4).batch(5)
        for processes in (Processes(), Processes(0, 2), Processes(1, 2))
    )
    assert [part.weight for part in parts] == [0.5, 0.5]
    assert [word for part in parts for word in part.captions] == list(whole.captions)
    torch.testing.assert_close(torch.cat([part.said for part in parts]), whole.said, atol=1e-5, rtol=1e-5)


def test_preserving_draws_an_adapter_back_to_the_checkpoint(tmp_path: Path) -> None:
    plan = GRADUAL.model_copy(update={"gradual": False, "prior_weight": 0.5, "num_prior": 12})
    taught, batch = Taught(tmp_path, plan), pictures(2, 4)
    alone = taught.lessons.learn(batch, 0)
    without = taught.gradients()
    taught.lessons.preserve(pictures(12, 6), ahead=4)
    assert taught.lessons.learn(batch, 0) == pytest.approx(alone, rel=1e-4)  # told of the new pictures
    added = taught.gradients() - without
    assert added.norm() > 1e-3 * without.norm()
    drift = taught.lessons._preservation.batch(0)  # a step down those gradients brings it nearer to what was said

    def distance() -> float:
        told = taught.lessons.told(drift.captions, drift.time_ids)
        with torch.no_grad():
            said = taught.denoiser.predict(*drift.question.asked, told)
        return float(taught.objective.preservation(said, drift.said, drift.question))

    before = distance()
    start = 0
    with torch.no_grad():
        for parameter in taught.adapter.unet.parameters():
            parameter -= 1e-2 * added[start : start + parameter.numel()].view_as(parameter) / added.norm()
            start += parameter.numel()
    assert distance() < before


def test_what_is_to_stay_is_asked_for_in_other_words_the_noisier_it_is_and_without_any(tmp_path: Path) -> None:
    taught, known = Taught(tmp_path, GRADUAL), pictures(12, 6)
    own = {each.caption for each in known}
    preservation = Preservation(GRADUAL, taught.objective, taught.before, Processes(), known, 20)
    batches = [preservation.batch(place) for place in range(200)]
    rows = [
        (float(at) / 1000, words)
        for batch in batches
        for at, words in zip(batch.question.timesteps, batch.captions, strict=True)
    ]
    assert 0.05 < sum(words == "" for _, words in rows) / len(rows) < 0.16
    spoken = [(at, words) for at, words in rows if words]
    noisy = [words not in own for at, words in spoken if at > 0.8]
    clear = [words not in own for at, words in spoken if at < 0.2]
    assert sum(noisy) / len(noisy) > 0.75 and sum(clear) / len(clear) < 0.25
    told = resolve_training(parse_training({"name": "x", "prior_prompts": ("a dog", "a cat")}), CATALOGUE, 12)
    given = Preservation(told, taught.objective, taught.before, Processes(), known, 20)
    assert {words for place in range(40) for words in given.batch(place).captions} <= {"", "a dog", "a cat"} | own
