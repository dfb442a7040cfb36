"""Pictures made at once: each as it would be alone but for rounding, whoever asked for them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.domain.catalogue import Catalogue
from studio.domain.errors import JobCancelled
from studio.domain.events import Progress, Started
from studio.domain.request import GenerationRequest
from studio.files import make_folder
from studio.gallery import opened
from studio.generation import EngineHolder, job_images
from studio.job import Job
from studio.services import Services, load_engine, open_services
from studio.settings import Settings
from tests.unwritable import replaced_by_a_file

QUICK = {"num_inference_steps": 6, "seed": 5}
SCENES = ("a large red circle on a white background", "a small blue square on a white background", "two green stars")
PATIENCE_S = 120


@pytest.fixture(scope="module")
def fast_engine(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> EngineHolder:
    settings = Settings(data_dir=tmp_path_factory.mktemp("engine"), offline=True, batching="fast")
    engine = load_engine(settings, catalogue)
    return EngineHolder(lambda: engine)


@pytest.fixture
def fast(tmp_path: Path, fast_engine: EngineHolder) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path / "fast", offline=True, batching="fast")
    with open_services(settings, engine=fast_engine) as services:
        services.runner.stop(timeout=10)
        yield services


def ask(services: Services, prompt: str, visitor: str = "local", **values: object) -> Job:
    request = GenerationRequest.model_validate({"prompt": prompt, **QUICK, **values})
    return services.generation.submit(request, visitor)


def pixels(services: Services, job: Job) -> list[np.ndarray]:
    job.wait(PATIENCE_S)
    return [np.asarray(opened(services.gallery.path(made)), dtype=int) for made in job_images(job, services.gallery)]


def together(services: Services, job: Job) -> list[str]:
    return [made.environment.get("batch", "") for made in job_images(job, services.gallery)]


def differ(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.mark.parametrize("scheduler", ["dpmpp_2m_karras", "euler_a", "lcm"])
def test_each_is_what_it_would_be_alone(fast: Services, services: Services, scheduler: str) -> None:
    jobs = [ask(fast, prompt, f"visitor {n}", scheduler=scheduler, seed=5 + n) for n, prompt in enumerate(SCENES)]
    fast.runner.start()
    made = [pixels(fast, job)[0] for job in jobs]
    for number, (prompt, job) in enumerate(zip(SCENES, jobs, strict=True)):
        alone = ask(services, prompt, scheduler=scheduler, seed=5 + number)
        assert differ(made[number], pixels(services, alone)[0]) <= 1
        assert together(fast, job) == ["3"] and together(services, alone) == [""]
        assert [made.visitor for made in job_images(job, fast.gallery)] == [f"visitor {number}"]


def test_they_show_what_was_asked_for(fast: Services) -> None:
    jobs = [ask(fast, prompt, num_inference_steps=25) for prompt in SCENES[:2]]
    fast.runner.start()
    for prompt, job in zip(SCENES, jobs, strict=False):
        wanted = parse(prompt)
        assert wanted is not None
        assert pixels(fast, job)
        (made,) = job_images(job, fast.gallery)
        assert judge(opened(fast.gallery.path(made)), wanted).correct


def test_pictures_of_one_job_are_made_at_once_in_order(fast: Services, services: Services) -> None:
    job = ask(fast, SCENES[0], num_images=10)
    fast.runner.start()
    ours = pixels(fast, job)
    theirs = pixels(services, ask(services, SCENES[0], num_images=10))
    assert [made.recipe.seed for made in job_images(job, fast.gallery)] == list(range(5, 15))
    assert max(differ(one, other) for one, other in zip(ours, theirs, strict=True)) <= 1
    assert together(fast, job) == ["8"] * 8 + ["2"] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"num_inference_steps": 7}, {"guidance_scale": 4.0}, {"scheduler": "euler"}, {"width": 96}, {"clip_skip": 2},
        {"checkpoint": "pocket-sd21"}, {"hires_scale": 1.5}, {"decoder": "half"}, {"num_images": 8},
    ],
)  # fmt: skip
def test_what_is_not_alike_is_made_by_itself(fast: Services, other: dict[str, object]) -> None:
    first, second = ask(fast, SCENES[0]), ask(fast, SCENES[1], **other)
    fast.runner.start()
    first.wait(PATIENCE_S)
    assert second.wait(PATIENCE_S)
    assert together(fast, first) == [""]
    assert set(together(fast, second)) <= {"", "8"}


def test_where_each_is_to_be_exact_nothing_is_made_together(services: Services) -> None:
    jobs = [ask(services, prompt) for prompt in SCENES]
    assert all(len(pixels(services, job)) == 1 and together(services, job) == [""] for job in jobs)


def test_a_prompt_too_long_for_the_others_is_made_by_itself(fast: Services) -> None:
    jobs = [ask(fast, SCENES[0]), ask(fast, "a red circle, " * 40)]
    fast.runner.start()
    assert all(len(pixels(fast, job)) == 1 for job in jobs)
    assert [together(fast, job) for job in jobs] == [[""], [""]]


def test_one_who_stops_ends_at_once_and_the_others_have_their_pictures(fast: Services) -> None:
    jobs = [ask(fast, prompt, f"visitor {n}", num_inference_steps=60) for n, prompt in enumerate(SCENES)]
    fast.runner.start()
    while not any(isinstance(event, Progress) for event in jobs[0].present()):
        time.sleep(0.01)
    for job in jobs[:2]:  # the one that was taken first, and one that came along
        job.cancel()
    started = time.monotonic()
    for job in jobs[:2]:
        with pytest.raises(JobCancelled):
            job.result(10)
    assert time.monotonic() - started < 5
    assert len(pixels(fast, jobs[2])) == 1 and fast.gallery.count() == 1
    later = ask(fast, SCENES[0], seed=9)
    assert len(pixels(fast, later)) == 1


def test_one_who_stops_while_they_cannot_be_kept_takes_nothing_from_the_others(fast: Services) -> None:
    jobs = [ask(fast, prompt, f"visitor {n}") for n, prompt in enumerate(SCENES)]
    make_folder(fast.settings.images_dir)
    with replaced_by_a_file(fast.settings.images_dir):
        fast.runner.start()
        while not all(job.held for job in jobs):
            time.sleep(0.01)
        for stopped in (jobs[2], jobs[0]):  # one that waits for the other, and the one that is tried
            stopped.cancel()
            with pytest.raises(JobCancelled):
                stopped.result(10)
    left = [jobs[1]]
    assert all(len(pixels(fast, job)) == 1 for job in left) and fast.gallery.count() == 1
    assert together(fast, jobs[1]) != [""], "what was drawn at once is what is kept"


def test_all_who_wait_are_told_how_far_it_is(fast: Services) -> None:
    jobs = [ask(fast, prompt, num_inference_steps=20) for prompt in SCENES]
    told: list[set[type[object]]] = [set() for _ in jobs]

    def follow(place: int) -> None:
        told[place] = {type(event) for event in jobs[place].events(timeout=PATIENCE_S)}

    threads = [threading.Thread(target=follow, args=(place,)) for place in range(3)]
    fast.runner.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all({Started, Progress} <= each for each in told)


def test_a_studio_that_stops_finishes_them_later(fast: Services) -> None:
    jobs = [ask(fast, prompt, num_inference_steps=60) for prompt in SCENES]
    fast.runner.start()
    while not any(isinstance(event, Progress) for event in jobs[0].present()):
        time.sleep(0.01)
    fast.runner.stop(timeout=30)
    assert [fast.runner.row(job.id).state for job in jobs] == ["queued"] * 3
    fast.runner.start()
    assert all(len(pixels(fast, fast.runner.job(job.id))) == 1 for job in jobs)


def test_what_was_made_together_is_not_taken_for_what_is_exact(fast: Services, fast_engine: EngineHolder) -> None:
    jobs = [ask(fast, prompt) for prompt in SCENES[:2]]
    fast.runner.start()
    assert all(pixels(fast, job) for job in jobs)
    again = ask(fast, SCENES[0])
    again.wait(PATIENCE_S)
    assert fast.gallery.count() == 2  # it is there already
    exact = fast.settings.model_copy(update={"batching": "exact"})
    with open_services(exact, queue="other", engine=fast_engine) as others:
        ask(others, SCENES[0]).wait(PATIENCE_S)
        assert others.gallery.count() == 3


def test_on_zerogpu_only_pictures_of_one_job_are_made_at_once(
    tmp_path: Path, fast_engine: EngineHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    settings = Settings(data_dir=tmp_path / "zero", offline=True, batching="fast")
    with open_services(settings, engine=fast_engine) as zero:
        zero.runner.stop(timeout=10)
        jobs = [ask(zero, SCENES[0], "one"), ask(zero, SCENES[1], "other"), ask(zero, SCENES[2], "one", num_images=2)]
        zero.runner.start()
        assert [len(pixels(zero, job)) for job in jobs] == [1, 1, 2]
        assert [together(zero, job) for job in jobs] == [[""], [""], ["2", "2"]]
