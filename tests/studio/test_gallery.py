import contextlib
import itertools
import multiprocessing
import random
import time
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from PIL import Image

from studio.domain.errors import NotFound, StorageFailed
from studio.gallery import Gallery
from studio.ledger import Ledger
from studio.metadata import pixels_sha256, read_settings
from tests.studio.records import CATALOGUE, new_image, picture, record


def open_gallery(folder: Path) -> tuple[Gallery, Ledger]:
    ledger = Ledger(f"sqlite:///{folder / 'studio.db'}")
    return Gallery(folder / "images", ledger, CATALOGUE), ledger


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return open_gallery(tmp_path)[0]


def pngs(folder: Path) -> set[Path]:
    return set((folder / "images").rglob("*.png"))


def test_a_saved_picture_is_found_and_opens(gallery: Gallery) -> None:
    image = picture()
    saved = gallery.save(image, new_image(seed=42))
    assert gallery.find("circle") == [saved] == [gallery.image(saved.id)]
    path = gallery.path(saved)
    assert Image.open(path).tobytes() == image.tobytes()
    assert read_settings(path, CATALOGUE).request == saved.recipe.as_request()
    made_at = datetime.fromtimestamp(saved.created_at)
    assert path.parent.name == f"{made_at:%Y-%m-%d}"
    assert path.name == f"{made_at:%H%M%S}-42-{pixels_sha256(image)[:8]}-{saved.id[:16]}.png"


def test_a_job_that_runs_again_keeps_its_pictures(gallery: Gallery, tmp_path: Path) -> None:
    first = gallery.save(picture(1), new_image("job", 0))
    assert gallery.save(picture(2), new_image("job", 0)) == first
    assert len(pngs(tmp_path)) == gallery.count() == 1


def test_delete_can_be_repeated(gallery: Gallery, tmp_path: Path) -> None:
    saved = gallery.save(picture(), new_image())
    for _ in range(2):
        gallery.delete(saved.id)
    assert gallery.count() == 0 and not pngs(tmp_path)
    gallery.reconcile()
    assert gallery.count() == 0


def test_a_deletion_that_was_killed_half_way_does_not_come_back(tmp_path: Path) -> None:
    gallery, ledger = open_gallery(tmp_path)
    saved = gallery.save(picture(), new_image())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger, "remove_image", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        gallery.delete(saved.id)
    gallery.reconcile()
    assert gallery.count() == 0 and not pngs(tmp_path)


def test_stars(gallery: Gallery) -> None:
    saved = gallery.save(picture(), new_image())
    gallery.star(saved.id, True)
    assert gallery.image(saved.id).is_starred and gallery.find("is:starred")
    with pytest.raises(NotFound):
        gallery.star("nobody", True)


@pytest.mark.parametrize("path", ["../studio.db", "/etc/passwd", "a/../../x.png"])
def test_no_path_leads_out_of_the_gallery(tmp_path: Path, path: str) -> None:
    gallery, ledger = open_gallery(tmp_path)
    ledger.add_image(record(path=path))
    with pytest.raises(NotFound, match="outside"):
        gallery.path(gallery.image("id"))
    gallery.delete("id")
    assert gallery.count() == 0 and (tmp_path / "studio.db").exists()


def test_a_link_out_of_the_gallery_is_not_followed(gallery: Gallery, tmp_path: Path) -> None:
    gallery.reconcile()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFound):
        gallery.path(record(path="link/a.png"))


def test_a_row_that_lost_its_file_goes(gallery: Gallery, caplog: pytest.LogCaptureFixture) -> None:
    saved = gallery.save(picture(), new_image())
    gallery.path(saved).unlink()
    gallery.reconcile()
    assert gallery.count() == 0
    assert saved.path in caplog.text


def test_a_lost_ledger_is_rebuilt_from_the_pictures(gallery: Gallery, tmp_path: Path) -> None:
    saved = [gallery.save(picture(n), new_image(f"job{n}", seed=n)) for n in range(5)]
    for database in tmp_path.glob("studio.db*"):
        database.unlink()
    rebuilt, _ = open_gallery(tmp_path)
    rebuilt.reconcile()
    assert rebuilt.find() == saved[::-1]


def test_foreign_copied_and_painted_pictures_are_left_alone(gallery: Gallery, tmp_path: Path) -> None:
    saved = gallery.save(picture(1), new_image())
    folder = gallery.path(saved).parent
    picture(2).save(folder / "foreign.png")
    (folder / "empty.png").touch()
    (folder / "garbage.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "copy.png").write_bytes(gallery.path(saved).read_bytes())
    gallery.reconcile()
    assert gallery.find() == [saved]
    assert len(pngs(tmp_path)) == 5


def test_a_moved_picture_is_found_again(gallery: Gallery, tmp_path: Path) -> None:
    saved = gallery.save(picture(), new_image())
    gallery.path(saved).rename(tmp_path / "images" / "moved.png")
    gallery.reconcile()
    assert gallery.image(saved.id) == saved.model_copy(update={"path": "moved.png"})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    gallery, _ = open_gallery(tmp_path)
    (tmp_path / "images").touch()
    with pytest.raises(StorageFailed):
        gallery.save(picture(), new_image())


def save_for_ever(folder: Path, job_id: str, acknowledge: Connection) -> None:
    gallery, _ = open_gallery(folder)
    gallery.reconcile()
    for n in itertools.count():
        acknowledge.send(gallery.save(picture(n, 64), new_image(job_id, n)).id)


def acknowledged_before_a_kill(folder: Path, job_id: str, after_s: float, after_first: bool) -> set[str]:
    # A fork, since a fresh interpreter would spend more time on imports than on saving.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=save_for_ever, args=(folder, job_id, sender))
    child.start()
    sender.close()
    if after_first:
        receiver.poll(60)
    time.sleep(after_s)
    child.kill()
    child.join()
    seen: set[str] = set()
    with receiver, contextlib.suppress(EOFError, OSError):
        while True:
            seen.add(receiver.recv())
    return seen


def test_kill_at_any_instant_leaves_whole_pictures_and_true_rows(tmp_path: Path) -> None:
    rng = random.Random(4)
    acknowledged: set[str] = set()
    for n in range(15):
        acknowledged |= acknowledged_before_a_kill(tmp_path, f"job{n}", rng.uniform(0.02, 0.25), after_first=n % 2 == 0)
        for path in pngs(tmp_path):
            with Image.open(path) as image:
                image.load()
    gallery, ledger = open_gallery(tmp_path)
    gallery.reconcile()
    assert acknowledged
    assert acknowledged <= set(ledger.image_paths().values())
    assert {gallery.path(image) for image in gallery.find(limit=10_000)} == pngs(tmp_path)
    assert all(pixels_sha256(Image.open(gallery.path(image))) == image.pixels_sha256 for image in gallery.find())
