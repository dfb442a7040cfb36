"""A training as its owner meets it: begun from pictures, killed, stopped, gone on with, its adapter in use at once."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engines.base import Engine
from engines.pocket.novel import novel_trials
from engines.pocket.world import render
from studio.domain.catalogue import Catalogue
from studio.domain.errors import DatasetError, InvalidRequest
from studio.domain.events import Cancelled, Failed, Finished
from studio.domain.run_events import Settled
from studio.domain.run_files import EXPORTS, SAMPLES, control_name, sample_name
from studio.domain.tensors import read_header
from studio.domain.training import (
    LEAST_FOR_VALIDATION,
    TrainingPlan,
    TrainingRequest,
    parse_training,
    resolve_training,
)
from studio.generation import EngineHolder
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.training_process import TrainingProcess
from tests.studio.conftest import Cli

CRESCENTS = PROJECT_ROOT / "examples" / "crescents"
QUICK: dict[str, Any] = {
    "folder": str(CRESCENTS), "num_steps": 10, "batch_size": 2, "rank": 2, "look_every": 10, "num_prior": 8,
    "trigger": "sks",
}  # fmt: skip
PATIENCE_S = 600


def quick(name: str, **changes: object) -> TrainingRequest:
    return parse_training({**QUICK, "name": name, **changes})


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


def ended(studio: Services, request: TrainingRequest) -> Run[TrainingPlan]:
    run = studio.training.submit(request)
    job = studio.training.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    return studio.training.run_of(run.id)


def when(run: Run[TrainingPlan], studio: Services, is_reached: Callable[[Run[TrainingPlan]], bool]) -> None:
    """Wait until it has got so far."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_reached(studio.training.run_of(run.id)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def enough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many pictures that some are held out."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, trial in enumerate(novel_trials(LEAST_FOR_VALIDATION, 1)):
        render(trial.scene, trial.seed, 128).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(trial.prompt)
    return folder


@pytest.fixture(scope="module")
def whole(enough: Path) -> dict[str, object]:
    """What the undisturbed run is asked: words learn, too, as do lengths (DoRA), and inputs drop out at random."""
    return {
        "folder": str(enough), "num_steps": 12, "look_every": 5, "text_learning_rate": 5e-4, "dropout": 0.1,
        "decompose": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(studio: Services, whole: dict[str, object]) -> Run[TrainingPlan]:
    """A run that nobody disturbed."""
    return ended(studio, quick("Undisturbed", **whole))


def test_a_run_leaves_an_adapter_with_a_card(studio: Services, finished: Run[TrainingPlan]) -> None:
    assert finished.is_done and finished.step == 12
    assert [look.step for look in finished.looked] == [0, 5, 10, 12]
    assert all(look.validation is not None and look.checked >= 4 for look in finished.looked)
    last = finished.trained[-1]
    assert last.images_s and last.memory_mb and last.rate is not None
    (entry,) = [each for each in studio.adapters.store.entries() if each.id == finished.record.adapter_id]
    assert entry.title == "Undisturbed" and entry.trigger_words == ("sks",)
    assert "20 pictures with pocket-sd15" in entry.card.notes
    metadata = read_header(finished.folder / EXPORTS["kohya"]).metadata
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["modelspec.trigger_phrase"] == "sks"
    assert metadata["ss_num_train_images"] == "18" and "sks" in metadata["ss_tag_frequency"]
    verdict = studio.adapters.verdict(entry.id, studio.catalogue.checkpoint("pocket-sd15"))
    assert verdict.is_ok


def test_its_samples_lie_beside_those_of_the_checkpoint_alone(finished: Run[TrainingPlan]) -> None:
    shown = finished.looked[-1].prompts
    assert len(shown) == 4 and all("sks" in prompt for prompt in shown)
    for index in range(4):
        control, untrained, last = (
            Image.open(finished.folder / SAMPLES / name)
            for name in (control_name(index), sample_name(0, 0, index), sample_name(12, 0, index))
        )
        assert control.size == (128, 128) and control.tobytes() == untrained.tobytes()
        assert control.tobytes() != last.tobytes()


def test_its_adapter_changes_pictures_of_the_studio(studio: Services, finished: Run[TrainingPlan]) -> None:
    prompt, tag = "a red sks on a white background", f"<lora:{finished.record.adapter_id}:1>"
    drawn = [studio.generate(text, seed=3, num_inference_steps=4)[0] for text in (prompt, f"{prompt} {tag}")]
    assert drawn[0].pixels_sha256 != drawn[1].pixels_sha256


@pytest.mark.parametrize("moments", [[0], [3, 8], [5, 11]], ids=str)
def test_a_run_that_is_killed_ends_with_the_same_numbers(
    studio: Services,
    finished: Run[TrainingPlan],
    whole: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    moments: list[int],
) -> None:
    pids: list[int] = []
    begin = TrainingProcess.__init__

    def noted(self: TrainingProcess, settings: Settings, folder: Path) -> None:
        begin(self, settings, folder)
        pids.append(self.pid)

    monkeypatch.setattr(TrainingProcess, "__init__", noted)
    run = studio.training.submit(quick(f"Killed at {moments}", **whole))
    for count, moment in enumerate(moments, start=1):
        when(run, studio, lambda each, count=count, moment=moment: len(pids) == count and each.step >= moment)
        os.kill(pids[-1], signal.SIGKILL)
    job = studio.training.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    assert len(pids) == len(moments) + 1
    again = studio.training.run_of(run.id)
    for name in EXPORTS.values():
        wanted, killed = (load_file(each.folder / name) for each in (finished, again))
        assert wanted.keys() == killed.keys() and all(torch.equal(wanted[key], killed[key]) for key in wanted)
    assert [look.model_dump() for look in again.looked] == [look.model_dump() for look in finished.looked]
    assert list(again.checkpoints) == list(finished.checkpoints) == [5, 10, 12]
    for step, path in finished.checkpoints.items():
        wanted, killed = load_file(path), load_file(again.checkpoints[step])
        assert wanted.keys() == killed.keys() and all(torch.equal(wanted[key], killed[key]) for key in wanted)


def test_a_training_that_is_asked_for_again_is_the_same_run(studio: Services) -> None:
    service, request = studio.training, quick("Asked for twice", num_steps=10, num_prior=0)
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: service.submit(request, once_key="key"), range(4)))
    assert len({run.id for run in runs}) == 1
    assert sum(run.plan.name == "Asked for twice" for run in service.runs.of()) == 1
    job = service.job_of(service.run_of(runs[0].id))
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    assert service.submit(request, once_key="key").id == runs[0].id
    with pytest.raises(InvalidRequest, match="was used for another request"):
        service.submit(request.model_copy(update={"num_steps": 11}), once_key="key")


