"""The container without an engine for it: its files say what they should, and what they say is done in a folder."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from studio.settings import MIN_PASSWORD, PROJECT_ROOT, Settings

PASSWORD = "a password of length"
PATIENCE_S = 120


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, each on one line: name and rest."""
    text = re.sub(r"^#.*\n", "", (PROJECT_ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in lines) if name]


def of(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def environment() -> dict[str, str]:
    pairs = [pair.partition("=") for rest in of("ENV") for pair in shlex.split(rest)]
    return {name: value for name, _, value in pairs}


def is_left_out(path: str) -> bool:
    """Whether .dockerignore keeps a file from the image."""
    patterns = [
        line for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    parts = path.split("/")
    parents = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    return any(
        fnmatch(part, pattern[3:]) if pattern.startswith("**/") else fnmatch(parent, pattern)
        for pattern in patterns
        for part, parent in zip(parts, parents, strict=True)
    )


def compose() -> dict[str, Any]:
    return yaml.safe_load((PROJECT_ROOT / "compose.yaml").read_text())


def test_what_runs_has_no_rights_and_keeps_all_in_its_volume() -> None:
    order = [name for name, _ in instructions()]
    assert of("USER") == ["studio"] and order.index("USER") < order.index("CMD")
    assert environment()["FLASH_STUDIO_DATA_DIR"] == of("VOLUME")[0] == "/data"
    assert environment()["HF_HOME"].startswith("/data/")
    assert not any("password" in rest.lower() or "api_key" in rest.lower() for _, rest in instructions())
    for rest in of("COPY"):
        *sources, _ = [part for part in rest.split() if not part.startswith("--")]
        assert all((PROJECT_ROOT / source).exists() for source in sources)


def test_secrets_and_pictures_stay_outside() -> None:
    for kept_out in (".env", "data/studio.db", ".git/config", "tests/conftest.py", "studio/__pycache__/x.pyc"):
        assert is_left_out(kept_out), kept_out
    for needed in ("app.py", "studio/data/catalogue.toml", "engines/pocket/weights/pocket-sd15/model_index.json"):
        assert not is_left_out(needed), needed


@pytest.mark.parametrize("name", ["studio", "studio-cuda"])
def test_compose_opens_it_to_this_machine_only_and_asks_for_a_password(name: str) -> None:
    service = compose()["services"][name]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["FLASH_STUDIO_PASSWORD"].startswith("${FLASH_STUDIO_PASSWORD:?")
    assert str(MIN_PASSWORD) in service["environment"]["FLASH_STUDIO_PASSWORD"]
    assert service["hostname"], "jobs are found again by the name of their host"
    volumes = [volume.partition(":") for volume in service["volumes"]]
    assert [(place, volume in compose()["volumes"]) for volume, _, place in volumes] == [("/data", True)]
    given = {key.lower().removeprefix("flash_studio_"): value for key, value in service["environment"].items()}
    settings = {key: value for key, value in given.items() if key in Settings.model_fields}
    checked = Settings.model_validate({**settings, "password": PASSWORD, "host": "0.0.0.0"}).checked()
    assert checked.is_local and (name == "studio") == (checked.device == "cpu")
    has_gpu = bool(service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices"))
    assert has_gpu == (name == "studio-cuda") == bool(service.get("profiles"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image has as /app."""
    folder = tmp_path_factory.mktemp("image") / "app"
    for parent, folders, files in os.walk(PROJECT_ROOT):
        place = Path(parent).relative_to(PROJECT_ROOT)
        folders[:] = [name for name in folders if not is_left_out((place / name).as_posix())]
        (folder / place).mkdir(parents=True)
        for name in files:
            if not is_left_out((place / name).as_posix()):
                shutil.copy(Path(parent) / name, folder / place / name)
    return folder


@contextmanager
def started(image: Path, data: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """What the image's command starts, with the image's environment."""
    told = {name: value.replace("/data", str(data)) for name, value in environment().items()}
    told |= {"FLASH_STUDIO_MODE": "local", "FLASH_STUDIO_PASSWORD": PASSWORD, "FLASH_STUDIO_PORT": str(port)}
    command = [sys.executable, *json.loads(of("CMD")[0])[1:]]
    process = subprocess.Popen(command, cwd=image, env={**os.environ, **told, "FLASH_STUDIO_OFFLINE": "1"})
    try:
        yield process, told
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_image_as_a_folder_starts_is_healthy_draws_and_stops(image: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check = [sys.executable, *json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])[1:]]
    (tmp_path / "data").mkdir()
    with started(image, tmp_path / "data", port) as (process, told):

        def is_healthy() -> bool:
            return subprocess.run(check, cwd=image, env={**os.environ, **told}, capture_output=True).returncode == 0

        assert not is_healthy()  # it has only been started
        until = time.monotonic() + PATIENCE_S
        while not is_healthy():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.5)
        url = f"http://127.0.0.1:{port}"
        asked = {"prompt": "a red circle", "steps": 4}
        assert httpx.post(f"{url}/v1/images/generations", json=asked, timeout=60).status_code == 401
        key = {"Authorization": f"Bearer {PASSWORD}"}
        drawn = httpx.post(f"{url}/v1/images/generations", json=asked, headers=key, timeout=PATIENCE_S)
        assert drawn.status_code == 200 and len(list((tmp_path / "data").rglob("*.png"))) == 1
        process.send_signal(getattr(signal, of("STOPSIGNAL")[0]))
        process.wait(60)
    with httpx.Client(timeout=60) as client, pytest.raises(httpx.ConnectError):
        client.get(url)
