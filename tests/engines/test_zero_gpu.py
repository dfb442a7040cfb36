"""Pictures that are drawn in a fork, as on ZeroGPU: the same ones, watched and stopped as ever."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import gradio as gr
import pytest
import torch
from PIL import Image

from engines.base import ChosenAdapter, Order, Picture, Step
from engines.devices import Device
from engines.pool import PipelinePool
from engines.stable_diffusion import StableDiffusionEngine
from engines.zero_gpu import ZeroGpuEngine
from engines.zero_gpu_call import Beat, Call, Done, Message, Told, computed, on_gpu
from engines.zero_gpu_refusals import refused
from engines.zero_gpu_time import CAP_S, FLOOR_S, seconds_asked
from studio.checkpoints import OwnCheckpoints
from studio.domain.catalogue import Catalogue
from studio.domain.errors import GenerationFailed, Incompatible, JobCancelled, NotFound, QueueFull, RateLimited
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.domain.tags import AdapterUse
from studio.scoring import POCKET_JUDGE
from studio.services import CATALOGUE_PATH, load_engine
from studio.settings import PROJECT_ROOT, Settings
from tests.engines.forking import Forks
from tests.studio.adapter_files import adapter_file

PROMPT = "a red circle on a white background"
POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


@dataclass
class Seen:
    """What somebody was told who drew a picture."""

    looks: bool = False
    stops_after: int = 1000
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)

    def on_step(self, step: Step) -> None:
        self.steps.append((step.step, step.total, step.place))
        if self.looks:
            self.previews.append(step.preview().tobytes())

    def cancelled(self) -> bool:
        return len(self.steps) >= self.stops_after


@dataclass
class World:
    """An engine that draws here, one that draws in forks, and what came out of those."""

    plain: StableDiffusionEngine
    zero: ZeroGpuEngine
    forks: Forks
    catalogue: Catalogue
    models_dir: Path
    told: list[Told] = field(default_factory=list)

    def recipe(self, prompt: str = PROMPT, **values: object) -> ResolvedRequest:
        asked = {"prompt": prompt, "seed": 3, "num_inference_steps": 6, **values}
        return self.catalogue.resolve(GenerationRequest.model_validate(asked)).single(0)


def draw(
    engine: StableDiffusionEngine | ZeroGpuEngine,
    recipe: ResolvedRequest,
    seen: Seen | None = None,
    adapters: tuple[ChosenAdapter, ...] = (),
) -> Picture:
    seen = seen or Seen()
    return engine.generate(recipe, (recipe.prompt, ""), adapters, cancelled=seen.cancelled, on_step=seen.on_step)


@pytest.fixture(scope="module")
def plain(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionEngine:
    return load_engine(Settings(data_dir=tmp_path_factory.mktemp("plain"), offline=True, batching="fast"), catalogue)


@pytest.fixture(scope="module", params=["a fork each", "one fork"])
def world(
    plain: StableDiffusionEngine, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("zero"), offline=True, batching="fast")
    catalogue = Catalogue.load(CATALOGUE_PATH)
    forks = Forks(are_kept=request.param == "one fork")
    there = forks.run(computed)
    told: list[Told] = []

    def heard(call: Call) -> Generator[Message, None, None]:
        for message in (messages := there(call)):
            told.extend([message] if isinstance(message, Told) else [])
            try:
                yield message
            except GeneratorExit:
                messages.close()
                raise

    zero = ZeroGpuEngine(load_engine(settings, catalogue), catalogue, heard)
    yield World(plain, zero, forks, catalogue, settings.models_dir, told)
    forks.close()


def test_it_is_the_picture_of_the_plain_engine(world: World) -> None:
    here, there = Seen(looks=True), Seen(looks=True)
    plain, forked = draw(world.plain, world.recipe(), here), draw(world.zero, world.recipe(), there)
    assert forked.image.tobytes() == plain.image.tobytes()
    assert forked.environment == plain.environment
    assert there.steps == here.steps == [(step, 6, 0) for step in range(1, 7)]
    assert world.forks.pids[-1] != os.getpid()
    assert world.zero.state() == world.plain.state()
    assert world.zero.plan(world.recipe()).savings == world.plain.plan(world.recipe()).savings


def test_who_looks_is_shown_how_it_grows(world: World) -> None:
    recipe = world.recipe(num_inference_steps=60)
    here, there = Seen(looks=True), Seen(looks=True)
    draw(world.plain, recipe, here)
    draw(world.zero, recipe, there)
    assert there.previews[0] == here.previews[0]
    assert set(there.previews) <= set(here.previews) and len(set(there.previews)) > 1


def test_for_nobody_nothing_is_shown_but_the_first_step(world: World) -> None:
    world.told.clear()
    draw(world.zero, world.recipe(num_inference_steps=20))
    assert [told.step for told in world.told if told.preview is not None] == [1]


def test_it_stops_within_a_step_and_goes_on_with_the_next_picture(world: World) -> None:
    with pytest.raises(JobCancelled):
        draw(world.zero, world.recipe(num_inference_steps=150), Seen(stops_after=2))
    assert world.forks.yielded < 75  # it is ahead by what it does while a message travels
    assert draw(world.zero, world.recipe()).image.tobytes() == draw(world.plain, world.recipe()).image.tobytes()


def test_who_stops_before_it_begins_asks_for_no_gpu(world: World) -> None:
    calls = len(world.forks.pids)
    with pytest.raises(JobCancelled):
        draw(world.zero, world.recipe(), Seen(stops_after=0))
    assert len(world.forks.pids) == calls


def test_an_adapter_changes_its_picture_and_no_other(world: World, tmp_path: Path) -> None:
    use = AdapterUse(adapter="other", lora_scale=1.0)
    adapters = (ChosenAdapter(use=use, path=adapter_file(tmp_path / "other.safetensors")),)
    plain, before = draw(world.plain, world.recipe()), weights(world.zero)
    changed = draw(world.zero, world.recipe(), adapters=adapters)
    assert changed.image.tobytes() == draw(world.plain, world.recipe(), adapters=adapters).image.tobytes()
    assert changed.image.tobytes() != plain.image.tobytes()
    assert draw(world.zero, world.recipe()).image.tobytes() == plain.image.tobytes()
    assert all(map(torch.equal, weights(world.zero), before))


def waiting(engine: ZeroGpuEngine) -> StableDiffusionEngine:
    """The engine that is forked."""
    assert isinstance(engine._inner, StableDiffusionEngine)
    return engine._inner


def weights(engine: ZeroGpuEngine) -> list[torch.Tensor]:
    """Those of the UNet that waits in this process."""
    inner = waiting(engine)
    with inner._pool.lease(inner._catalogue.checkpoint("pocket-sd15")) as loaded:
        return [tensor.clone() for tensor in loaded.pipeline.unet.state_dict().values()]


def test_a_batch_is_that_of_the_plain_engine(world: World) -> None:
    recipes = [world.recipe(prompt, seed=seed) for seed, prompt in enumerate((PROMPT, "two green stars", "a square"))]
    orders = [Order(request=recipe, prompts=(recipe.prompt, "")) for recipe in recipes]
    here, there = Seen(), Seen()
    plain = world.plain.generate_batch(orders, cancelled=here.cancelled, on_step=here.on_step)
    forked = world.zero.generate_batch(orders, cancelled=there.cancelled, on_step=there.on_step)
    assert [made.image.tobytes() for made in forked] == [made.image.tobytes() for made in plain]
    assert there.steps == here.steps and {place for _, _, place in there.steps} == {0, 1, 2}
    assert world.zero.most_at_once(recipes[0]) == world.plain.most_at_once(recipes[0]) > 1


def test_judges_need_no_gpu(world: World, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").save(picture)
    calls = len(world.forks.pids)
    world.zero.preload_judge(POCKET_JUDGE)
    assert world.zero.score(POCKET_JUDGE, picture, "a star") == world.plain.score(POCKET_JUDGE, picture, "a star")
    assert world.zero.embed(POCKET_JUDGE, picture) == world.plain.embed(POCKET_JUDGE, picture)
    both = ("a star", "a heart")
    assert world.zero.score_texts(POCKET_JUDGE, picture, both) == world.plain.score_texts(POCKET_JUDGE, picture, both)
    assert len(world.forks.pids) == calls


def test_an_error_comes_back_as_it_was_raised(world: World, tmp_path: Path) -> None:
    use = AdapterUse(adapter="narrow", lora_scale=1.0)
    adapters = (ChosenAdapter(use=use, path=adapter_file(tmp_path / "narrow.safetensors", width=64)),)
    told: list[Incompatible] = []
    for engine in (world.plain, world.zero):
        with pytest.raises(Incompatible) as caught:
            draw(engine, world.recipe(), adapters=adapters)
        told.append(caught.value)
    assert str(told[0]) == str(told[1]) and told[0].hint == told[1].hint
    assert draw(world.zero, world.recipe()).image.tobytes() == draw(world.plain, world.recipe()).image.tobytes()


def test_what_cannot_be_loaded_asks_for_no_gpu(world: World) -> None:
    calls = len(world.forks.pids)
    recipe = world.recipe().model_copy(update={"checkpoint": "nothing"})
    with pytest.raises(NotFound):
        draw(world.zero, recipe)
    assert len(world.forks.pids) == calls


def test_a_fork_that_is_killed_costs_its_picture_only(world: World) -> None:
    def kill(step: Step) -> None:
        if step.step == 2:
            os.kill(world.forks.pids[-1], signal.SIGKILL)

    recipe = world.recipe(num_inference_steps=150)
    with pytest.raises(GenerationFailed, match="taken away"):
        world.zero.generate(recipe, (PROMPT, ""), cancelled=lambda: False, on_step=kill)
    assert draw(world.zero, world.recipe()).image.tobytes() == draw(world.plain, world.recipe()).image.tobytes()


def test_a_model_that_was_put_here_since_can_be_drawn_with(world: World) -> None:
    draw(world.zero, world.recipe())
    shutil.copytree(POCKET, world.models_dir / "mine")
    try:
        OwnCheckpoints(world.models_dir, world.catalogue).refresh()
        mine = next(row for row in world.catalogue.checkpoints if row not in world.catalogue.rows)
        recipe = world.recipe(checkpoint=mine.id)
        assert draw(world.zero, recipe).image.tobytes() == draw(waiting(world.zero), recipe).image.tobytes()
    finally:
        shutil.rmtree(world.models_dir / "mine")
        OwnCheckpoints(world.models_dir, world.catalogue).refresh()


def test_nothing_is_loaded_while_the_process_is_forked(world: World) -> None:
    loaded = threading.Event()
    seen: list[bool] = []

    def preload() -> None:
        zero.preload(world.catalogue.checkpoint("pocket-sd15"))
        loaded.set()

    def beginning(call: Call) -> Generator[Message, None, None]:
        threading.Thread(target=preload).start()
        seen.append(loaded.wait(0.5))
        yield Beat()
        seen.append(loaded.wait(60))
        yield Done(value=None)

    zero = ZeroGpuEngine(world.zero._inner, world.catalogue, beginning)
    draw(zero, world.recipe())
    assert seen == [False, True]


def test_elsewhere_the_function_runs_where_it_is_called(catalogue: Catalogue, tmp_path: Path) -> None:
    engine = load_engine(Settings(data_dir=tmp_path, offline=True), catalogue)
    recipe = catalogue.resolve(GenerationRequest(prompt=PROMPT, seed=3, num_inference_steps=6)).single(0)
    zero = ZeroGpuEngine(engine, catalogue, on_gpu)
    assert draw(zero, recipe).image.tobytes() == draw(engine, recipe).image.tobytes()


def test_weights_wait_elsewhere_until_the_device_is_there(catalogue: Catalogue, tmp_path: Path) -> None:
    row = catalogue.checkpoint("pocket-sd15")
    pool = PipelinePool(PROJECT_ROOT, tmp_path, Device(name="meta", dtype=torch.float32), home="cpu")
    with pool.lease(row) as waiting:
        assert waiting.device.type == waiting.pipeline.unet.device.type == "cpu"
    assert pool.state().device == "meta" and pool.state().loaded == ("pocket-sd15",)
    pool.arrive()
    with pool.lease(row) as there:
        assert there.pipeline is waiting.pipeline and there.prompts is not waiting.prompts
        assert {part.device.type for part in (there.pipeline.unet, there.pipeline.vae, there.tiny_vae)} == {"meta"}
        assert there.device.type == "meta"


def big(catalogue: Catalogue, **values: object) -> ResolvedRequest:
    asked = {"prompt": "a fox", "checkpoint": "sdxl", "seed": 1, "width": 1024, "height": 1024, **values}
    return catalogue.resolve(GenerationRequest.model_validate(asked)).single(0)


def seconds(request: ResolvedRequest, gigabytes: float = 7, **numbers: int) -> int:
    return seconds_asked(request, int(gigabytes * 1e9), **numbers)


def test_more_work_asks_for_more_time_within_bounds(catalogue: Catalogue) -> None:
    recipe = big(catalogue, num_inference_steps=20)
    usual = seconds(recipe)
    assert FLOOR_S < usual < CAP_S
    assert usual < seconds(big(catalogue, num_inference_steps=40))
    assert usual > seconds(big(catalogue, num_inference_steps=20, guidance_scale=1.0))
    assert usual < seconds(recipe, num_pictures=4) <= CAP_S
    assert usual < seconds(recipe, num_adapters=2) and usual < seconds(recipe, gigabytes=12)
    assert usual < seconds(big(catalogue, num_inference_steps=20, width=1536))
    assert seconds(big(catalogue, num_inference_steps=150), num_pictures=8) == CAP_S
    pocket = catalogue.resolve(GenerationRequest(prompt=PROMPT, seed=3)).single(0)
    assert seconds(pocket, gigabytes=0.02) == FLOOR_S


REFUSALS = [
    (
        "ZeroGPU quota exceeded",
        f"You have exceeded your free ZeroGPU quota (60s requested vs. 12s left). Try again in {timedelta(hours=3)}. ",
        RateLimited,
        "(60s requested vs. 12s left)",
    ),
    ("ZeroGPU quota exceeded", "Space app has reached its GPU limit. ", RateLimited, "used up"),
    ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits allocated.", RateLimited, "used up"),
    ("ZeroGPU queue timeout", "No GPU was available after 60s. Retry later", QueueFull, "No GPU"),
    ("ZeroGPU client error", "No GPU was available", QueueFull, "No GPU"),
    ("ZeroGPU illegal duration", "The requested GPU duration (200s) is larger", GenerationFailed, "longer"),
    ("ZeroGPU worker error", "GPU task aborted", GenerationFailed, "taken away"),
]


@pytest.mark.parametrize(("title", "message", "kind", "told"), REFUSALS, ids=[row[1][:40] for row in REFUSALS])
def test_a_refusal_is_told_in_our_words(title: str, message: str, kind: type[Exception], told: str) -> None:
    error = refused(gr.Error(message, title=title))
    assert isinstance(error, kind) and told in error.message and error.hint


@pytest.mark.parametrize(
    ("wait", "expected_s"), [(timedelta(minutes=12), 720.0), (timedelta(days=1, seconds=1), 86401.0)]
)
def test_a_quota_says_when_to_come_back(wait: timedelta, expected_s: float) -> None:
    error = refused(gr.Error(f"… (60s requested vs. 1s left). Try again in {wait}. ", title="ZeroGPU quota exceeded"))
    assert isinstance(error, RateLimited) and error.retry_after_s == expected_s
    assert str(wait) in error.hint


def test_a_refusal_ends_the_picture_and_other_errors_stay_what_they_are(world: World) -> None:
    def refusing(error: Exception) -> Callable[[Call], Generator[Message, None, None]]:
        def there(call: Call) -> Generator[Message, None, None]:
            raise error
            yield

        return there

    inner = world.zero._inner
    quota = gr.Error("Space app has reached its GPU limit. ", title="ZeroGPU quota exceeded")
    with pytest.raises(RateLimited):
        draw(ZeroGpuEngine(inner, world.catalogue, refusing(quota)), world.recipe())
    with pytest.raises(ValueError, match="other"):
        draw(ZeroGpuEngine(inner, world.catalogue, refusing(ValueError("other"))), world.recipe())
