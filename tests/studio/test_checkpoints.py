"""What lies in the models folder is offered under its own name, and what cannot be used says why."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.checkpoints import LICENCE, OwnCheckpoints
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, Incompatible, InvalidRequest, NotFound, StorageFailed, StudioError
from studio.domain.request import GenerationRequest
from studio.placing import link_or_copy
from studio.services import CATALOGUE_PATH, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.engines.small import save_untrained
from tests.engines.test_detection import original, saved
from tests.engines.test_soundness import copy_of_pocket
from tests.rights import HAS_RIGHTS, as_nobody

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"


@pytest.fixture
def own_catalogue() -> Catalogue:
    return Catalogue.load(CATALOGUE_PATH)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def own(models_dir: Path, own_catalogue: Catalogue) -> OwnCheckpoints:
    return OwnCheckpoints(models_dir, own_catalogue)


def ids(catalogue: Catalogue) -> list[str]:
    return [row.id for row in catalogue.checkpoints if row.is_own]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system, or for a person, that may not make any."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)


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


def test_a_folder_elsewhere_is_linked_and_can_be_drawn_with(tmp_path: Path) -> None:
    with open_services(Settings(data_dir=tmp_path / "data", offline=True, dtype="float32")) as services:
        added = services.own_checkpoints.add(copy_of_pocket(tmp_path / "my shapes"))
        assert added.message == "my shapes is in the list of models: SD 1.5; it predicts noise."
        assert (services.settings.models_dir / "my shapes").is_symlink()
        asked = {"num_inference_steps": 2, "guidance_scale": 3, "seed": 3}
        (mine,) = services.generate("a red star", checkpoint="my shapes", **asked)
        (theirs,) = services.generate("a red star", **asked)
        pictures = [np.asarray(Image.open(services.gallery.path(record))).astype(int) for record in (mine, theirs)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


def test_a_file_elsewhere_is_told_by_its_tensors(own: OwnCheckpoints, own_catalogue: Catalogue, tmp_path: Path) -> None:
    path = saved(tmp_path / "sdxl_final.safetensors", original("sd21"), {"modelspec.prediction_type": "v"})
    added = own.add(f"{tmp_path}/./../{tmp_path.name}/sdxl_final.safetensors")
    assert (added.checkpoint.id, added.checkpoint.family) == ("sdxl_final", "sd21")
    assert added.message == "sdxl final is in the list of models: SD 2.1; it predicts velocity."
    silent = own.add(saved(tmp_path / "b.safetensors", original("sd21")))
    assert silent.message.endswith("whether it predicts noise or velocity is measured at its first picture.")
    assert ids(own_catalogue) == ["b", "sdxl_final"]
    assert path.exists()


def test_adding_again_says_so_and_changes_nothing(own: OwnCheckpoints, models_dir: Path, tmp_path: Path) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    own.add(folder)
    (tmp_path / "other way").symlink_to(folder)
    for path in (folder, tmp_path / "other way", models_dir / "mine"):
        assert own.add(path).message.startswith("mine is in the list of models already")
    assert names(models_dir) == ["mine"]


def test_a_name_that_is_taken_gets_a_number(own: OwnCheckpoints, models_dir: Path, tmp_path: Path) -> None:
    models_dir.mkdir(parents=True)
    (models_dir / "Mine.safetensors").write_text("what was there")
    for folder in ("a", "b"):
        own.add(copy_of_pocket(tmp_path / folder / "mine"))
    assert own.add(copy_of_pocket(tmp_path / "sd15")).checkpoint.id == "sd15-2"
    assert own.add(copy_of_pocket(tmp_path / "c"), "mine").checkpoint.id == "mine-4"
    assert names(models_dir) == ["Mine.safetensors", "mine-2", "mine-3", "mine-4", "sd15-2"]
    assert (models_dir / "Mine.safetensors").read_text() == "what was there"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b (v1.5)+x", "a b (v1.5)+x"),
        ("--model", "model"),
        ("$(rm -rf ~)", "(rm -rf -)"),
        ("<b>.part", "b"),
        (".hidden", "hidden"),
        ("é" * 99, "é" * 50),
        ("…", "checkpoint"),
        ("x.part.part", "x"),
    ],
)
def test_files_are_named_by_our_rules(
    own: OwnCheckpoints, models_dir: Path, tmp_path: Path, name: str, expected: str
) -> None:
    assert own.add(copy_of_pocket(tmp_path / name)).checkpoint.id == expected
    assert names(models_dir) == [expected]


def test_a_name_cannot_leave_the_folder(own: OwnCheckpoints, models_dir: Path, tmp_path: Path) -> None:
    added = own.add(copy_of_pocket(tmp_path / "x"), "../../etc/pass\0wd")
    assert names(models_dir) == [added.checkpoint.id] == ["etc-pass-wd"]


def test_a_file_of_the_hubs_cache_keeps_its_name(own: OwnCheckpoints, tmp_path: Path) -> None:
    saved(tmp_path / "0123abcd", original("sd15"))
    (tmp_path / "dream.safetensors").symlink_to("0123abcd")
    assert own.add(tmp_path / "dream.safetensors").checkpoint.id == "dream"


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def refiner(folder: Path) -> Path:
    shapes = {name: shape for name, shape in original("sdxl").items() if "embedders.1" not in name}
    return saved(folder / "refiner.safetensors", shapes)


def pickled_part(folder: Path) -> Path:
    mine = copy_of_pocket(folder / "mine")
    (mine / "unet" / "evil.bin").write_bytes(b"\x80\x02")
    for path in (mine / "unet").glob("*.safetensors*"):
        path.unlink()
    return mine


def adapter(folder: Path) -> Path:
    return saved(folder / "ink.safetensors", {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)})


def renamed_pickle(folder: Path) -> Path:
    (folder / "evil.safetensors").write_bytes(b"\x80\x02cos\nsystem\n")
    return folder / "evil.safetensors"


def unprintable(folder: Path) -> Path:
    return copy_of_pocket(folder / "two\nlines")


HOSTILE = [
    (lambda folder: folder / "nothing.safetensors", NotFound, "no file or folder at '"),
    (lambda _: "", NotFound, "no file or folder at ''"),
    (lambda folder: f"{folder}/a\0b", NotFound, "no file or folder"),
    (lambda folder: folder / ("x" * 300), NotFound, "no file or folder at '…"),
    (lambda _: "~nobody-of-that-name/x", NotFound, "no file or folder"),
    (loop, NotFound, "no file or folder"),
    (lambda folder: f"{folder}/../..", CorruptModel, "has no model_index.json"),
    (lambda folder: folder, CorruptModel, "has no model_index.json"),
    (lambda _: "/dev/null", NotFound, "leads to no file or folder"),
    (lambda _: PROJECT_ROOT / "README.md", CorruptModel, "README.md is no .safetensors file."),
    (renamed_pickle, CorruptModel, "evil.safetensors is no .safetensors file"),
    (pickled_part, CorruptModel, "mine/unet only has evil.bin, a pickle, which can run code."),
    (adapter, Incompatible, "ink.safetensors is an adapter (LoRA)"),
    (refiner, Incompatible, "refiner"),
    (unprintable, Incompatible, "two\\nlines is no name for a model."),
]


@pytest.mark.parametrize(("make", "error", "said"), HOSTILE)
def test_what_is_no_checkpoint_is_refused_in_one_sentence_and_nothing_is_written(
    own: OwnCheckpoints, models_dir: Path, tmp_path: Path, make: object, error: type[StudioError], said: str
) -> None:
    with pytest.raises(error) as caught:
        own.add(make(tmp_path))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not models_dir.exists()


def test_removing_what_was_linked_leaves_it_where_it_is(
    own: OwnCheckpoints, own_catalogue: Catalogue, models_dir: Path, tmp_path: Path
) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    file = saved(tmp_path / "x.safetensors", original("sd15"))
    own.add(folder)
    own.add(file)
    assert [own.remove("mine"), own.remove("x.safetensors")] == [folder, file]
    assert (ids(own_catalogue), names(models_dir)) == ([], [])
    assert len(names(folder)) == len(names(POCKET)) and file.is_file()


def test_what_lies_in_the_folder_itself_is_never_deleted(own: OwnCheckpoints, models_dir: Path) -> None:
    copy_of_pocket(models_dir / "mine")
    saved(models_dir / "file.safetensors", original("sd15"))
    for name in ("mine", "file"):
        with pytest.raises(InvalidRequest, match="itself lies in the models folder"):
            own.remove(name)
    for name in ("nothing", "../models/mine", "", ".", "..", "a\0b", "x" * 300):
        with pytest.raises(NotFound):
            own.remove(name)
    assert names(models_dir) == ["file.safetensors", "mine"] and len(names(models_dir / "mine")) == len(names(POCKET))


def test_a_link_whose_checkpoint_is_gone_is_left_out_and_can_be_removed(
    own: OwnCheckpoints, own_catalogue: Catalogue, models_dir: Path, tmp_path: Path
) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    own.add(folder)
    shutil.rmtree(folder)
    (models_dir / "loop.safetensors").symlink_to(models_dir / "loop.safetensors")
    refused = own.refresh()
    assert {row.name: str(row.error) for row in refused} == {
        name: f"{name} leads to no file or folder. Put back what it leads to, or remove it."
        for name in ("mine", "loop.safetensors")
    }
    copy_of_pocket(folder)
    own.refresh()
    assert ids(own_catalogue) == ["mine"]
    own.remove("mine")
    own.remove("loop")
    assert own.refresh() == () and names(models_dir) == []


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler"])
def test_a_change_in_any_part_is_noticed(
    own: OwnCheckpoints, own_catalogue: Catalogue, tmp_path: Path, part: str
) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    own.add(folder)
    if part == "scheduler":
        (folder / part / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
        own.refresh()
        assert own_catalogue.checkpoint("mine").prediction_type == "v_prediction"
        return
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    assert [row.name for row in own.refresh()] == ["mine"]


def test_where_nothing_can_be_linked_a_whole_copy_is_made(
    own: OwnCheckpoints, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of_pocket(tmp_path / "mine")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    file = saved(tmp_path / "x.safetensors", original("sd15"))
    without_links(monkeypatch)
    assert own.add(folder).message == "mine is in the list of models, as a copy: SD 1.5; it predicts noise."
    own.add(file)
    assert names(models_dir) == ["mine", "x.safetensors"]
    assert (models_dir / "x.safetensors").read_bytes() == file.read_bytes()
    assert "diffusion_pytorch_model.bin" not in names(models_dir / "mine" / "unet")
    for name in ("mine", "x"):
        with pytest.raises(InvalidRequest):
            own.remove(name)


def test_a_file_gets_a_second_name_where_only_that_is_allowed(
    own: OwnCheckpoints, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "x.safetensors", original("sd15"))
    hard_link = os.link
    without_links(monkeypatch)
    monkeypatch.setattr(os, "link", hard_link)
    own.add(file)
    assert own.add(file).message.startswith("x is in the list of models already")
    assert (models_dir / "x.safetensors").samefile(file)
    own.remove("x")
    assert names(models_dir) == [] and file.is_file()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_copy_that_fails_leaves_nothing(
    own: OwnCheckpoints, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = (
        copy_of_pocket(tmp_path / "mine") if kind == "folder" else saved(tmp_path / "x.safetensors", original("sd15"))
    )

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    without_links(monkeypatch)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed):
        own.add(source)
    assert names(models_dir) == []


def test_what_came_while_we_copied_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = saved(tmp_path / "x.safetensors", original("sd15")), tmp_path / "models" / "x.safetensors"
    without_links(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda _: target.write_text("theirs"))
    with pytest.raises(StorageFailed):
        link_or_copy(source, target)
    assert (names(target.parent), target.read_text()) == (["x.safetensors"], "theirs")


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs Unix permissions")
def test_without_the_right_to_write_the_folder_or_to_read_the_file_it_is_said(own_catalogue: Catalogue) -> None:
    with as_nobody() as folder:
        models, closed = folder / "models", folder / "closed"
        models.mkdir(mode=0o500)
        own = OwnCheckpoints(models, own_catalogue)
        file = saved(folder / "x.safetensors", original("sd15"))
        with pytest.raises(StorageFailed, match="'models' cannot be written"):
            own.add(file)
        assert names(models) == []
        models.chmod(0o700)
        closed.mkdir()
        own.add(saved(closed / "hidden.safetensors", original("sd15")))
        closed.chmod(0)
        assert [row.name for row in own.refresh()] == ["hidden.safetensors"]
        closed.chmod(0o700)
        file.chmod(0)
        with pytest.raises(StorageFailed, match=r"x\.safetensors cannot be read: Permission denied"):
            own.add(file)


def test_odd_things_in_the_folder_never_take_the_list_down(
    own: OwnCheckpoints, own_catalogue: Catalogue, models_dir: Path
) -> None:
    copy_of_pocket(models_dir / "mine")
    saved(models_dir / "mine.safetensors", original("sd15"))
    saved(models_dir / "flat.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": ()})
    sized = copy_of_pocket(models_dir / "sized")
    (sized / "unet" / "config.json").write_text('{"sample_size": 1000000000000}')
    copy_of_pocket(models_dir / "listed")
    (models_dir / "listed" / "scheduler" / "scheduler_config.json").write_text("[]")
    shutil.copytree(sized, models_dir / os.fsdecode(b"\xff"))
    refused = {row.name: str(row.error) for row in own.refresh()}
    assert sorted(refused) == ["\\udcff", "flat.safetensors", "mine.safetensors"]
    assert "beside it" in refused["mine.safetensors"] and refused["\\udcff"].isprintable()
    assert ids(own_catalogue) == ["listed", "mine", "sized"]
    assert own_catalogue.checkpoint("sized").native_size == 512
