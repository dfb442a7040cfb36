"""One training shared by two processes is the training of one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from engines.base import Engine
from engines.training.processes import Processes
from studio.domain.events import Failed, Finished
from studio.domain.run_files import EXPORTS
from studio.domain.training import TrainingPlan, parse_training
from studio.generation import EngineHolder
from studio.processes import child_environment
from studio.runs import Run, RunRecord
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings

PATIENCE_S = 600
PROCESSES = ("--nproc_per_node", "2")
ASKED: dict[str, Any] = {
    "folder": str(PROJECT_ROOT / "examples" / "album"), "num_steps": 10, "batch_size": 5, "rank": 2, "look_every": 10,
    "num_prior": 8, "text_learning_rate": 5e-4, "sample_prompts": ("a red star on a white background",),
}  # fmt: skip


def opened(engine: Engine, folder: Path, processes: int) -> Iterator[Services]:
    settings = Settings(data_dir=folder, offline=True, dtype="float32", training_processes=processes)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        yield services


@pytest.fixture(scope="module")
def one(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    yield from opened(engine, tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def two(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    yield from opened(engine, tmp_path_factory.mktemp("two"), 2)


def trained(studio: Services, **changes: object) -> Run[TrainingPlan]:
    run = studio.training.submit(parse_training({**ASKED, "name": "Shared", **changes}))
    job = studio.training.job_of(run)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    return studio.training.run_of(run.id)


@pytest.fixture(scope="module")
def alone(one: Services) -> Run[TrainingPlan]:
    return trained(one)


def is_same(run: Run[TrainingPlan], alone: Run[TrainingPlan]) -> None:
    """Equal but for the order in which numbers were added up."""
    assert run.step == alone.step == 10
    for look, expected in zip(run.looked, alone.looked, strict=True):
        assert look.step == expected.step
        assert look.validation == pytest.approx(expected.validation, rel=1e-4)
    assert run.trained[-1].step == 10
    for name in EXPORTS.values():
        got, expected = load_file(run.folder / name), load_file(alone.folder / name)
        assert got.keys() == expected.keys()
        for key, tensor in expected.items():
            # Not each number: AdamW moves one whose gradient is nearly nothing as far as any other.
            assert float((got[key] - tensor).norm()) <= 1e-2 * float(tensor.norm()), key


def test_two_processes_of_the_studio_learn_what_one_learns(two: Services, alone: Run[TrainingPlan]) -> None:
    is_same(trained(two), alone)


def test_so_do_two_that_torchrun_starts(one: Services, alone: Run[TrainingPlan]) -> None:
    """As `accelerate launch` starts them for several GPUs; for CPUs alone it would need MPI."""
    run_id = f"{alone.id[:-4]}0000"
    run = one.training.runs.add(run_id, alone.plan, RunRecord(id=run_id, visitor="local", created_at=time.time()))
    settings = {f"FLASH_STUDIO_{name.upper()}": str(value) for name, value in one.settings.model_dump().items()}
    started = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *PROCESSES, "-m", "studio.training_worker", run.folder],
        env={**os.environ, **child_environment(), **settings},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
    )
    assert started.returncode == 0, started.stderr
    is_same(one.training.run_of(run_id), alone)


def test_a_batch_that_cannot_be_shared_says_what_to_do(two: Services) -> None:
    run = two.training.submit(parse_training({**ASKED, "name": "Small", "batch_size": 1}))
    job = two.training.job_of(run)
    assert job is not None
    failed = job.wait(timeout=PATIENCE_S)
    assert isinstance(failed, Failed) and "2 processes cannot share batches of 1" in failed.message


@pytest.mark.parametrize(("size", "count"), [(4, 2), (5, 2), (7, 3), (3, 3)])
def test_shares_make_up_the_batch(size: int, count: int) -> None:
    shares = [Processes(index, count).share(size) for index in range(count)]
    assert [index for share, _ in shares for index in range(size)[share]] == list(range(size))
    assert sum(weight for _, weight in shares) == pytest.approx(1)


def test_who_is_left_without_anything_counts_for_nothing() -> None:
    assert Processes(1, 2).share(1) == (slice(0, 1), 0.0)
