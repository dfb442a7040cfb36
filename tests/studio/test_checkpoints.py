"""What lies in the models folder is offered under its own name, and what cannot be used says why."""

import shutil
from pathlib import Path

import pytest

from studio.checkpoints import LICENCE, OwnCheckpoints
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel
from studio.domain.request import GenerationRequest
from studio.services import CATALOGUE_PATH
from studio.settings import PROJECT_ROOT
from tests.engines.small import save_untrained

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


@pytest.fixture
def own_catalogue() -> Catalogue:
    return Catalogue.load(CATALOGUE_PATH)


def test_a_folder_of_ones_own_becomes_a_model(tmp_path: Path, own_catalogue: Catalogue) -> None:
    shutil.copytree(POCKET, tmp_path / "my shapes")
    save_untrained("sd21", tmp_path / "v-model")
    shutil.rmtree(tmp_path / "v-model-work")
    assert OwnCheckpoints(tmp_path, own_catalogue).refresh() == ()
    mine, other = own_catalogue.checkpoint("my shapes"), own_catalogue.checkpoint("v-model")
    assert (mine.family, mine.prediction_type, mine.native_size, mine.licence) == ("sd15", "epsilon", 128, LICENCE)
    assert (other.family, other.prediction_type, other.native_size) == ("sd21", "v_prediction", 160)
    recipe = own_catalogue.resolve(GenerationRequest(prompt="x", checkpoint="my shapes"))
    assert (recipe.width, recipe.checkpoint) == (128, "my shapes")


def test_what_goes_away_is_offered_no_longer(tmp_path: Path, own_catalogue: Catalogue) -> None:
    shutil.copytree(POCKET, tmp_path / "mine")
    own = OwnCheckpoints(tmp_path, own_catalogue)
    own.refresh()
    assert "mine" in [row.id for row in own_catalogue.checkpoints]
    shutil.rmtree(tmp_path / "mine")
    own.refresh()
    assert own_catalogue.checkpoints == own_catalogue.rows


def test_a_folder_under_a_catalogue_name_stays_that_row(tmp_path: Path, own_catalogue: Catalogue) -> None:
    shutil.copytree(POCKET, tmp_path / "sd15")
    OwnCheckpoints(tmp_path, own_catalogue).refresh()
    assert own_catalogue.checkpoint("sd15").hub_id is not None


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path, own_catalogue: Catalogue) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"PK\x03\x04")
    (tmp_path / "half.part").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    (refused,) = OwnCheckpoints(tmp_path, own_catalogue).refresh()
    assert refused.name == "broken.safetensors"
    assert isinstance(refused.error, CorruptModel)
    assert own_catalogue.checkpoints == own_catalogue.rows


def test_no_models_folder_is_no_models(tmp_path: Path, own_catalogue: Catalogue) -> None:
    assert OwnCheckpoints(tmp_path / "nowhere", own_catalogue).refresh() == ()
