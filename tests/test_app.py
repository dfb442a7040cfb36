"""What `python app.py` says: what it asks for, or in one sentence why it cannot start and the way out."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from studio.settings import PROJECT_ROOT
from tests.running_app import running_app


def start(data_dir: Path, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLASH_STUDIO_DATA_DIR": str(data_dir)}
    environment |= {f"FLASH_STUDIO_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "app.py", *flags]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "how", [{"FLASH_STUDIO_HOST": "0.0.0.0"}, {"FLASH_STUDIO_MODE": "shared"}], ids=["lan", "shared"]
)
def test_a_page_for_others_makes_a_password_of_its_own(tmp_path: Path, how: dict[str, str]) -> None:
    with running_app(tmp_path, FLASH_STUDIO_OFFLINE="1", FLASH_STUDIO_PASSWORD="", **how) as app:
        found = re.fullmatch(r"It asks for this password: (\S{16,})\n", app.said.readline())
        assert found, "printed behind the address"
        for headers in ({}, {"Authorization": f"Bearer {found[1][:-1]}"}):
            assert httpx.get(f"{app.url}/config", headers=headers, timeout=60).status_code == 401
        config = httpx.get(f"{app.url}/config", headers={"Authorization": f"Bearer {found[1]}"}, timeout=60)
    assert config.status_code == 200 and "Generate" in config.text and "Train LoRA" not in config.text
    assert found[1] not in (tmp_path / "app.log").read_text()


def test_everything_is_not_given_to_everybody_without_a_password(tmp_path: Path) -> None:
    ended = start(tmp_path, mode="local", host="0.0.0.0")
    assert ended.returncode == 1
    assert "In local mode everybody who reaches the page may do everything" in ended.stderr
    assert "Traceback" not in ended.stderr


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
