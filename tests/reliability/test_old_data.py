"""P9: what earlier versions kept is all there in this one. `old/` has a data folder of each schema, made by the program
of its time (see `old/make.py`)."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.base import Engine
from studio.domain.images import ImageRecord
from studio.domain.scores import Score
from studio.domain.tensors import read_header
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings
from studio.tables import SCHEMA_VERSION
from tests.reliability.conftest import Score as Count

OLD = Path(__file__).parent / "old"
SETTINGS = {
    1: ("data_dir", "database_url", "host", "port", "share", "device", "dtype", "max_queued", "offline"),
    2: ("memory_gb", "placement", "engine_process"),
    3: ("training_processes",),
}
"""What was new with the program of each schema. A setting that is gone stops the studio from starting."""
VALUES = {"database_url": "sqlite:///x.db", "host": "127.0.0.1", "port": "7861", "share": "0", "device": "cpu",
          "dtype": "float32", "max_queued": "7", "offline": "1", "memory_gb": "4", "placement": "resident",
          "engine_process": "own", "training_processes": "2", "data_dir": "data"}  # fmt: skip


@pytest.fixture(params=range(1, SCHEMA_VERSION + 1))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The data folder of an earlier version, unpacked, and what that version told of it."""
    with zipfile.ZipFile(OLD / f"schema-{request.param}.zip") as archive:
        archive.extractall(tmp_path)
    return json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))


@pytest.fixture
def opened(old: dict[str, Any], tmp_path: Path, engine: Engine) -> Iterator[Services]:
    with open_services(Settings(data_dir=tmp_path / "data", offline=True), engine=EngineHolder(lambda: engine)) as now:
        yield now


def test_every_picture_job_and_adapter_is_there(opened: Services, old: dict[str, Any], score: Count) -> None:
    opened.runner.job(old["waiting"]).wait(60)
    for told in old["images"]:
        made = opened.gallery.image(told["id"])
        assert made == ImageRecord.model_validate(told) and opened.gallery.is_whole(made)
        assert {name: value for name, value in made.model_dump(mode="json").items() if name != "recipe"} == {
            name: value for name, value in told.items() if name != "recipe"
        }
        assert told["recipe"].items() <= made.recipe.model_dump(mode="json").items()
        assert made.id in {each.id for each in opened.gallery.alike(made.recipe, texts(made), made.visitor)}
    assert [made.id for made in opened.gallery.find("is:starred")] == [old["images"][1]["id"]]
    for told in old["jobs"]:
        row = opened.runner.row(told["id"])
        assert (row.kind, row.visitor, row.queue, row.created_at) == tuple(
            told[name] for name in ("kind", "visitor", "queue", "created_at")
        )
        assert row.payload == json.loads(told["payload"])
        assert row.state == ("done" if row.id == old["waiting"] else told["state"])
        assert told["state"] != "failed" or (row.message, row.hint) == (told["message"], told["hint"])
    assert {told["state"] for told in old["jobs"]} == {"done", "failed", "cancelled", "queued"}
    assert [made.recipe.seed for made in opened.gallery.of_job(old["waiting"])] == [21]
    check_adapter(opened, old["adapter"])
    if old["score"]:
        (kept,) = opened.ledger.scores(old["images"][0]["job_id"])[old["images"][0]["id"]]
        assert kept == Score(**old["score"])
    score(inputs=len(old["images"]) + len(old["jobs"]) + 1)


def texts(made: ImageRecord) -> tuple[str, str]:
    return made.prompt_as_run, made.negative_as_run


def check_adapter(opened: Services, card: dict[str, Any]) -> None:
    (entry,) = opened.adapters.store.entries()
    assert (entry.id, entry.title, list(entry.trigger_words), entry.card.notes, entry.card.lora_scale) == (
        "Moons", card["title"], card["trigger_words"], card["notes"], card["lora_scale"],
    )  # fmt: skip
    assert read_header(opened.adapters.store.path("Moons")).tensors
    assert opened.adapters.verdict("Moons", opened.catalogue.checkpoint("pocket-sd15")).is_ok


def test_an_old_picture_is_drawn_again(opened: Services, old: dict[str, Any]) -> None:
    """By its recipe of then, with its adapter: as it was, or, of the first schema, with what differs."""
    told = next(told for told in old["images"] if "<lora:Moons" in told["recipe"]["prompt"])
    answer = opened.reproduction.submit(told["id"]).result(60)
    assert answer["judgement"] in ("identical", "close") or "attention" in answer["changed"], answer


@pytest.mark.parametrize("schema", SETTINGS)
def test_old_settings_are_still_settings(schema: int) -> None:
    given = {f"FLASH_STUDIO_{name.upper()}": VALUES[name] for name in SETTINGS[schema]}
    found = Settings.from_environment(given)
    for name in SETTINGS[schema]:
        value = getattr(found, name)
        assert str(int(value) if isinstance(value, bool | float) else value) == VALUES[name]
