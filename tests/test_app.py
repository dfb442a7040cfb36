"""What `python app.py` says when it cannot start: one sentence and the way out."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from studio.settings import PROJECT_ROOT


def start(data_dir: Path, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLASH_STUDIO_DATA_DIR": str(data_dir)}
    environment |= {f"FLASH_STUDIO_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "app.py", *flags]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_port_that_does_not_exist_is_named(tmp_path: Path) -> None:
    ended = start(tmp_path, "--port", "99999")
    assert ended.returncode == 1
    assert "--port" in ended.stderr and "65535" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = start(tmp_path, "--port", port)
    assert ended.returncode == 1
    assert f"Port {port} of 127.0.0.1 is taken" in ended.stderr and "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_without_a_driver_is_named_without_its_password(tmp_path: Path) -> None:
    ended = start(tmp_path, database_url="postgresql+nosuch://me:hunter2@host/name")
    assert ended.returncode == 1
    assert "postgresql+nosuch" in ended.stderr
    assert "hunter2" not in ended.stderr and "Traceback" not in ended.stderr


def test_on_zerogpu_a_missing_package_is_named(tmp_path: Path) -> None:
    without = "import runpy, sys; sys.modules['spaces'] = None; runpy.run_path('app.py', run_name='__main__')"
    environment = {**os.environ, "FLASH_STUDIO_DATA_DIR": str(tmp_path), "SPACES_ZERO_GPU": "true"}
    command = [sys.executable, "-c", without]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "the package spaces" in ended.stderr and "requirements.txt" in ended.stderr
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) == 1
