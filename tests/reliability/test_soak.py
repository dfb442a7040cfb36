"""X4: a studio that draws for hours, with adapters and models that change and pages that are opened, stays as it is."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from studio.settings import PROJECT_ROOT, Settings
from tests.reliability.conftest import Score
from tests.reliability.soak import keep_adapters, soak
from tests.studio.adapter_files import adapter_file

DRAWINGS = int(os.environ.get("STUDIO_SOAK_DRAWINGS", "2000"))
START_S = 180
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
    environment = {
        "FLASH_STUDIO_DATA_DIR": str(settings.data_dir), "FLASH_STUDIO_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "FLASH_STUDIO_ENGINE_PROCESS": "shared", "GRADIO_TEMP_DIR": str(tmp_path / "tmp"),
    }  # fmt: skip
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "app.py", "--port", "0"],
            cwd=PROJECT_ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=log, text=True,
        ) as process,
    ):  # fmt: skip
        watchdog = threading.Timer(START_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        address = re.search(r"http://[^\s/]+", process.stdout.readline())
        watchdog.cancel()
        assert address, (tmp_path / "log").read_text()
        yield address[0], psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)


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
