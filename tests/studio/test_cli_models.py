"""`python -m studio models add | remove`: checkpoints of one's own on the command line."""

import json
from pathlib import Path

import pytest

from tests.engines.test_detection import original, saved
from tests.engines.test_soundness import copy_of_pocket
from tests.studio.conftest import Cli


def test_a_checkpoint_is_added_listed_and_removed(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    folder = copy_of_pocket(tmp_path / "my shapes")
    assert cli("models", "add", str(folder)) == (
        0, "my shapes\n", "my shapes is in the list of models: SD 1.5; it predicts noise.\n"
    )  # fmt: skip
    rows = {row["id"]: row for row in json.loads(cli("models", "--json")[1])}
    assert (rows["my shapes"]["place"], rows["my shapes"]["folder"]) == ("here", str(data_dir / "models" / "my shapes"))
    assert cli("models", "remove", "my shapes") == (0, "", f"Out of the list; untouched: {folder}\n")
    assert "my shapes" not in cli("models")[1]
    assert folder.is_dir()


def test_it_may_be_given_a_name(cli: Cli, tmp_path: Path) -> None:
    path = saved(tmp_path / "v1-5-pruned.safetensors", original("sd15"))
    assert cli("models", "add", str(path), "--name", "classic")[:2] == (0, "classic\n")
    assert cli("models", "add", str(path))[:2] == (0, "classic\n")


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("add", "nothing"), 1, "There is no file or folder at 'nothing'."),
        (("add", "x" * 300), 1, "There is no file or folder at '…x"),
        (("add", "README.md"), 1, "README.md is no .safetensors file. Only .safetensors weights are loaded."),
        (("add", "studio"), 1, "studio has no model_index.json."),
        (("remove", "pocket-sd15"), 1, "The models folder has no 'pocket-sd15'."),
        (("remove", "../x"), 1, "The models folder has no '../x'."),
        (("add",), 2, "path"),
        (("remove",), 2, "ID"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    cli: Cli, data_dir: Path, given: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = cli("models", *given)
    assert (found, out) == (code, "")
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not (data_dir / "models").exists()


def test_what_lies_in_the_folder_itself_is_for_its_owner_to_delete(cli: Cli, data_dir: Path) -> None:
    folder = copy_of_pocket(data_dir / "models" / "mine")
    code, _, err = cli("models", "remove", "mine")
    assert code == 2 and f"Delete or move it there: {folder}." in err
    assert folder.is_dir()
