"""Checkpoints that have learnt too much: what is kept of a grid's pictures, and what is said of columns."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.base import Engine
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.errors import CorruptModel
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.domain.run_files import CHECKPOINTS, checkpoint_name
from studio.domain.run_grid import Grid, GridColumn, parse_grid
from studio.domain.tags import AdapterUse
from studio.domain.training import TrainingPlan, parse_training
from studio.gallery import NewImage
from studio.run_grid import RunGrid
from studio.run_grid_embeddings import GridEmbeddings, Likeness
from studio.run_grid_overfit import fallen, overfit
from studio.run_grid_scores import ColumnScore, column_scores
from studio.runs import Run
from studio.scoring import POCKET_JUDGE, ScoringService
from studio.services import Services
from studio.settings import PROJECT_ROOT
from studio.statistics import Estimate, share
from tests.studio.adapter_files import adapter_file

LEARNT = PROJECT_ROOT / "examples" / "crescents"
PROMPTS = ("a red star on a white background", "a blue star on a white background")


@pytest.fixture
def run(services: Services) -> Run[TrainingPlan]:
    services.trainer.stop(timeout=10)
    services.runner.stop(timeout=10)
    run = services.training.submit(parse_training({"name": "Mine", "folder": str(LEARNT), "num_steps": 60}))
    (run.folder / CHECKPOINTS).mkdir()
    adapter_file(run.folder / CHECKPOINTS / checkpoint_name(10), scale=0.1)
    return services.training.run_of(run.id)


@pytest.fixture
def grid(services: Services, run: Run[TrainingPlan]) -> Iterator[RunGrid]:
    """A grid whose adapter copies training pictures; without it, scenes are drawn as they should be."""
    asked = {"run": run.id, "prompts": PROMPTS, "num_images": 2, "scales": (1.0,), "num_ordinary": 0}
    begun = services.run_grids.submit(parse_grid(asked))
    for cell in begun.grid.cells():
        prompt, seed = begun.grid.rows[cell.row]
        scene = parse(prompt)
        assert scene is not None
        new = NewImage(
            job_id=begun.folder.job_id, visitor="local", image_index=cell.index, recipe=cell.recipe,
            prompt_as_run=prompt, negative_as_run="", environment={}, seconds={"total": 1.0}, peak_memory_mb=1.0,
        )  # fmt: skip
        drawn = Image.open(LEARNT / "0003.png") if cell.column.use else render(scene, seed)
        record = services.gallery.save(drawn.convert("RGB"), new)
        begun.folder.note(CellResult(index=cell.index, image_id=record.id, right=cell.column.use is None))
    assert begun.job is not None
    begun.job.cancel()
    yield services.run_grids.standing(begun)


def test_what_is_missing_is_seen_at_the_next_look_and_copies_are_told(services: Services, grid: RunGrid) -> None:
    assert not grid.folder.embeddings.exists()
    without, copies = services.run_grids.scores(grid)
    assert grid.folder.embeddings.is_file()
    assert copies.near == share(4, 4) and without.near == share(0, 4)
    assert copies.diversity and copies.diversity.value == pytest.approx(0, abs=1e-5)
    assert without.diversity and without.diversity.value > 0.01 and set(without.diversities) == set(PROMPTS)
    said = "Step 10 at scale 1 may have learnt its pictures by heart: 100 % [51–100 %] of what it draws are nearer to "
    said += "one of them than they are to each other. Without an adapter it is 0 % [0–49 %]."
    assert overfit((without, copies)) == (said,)


def test_what_was_seen_is_not_seen_again(
    services: Services, grid: RunGrid, run: Run[TrainingPlan], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    embed = ScoringService.embed_file

    def counting(self: ScoringService, judge: Path, picture: Path) -> tuple[float, ...] | None:
        seen.append(picture)
        return embed(self, judge, picture)

    monkeypatch.setattr(ScoringService, "embed_file", counting)
    embeddings, path = GridEmbeddings(services.gallery, services.scoring), grid.folder.embeddings

    def fill(pictures: Mapping[int, ImageRecord], most: int | None = None) -> bool:
        return embeddings.fill(path, POCKET_JUDGE, pictures, LEARNT, most=most)

    assert not fill(grid.pictures, most=5) and len(seen) == 5
    assert fill(grid.pictures) and len(seen) == len(set(seen)) == 8 + 16
    assert fill(grid.pictures) and len(seen) == 24
    kept = embeddings.read(path, grid.pictures)
    assert len(kept.cells) == 8 and sorted(kept.training) == [f"{place:04d}.png" for place in range(16)]
    assert kept.is_caption("an orange sks on a mint background") and not kept.is_caption(PROMPTS[0])
    picture = services.gallery.path(grid.pictures[0])
    assert tuple(kept.cells[0]) == engine.embed(POCKET_JUDGE, picture)
    assert embeddings.fill(path, POCKET_JUDGE, grid.pictures, Path("/gone")) and len(seen) == 24
    assert len(embeddings.read(path, grid.pictures).training) == 16, "what is known of pictures that are gone stays"
    path.write_bytes(path.read_bytes()[:500])
    assert embeddings.read(path, grid.pictures) == Likeness(cells={}, training={})
    assert fill(grid.pictures) and len(seen) == 48


def test_a_judge_that_cannot_be_used_is_asked_once_and_nothing_is_told(
    services: Services, grid: RunGrid, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def broken(*_: object) -> None:
        asked.append(1)
        raise CorruptModel("The judge is broken.", "Fetch it again.")

    monkeypatch.setattr(engine, "preload_judge", broken)
    for _ in range(2):
        scores = services.run_grids.scores(grid)
        assert [(score.diversity, score.near) for score in scores] == [(None, None)] * 2
    assert asked == [1] and overfit(scores) == ()


def test_only_rows_that_all_columns_have_are_compared(catalogue: Catalogue) -> None:
    columns = (GridColumn(), GridColumn(step=1, use=AdapterUse(adapter="a", lora_scale=1)))
    recipe = catalogue.resolve(GenerationRequest(prompt="x", seed=0))
    asked = Grid(run="r", recipe=recipe, columns=columns, prompts=("x", "y"), seeds=(0, 1))
    rng = np.random.default_rng(0)
    cells = {cell.index: rng.normal(size=4) for cell in asked.cells()}
    results = {cell.index: CellResult(index=cell.index) for cell in asked.cells()}
    last = max(results)
    del results[last]
    scores = column_scores(asked, results, Likeness(cells=cells, training={}))
    assert [set(score.diversities) for score in scores] == [{"x"}, {"x"}] and [score.n for score in scores] == [3, 3]
    assert all(score.near is None for score in scores), "no training pictures, nothing near them"


def test_a_prompt_that_is_a_caption_is_near_with_good_reason(catalogue: Catalogue) -> None:
    rng = np.random.default_rng(1)
    training = {f"{place}.png": vector for place, vector in enumerate(rng.normal(size=(8, 4)))}
    recipe = catalogue.resolve(GenerationRequest(prompt="x", seed=0))
    asked = Grid(
        run="r", recipe=recipe, columns=(GridColumn(),), prompts=("sks, a moon", "a moon", "a star"), seeds=(0,)
    )
    cells = {cell.index: training["0.png"] for cell in asked.cells()}
    results = {cell.index: CellResult(index=cell.index) for cell in asked.cells()}
    (score,) = column_scores(asked, results, Likeness(cells=cells, training=training, captions=frozenset({"a moon"})))
    assert score.near == share(1, 1)
    every = frozenset({"a moon", "a star"})
    (score,) = column_scores(asked, results, Likeness(cells=cells, training=training, captions=every))
    assert score.near is None


def column(step: int, diversities: Mapping[str, float], right: int = 9, scale: float = 1.0) -> ColumnScore:
    """One that draws `right` of 10 pictures right; step 0 is without an adapter."""
    use = AdapterUse(adapter="a", lora_scale=scale) if step else None
    return ColumnScore(
        column=GridColumn(step=step, use=use), n=10, failed=0, right=share(right, 10), clip=None, clip_gain=None,
        diversities=diversities,
    )  # fmt: skip


def varied(value: float, prompts: int = 6) -> dict[str, float]:
    """Diversities about `value`, which differ a little."""
    return {f"prompt {place}": value * (1 + 0.1 * (place % 3 - 1)) for place in range(prompts)}


def test_a_clear_fall_is_told_against_the_first_that_is_as_good() -> None:
    without, early, late = column(0, varied(0.5), right=1), column(100, varied(0.06)), column(900, varied(0.02))
    told = overfit((without, early, late))
    assert told == (
        "Step 900 at scale 1 draws less varied pictures than step 100 at scale 1, which is as good: over 6 prompts "
        "their diversity is 67 % lower.",
    )
    able = replace(without, right=share(9, 10))
    assert "than the model without an adapter, which is as good" in overfit((able, late))[0]


@pytest.mark.parametrize(
    ("early", "late"),
    [
        (column(100, varied(0.06), right=5), column(900, varied(0.02))),
        (column(100, varied(0.06)), column(900, varied(0.05))),
        (column(100, varied(0.06, prompts=2)), column(900, varied(0.02, prompts=2))),
        (column(100, varied(0.06), scale=0.5), column(900, varied(0.02))),
        (column(900, varied(0.06)), column(100, varied(0.02))),
        (column(100, {"a": 0.9, "b": 0.1, "c": 0.1}), column(900, {"a": 0.1, "b": 0.12, "c": 0.11})),
    ],
    ids=["it is worse", "a sixth", "two prompts", "another scale", "it comes later", "it may be luck"],
)
def test_else_nothing_is_told(early: ColumnScore, late: ColumnScore) -> None:
    assert fallen(late, (early, late)) is None


def test_by_clip_scores_as_good_is_half_a_point_less() -> None:
    def scored(step: int, gain: float, diversity: float) -> ColumnScore:
        made = replace(column(step, varied(diversity)), right=None)
        return replace(made, clip_gain=Estimate(value=gain, n=6) if step else None)

    assert fallen(scored(900, 1.4, 0.02), (scored(0, 0, 0.5), scored(100, 1.0, 0.06))) is not None
    assert fallen(scored(900, 1.6, 0.02), (scored(0, 0, 0.5), scored(100, 1.0, 0.06))) is None


@pytest.mark.parametrize(
    ("near", "without", "is_told"), [((4, 40), 0, False), ((9, 40), 0, True), ((9, 40), 12, False)]
)
def test_near_is_told_where_it_is_sure_and_above_that_without(
    near: tuple[int, int], without: int, is_told: bool
) -> None:
    control = replace(column(0, {}), near=share(without, 40))
    assert bool(overfit((control, replace(column(100, {}), near=share(*near))))) is is_told
