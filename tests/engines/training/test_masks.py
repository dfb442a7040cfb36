"""Masks in training: what they hide has no say, what they show is where the picture has it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engines.training.encoding import cut, opened_upright
from engines.training.latents import TrainingPicture, stacked_weights
from engines.training.masks import MaskStore, cut_mask
from studio.domain.errors import DatasetError
from tests.engines.training.test_adapter import PLAN
from tests.engines.training.test_lessons import Taught
from tests.engines.training.test_objective import CLEAN, NOISE, TIMES, objective

ONES = torch.ones(6, 1, 8, 8)
LEFT = torch.cat([torch.ones(6, 1, 8, 4), torch.zeros(6, 1, 8, 4)], dim=3)
SAID = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(7))


def loss(said: Tensor, weights: Tensor | None, clean: Tensor = CLEAN) -> Tensor:
    asked = objective("epsilon").question(clean, torch.Generator().manual_seed(3), weights)
    return objective("epsilon").loss(said, asked)


def test_what_a_mask_hides_has_no_say() -> None:
    said = SAID.clone().requires_grad_()
    error = loss(said, LEFT)
    error.backward()
    assert said.grad is not None and not said.grad[..., 4:].any() and said.grad[..., :4].all()
    elsewhere = SAID.clone()
    elsewhere[..., 4:] += 100
    assert torch.equal(loss(elsewhere, LEFT), error.detach())
    assert not torch.equal(loss(elsewhere, LEFT * 0.99 + 0.01), error.detach())


def test_what_is_wanted_there_does_not_matter_either() -> None:
    other = CLEAN.clone()
    other[..., 4:] = 5
    velocity = objective("v_prediction")
    errors = [
        velocity.loss(SAID, velocity.question(clean, torch.Generator().manual_seed(3), LEFT))
        for clean in (CLEAN, other)
    ]
    assert torch.equal(*errors)


def test_a_white_mask_is_none() -> None:
    torch.testing.assert_close(loss(SAID, ONES), loss(SAID, None), atol=1e-7, rtol=1e-6)
    plain, white = (
        objective("epsilon").errors(lambda noisy, _: noisy, CLEAN, NOISE, TIMES, weights) for weights in (None, ONES)
    )
    torch.testing.assert_close(white, plain, atol=1e-7, rtol=1e-6)


def test_a_small_mask_weighs_as_much_as_a_large_one() -> None:
    small = torch.zeros(6, 1, 8, 8)
    small[:, :, 2, 3] = 1
    asked = objective("epsilon", snr_gamma=0.0).question(CLEAN, torch.Generator().manual_seed(3), small)
    assert float(objective("epsilon", snr_gamma=0.0).loss(asked.wanted + 2, asked)) == pytest.approx(4.0)


def picture(weights: Tensor | None) -> TrainingPicture:
    return TrainingPicture(latents=torch.zeros(4, 8, 8).half(), time_ids=(), caption="", weights=weights)


def test_pictures_without_a_mask_count_whole_beside_those_with_one() -> None:
    assert stacked_weights([picture(None), picture(None)]) is None
    both = stacked_weights([picture(None), picture(LEFT[0])])
    assert both is not None and torch.equal(both, torch.stack([ONES[0], LEFT[0]]))


def test_a_lesson_counts_what_is_shown(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"text_learning_rate": 0.0, "num_prior": 0, "caption_dropout": 0.0})
    lessons = Taught(tmp_path, plan).lessons
    latents = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(8)).half()
    left = torch.cat([torch.ones(1, 16, 8), torch.zeros(1, 16, 8)], dim=2)
    losses = []
    for weights in (None, torch.ones(1, 16, 16), left, 1 - left):
        shown = TrainingPicture(latents=latents, time_ids=(), caption="a red star", weights=weights)
        losses.append(lessons.learn([shown], 0))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert abs(losses[2] - losses[0]) > 1e-3 * losses[0]
    assert (losses[2] + losses[3]) / 2 == pytest.approx(losses[0], rel=1e-5)  # two halves of one size


def saved(path: Path, wide: int, high: int, box: tuple[int, int, int, int], colour: str = "white") -> Path:
    """A black picture with a box of another colour."""
    image = Image.new("RGB", (wide, high))
    image.paste(colour, box)
    image.save(path)
    return path


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 128)])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_mask_is_cut_as_its_picture_is(tmp_path: Path, size: tuple[int, int], scale: int) -> None:
    box = (60, 20, 150, 76)
    path = saved(tmp_path / "a.png", 200, 100, box)
    saved(tmp_path / "a.mask.png", 200 // scale, 100 // scale, tuple(side // scale for side in box))  # type: ignore[arg-type]
    opened = opened_upright(path)
    assert opened is not None
    array, _ = cut(opened, *size)
    seen = array[..., 0].astype(np.float32).reshape(size[1] // 8, 8, size[0] // 8, 8).mean(axis=(1, 3)) / 255
    mask = MaskStore(tmp_path / "masks", 0.0).take(path, opened.size, size)
    assert mask is not None and mask.shape == (1, size[1] // 8, size[0] // 8)
    assert 0.1 < float(mask.mean()) < 0.9
    np.testing.assert_allclose(mask[0].numpy(), seen, atol=0.04 * scale)


def test_grey_counts_in_part_and_the_floor_lifts_what_is_black(tmp_path: Path) -> None:
    grey = Image.new("L", (64, 64))
    grey.paste(102, (0, 0, 32, 64))
    torch.testing.assert_close(cut_mask(grey, (64, 64), (64, 64))[0, 0], torch.tensor([0.4] * 4 + [0.0] * 4))
    path = saved(tmp_path / "a.png", 64, 64, (0, 0, 1, 1))
    grey.save(tmp_path / "a-masklabel.png")
    lifted = MaskStore(tmp_path / "masks", 0.5).take(path, (64, 64), (64, 64))
    assert lifted is not None
    torch.testing.assert_close(lifted[0, 0], torch.tensor([0.7] * 4 + [0.5] * 4))
    assert MaskStore(tmp_path / "masks", 1.0).take(path, (64, 64), (64, 64)) is None


def test_a_picture_of_its_own_transparency_and_one_turned_by_its_camera(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 128), (9, 9, 9, 0))
    image.paste((9, 9, 9, 255), (0, 0, 64, 64))  # its upper half is there
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise: up is then right
    image.save(tmp_path / "a.png", exif=turned)
    store = MaskStore(tmp_path / "masks", 0.0)
    mask = store.take(tmp_path / "a.png", (128, 64), (128, 64))
    assert mask is not None and torch.equal(mask[0, 0], torch.tensor([0.0] * 8 + [1.0] * 8))
    Image.new("RGBA", (64, 64), (9, 9, 9, 255)).save(tmp_path / "b.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "c.png")
    assert store.take(tmp_path / "b.png", (64, 64), (64, 64)) is None
    assert store.take(tmp_path / "c.png", (64, 64), (64, 64)) is None


def test_a_mask_that_is_painted_anew_is_made_anew(tmp_path: Path) -> None:
    path, store = saved(tmp_path / "a.png", 64, 64, (0, 0, 9, 9)), MaskStore(tmp_path / "masks", 0.0)
    means = []
    for width in (32, 32, 48):
        saved(tmp_path / "a.mask.png", 64, 64, (0, 0, width, 64))
        mask = store.take(path, (64, 64), (64, 64))
        assert mask is not None
        means.append(float(mask.mean()))
    assert means == [0.5, 0.5, 0.75]
    assert len(list((tmp_path / "masks").iterdir())) == 2


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (64, 64), "white"), "another shape than 200×100"),
        (Image.new("L", (200, 100)), "all black"),
        (b"nothing", "cannot be opened"),
    ],
)
def test_a_mask_that_cannot_be_used_is_said(tmp_path: Path, mask: Image.Image | bytes, said: str) -> None:
    path = saved(tmp_path / "a.png", 200, 100, (0, 0, 9, 9))
    beside = tmp_path / "a.mask.png"
    beside.write_bytes(mask) if isinstance(mask, bytes) else mask.save(beside)
    with pytest.raises(DatasetError, match=f"a.mask.png.*{said}"):
        MaskStore(tmp_path / "masks", 0.0).take(path, (200, 100), (64, 64))


def test_a_mask_that_is_cut_off_altogether_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", 200, 100, (0, 0, 9, 9))
    saved(tmp_path / "a.mask.png", 200, 100, (0, 0, 40, 100))
    with pytest.raises(DatasetError, match=r"a\.png leaves nothing to learn"):
        MaskStore(tmp_path / "masks", 0.05).take(path, (200, 100), (64, 64))
