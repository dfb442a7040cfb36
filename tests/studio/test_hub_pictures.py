"""A data set of the hub to train with: fetched from a hub on this machine, then a folder like any other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from studio.domain.errors import DatasetError, DownloadFailed, InvalidRequest, JobCancelled
from studio.hub_pictures import Fetching, fetch_pictures
from studio.services import Services
from studio.settings import Settings
from tests.engines.hub import FakeHub, forget_the_machine, served, use
from tests.studio.conftest import Cli
from tests.studio.test_distillation import pictures_with_a_list

PATIENCE_S = 60


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    forget_the_machine(monkeypatch, tmp_path)
    files = {**pictures_with_a_list(5), "evil.png": b"\x80\x04cos\nsystem\n", "run.py": b"raise SystemExit"}
    with served({"datasets/owner/set": files, "datasets/owner/words": {"README.md": b"only words"}}) as running:
        use(monkeypatch, running)
        yield running
    close_session()


@pytest.fixture
def online(settings: Settings) -> Settings:
    return settings.model_copy(update={"offline": False})


def test_it_becomes_a_folder_of_the_studios_own_that_can_be_learnt_from(
    hub: FakeHub, online: Settings, services: Services
) -> None:
    told: list[tuple[int, int]] = []
    folder = fetch_pictures(online, " owner/set ", 4, lambda done, total: told.append((done, total)))
    assert folder == online.datasets_dir / "owner--set--4" and told[-1] == (4, 4)
    found = services.training.scan(folder)
    assert len(found.verdicts) == len(found.usable) == 4
    assert {verdict.caption for verdict in found.usable} == {"a red star"}
    assert {path.suffix for path in folder.iterdir()} == {".png", ".txt", ".json"}
    asked = len(hub.asked)
    hub.faults.status = 500
    assert fetch_pictures(online, "owner/set", 4) == folder and len(hub.asked) == asked


def test_what_broke_off_goes_on(hub: FakeHub, online: Settings) -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if len(list(online.datasets_dir.rglob("*.txt"))) >= 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        fetch_pictures(online, "owner/set", 4, check=stop)
    assert not (online.datasets_dir / "owner--set--4").exists()
    first = [ask.path for ask in hub.asked if ask.path.endswith(".png")]
    folder = fetch_pictures(online, "owner/set", 4)
    assert len(list(folder.glob("*.png"))) == 4
    again = [ask.path for ask in hub.asked if ask.path.endswith(".png")][len(first) :]
    assert len(first) >= 2 and len(again) <= 2


@pytest.mark.parametrize(
    ("hub_id", "count", "error", "said"),
    [
        ("cats", 3, InvalidRequest, "'cats' is no id of a data set on the Hugging Face hub. Give it as its page does"),
        ("../../etc", 3, InvalidRequest, "no id of a data set"),
        ("owner/set", 0, InvalidRequest, "0 is no number of pictures. Give one from 1 to 100,000."),
        ("owner/set", None, InvalidRequest, "None is no number of pictures."),
        ("owner/gone", 3, DownloadFailed, "There is no data set owner/gone on the hub that you may read."),
        ("owner/words", 3, DatasetError, "owner/words"),
    ],
)
def test_what_cannot_be_had_is_said(
    hub: FakeHub, online: Settings, hub_id: str, count: int | None, error: type[Exception], said: str
) -> None:
    fetching = Fetching(online, hub_id, count)
    assert fetching.wait(PATIENCE_S)
    with pytest.raises(error) as caught:
        fetching.folder()
    assert said in str(caught.value) and str(online.data_dir) not in str(caught.value)


def test_offline_it_takes_one_sentence_and_no_look_at_the_hub(hub: FakeHub, settings: Settings) -> None:
    with pytest.raises(DownloadFailed) as caught:
        fetch_pictures(settings, "owner/set", 4)
    assert str(caught.value) == (
        "owner/set is not on this machine and the studio is offline. Switch offline mode off, or give a folder of "
        "pictures with captions."
    )
    assert hub.asked == []


def test_the_command_line_trains_on_it(hub: FakeHub, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ["--model", "pocket-sd15", "--steps", "10", "--batch", "2", "--rank", "2", "--prior", "0", "--quiet"]
    code, _, said = cli("train", "Hub", "--dataset", "owner/set", *quick)
    assert code == 1 and "owner/set is not on this machine and the studio is offline." in said
    code, _, said = cli("train", "Hub", "--dataset", "owner/set", "--data", "pictures", *quick)
    assert code == 2 and "Both a folder of pictures and a data set of the hub are given." in said
    code, _, said = cli("train", "Hub", "--dataset", "owner/set", "--steps", "1")
    assert code == 2 and "Steps is 1" in said and hub.asked == []
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "0")
    code, out, said = cli("train", "Hub", "--dataset", "owner/set", "--pictures", "3", *quick)
    assert (code, out) == (0, "Hub\n"), said
    notes = cli("adapters", "show", "Hub")[1]
    assert "Trained on 3 pictures with pocket-sd15" in notes
