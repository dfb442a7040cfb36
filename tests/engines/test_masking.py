import numpy as np
from PIL import Image

from engines.masking import changing_cells, composed

OLD, NEW = Image.new("RGB", (32, 32), "black"), Image.new("RGB", (32, 32), "white")


def box(*corners: int) -> Image.Image:
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, corners)
    return mask


def test_a_cell_may_change_where_any_of_its_pixels_may() -> None:
    cells = changing_cells(box(7, 8, 9, 9))[0, 0]
    assert cells.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_fade_lies_inside_the_mask_and_is_as_wide_as_was_asked() -> None:
    mixed = np.asarray(composed(OLD, NEW, box(8, 8, 24, 24), 3))[16, :, 0]
    assert mixed[:8].max() == mixed[24:].max() == 0
    assert mixed[8:13].tolist() == [64, 128, 191, 255, 255]
    sharp = np.asarray(composed(OLD, NEW, box(8, 8, 24, 24), 0))[16, :, 0]
    assert (sharp[7], sharp[8], sharp[23], sharp[24]) == (0, 255, 255, 0)


def test_the_edge_of_the_picture_is_no_edge_of_the_mask() -> None:
    assert np.asarray(composed(OLD, NEW, box(0, 0, 32, 32), 8)).min() == 255
    assert np.asarray(composed(OLD, NEW, box(16, 0, 32, 32), 4))[0, 31].tolist() == [255, 255, 255]


def test_a_thin_line_still_changes() -> None:
    mixed = np.asarray(composed(OLD, NEW, box(8, 0, 14, 32), 4))[:, :, 0]
    assert mixed.max() >= 150
