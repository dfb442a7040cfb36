"""A training is looked at before it begins, on the machine that is there: refused in time, and told as it turns out."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines.base import Engine
from studio.domain.errors import OutOfMemory
from studio.domain.run_events import Trained, line_of
from studio.domain.run_files import EVENTS
from studio.domain.training import TrainingRequest, parse_training
from studio.domain.training_estimate import changes
from studio.generation import EngineHolder
from studio.runs import Run, RunRecord
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.training_process import TrainingProcess
from tests.studio.conftest import Cli

CRESCENTS = PROJECT_ROOT / "examples" / "crescents"


def asked(**values: Any) -> TrainingRequest:
    return parse_training({"name": "Mine", "folder": str(CRESCENTS), "num_steps": 10, **values})


@pytest.fixture
def cramped(settings: Settings, engine: Engine) -> Iterator[Services]:
    """A studio that may count on no more than 0.9 GB."""
    with open_services(settings.model_copy(update={"memory_gb": 0.9}), engine=EngineHolder(lambda: engine)) as opened:
        opened.trainer.stop(timeout=10)
        yield opened


def test_what_does_not_fit_is_refused_with_what_would_and_nothing_is_begun(cramped: Services) -> None:
    request = asked(batch_size=64)
    with pytest.raises(
        OutOfMemory, match=r"takes about \d\.\d GB of memory, and 0\.8 GB is free on the CPU"
    ) as refusal:
        cramped.training.submit(request)
    assert cramped.training.runs.of() == () and not cramped.settings.runs_dir.exists()
    remedy = cramped.training.preflight(request).remedy
    assert remedy is not None and changes(cramped.training.plan(request), remedy) in refusal.value.hint
    assert remedy.batch_size * remedy.accumulation == 64
    run = cramped.training.submit(asked(batch_size=remedy.batch_size, accumulation=remedy.accumulation))
    assert cramped.training.runs.of() == (run,)


def test_a_run_from_when_there_was_more_memory_is_not_gone_on_with_yet(cramped: Services) -> None:
    plan = cramped.training.plan(asked(batch_size=64))
    run_id = cramped.ledger.new_id()
    cramped.training.runs.add(run_id, plan, RunRecord(id=run_id, visitor="local", created_at=time.time()))
    with pytest.raises(OutOfMemory, match=r"takes about \d\.\d GB; 0\.8 GB is free on the CPU") as refusal:
        cramped.training.go_on(run_id)
    assert "Close other programs" in refusal.value.hint
    assert cramped.training.job_of(cramped.training.run_of(run_id)) is None


def test_a_model_that_is_not_here_counts_its_download(services: Services) -> None:
    needed = {
        checkpoint: services.training.preflight(asked(checkpoint=checkpoint)).disk.needed_bytes
        for checkpoint in ("pocket-sd15", "sd15", "sdxl")
    }
    assert needed["pocket-sd15"] < 0.5e9 and needed["sd15"] > 4.3e9 and needed["sdxl"] > 13.9e9


def test_an_unknown_machine_is_not_waited_for(settings: Settings) -> None:
    def load() -> Engine:
        raise AssertionError("the engine is not needed")

    automatic = settings.model_copy(update={"device": "cuda"})
    with open_services(automatic, engine=EngineHolder(load)) as opened:
        told = opened.training.preflight(asked(checkpoint="sd15"), is_patient=False)
        assert told.memory is None and told.problem is None and "once the engine is ready" in told.line


def finished(services: Services, name: str, step_s: float, **values: Any) -> Run[Any]:
    """A run that got somewhere."""
    services.trainer.stop(timeout=10)
    run = services.training.submit(asked(name=name, **values))
    told = Trained(step=5, total=10, loss=0.1, step_s=step_s, look_s=4.0)
    (run.folder / EVENTS).write_text(line_of(told))
    return run


def test_time_is_that_of_the_most_similar_run_scaled_by_pictures(services: Services) -> None:
    assert services.training.preflight(asked()).pace is None
    finished(services, "Small", 1.0, batch_size=2, num_prior=0)
    finished(services, "Large", 7.0, batch_size=16, num_prior=0)
    finished(services, "Another size", 50.0, batch_size=4, num_prior=0, size=192)
    pace = services.training.preflight(asked(batch_size=4, num_prior=0)).pace
    assert pace is not None and (pace.source, pace.step_s, pace.look_s) == ("Small", 2.0, 4.0)
    preserving = services.training.preflight(asked(batch_size=4, num_prior=8)).pace
    assert (preserving is not None and preserving.source == "Large") or (preserving and preserving.step_s > 3)
    assert services.training.preflight(asked(checkpoint="pocket-sd21")).pace is None


def test_a_real_run_stays_below_what_was_told_and_takes_more_than_half(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[psutil.Process] = []
    begin = TrainingProcess.__init__

    def noted(self: TrainingProcess, settings: Settings, folder: Path) -> None:
        begin(self, settings, folder)
        processes.append(psutil.Process(self.pid))

    monkeypatch.setattr(TrainingProcess, "__init__", noted)
    request = asked(num_steps=400, batch_size=16, look_every=400, num_prior=8)
    told = services.training.preflight(request).memory
    run = services.training.submit(request)
    job, peak = services.training.job_of(run), 0
    assert told is not None and job is not None
    while not job.is_over:
        peak = max(peak, *map(_peak_bytes, processes), 0)
        if services.training.run_of(run.id).step > 2:
            services.training.stop(run.id)
        time.sleep(0.1)
    assert told.needed_bytes / 2 < peak < told.needed_bytes
    trained = services.training.run_of(run.id).trained[-1]
    assert trained.step > 2 and trained.look_s is not None and trained.look_s > 0


def _peak_bytes(process: psutil.Process) -> int:
    """The kernel's own count of the most it ever held, or what it holds now where there is none; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    except OSError:
        try:
            return process.memory_info().rss
        except psutil.Error:
            return 0


def test_the_command_line_tells_and_begins_nothing(cli: Cli, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["train", "Mine", "--data", str(CRESCENTS), "--dry-run"]
    code, out, _ = cli(*flags)
    assert code == 0 and "Steps: 1200 = 16 pictures × 300 times ÷ 4 a step" in out
    assert "Time: not known yet" in out and "free on the CPU" in out and "Disk: up to" in out
    monkeypatch.setenv("FLASH_STUDIO_MEMORY_GB", "0.9")
    code, out, err = cli(*flags, "--batch", "64")
    assert code == 1 and "Memory: about" in out and "It fits with" in err
    assert not (data_dir / "runs").exists()
