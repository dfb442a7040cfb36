"""`python -m studio adapters` and `--lora`: the store on the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from studio.metadata import read_record
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli


@pytest.fixture
def ink(cli: Cli, tmp_path: Path) -> str:
    code, out, _ = cli("adapters", "add", str(adapter_file(tmp_path / "ink.safetensors")))
    assert (code, out) == (0, "ink\n")
    return "ink"


def test_an_adapter_is_added_listed_shown_renamed_and_removed(cli: Cli, ink: str, tmp_path: Path) -> None:
    again = cli("adapters", "add", str(tmp_path / "ink.safetensors"), "--name", "copy")
    assert again[:2] == (0, "ink has the same weights already\n")
    header, line = cli("adapters", "list")[1].splitlines()
    assert header.split()[:4] == ["ID", "FAMILY", "KIND", "RANK"] and line.split()[0] == "ink"
    shown = json.loads(cli("adapters", "show", "ink", "--model", "pocket-sd15", "--json")[1])
    assert (shown["algorithm"], shown["ranks"], shown["verdict"]["fits"]) == ("lora", [2], True)
    assert cli("adapters", "rename", "ink", "pen and ink")[0] == 0
    (entry,) = json.loads(cli("adapters", "list", "--json")[1])
    assert cli("adapters", "remove", entry["id"])[0] == 0
    assert json.loads(cli("adapters", "list", "--json")[1]) == []
    assert [path.suffix for path in (tmp_path / "data" / "adapters").iterdir()] == []


def test_a_card_is_edited_field_by_field(cli: Cli, ink: str, tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "teal").save(tmp_path / "wash.jpg")
    edit, words = ("adapters", "edit", ink), ("--trigger-words", "inkwash, grey sky")
    assert cli(*edit, "--title", "Ink wash", *words, "--scale", "0.7")[:2] == (0, "ink\n")
    assert cli(*edit, "--notes", "paper first", "--preview", str(tmp_path / "wash.jpg"))[0] == 0
    shown = json.loads(cli("adapters", "show", ink, "--json")[1])
    assert (shown["title"], shown["trigger_words"]) == ("Ink wash", ["inkwash", "grey sky"])
    assert (shown["lora_scale"], shown["notes_of_owner"]) == (0.7, "paper first")
    (preview,) = (tmp_path / "data" / "adapters").glob("*.png")
    with Image.open(preview) as kept:
        assert max(kept.size) <= 512
    assert cli(*edit, "--preview", "")[0] == 0 and not preview.exists()


def test_what_a_card_cannot_hold_changes_nothing(cli: Cli, ink: str, tmp_path: Path) -> None:
    before = cli("adapters", "show", ink, "--json")
    (tmp_path / "no.png").write_bytes(b"no picture")
    for given in (("--scale", "much"), ("--scale", "99"), ("--scale", "nan"), ("--preview", str(tmp_path / "no.png"))):
        code, _, err = cli("adapters", "edit", ink, *given)
        assert code != 0 and err.startswith("error: ") and err.count("\n") == 1
    assert cli("adapters", "edit", "nobody", "--title", "x")[0] != 0
    assert cli("adapters", "show", ink, "--json") == before


def test_what_is_no_adapter_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "evil.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    for name, said in (("evil.safetensors", "pickle"), ("nothing.safetensors", "nothing.safetensors")):
        code, out, err = cli("adapters", "add", str(tmp_path / name))
        assert (code, out) == (1, "")
        assert said in err and err.count("\n") == 1
    assert cli("adapters", "show", "nobody")[0] == 1


def test_lora_on_the_command_line_is_a_tag_in_the_prompt(cli: Cli, ink: str, tmp_path: Path) -> None:
    asked = ("generate", "a red star", "--steps", "2", "--seed", "3", "--quiet")
    code, out, _ = cli(*asked, "--lora", "ink:0.5", "--out", str(tmp_path / "out"))
    assert code == 0
    record = read_record(Path(out.strip()), "x.png")
    assert record is not None
    assert record.recipe.prompt == "a red star <lora:ink:0.5>"
    code, _, err = cli(*asked, "--lora", "nobody")
    assert code == 2 and "There are: ink." in err
    assert cli("generate", "--lora", "ink")[0] == 2


def test_a_stand_in_needs_a_name_that_a_folder_can_have(cli: Cli) -> None:
    code, _, err = cli("models", "build-random", "sd15", "--name", "../x")
    assert code == 2 and "'../x'" in err
    assert cli("models", "build-random", "sd3")[0] == 2
