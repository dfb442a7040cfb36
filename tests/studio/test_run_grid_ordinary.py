"""Checkpoints that forget: prompts that do not call what was learnt are drawn, and count for that alone."""

import pytest

from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.request import GenerationRequest
from studio.domain.run_grid import Grid, GridColumn, parse_grid
from studio.domain.tags import AdapterUse
from studio.domain.training import parse_training
from studio.prompt_sets import PROMPT_SETS
from studio.run_grid_overfit import overfit
from studio.run_grid_scores import column_scores
from studio.services import Services
from studio.settings import PROJECT_ROOT
from tabs.run_grid_views import table
from tests.studio.adapter_files import adapter_file

COLUMNS = (
    GridColumn(),
    GridColumn(step=10, use=AdapterUse(adapter="early")),
    GridColumn(step=90, use=AdapterUse(adapter="late")),
)


@pytest.fixture
def grid(catalogue: Catalogue) -> Grid:
    ordinary = tuple(f"ordinary {place}" for place in range(16))
    recipe = catalogue.resolve(GenerationRequest(prompt="a", seed=0))
    return Grid(run="r", recipe=recipe, columns=COLUMNS, prompts=("a", "b"), seeds=(4, 5), ordinary=ordinary)


def results(grid: Grid, *, late: float, is_judged: bool = True) -> dict[int, CellResult]:
    """All is as it should be, but for the ordinary prompts of the late checkpoint, of which such a share is."""
    told: dict[int, CellResult] = {}
    for cell in grid.cells():
        spoilt = grid.is_ordinary(cell.row) and cell.column.step == 90 and (cell.row - 4 + 0.5) / 16 > late
        cosine = (0.2 if spoilt else 0.3) + 0.001 * (cell.row % 5) + 0.0005 * cell.column.step / 90 * (cell.row % 3)
        told[cell.index] = CellResult(index=cell.index, right=not spoilt if is_judged else None, cosine=cosine)
    return told


def test_each_ordinary_prompt_is_one_more_row(grid: Grid) -> None:
    assert grid.rows[:5] == (("a", 4), ("a", 5), ("b", 4), ("b", 5), ("ordinary 0", 4)) and len(grid.rows) == 20
    assert [grid.is_ordinary(row) for row in range(6)] == [False] * 4 + [True] * 2
    cells = grid.cells()
    assert [cell.index for cell in cells] == list(range(60))
    assert sorted((cell.row, cell.column.step) for cell in cells) == [
        (row, s) for row in range(20) for s in (0, 10, 90)
    ]


def test_a_checkpoint_that_forgets_is_warned_of_and_still_draws_what_it_learnt(grid: Grid) -> None:
    scores = column_scores(grid, results(grid, late=0.4))
    assert [score.n for score in scores] == [4, 4, 4], "ordinary prompts count for nothing else"
    assert all(score.right and score.right.value == 1 for score in scores)
    assert [score.ordinary and round(score.ordinary.value, 3) for score in scores] == [1.0, 1.0, 0.375]
    (warning,) = overfit(scores)
    assert warning.startswith("Step 90 at scale 1 follows ordinary prompts less") and "of 16 right" in warning
    page = table(scores)
    assert "Ordinary prompts" in page and "38 % [" in page


def test_one_that_hardly_forgets_is_not(grid: Grid) -> None:
    assert overfit(column_scores(grid, results(grid, late=0.95))) == ()


def test_where_no_checker_can_look_the_clip_score_tells(grid: Grid) -> None:
    scores = column_scores(grid, results(grid, late=0.2, is_judged=False))
    assert scores[2].ordinary and scores[2].ordinary.value < 25 and not scores[2].ordinary_is_share
    (warning,) = overfit(scores)
    assert "CLIP score on 16 of them is -" in warning


def test_they_are_of_what_the_model_knew_and_not_asked_for_twice(services: Services) -> None:
    services.trainer.stop(timeout=10)
    folder = str(PROJECT_ROOT / "examples" / "crescents")
    run = services.training.submit(parse_training({"name": "Mine", "folder": folder, "num_steps": 60}))
    (run.folder / "checkpoints").mkdir()
    adapter_file(run.folder / "checkpoints" / "step-000010.safetensors", scale=0.1)
    world = [prompt.text for prompt in PROMPT_SETS["world"].take(16)]
    grid = services.run_grids.resolve(parse_grid({"run": run.id, "prompts": (world[3],)}))
    assert grid.ordinary == tuple(text for text in world if text != world[3])
    none = parse_grid({"run": run.id, "prompts": (world[3],), "num_ordinary": 0})
    assert services.run_grids.resolve(none).ordinary == ()
