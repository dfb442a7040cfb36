"""A distillation as its owner meets it: begun, killed, stopped, gone on with, and its adapter in use at once."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engines.base import Engine
from studio.dataset_files import read_dataset
from studio.distillation import DistillationService
from studio.domain.catalogue import Catalogue
from studio.domain.distillation import DistillationPlan, DistillationRequest, parse_distillation, resolve_distillation
from studio.domain.errors import DatasetError, InvalidRequest, NotFound
from studio.domain.events import Cancelled, Event, Failed, Finished, Progress
from studio.domain.request import GenerationRequest
from studio.domain.run_events import Looked, Preparing, Trained, event_of, line_of
from studio.domain.run_files import EVENTS, EXPORTS
from studio.domain.sampling_rules import RULES_KEY
from studio.domain.tensors import read_header
from studio.generation import EngineHolder
from studio.run_service import TRAINING, WAITING
from studio.runs import EventLog, Run
from studio.services import Services, open_services
from studio.settings import Settings
from studio.training_process import TrainingProcess
from tests.engines.hub import served
from tests.studio.conftest import Cli

QUICK = {"checkpoint": "pocket-sd15", "num_pictures": 8, "num_steps": 10, "batch_size": 2, "rank": 2, "look_every": 5}
PATIENCE_S = 600


def quick(name: str, **changes: object) -> DistillationRequest:
    return parse_distillation({**QUICK, "name": name, **changes})


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(studio: Services) -> Run:
    """A run that nobody disturbed."""
    run = studio.distillation.submit(quick("Undisturbed"))
    job = studio.distillation.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    return studio.distillation.run_of(run.id)


def started(service: DistillationService, request: DistillationRequest, is_reached: Callable[[Run], bool]) -> Run:
    """A run of `request` that has got so far."""
    run = service.submit(request)
    deadline = time.monotonic() + PATIENCE_S
    while not is_reached(service.run_of(run.id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return service.run_of(run.id)


def test_a_run_leaves_an_adapter_in_two_layouts_that_is_offered_at_once(studio: Services, finished: Run) -> None:
    assert finished.step == 10 and [look.step for look in finished.looked] == [0, 5, 10]
    assert all(look.checked >= 20 and look.right is not None for look in finished.looked)
    rows = studio.catalogue.accelerators_for(studio.catalogue.checkpoint("pocket-sd15"))
    (row,) = [row for row in rows if row.id == finished.record.accelerator_id]
    assert (row.title, row.trained_steps, row.grid, row.licence) == ("Undisturbed", (2, 4, 8), "lcm", "MIT")
    kohya, diffusers = (finished.folder / name for name in EXPORTS.values())
    assert json.loads(read_header(kohya).metadata[RULES_KEY])["checkpoint"] == "pocket-sd15"
    names = set(load_file(diffusers))
    assert all(name.startswith("unet.") and ".lora_" in name for name in names)
    ups = [tensor for name, tensor in load_file(kohya).items() if name.endswith("lora_up.weight")]
    assert len(ups) * 2 == len(names) and any(up.abs().max() > 0 for up in ups)


def test_its_pictures_differ_from_the_models_own_in_as_many_steps(studio: Services, finished: Run) -> None:
    asked = {"seed": 3, "num_inference_steps": 2, "guidance_scale": 1.0, "scheduler": "lcm"}
    drawn = [
        studio.generate("a red star on a white background", accelerator=accelerator, **asked)[0]
        for accelerator in ("none", finished.record.accelerator_id)
    ]
    assert drawn[0].pixels_sha256 != drawn[1].pixels_sha256


def test_a_process_that_is_killed_is_started_anew_and_ends_with_the_same_numbers(
    studio: Services, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    begin = TrainingProcess.__init__

    def noted(self: TrainingProcess, settings: Settings, folder: Path) -> None:
        begin(self, settings, folder)
        pids.append(self.pid)

    monkeypatch.setattr(TrainingProcess, "__init__", noted)
    run = started(studio.distillation, quick("Killed"), lambda run: run.step >= 6)
    os.kill(pids[0], signal.SIGKILL)
    job = studio.distillation.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    assert len(pids) == 2
    ended = studio.distillation.run_of(run.id)
    assert [look.step for look in ended.looked] == [0, 5, 10]
    steps = [trained.step for trained in ended.trained]
    assert steps == sorted(set(steps)) and steps[-1] == 10
    whole, killed = (load_file(each.folder / EXPORTS["kohya"]) for each in (finished, ended))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_run_that_is_stopped_keeps_its_best_and_goes_on(studio: Services) -> None:
    service = studio.distillation
    run = started(service, quick("Stopped", num_steps=400), lambda run: len(run.looked) > 1 and run.step > 5)
    with pytest.raises(InvalidRequest, match="in line already"):
        service.go_on(run.id)
    service.stop(run.id)
    job = service.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    kept = service.run_of(run.id)
    assert 5 < kept.step < 400 and kept.record.accelerator_id
    offered = {row.id for row in studio.catalogue.accelerators}
    again = service.go_on(run.id)
    deadline = time.monotonic() + PATIENCE_S
    while service.run_of(run.id).step <= kept.step + 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.stop(run.id)
    job = service.job_of(again)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    assert {row.id for row in studio.catalogue.accelerators} == offered  # in place of the earlier one


def test_a_run_in_line_is_not_deleted_and_a_deleted_one_leaves_its_accelerator(studio: Services) -> None:
    service = studio.distillation
    run = started(service, quick("Short-lived", num_steps=400), lambda run: run.best is not None)
    with pytest.raises(InvalidRequest, match="in line already"):
        service.delete(run.id)
    service.stop(run.id)
    job = service.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    made = service.run_of(run.id).record.accelerator_id
    service.delete(run.id)
    assert not run.folder.exists() and run.id not in [other.id for other in service.runs.of()]
    studio.own_accelerators.refresh()
    assert made and studio.catalogue.accelerator(made)
    with pytest.raises(NotFound):
        service.delete(run.id)


def test_training_waits_while_a_picture_is_drawn(studio: Services) -> None:
    service = studio.distillation
    run = started(service, quick("Patient", num_steps=4000, look_every=1000), lambda run: run.step > 2)
    job = service.job_of(run)
    assert job is not None
    seen: list[Event] = []
    watcher = threading.Thread(target=lambda: seen.extend(job.events()), daemon=True)
    watcher.start()
    drawing = studio.generation.submit(picture_that_takes_a_while(), again=True)
    told = [event for event in drawing.events(timeout=60) if isinstance(event, Progress)]
    assert isinstance(drawing.wait(timeout=60), Finished)
    over = told[-1].time
    begun = told[0].time + (over - told[0].time) / 2  # the step that was under way may end before
    held = service.run_of(run.id).step
    deadline = time.monotonic() + 60
    while service.run_of(run.id).step <= held:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.stop(run.id)
    watcher.join(PATIENCE_S)
    steps = [event for event in seen if isinstance(event, Progress)]
    assert over - begun > 1
    assert [event for event in steps if event.phase == TRAINING and begun < event.time < over] == []
    assert WAITING in {event.phase for event in steps}


def test_a_studio_that_is_closed_goes_on_with_the_run_when_it_is_opened_again(
    settings: Settings, engine: Engine
) -> None:
    with open_services(settings, engine=EngineHolder(lambda: engine)) as first:
        run = started(first.distillation, quick("Closed", num_steps=12, look_every=6), lambda run: run.step > 1)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as second:
        again = second.distillation.run_of(run.id)
        assert again.step < 12
        job = second.distillation.job_of(again)
        assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
        assert second.distillation.run_of(run.id).step == 12


def test_a_folder_teaches_as_well_and_pictures_that_cannot_be_opened_are_left_out(
    studio: Services, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(255, size=(90, 160, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a red star")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    (tmp_path / "broken.txt").write_text("a red star")
    run = studio.distillation.submit(quick("Folder", folder=str(tmp_path), num_steps=10, num_pictures=None))
    assert (run.plan.source, run.plan.num_pictures) == ("folder", 4)
    job = studio.distillation.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)


def test_a_data_set_of_the_hub_is_fetched_by_the_trainings_process_and_teaches_as_well(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served({"datasets/owner/set": pictures_with_a_list(5)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        online = settings.model_copy(update={"offline": False})
        with open_services(online, engine=EngineHolder(lambda: engine)) as services:
            request = quick("Hub", dataset="owner/set", num_pictures=3)
            run = started(services.distillation, request, lambda run: bool(run.looked))
            assert (run.plan.source, run.plan.dataset, run.plan.num_pictures) == ("hub", "owner/set", 3)
            told = [event_of(line) for line in (run.folder / EVENTS).read_text().splitlines()]
            assert told[0] == Preparing(done=1, total=3) and Preparing(done=3, total=3) in told
            services.distillation.stop(run.id)
            job = services.distillation.job_of(run)
            assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Cancelled)
    assert len(read_dataset(online.datasets_dir / "owner--set--3").items) == 3


def test_a_data_set_that_cannot_be_fetched_is_said(studio: Services) -> None:
    run = studio.distillation.submit(quick("Offline", dataset="owner/set"))
    job = studio.distillation.job_of(run)
    last = job.wait(timeout=PATIENCE_S) if job else None
    assert isinstance(last, Failed) and "owner/set is not on this machine" in last.message


def test_a_plan_from_before_there_were_data_sets_is_read(catalogue: Catalogue) -> None:
    plan = resolve_distillation(quick("Old", captions=("a",)), catalogue)
    old = plan.model_dump()
    del old["dataset"]
    assert DistillationPlan.model_validate(old) == plan


def test_captions_alone_teach_from_the_teachers_own_pictures(studio: Services) -> None:
    captions = ("a red star on a white background", "two blue circles on black")
    run = studio.distillation.submit(quick("Words", captions=captions, num_pictures=4))
    job = studio.distillation.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    assert studio.distillation.run_of(run.id).step == 10


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": " "}, "no name"),
        ({"num_steps": 3}, "Steps is 3"),
        ({"learning_rate": float("nan")}, "Learning rate is nan"),
        ({"distribution_matching": -1}, "Distribution matching is -1"),
        ({"checkpoint": "sd15"}, "nothing to teach Stable Diffusion 1.5 on"),
        ({"checkpoint": "gone"}, "no model called 'gone'"),
        ({"folder": "/x", "captions": ("a",)}, "Both a folder of pictures and captions"),
        ({"folder": "/x", "dataset": "a/b"}, "Both a folder of pictures and a data set of the hub"),
        ({"dataset": "a/b", "captions": ("a",)}, "Both a data set of the hub and captions"),
        ({"dataset": "../x"}, "'../x' is no id of a data set on the Hugging Face hub. Give it as its page does"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_begun(
    catalogue: Catalogue, values: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        resolve_distillation(parse_distillation({**QUICK, "name": "x", **values}), catalogue)


def test_a_second_loss_is_on_where_it_was_measured_and_off_elsewhere(catalogue: Catalogue) -> None:
    def weight(**asked: Any) -> float:
        return resolve_distillation(DistillationRequest(name="x", **asked), catalogue).distribution_matching

    assert weight() > 0
    assert weight(objective="lcm") == weight(objective="flash") == 0
    assert weight(checkpoint="sd15", captions=("a",)) == 0
    assert weight(distribution_matching=0.0) == 0
    plan = resolve_distillation(DistillationRequest(name="x"), catalogue).model_dump(mode="json")
    del plan["distribution_matching"]  # as plans of earlier versions were written
    assert DistillationPlan.model_validate(plan).distribution_matching == 0


def test_a_folder_without_captions_and_a_run_that_is_not_there_are_refused(services: Services, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no picture with a caption"):
        services.distillation.submit(quick("x", folder=str(tmp_path)))
    for run_id in ("gone", "../../etc", "0" * 48):
        with pytest.raises(NotFound):
            services.distillation.run_of(run_id)


def test_steps_that_were_done_again_are_told_once_and_half_a_line_is_no_event(finished: Run, tmp_path: Path) -> None:
    told = [
        Preparing(done=8, total=8),
        *(Trained(step=step, total=9, loss=0.1, step_s=1.0) for step in (1, 2, 3)),
        Looked(step=2, distance=0.5),
        *(Trained(step=step, total=9, loss=0.2, step_s=1.0) for step in (2, 3, 4)),
        Looked(step=2, distance=0.4),
    ]
    (tmp_path / EVENTS).write_text("".join(line_of(event) for event in told) + '{"kind": "trained", "st')
    run = Run(folder=tmp_path, record=finished.record, plan=finished.plan, log=EventLog(tmp_path / EVENTS))
    assert [(event.step, event.loss) for event in run.trained] == [(1, 0.1), (2, 0.2), (3, 0.2), (4, 0.2)]
    assert [look.distance for look in run.looked] == [0.4]
    assert run.step == 4
    with (tmp_path / EVENTS).open("a") as file:
        file.write('ep": 5, "total": 9, "loss": 0.3, "step_s": 1.0}\n')
    later = Run(folder=tmp_path, record=finished.record, plan=finished.plan, log=run.log)
    assert later.step == 5 and len(later.trained) == 5


def test_the_command_line_trains_copies_and_lists(cli: Cli, tmp_path: Path) -> None:
    flags = ["--model", "pocket-sd15", "--pictures", "4", "--batch", "2", "--rank", "2", "--steps", "10"]
    code, out, err = cli("distil", "By hand", *flags, "--out", str(tmp_path / "copies"))
    assert (code, out.strip()) == (0, "By hand")
    assert "Kept: that of step" in err
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == [
        "By hand-diffusers.safetensors",
        "By hand.safetensors",
    ]
    code, out, _ = cli("distil", "--list")
    assert code == 0 and "By hand (pocket-sd15): step 10 of 10, best at step" in out
    code, _, err = cli("distil", "--go-on", out.split()[0])
    assert code == 2 and "This run is done." in err


def test_the_command_line_names_a_data_set_by_its_id(cli: Cli) -> None:
    code, _, err = cli("distil", "x", "--model", "pocket-sd15", "--dataset", "cats")
    assert code == 2 and "'cats' is no id of a data set" in err
    code, _, err = cli("distil", "x", "--model", "pocket-sd15", "--dataset", "owner/cats", "--pictures", "3")
    assert code == 1 and "owner/cats is not on this machine and the studio is offline." in err


def pictures_with_a_list(count: int) -> dict[str, bytes]:
    """A data set of the hub in its simplest form."""
    files: dict[str, bytes] = {}
    for number in range(count):
        out = io.BytesIO()
        Image.new("RGB", (64, 64), (40 * number, 80, 160)).save(out, "PNG")
        files[f"{number}.png"] = out.getvalue()
    lines = [json.dumps({"file_name": name, "text": "a red star"}) for name in files]
    return {**files, "metadata.jsonl": "\n".join(lines).encode()}


def picture_that_takes_a_while() -> GenerationRequest:
    return GenerationRequest(prompt="a red star on a white background", seed=1, num_images=8, num_inference_steps=60)
