"""Secrets, the machine's name and its folders leave the studio in no way: planted, looked for, found nowhere."""

import base64
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from studio.exif import comment_block
from studio.settings import PROJECT_ROOT

SECRETS = {
    "GROQ_API_KEY": "gsk_canary0groq0QyZ4",
    "HF_TOKEN": "hf_canary0hub0QyZ4",
    "FLASH_STUDIO_PASSWORD": "canary0password0QyZ4",
    "FLASH_STUDIO_BLOCKED_TERMS": "canaryblocked0term",
}
FOLDER = "canary-folder-QyZ4"
KEY_FILE = "canary-key-QyZ4.pem"
MACHINE = "canary-machine-QyZ4"


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder with all that left the studio, its log among it, and the data folder."""
    out, home = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("home")
    data = home / FOLDER
    environment = {
        **os.environ, **SECRETS, "HOSTNAME": MACHINE, "FLASH_STUDIO_DATA_DIR": str(data), "FLASH_STUDIO_MODE": "shared",
        "FLASH_STUDIO_OFFLINE": "1", "FLASH_STUDIO_C2PA_CERTIFICATE": str(home / "chain.pem"),
        "FLASH_STUDIO_C2PA_KEY": str(home / KEY_FILE), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.canary_tour", str(out)]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    (out / "stdout.log").write_bytes(ended.stdout)
    (out / "stderr.log").write_bytes(ended.stderr)
    return out, data


def told(path: Path) -> bytes:
    """The bytes of a file and, of a picture, the texts that are packed in it."""
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            texts: list[Any] = [*image.info.values(), *image.getexif().get_ifd(0x8769).values()]
    except (UnidentifiedImageError, OSError):
        return content
    return b"\n".join([content, *(text if isinstance(text, bytes) else str(text).encode() for text in texts)])


def forms(canary: str) -> list[bytes]:
    """How it may stand in a file: as it is, in two bytes a sign, in base64 at each of its three places."""
    plain = canary.encode()
    packed = [base64.b64encode(b"\0" * shift + plain)[4 : -4 - shift] for shift in range(3)]
    return [plain, canary.encode("utf-16-le"), canary.encode("utf-16-be"), *packed]


def found(canary: str, files: list[Path]) -> list[str]:
    looked_for = forms(canary)
    return [path.name for path in files if any(form in told(path) for form in looked_for)]


def files_in(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("shift", range(4))
def test_a_canary_is_found_however_it_is_packed(shift: int, tmp_path: Path) -> None:
    canary = SECRETS["HF_TOKEN"]
    info = PngInfo()
    info.add_text("told", f"{'x' * shift}{canary}", zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpeg", exif=comment_block(f"{'x' * shift}{canary}"))
    (tmp_path / "c.json").write_bytes(base64.b64encode(f"{'x' * shift}{canary}, and more".encode()))
    assert found(canary, files_in(tmp_path)) == ["a.png", "b.jpeg", "c.json"]


def test_the_tour_went_everywhere(toured: tuple[Path, Path]) -> None:
    out, data = toured
    names = [path.name for path in files_in(out)]
    assert sum(name.endswith("sent-picture.bin") for name in names) == 4
    assert sum(name.endswith("error.txt") for name in names) == 6
    assert len(list((data / "images").rglob("*.png"))) >= 5
    everything = b"".join(told(path) for path in files_in(out))
    for sign in (b"made by a model", b'"verdict"', b"circle on a white background", b"gradio", b"flash-studio"):
        assert sign in everything, sign
    log = (out / "studio.log").read_bytes()
    assert b"DEBUG" in log and b"kept unsigned" in log


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_nowhere_not_even_in_the_log(name: str, toured: tuple[Path, Path]) -> None:
    assert found(SECRETS[name], files_in(*toured)) == []


def test_where_the_key_for_signing_lies_is_nowhere(toured: tuple[Path, Path]) -> None:
    assert found(KEY_FILE, files_in(*toured)) == []


def test_folders_of_this_machine_are_in_the_log_only(toured: tuple[Path, Path]) -> None:
    """And where a person asks for them at their own terminal: `models` tells where the weights are."""
    out, data = toured
    files = [path for path in files_in(out, data) if path.suffix != ".log" and not path.name.startswith("cli-models")]
    assert found(str(data.parent), files) == []
    assert found(FOLDER, files) == []
    assert found(str(PROJECT_ROOT), files) == []


def test_the_machines_name_is_in_no_output(toured: tuple[Path, Path]) -> None:
    out, data = toured
    files = [path for path in files_in(out, data) if path.suffix != ".log"]
    assert found(MACHINE, files) == []
    own = socket.gethostname()
    if len(own) >= 6 and any(sign.isdigit() for sign in own):  # a word may be a part of anything
        assert found(own, files) == []
