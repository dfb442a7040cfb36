"""The checkpoints of a run beside each other: kept as they were looked at, drawn once, judged, told apart or not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engines.base import Engine
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest
from studio.domain.events import Cancelled, Finished
from studio.domain.request import GenerationRequest
from studio.domain.run_files import EXPORTS, GRIDS, checkpoint_name
from studio.domain.run_grid import Grid, GridColumn, parse_grid
from studio.domain.tags import AdapterUse
from studio.domain.training import TrainingPlan, parse_training
from studio.generation import EngineHolder
from studio.run_grid import RunGrid
from studio.run_grid_files import GridFolder
from studio.run_grid_scores import column_scores, verdict
from studio.runs import Run
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.studio.conftest import Cli

PROMPTS = ("a red sks on a white background", "two blue stars on a cream background")
QUICK = {"prompts": PROMPTS, "num_images": 2, "num_inference_steps": 2, "seed": 5, "num_ordinary": 0}
PATIENCE_S = 600


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(studio: Services) -> Run[TrainingPlan]:
    """A run that was looked at twice."""
    asked = {"folder": str(PROJECT_ROOT / "examples" / "crescents"), "num_steps": 10, "batch_size": 1, "rank": 2}
    begun = studio.training.submit(parse_training({**asked, "name": "Moons", "look_every": 5, "num_prior": 0}))
    job = studio.training.job_of(begun)
    assert job is not None and isinstance(job.wait(timeout=PATIENCE_S), Finished)
    return studio.training.run_of(begun.id)


def drawn(studio: Services, run: Run[TrainingPlan], **values: object) -> RunGrid:
    begun = studio.run_grids.submit(parse_grid({**QUICK, "run": run.id, **values}))
    assert begun.job is not None and isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
    return studio.run_grids.standing(begun)


@pytest.fixture(scope="module")
def grid(studio: Services, run: Run[TrainingPlan]) -> RunGrid:
    return drawn(studio, run, scales=(1.0, 0.5, 0.0))


def test_every_look_leaves_its_adapter_as_it_was_looked_at(run: Run[TrainingPlan]) -> None:
    assert list(run.checkpoints) == [look.step for look in run.looked if look.step] == [5, 10]
    first, second = (load_file(path) for path in run.checkpoints.values())
    assert {tensor.dtype for tensor in first.values()} == {torch.float16}
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert run.best
    best, exported = load_file(run.checkpoints[run.best.step]), load_file(run.folder / EXPORTS["peft"])
    assert best.keys() == exported.keys() and all(torch.equal(best[name], exported[name].half()) for name in best)


def test_every_column_draws_every_prompt_with_every_seed(grid: RunGrid) -> None:
    titles = [column.title for column in grid.grid.columns]
    assert titles == ["Without it", *(f"Step {step} at scale {scale}" for step in (5, 10) for scale in (0.5, 1))]
    assert sorted(grid.pictures) == list(range(20)) == sorted(grid.results)
    for row in range(4):
        columns = {cell.column.name for cell in grid.grid.cells() if cell.row == row}
        assert columns == {column.name for column in grid.grid.columns}
    assert grid.grid.rows == tuple((prompt, seed) for prompt in PROMPTS for seed in (5, 6))


def test_without_an_adapter_it_is_the_plain_picture_to_the_bit(studio: Services, grid: RunGrid) -> None:
    for cell in grid.grid.cells():
        if cell.column.use is None:
            prompt, seed = grid.grid.rows[cell.row]
            (plain,) = studio.generate(prompt, seed=seed, num_inference_steps=2, again=True)
            assert plain.pixels_sha256 == grid.pictures[cell.index].pixels_sha256
    pixels = {cell.column: grid.pictures[cell.index].pixels_sha256 for cell in grid.grid.cells() if cell.row == 0}
    assert len(set(pixels.values())) == 5, "each adapter and scale draws another picture"


def test_pictures_are_ordinary_ones_that_can_be_made_again(studio: Services, grid: RunGrid) -> None:
    record = grid.pictures[max(grid.pictures)]
    assert "<lora:Moons@10-" in record.recipe.prompt and record.environment["adapters"].startswith("Moons@10-")
    (again,) = studio.generate(again=True, **record.recipe.model_dump())
    assert again.pixels_sha256 == record.pixels_sha256


def test_what_is_there_is_not_drawn_again(studio: Services, run: Run[TrainingPlan], grid: RunGrid) -> None:
    count = studio.gallery.count()
    wider = drawn(studio, run, scales=(0.5, 0.75))
    assert studio.gallery.count() == count + 8, "the new scale of two checkpoints, for two prompts and two seeds"
    earlier = {(cell.column.name, cell.row): grid.pictures[cell.index].id for cell in grid.grid.cells()}
    ids = {(cell.column.name, cell.row): wider.pictures[cell.index].id for cell in wider.grid.cells()}
    same = [place for place in ids if "x0.5" in place[0]]
    assert len(ids) == 20 and len(same) == 8 and all(ids[place] == earlier[place] for place in same)


def test_results_lie_in_the_folder_of_the_run(studio: Services, run: Run[TrainingPlan], grid: RunGrid) -> None:
    again = GridFolder(run.folder / GRIDS / grid.folder.job_id)
    assert again.asked == grid.grid and again.results() == grid.results
    with Image.open(again.sheet) as sheet:
        assert sheet.width > 5 * 128 and sheet.height > 4 * 128
    scores = column_scores(again.asked, again.results())
    assert [score.n for score in scores] == [4] * 5
    assert all(score.right and score.right.n == 4 and score.clip for score in scores)
    assert verdict(scores)


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path, grid: RunGrid) -> None:
    folder = GridFolder(tmp_path / "job")
    folder.begin(grid.grid)
    folder.note(CellResult(index=0, right=True))
    with (tmp_path / "job" / "results.jsonl").open("a") as file:
        file.write('{"index": 1, "image_')
    folder.begin(grid.grid)
    folder.note(CellResult(index=2, right=False))
    assert sorted(folder.results()) == [0, 2]


def test_a_grid_that_is_stopped_keeps_what_it_has(studio: Services, run: Run[TrainingPlan]) -> None:
    begun = studio.run_grids.submit(parse_grid({**QUICK, "run": run.id, "seed": 70, "num_images": 20}))
    assert begun.job is not None
    while not begun.folder.results():
        assert not begun.job.is_over
    begun.job.cancel()
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Cancelled)
    stopped = studio.run_grids.newest(run)
    assert stopped is not None and 0 < len(stopped.pictures) < 200 and stopped.folder.sheet.is_file()


def test_a_spoiled_adapter_costs_its_own_cells_alone(studio: Services, run: Run[TrainingPlan], grid: RunGrid) -> None:
    tensors = load_file(run.checkpoints[5])
    spoiled = run.folder / "checkpoints" / checkpoint_name(7)
    save_file({name: torch.full_like(tensor, 6e4) for name, tensor in tensors.items()}, spoiled)
    try:
        done = drawn(studio, run, steps_of_run=(5, 7), scales=(1.0,))
    finally:
        spoiled.unlink()
    _, sound, broken = column_scores(done.grid, done.results)
    assert (sound.failed, broken.failed) == (0, 4)
    assert broken.right and (broken.right.value, broken.right.n) == (0, 4)


def test_a_checkpoint_takes_the_place_of_what_the_run_left(
    studio: Services, run: Run[TrainingPlan], grid: RunGrid
) -> None:
    assert run.best
    other = next(step for step in run.checkpoints if step != run.best.step)
    before = {entry.id for entry in studio.adapters.store.entries()}
    chosen = studio.training.use_checkpoint(run.id, other)
    assert {entry.id for entry in studio.adapters.store.entries()} == before
    assert studio.training.run_of(run.id).record.adapter_id == chosen
    assert f"step {other} of 10" in studio.adapters.store.get(chosen).card.notes
    cell = next(cell for cell in grid.grid.cells() if cell.column.name == f"step-{other:06d}-x1")
    prompt, seed = grid.grid.rows[cell.row]
    (picture,) = studio.generate(f"{prompt} <lora:{chosen}:1>", seed=seed, num_inference_steps=2)
    assert picture.pixels_sha256 == grid.pictures[cell.index].pixels_sha256


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps_of_run": (5, 6)}, "No checkpoint of step 6 is kept"),
        ({"scales": (0.0,)}, "scale of 0 is the model alone"),
        ({"scales": (9.0,)}, "no number from -4 to 4"),
        ({"prompts": ("",)}, "no prompt"),
        ({"num_images": 0}, "must be from 1 to 64"),
        ({"prompts": tuple(f"prompt {index}" for index in range(50)), "num_images": 64}, "at most 4000"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    studio: Services, run: Run[TrainingPlan], values: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        studio.run_grids.submit(parse_grid({**QUICK, "run": run.id, **values}))


def judged(catalogue: Catalogue, *shares: float, prompts: int = 1, seeds: int = 20, **given: float) -> str:
    """The verdict on columns of which these shares are right, or have these CLIP scores; the first is without any."""
    uses = [AdapterUse(adapter="a", lora_scale=1) for _ in shares[1:]]
    columns = (GridColumn(), *(GridColumn(step=100 * place, use=use) for place, use in enumerate(uses, start=1)))
    grid = Grid(
        run="r",
        recipe=catalogue.resolve(GenerationRequest(prompt="x", seed=0)),
        columns=columns,
        prompts=tuple(f"prompt {index}" for index in range(prompts)),
        seeds=tuple(range(seeds)),
    )
    rows = prompts * seeds
    results: dict[int, CellResult] = {}
    for cell in grid.cells():
        share = shares[columns.index(cell.column)]
        noise = given.get("noise", 0.0) * ((7 * cell.row + 3 * columns.index(cell.column)) % 5 - 2)
        values = {"cosine": share + noise} if given else {"right": cell.row < round(share * rows)}
        results[cell.index] = CellResult(index=cell.index, **values)
    return verdict(column_scores(grid, results))


def test_a_sure_best_is_named_and_luck_is_said_to_be_luck(catalogue: Catalogue) -> None:
    sure = judged(catalogue, 0.1, 0.2, 0.95)
    assert sure.startswith("Best is step 200 at scale 1: 19 of 20 pictures show what their prompt says, 95 % [76–99 %]")
    assert "No other interval overlaps" in sure and "Without an adapter it is 10 % [3–30 %]." in sure
    lucky = judged(catalogue, 0.8, 0.9, 0.95)
    assert "Best is step 200" in lucky and "interval of one other overlaps with that, so it may be luck" in lucky
    assert "which may be as good" in lucky
    assert "Equally good are step 100 at scale 1 and step 200 at scale 1" in judged(catalogue, 0.1, 0.9, 0.9)
    assert judged(catalogue, 0.1, 0.0, 0.0) == "No checkpoint draws any of its 20 pictures right."
    assert judged(catalogue, 0.1, *[0.9] * 5).startswith("5 are equally good, step 100 at scale 1 among them")


def test_clip_scores_of_few_prompts_rank_nothing(catalogue: Catalogue) -> None:
    assert "4 prompts are too few" in judged(catalogue, 0.2, 0.3, prompts=4, seeds=2, noise=0.001)
    told = judged(catalogue, 0.2, 0.3, 0.25, prompts=8, seeds=2, noise=0.001)
    assert told.startswith("Best is step 100 at scale 1: its CLIP score is +10.") and "No other" in told


def test_the_command_line_draws_a_grid_and_says_which_is_best(
    cli: Cli, data_dir: Path, tmp_path: Path, studio: Services, run: Run[TrainingPlan]
) -> None:
    shutil.copytree(run.folder, data_dir / "runs" / run.id, ignore=shutil.ignore_patterns(GRIDS))
    asked = [
        "--steps-of-run",
        "10",
        "--scales",
        "1",
        "--prompt",
        PROMPTS[1],
        "--num",
        "2",
        "--steps",
        "2",
        "--ordinary",
        "0",
    ]
    code, out, err = cli("grid", run.id, *asked, "--out", str(tmp_path / "out"))
    assert code == 0, err
    assert out.strip() == str(tmp_path / "out" / "sheet.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "sheet.png",
        *(f"step-000010-x1-i{row}-seed{row}.png" for row in (0, 1)),
        *(f"without-i{row}-seed{row}.png" for row in (0, 1)),
    ]
    assert "2 checkpoints are kept" in err and "Step 10 at scale 1" in err
    code, out, _ = cli("grid", run.id, *asked, "--json")
    told = json.loads(out)
    assert code == 0 and told["status"] == "finished"
    assert [column["column"] for column in told["columns"]] == ["without", "step-000010-x1"]
    assert len(told["cells"]) == 4
    code, out, _ = cli("grid", run.id, "--use", "10")
    assert code == 0 and (data_dir / "adapters" / f"{out.strip()}.safetensors").is_file()
    code, _, err = cli("grid", run.id, "--steps-of-run", "11")
    assert code == 2 and "No checkpoint of step 11" in err and "--steps-of-run" in err


def test_with_the_run_its_checkpoints_and_grids_go(studio: Services, run: Run[TrainingPlan], grid: RunGrid) -> None:
    prompt = grid.pictures[max(grid.pictures)].recipe.prompt
    studio.training.delete(run.id)
    assert not run.folder.exists()
    with pytest.raises(InvalidRequest, match="no adapter called 'Moons@10-"):
        studio.generation.submit(GenerationRequest(prompt=prompt))
