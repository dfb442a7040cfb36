"""Few steps beside many: the same prompts and seeds in every column, timed, compared, kept, and told by file names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest
from studio.domain.events import Cancelled, Finished, ImageReady, Progress
from studio.domain.flash import FlashRequest, parse_flash, resolve_flash
from studio.domain.request import DecoderName
from studio.flash_files import grids, picture_name
from studio.job import Job
from studio.scoring import POCKET_JUDGE
from studio.services import Services
from tests.studio.conftest import Cli

PROMPTS = ("a red star on a white background", "two blue circles on a black background")
QUICK = FlashRequest(
    prompts=PROMPTS, accelerator="swift", steps=(2, 1), baseline_steps=6, seed=5, num_images=2, negative_prompt="green"
)


@pytest.fixture
def job(opened: Services) -> Job:
    job = opened.flash.submit(QUICK)
    assert isinstance(job.wait(timeout=120), Finished)
    return job


def test_every_column_draws_every_prompt_with_every_seed(opened: Services, job: Job) -> None:
    pictures = opened.flash.pictures(job)
    assert sorted(pictures) == list(range(12))
    asked = [(r.recipe.prompt, r.recipe.seed, r.recipe.num_inference_steps) for _, r in sorted(pictures.items())]
    assert asked == [(prompt, seed, steps) for prompt in PROMPTS for seed in (5, 6) for steps in (6, 1, 2)]
    baseline, fewer = pictures[0].recipe, pictures[1].recipe
    assert (baseline.accelerator, baseline.guidance_scale, baseline.negative_prompt) == ("none", 3.0, "green")
    assert (fewer.accelerator, fewer.guidance_scale, fewer.scheduler) == ("swift", 1.0, "lcm")
    assert (
        opened.generate(PROMPTS[0], seed=5, num_inference_steps=2, accelerator="swift", decoder="half")[0].id
        == pictures[2].id
    )


def test_columns_have_their_times_and_their_likeness_to_the_baseline(opened: Services, job: Job) -> None:
    baseline, one, two = opened.flash.figures(job)
    assert [each.n for each in (baseline, one, two)] == [4, 4, 4]
    assert [each.column.evaluations for each in (baseline, one, two)] == [12, 1, 2]
    assert baseline.speed_up is None and baseline.likeness is None
    assert one.speed_up and one.speed_up.n == 4 and one.speed_up.value > 0
    assert one.seconds["denoise"].median > 0
    assert two.likeness and -1 <= two.likeness.value < 1
    assert two.right and two.right.n == 4 and 0 <= two.right.value <= 1
    assert two.peak_memory_mb > 0


def test_pictures_are_judged_by_their_words_and_compared_by_prompt(opened: Services, job: Job) -> None:
    figures = opened.flash.figures(job)
    baseline, _, two = figures
    assert baseline.clip and baseline.clip.n == len(PROMPTS) and baseline.clip_gain is None
    scores = opened.scoring.scores(job.id)
    assert len(scores) == 12 and {score.text for score in scores.values()} == set(PROMPTS)
    pictures = opened.flash.pictures(job)
    of_column = [100 * scores[pictures[index].id].cosine for index in (2, 5, 8, 11)]
    assert two.clip and two.clip.value == pytest.approx(np.mean(of_column))
    assert two.clip_gain and two.clip_gain.value == pytest.approx(two.clip.value - baseline.clip.value)
    assert "by pocket-clip " in opened.flash.judged_by(job)


def test_words_about_another_picture_are_further_from_it(opened: Services, job: Job, engine: Engine) -> None:
    place = opened.gallery.path(opened.flash.pictures(job)[0])
    own, other = (engine.score(POCKET_JUDGE, place, prompt).cosine for prompt in PROMPTS)
    assert own > other


def test_a_judge_that_cannot_be_used_stops_nothing_and_is_told(
    opened: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("studio.scoring.POCKET_JUDGE", tmp_path / "nowhere")
    job = opened.flash.submit(QUICK.model_copy(update={"num_images": 1, "seed": 77}))
    assert isinstance(job.wait(timeout=120), Finished)
    assert opened.flash.figures(job)[0].clip is None
    assert opened.flash.judged_by(job).startswith("There is no CLIP score: There is no judge with safetensors weights")


def test_a_picture_that_a_kill_left_unjudged_is_judged_when_its_job_goes_on(
    opened: Services, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("studio.scoring.POCKET_JUDGE", tmp_path / "nowhere")
        unjudged = opened.flash.submit(QUICK.model_copy(update={"num_images": 1, "seed": 78}))
        assert isinstance(unjudged.wait(timeout=120), Finished)
    assert opened.scoring.scores(unjudged.id) == {}
    opened.flash.run(unjudged)
    assert len(opened.scoring.scores(unjudged.id)) == 6


def test_a_large_models_judge_is_the_one_its_owner_put_there(services: Services) -> None:
    pocket, large = (services.catalogue.checkpoint(name) for name in ("pocket-sd15", "sd15"))
    assert services.scoring.judge_of(large) is None and services.scoring.problem(large) == ""
    assert services.scoring.judge_of(pocket) == POCKET_JUDGE
    for name in ("vit-l-14", "vit-b-16"):
        folder = services.settings.judges_dir / name
        folder.mkdir(parents=True)
        (folder / "open_clip_config.json").write_text("{}")
    judge = services.scoring.judge_of(large)
    assert judge is not None and judge.name == "vit-b-16"


def test_a_prompt_that_names_no_adapter_of_ours_is_refused_before_anything_is_drawn(opened: Services) -> None:
    with pytest.raises(InvalidRequest, match="no adapter called 'gone'"):
        opened.flash.submit(QUICK.model_copy(update={"prompts": ("a star", "a star <lora:gone>")}))


def test_progress_counts_all_pictures_and_time_left_falls(opened: Services, job: Job) -> None:
    told = [event for event in job.events(timeout=0) if isinstance(event, Progress)]
    assert {event.num_images for event in told} == {12}
    assert [event.image_index for event in told] == sorted(event.image_index for event in told)
    assert len([event for event in job.events(timeout=0) if isinstance(event, ImageReady)]) == 12


def test_a_stopped_comparison_keeps_what_it_has_and_is_compared_so_far(opened: Services) -> None:
    job = opened.flash.submit(QUICK.model_copy(update={"num_images": 20}))
    for event in job.events(timeout=120):
        if isinstance(event, ImageReady) and event.image_index == 4:
            job.cancel()
    assert isinstance(job.wait(timeout=120), Cancelled)
    assert 5 <= len(opened.flash.pictures(job)) < 120
    assert opened.flash.figures(job)[0].n >= 2


def test_files_say_what_they_are(opened: Services, job: Job) -> None:
    comparison = resolve_flash(QUICK, opened.catalogue)
    names = [picture_name(cell) for cell in comparison.cells()]
    assert names[:3] == ["baseline/image_i0_seed5.png", "image_s1_i0_seed5.png", "image_s2_i0_seed5.png"]
    assert names[-1] == "image_s2_i3_seed6.png" and len(set(names)) == 12
    made = dict(grids(comparison, opened.flash.pictures(job), opened.gallery.path))
    assert list(made) == [
        "grid_baseline_seed5.png",
        "grid_s1_seed5.png",
        "grid_s2_seed5.png",
        "compare_baseline6_flash1_seed5.png",
        "compare_baseline6_flash2_seed5.png",
    ]
    sheet = np.asarray(made["compare_baseline6_flash2_seed5.png"])
    first = np.asarray(Image.open(opened.gallery.path(opened.flash.pictures(job)[0])))
    gap = 4
    line = sheet.shape[0] // 2 - gap - 128
    found = any(np.array_equal(sheet[top : top + 128, gap : gap + 128], first) for top in range(gap, gap + line + 40))
    assert found, "the baseline's first picture is not in the grid"


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"prompts": ()}, "prompts", "There is no prompt."),
        ({"prompts": ("x", " ")}, "prompts", "A prompt is empty"),
        ({"prompts": ("x",) * 51}, "prompts", "There are 51 prompts; at most 50 fit."),
        ({"prompts": ("x",), "steps": (4, 0)}, "steps", "whole numbers from 1 to 150"),
        ({"prompts": ("x",), "seed": 5.5}, "seed", "Seed is 5.5"),
    ],
)
def test_what_does_not_work_is_refused(values: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_flash(values)
    assert caught.value.field == field and words in str(caught.value)


def test_a_model_without_an_accelerator_is_refused_with_those_that_have_one(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match=r"no accelerator for Stable Diffusion 2\.1 yet.*SDXL base") as caught:
        resolve_flash(FlashRequest(prompts=("x",), checkpoint="sd21"), catalogue)
    assert caught.value.field == "checkpoint"
    with pytest.raises(InvalidRequest, match=r"Hyper-SDXL was not made for Stable Diffusion 1\.5"):
        resolve_flash(FlashRequest(prompts=("x",), checkpoint="sd15", accelerator="hyper-sdxl"), catalogue)


def test_defaults_are_two_four_and_eight_steps_beside_thirty(catalogue: Catalogue) -> None:
    comparison = resolve_flash(FlashRequest(prompts=("a fox",), checkpoint="sd15"), catalogue)
    told = [(column.name, column.title, column.evaluations) for column in comparison.columns]
    assert told == [
        ("baseline", "30 steps, guidance 7.5", 60),
        ("s2", "2 steps", 2),
        ("s4", "4 steps", 4),
        ("s8", "8 steps", 8),
    ]
    assert comparison.columns[1].recipe.accelerator == "flash-sd"


@pytest.mark.parametrize("decoder", ["full", "half", "tiny"])
def test_few_steps_have_the_decoder_asked_for_and_the_baseline_the_models_own(
    catalogue: Catalogue, decoder: DecoderName
) -> None:
    request = FlashRequest(prompts=("a fox",), checkpoint="sd15", decoder=decoder)
    baseline, *few = resolve_flash(request, catalogue).columns
    assert baseline.recipe.decoder == "full"
    assert {column.recipe.decoder for column in few} == {decoder}
    assert all(("tiny decoder" in column.title) == (decoder == "tiny") for column in few)


def test_the_command_line_draws_writes_and_tells(cli: Cli, swift: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("flash", PROMPTS[0], "--steps", "2", "--compare-baseline", "--baseline-steps", "4", "--seed", "42")
    code, stdout, stderr = cli(*command, "--num", "1", "--out", str(out), "--json")
    assert code == 0, stderr
    document = json.loads(stdout)
    assert [column["title"] for column in document["columns"]] == ["4 steps, guidance 3", "2 steps"]
    assert document["columns"][1]["speed_up"]["n"] == 1
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "baseline/image_i0_seed42.png",
        "compare_baseline4_flash2_seed42.png",
        "grid_baseline_seed42.png",
        "grid_s2_seed42.png",
        "image_s2_i0_seed42.png",
    ]
    assert "SPEED-UP" in stderr and "baseline, 4 steps, guidance 3" in stderr
    assert cli("flash", PROMPTS[0], "--steps", "many")[0] == 2
    code, _, stderr = cli("flash", "x", "--model", "sd21")
    assert code == 2 and "(--model)" in stderr
