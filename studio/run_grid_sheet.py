"""The contact sheet of a grid: all its pictures on one, with what stands for rows and columns written beside them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from studio.domain.run_grid import Grid, GridCell
from studio.gallery import opened

_CELL_PX, _MOST_PX = 256, 8000
"""The longer side of a picture at most, and that of the sheet."""
_LEAST_CELL_PX = 48
_PAPER, _INK, _GREY = (255, 255, 255), (32, 32, 32), (214, 219, 226)


def picture_name(cell: GridCell) -> str:
    """The name of one picture's file: its column, its row, its seed."""
    return f"{cell.column.name}-i{cell.row}-seed{cell.recipe.seed}.png"


def contact_sheet(grid: Grid, paths: Mapping[int, Path]) -> Image.Image:
    """The pictures that lie at `paths`, by the index of their cell, in rows of a prompt and a seed and columns of a
    checkpoint and a scale; what is not there stays grey."""
    sheet = _Sheet(grid)
    for row, (prompt, seed) in enumerate(grid.rows):
        sheet.write_row(row, f"{prompt} · seed {seed}")
    for place, column in enumerate(grid.columns):
        sheet.write_column(place, column.title)
    for cell in grid.cells():
        sheet.put(cell.row, grid.columns.index(cell.column), paths.get(cell.index))
    return sheet.image


class _Sheet:
    def __init__(self, grid: Grid) -> None:
        across, down = len(grid.columns), len(grid.rows)
        width, height = grid.recipe.width, grid.recipe.height
        room = _MOST_PX / (max(across * width, down * height) / max(width, height))
        longer = max(_LEAST_CELL_PX, min(_CELL_PX, max(width, height), int(room)))
        shrunk = longer / max(width, height)
        self._size = max(1, round(width * shrunk)), max(1, round(height * shrunk))
        self._text_px = max(11, round(longer * 0.085))
        self._gap = max(3, round(longer * 0.03))
        self._line = round(self._text_px * 1.3)
        self._font = ImageFont.load_default(self._text_px)
        self._left = 11 * self._text_px + self._gap
        self._top = 3 * self._line + self._gap
        size = self._left + across * (self._size[0] + self._gap), self._top + down * (self._size[1] + self._gap)
        self.image = Image.new("RGB", size, _PAPER)
        self._brush = ImageDraw.Draw(self.image)

    def write_row(self, row: int, text: str) -> None:
        room = max(1, self._size[1] // self._line)
        lines = _wrapped(text, 20, room)
        self._write((self._gap, self._top + row * (self._size[1] + self._gap)), lines)

    def write_column(self, place: int, text: str) -> None:
        letters = max(6, int(self._size[0] / (0.55 * self._text_px)))
        lines = _wrapped(text, letters, 3)
        top = self._top - self._gap - len(lines) * self._line
        self._write((self._left + place * (self._size[0] + self._gap), top), lines)

    def put(self, row: int, place: int, path: Path | None) -> None:
        at = self._left + place * (self._size[0] + self._gap), self._top + row * (self._size[1] + self._gap)
        if path is not None and path.is_file():
            self.image.paste(opened(path).resize(self._size), at)
        else:
            self._brush.rectangle((*at, at[0] + self._size[0] - 1, at[1] + self._size[1] - 1), fill=_GREY)

    def _write(self, at: tuple[int, int], lines: list[str]) -> None:
        for number, line in enumerate(lines):
            self._brush.text((at[0], at[1] + number * self._line), line, fill=_INK, font=self._font)


def _wrapped(text: str, width: int, most: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=most, placeholder=" …", break_long_words=True) or [""]
