"""What a student is shown: one's own pictures as they are meant, made into latents once, each with its own caption."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engines.distillation.pictures import PIECE, FolderPictures, TrainingSet, cut, gather
from studio.domain.errors import DatasetError

SIZE = 32


class Encoder(nn.Module):
    """Says the mean colour of each 8 × 8 cell, so that a latent shows what was encoded."""

    class config:
        scaling_factor = 0.5

    dtype, device = torch.float32, torch.device("cpu")

    def encode(self, pixels: Tensor) -> "Encoder":
        self.seen = pixels
        return self

    @property
    def latent_dist(self) -> "Encoder":
        return self

    def mode(self) -> Tensor:
        cells = nn.functional.avg_pool2d(self.seen, 8)
        return torch.cat([cells, torch.zeros_like(cells[:, :1])], dim=1)


def source(*items: tuple[Path, str], is_sdxl: bool = True) -> FolderPictures:
    return FolderPictures(vae=Encoder(), weights="w", items=items, size=SIZE, is_sdxl=is_sdxl)


def gathered(pictures: FolderPictures, folder: Path, check: Callable[[], None] = lambda: None) -> TrainingSet:
    return gather(pictures, folder, check, lambda done, total: None)


def colour_of(latent: Tensor) -> list[int]:
    """The mean colour in [0, 255] that went into a latent."""
    return [round(float(value)) for value in (latent[:3].float().mean(dim=(1, 2)) / 0.5 + 1) * 127.5]


def test_a_picture_is_turned_as_its_camera_says_and_transparency_is_white(tmp_path: Path) -> None:
    halves = Image.new("RGB", (64, 32), "red")
    halves.paste("blue", (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to the right
    halves.save(tmp_path / "turned.png", exif=exif)
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    found = gathered(source((tmp_path / "turned.png", "a"), (tmp_path / "clear.png", "b")), tmp_path / "cache")
    turned, clear = found.latents
    assert float(turned[0, 0].mean()) > 0.4 and float(turned[2, -1].mean()) > 0.4  # red above, blue below
    assert colour_of(clear) == [255, 255, 255]
    assert found.time_ids is not None
    assert found.time_ids.tolist() == [[64, 32, 16, 0, 32, 32], [32, 32, 0, 0, 32, 32]]


def test_files_that_are_no_pictures_are_left_out_and_the_rest_keep_their_captions(tmp_path: Path) -> None:
    items = []
    for index, colour in enumerate(("red", "lime", "blue")):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (40, 40), colour).save(path)
        items.append((path, colour))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    found = gathered(source(*items, is_sdxl=False), tmp_path / "cache")
    assert found.captions == ("red", "blue") and found.time_ids is None
    assert [colour_of(latent) for latent in found.latents] == [[255, 0, 0], [0, 0, 255]]


def test_nothing_that_can_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text("<svg/>")
    with pytest.raises(DatasetError, match="None of the pictures can be opened"):
        gathered(source((tmp_path / "0.png", "a")), tmp_path / "cache")


def test_what_was_encoded_before_a_stop_is_not_encoded_again_and_other_captions_are_another_set(
    tmp_path: Path,
) -> None:
    path = tmp_path / "0.png"
    Image.new("RGB", (40, 40), "red").save(path)
    items = [(path, f"number {index}") for index in range(2 * PIECE)]
    pieces = 0

    def stop_at_the_second() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gathered(source(*items), tmp_path / "cache", stop_at_the_second)
    (kept,) = (tmp_path / "cache").rglob("*.pt")
    written = kept.stat().st_mtime_ns
    assert len(gathered(source(*items), tmp_path / "cache")) == 2 * PIECE
    assert kept.stat().st_mtime_ns == written
    other = gathered(source((path, "something else")), tmp_path / "cache")
    assert other.captions == ("something else",)


def test_the_middle_of_a_wide_and_of_a_small_picture_is_taken() -> None:
    wide = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2))
    array, told = cut(wide, 50, 50)
    assert array.shape == (50, 50, 3)
    assert abs(int(array.mean()) - 99) <= 1
    assert told == (100, 200, 0, 25, 50, 50)
    small, told = cut(Image.new("RGB", (10, 20), "red"), 50, 50)
    assert small.shape == (50, 50, 3) and told[:2] == (20, 10)
