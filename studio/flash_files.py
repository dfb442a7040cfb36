"""The pictures of a comparison as files that say by their names what they are.

image_s4_i0_seed42.png                        4 steps, the first prompt and seed
baseline/image_i0_seed42.png                  the baseline's picture of the same
grid_s4_seed42.png                            all pictures of 4 steps
compare_baseline30_flash4_seed42.png          the baseline's above those of 4 steps
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from studio.domain.flash import Cell, Column, Comparison
from studio.domain.images import ImageRecord
from studio.gallery import opened
from studio.grids import Row, columns_of, grid


def picture_name(cell: Cell) -> str:
    """The name of one picture, with its folder."""
    if cell.column.is_baseline:
        return f"baseline/image_i{cell.row}_seed{cell.recipe.seed}.png"
    return f"image_{cell.column.name}_i{cell.row}_seed{cell.recipe.seed}.png"


def grids(
    comparison: Comparison, pictures: Mapping[int, ImageRecord], path_of: Callable[[ImageRecord], Path]
) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of the grids that can be made by now: of each column that has a picture, and of each number of
    steps below the baseline, of what both have drawn."""
    drawn = comparison.by_column({index: path_of(record) for index, record in pictures.items()})
    seed = comparison.seeds[0]
    for column in comparison.columns:
        paths = list(drawn[column.name].values())
        if paths:
            yield f"grid_{column.name}_seed{seed}.png", _square(column, paths)
    baseline = comparison.baseline
    for column in comparison.columns:
        rows = [row for row in drawn[column.name] if baseline and row in drawn[baseline.name]]
        if baseline and rows and not column.is_baseline:
            steps = baseline.recipe.num_inference_steps, column.recipe.num_inference_steps
            name = f"compare_baseline{steps[0]}_flash{steps[1]}_seed{seed}.png"
            both = [_row(way, [drawn[way.name][row] for row in rows]) for way in (baseline, column)]
            yield name, grid(both)


def archive(
    comparison: Comparison, pictures: Mapping[int, ImageRecord], path_of: Callable[[ImageRecord], Path]
) -> bytes:
    """All pictures and grids as a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archived:  # PNG does not get smaller
        for cell in comparison.cells():
            if cell.index in pictures:
                archived.writestr(picture_name(cell), path_of(pictures[cell.index]).read_bytes())
        for name, sheet in grids(comparison, pictures, path_of):
            archived.writestr(name, png(sheet))
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _square(column: Column, paths: list[Path]) -> Image.Image:
    across = columns_of(len(paths))
    lines = [paths[start : start + across] for start in range(0, len(paths), across)]
    return grid([_row(column, lines[0]), *(Row("", [opened(path) for path in line]) for line in lines[1:])])


def _row(column: Column, paths: list[Path]) -> Row:
    return Row(column.title, [opened(path) for path in paths])
