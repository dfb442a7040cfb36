"""What may be in the repository: nothing heavy, nothing of the machine it was written on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from studio.settings import PROJECT_ROOT

LIMIT = 10_000_000
"""Bytes; a Space takes files below this without LFS."""
ALL_WEIGHTS = 80_000_000

# Written so that this file does not hold them itself.
HOSTS = [name + "." + end for name, end in (("pypi", "org"), ("pythonhosted", "org"), ("download.pytorch", "org"))]
HOSTS += ["registry.npmjs" + ".org", "--extra-index" + "-url", "--index" + "-url", "--find" + "-links"]
MACHINE_PATHS = re.compile(r"(?<![\w.-])/(work|root|opt|home)" + r"/\w")


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Everything that git keeps or would keep."""
    if not (PROJECT_ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := PROJECT_ROOT / name).is_file()]


def texts(files: list[Path]) -> dict[str, str]:
    found = {}
    for path in files:
        try:
            found[str(path.relative_to(PROJECT_ROOT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def test_every_file_is_below_ten_megabytes(files: list[Path]) -> None:
    assert {str(path): size for path in files if (size := path.stat().st_size) >= LIMIT} == {}


def test_the_pocket_weights_are_small_and_safe() -> None:
    weights = [path for path in (PROJECT_ROOT / "engines/pocket/weights").rglob("*") if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in weights}
    assert sizes and max(sizes.values()) < LIMIT
    assert sum(path.stat().st_size for path in weights) < ALL_WEIGHTS
    assert {path.suffix for path in weights} <= {".safetensors", ".json", ".txt", ".md"}


def test_the_catalogue_is_not_ignored(files: list[Path]) -> None:
    assert PROJECT_ROOT / "studio" / "data" / "catalogue.toml" in files


def test_no_file_says_where_packages_come_from(files: list[Path]) -> None:
    told = [(name, host) for name, text in texts(files).items() for host in HOSTS if host in text]
    assert told == []


def test_no_file_knows_the_machine_it_was_written_on(files: list[Path]) -> None:
    told = {name: match[0] for name, text in texts(files).items() if (match := MACHINE_PATHS.search(text))}
    assert told == {}
