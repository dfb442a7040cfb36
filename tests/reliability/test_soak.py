"""X4: a studio that draws for hours, with adapters and models that change and pages that are opened, stays as it is."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio.settings import Settings
from tests.reliability.conftest import Score
from tests.reliability.soak import keep_adapters, soak
from tests.running_app import running_app
from tests.studio.adapter_files import adapter_file

DRAWINGS = int(os.environ.get("STUDIO_SOAK_DRAWINGS", "2000"))
FEW = 400
"""Fewer drawings tell more of the allocator than of us."""
REMEMBERED = 2000
"""As many ended jobs as a runner keeps, see `studio.jobs`."""
MOST_MB_PER_THOUSAND = 1.0


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The app in one process, the engine in it."""
    settings = Settings(data_dir=tmp_path / "data")
    keep_adapters(settings.adapters_dir, adapter_file)
    environment = {"FLASH_STUDIO_OFFLINE": "1", "FLASH_STUDIO_ENGINE_PROCESS": "shared", "OMP_NUM_THREADS": "1"}
    with running_app(settings.data_dir, **environment) as app:
        yield app.url, psutil.Process(app.pid)


@pytest.mark.slow
@pytest.mark.parametrize(
    "count",
    [pytest.param(60, marks=pytest.mark.full), pytest.param(DRAWINGS, marks=pytest.mark.long)],
    ids=["full", "long"],
)
def test_hours_of_drawing_leave_nothing_behind(
    studio: tuple[str, psutil.Process], score: Score, remark: Callable[[str], None], count: int
) -> None:
    measured = soak(*studio, count, REMEMBERED if count >= FEW else 0, print)
    after = [place for place, n in enumerate(measured.drawn) if n >= count // 2]
    files, threads = ([each[place] for place in after] for each in (measured.files, measured.threads))
    slope = measured.mb_per_thousand(warm_up=count // 2)
    remark(
        f"{count} drawings in one process: {slope:+.2f} MB for a thousand after the first {count // 2}, "
        f"{measured.mb[-1]:.0f} MB at the end; {min(files)} to {max(files)} open files, {min(threads)} to "
        f"{max(threads)} threads"
    )
    score(inputs=count)
    assert max(files) - min(files) <= 4 and max(threads) - min(threads) <= 4
    if count >= FEW:
        assert slope < MOST_MB_PER_THOUSAND