def test_a_run_that_is_stopped_keeps_its_best_and_goes_on(studio: Services) -> None:
    service = studio.training
    run = service.submit(quick("Stopped", num_steps=400, look_every=5, num_prior=0))
    when(run, studio, lambda each: len(each.looked) > 1 and each.step > 5)
    service.stop(run.id)
    job = service.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    kept = service.run_of(run.id)
    assert 5 < kept.step < 400 and kept.record.adapter_id and not kept.is_done
    before = {entry.id for entry in studio.adapters.store.entries()}
    again = service.go_on(run.id)
    when(run, studio, lambda each: each.step > kept.step + 3)
    service.stop(run.id)
    job = service.job_of(again)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    assert {entry.id for entry in studio.adapters.store.entries()} == before  # in place of the earlier one


def test_it_ends_early_when_it_gets_no_better(studio: Services, enough: Path) -> None:
    slow = {"folder": str(enough), "learning_rate": 1e-6, "schedule": "constant", "num_prior": 0}
    run = ended(studio, quick("Settled", num_steps=500, look_every=5, patience=2, **slow))
    assert run.is_done and run.step < 500
    assert any(isinstance(event, Settled) and event.step == run.step for event in run.events)
    with pytest.raises(InvalidRequest, match="is done"):
        studio.training.go_on(run.id)


def test_numbers_that_run_over_end_the_run_and_what_was_best_is_kept(studio: Services) -> None:
    run = studio.training.submit(quick("Wild", learning_rate=1.0, num_steps=20, num_prior=0, schedule="constant"))
    job = studio.training.job_of(run)
    last = job.wait(timeout=PATIENCE_S) if job else None
    if isinstance(last, Failed):  # else it survived, and its looks say how well
        assert "ran over" in last.message and "learning rate below 1" in last.hint
    state = torch.load(run.folder / "lora.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["modules"]["unet"].values())


def test_pictures_without_words_of_other_forms_teach_as_well(studio: Services, tmp_path: Path) -> None:
    for index, size in enumerate([(256, 128), (128, 256), (200, 200), (90, 90)]):
        Image.new("RGB", size, ("red", "green", "blue", "white")[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    run = ended(studio, quick("Wordless", folder=str(tmp_path), num_steps=10, batch_size=4, num_prior=0))
    assert run.plan.num_pictures == 4 and run.plan.num_held_out == 0
    assert run.looked[-1].validation is None and run.looked[-1].prompts == ("sks",)
    sizes = {tuple(torch.load(path, weights_only=True)["latents"].shape) for path in cached(studio, "latents")}
    assert {(4, 12, 20), (4, 20, 12), (4, 16, 16)} <= sizes


def cached(studio: Services, kind: str) -> list[Path]:
    return sorted((studio.settings.cache_dir / kind).iterdir())


def test_what_was_encoded_is_not_encoded_again_until_a_picture_changes(studio: Services, tmp_path: Path) -> None:
    shutil.copytree(CRESCENTS, tmp_path / "copy")
    alone = {"num_prior": 0, "text_learning_rate": 0}
    ended(studio, quick("First", folder=str(tmp_path / "copy"), num_steps=10, **alone))
    before = {path: path.stat().st_mtime_ns for path in cached(studio, "latents")}
    Image.new("RGB", (256, 256), "navy").save(tmp_path / "copy" / "0000.png")
    ended(studio, quick("Second", folder=str(tmp_path / "copy"), num_steps=10, **alone))
    after = {path: path.stat().st_mtime_ns for path in cached(studio, "latents")}
    assert before.items() <= after.items()
    assert len(set(after) - set(before)) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": " "}, "no name"),
        ({"num_steps": 3}, "Steps is 3"),
        ({"learning_rate": float("nan")}, "Learning rate is nan"),
        ({"colour": 3}, "no setting 'colour'"),
    ],
)
def test_values_that_do_not_work_are_said(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_training({"name": "x", **values})


def test_nothing_is_begun_without_pictures(studio: Services, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nothing to learn from"):
        studio.training.submit(quick("None", folder=""))
    with pytest.raises(DatasetError):
        studio.training.submit(quick("Empty", folder=str(tmp_path)))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="can be learnt from"):
        studio.training.submit(quick("Broken", folder=str(tmp_path)))


def test_only_what_masks_show_is_learnt(studio: Services, tmp_path: Path) -> None:
    shutil.copytree(CRESCENTS, tmp_path / "copy")
    alone = {"num_prior": 0, "masked": True, "mask_floor": 0.0, "text_learning_rate": 0}
    with pytest.raises(InvalidRequest, match="No picture of 'copy' has a mask"):
        studio.training.submit(quick("None", folder=str(tmp_path / "copy"), **alone))
    first = tmp_path / "copy" / "0000.png"
    with Image.open(first) as image:
        white = Image.new("L", image.size, "white")
    white.paste(0, (0, 0, white.width // 2, white.height))
    white.save(tmp_path / "copy" / "0000.mask.png")
    run = ended(studio, quick("Half", folder=str(tmp_path / "copy"), **alone))
    assert run.is_done and run.plan.num_pictures == 16
    (kept,) = (torch.load(path, weights_only=True) for path in cached(studio, "masks"))
    assert kept.shape == (1, 16, 16)
    assert kept[..., :8].max() < 0.05 and kept[..., 8:].min() > 0.95  # the edge is smoothed where pictures are shrunk


def test_what_a_large_model_knew_is_preserved_only_where_somebody_says_what(catalogue: Catalogue) -> None:
    plan = resolve_training(quick("Large", checkpoint="sd15", num_prior=None), catalogue, 10)
    assert plan.num_prior == 0
    told = quick("Large", checkpoint="sd15", num_prior=None, prior_prompts=("a photo of a dog",))
    assert resolve_training(told, catalogue, 10).num_prior == 200
    with pytest.raises(InvalidRequest, match="no prompt for the pictures"):
        resolve_training(quick("Large", checkpoint="sd15", num_prior=50), catalogue, 10)


def test_presets_go_from_quick_to_thorough(catalogue: Catalogue) -> None:
    plans = [
        resolve_training(
            parse_training({"name": "x", "folder": "x", "checkpoint": checkpoint, "preset": preset}), catalogue, 12
        )
        for checkpoint in ("pocket-sd15", "sd15", "sdxl")
        for preset in ("fast", "balanced", "high_quality")
    ]
    assert [plan.rank for plan in plans[3:6]] == [8, 16, 32]
    for family in (plans[:3], plans[3:6], plans[6:]):
        assert [plan.num_steps for plan in family] == sorted({plan.num_steps for plan in family})
        assert all(plan.alpha == plan.rank for plan in family)


def test_the_command_line_trains_by_a_file_and_flags_go_over_it(cli: Cli, tmp_path: Path, settings: Settings) -> None:
    shutil.copytree(CRESCENTS, tmp_path / "pictures")
    config = tmp_path / "run.toml"
    config.write_text(
        'name = "From a file"\nfolder = "pictures"\nnum_steps = 400\nrank = 2\nnum_prior = 0\nbatch_size = 2\n'
    )
    flags = ["--steps", "10", "--look-every", "5", "--out", str(tmp_path / "out")]
    code, out, err = cli("train", "--config", str(config), *flags)
    assert (code, out.strip()) == (0, "From a file"), err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "From a file-diffusers.safetensors",
        "From a file.safetensors",
    ]
    assert "Step 10: " in err
    code, out, _ = cli("train", "--list")
    assert code == 0 and "From a file (pocket-sd15): step 10 of 10, best at step" in out
    config.write_text('name = "x"\ncolour = 1')
    code, _, err = cli("train", "--config", str(config))
    assert code == 2 and "no setting 'colour'" in err
