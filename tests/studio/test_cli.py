"""`python -m studio`: exit codes, messages, files and the JSON document, over the real engine."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import studio
from engines.base import Engine
from studio.cli.arguments import FLAGS
from studio.cli.main import main
from studio.cli.progress import Bar, Lines, position
from studio.domain.beginning import BORDERS
from studio.domain.catalogue import Catalogue
from studio.domain.events import Progress
from studio.domain.request import GenerationRequest, ResolvedRequest, bounds
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.metadata import read_record
from studio.settings import PROJECT_ROOT, Settings
from tests.studio.conftest import Cli
from tests.unwritable import full

QUICK = ("a red circle on a white background", "--steps", "2")
NOISE = ("Traceback", "Warning", "[transformers]", "it/s]", "pipeline components", "checkpoint shards")
PATIENCE_S = 300


@pytest.fixture
def idle_cli(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The same without an engine: whoever asks for one has gone too far."""

    def load() -> Engine:
        raise AssertionError("the engine was asked for")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments, EngineHolder(load))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def gallery_files(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "images").rglob("*.png"))


def test_paths_are_printed_and_copies_are_the_gallerys_bytes(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "some" / "where"
    code, stdout, stderr = cli("generate", *QUICK, "--seed", "5", "--num", "2", "--out", str(out))
    assert code == 0
    assert stdout.splitlines() == [str(out / "5.png"), str(out / "6.png")]
    assert [path.read_bytes() for path in gallery_files(data_dir)] == [
        (out / "5.png").read_bytes(),
        (out / "6.png").read_bytes(),
    ]
    assert "Picture 2: seed 6" in stderr and "2 pictures in" in stderr


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "5.png").write_text("mine")
    for _ in range(2):
        assert cli("generate", *QUICK, "--seed", "5", "--out", str(tmp_path))[0] == 0
    assert (tmp_path / "5.png").read_text() == "mine"
    assert (tmp_path / "5-2.png").stat().st_size > 0 and (tmp_path / "5-3.png").stat().st_size > 0


def test_without_a_folder_the_gallerys_own_files_are_told(cli: Cli, data_dir: Path) -> None:
    code, stdout, _ = cli("generate", *QUICK)
    assert (code, stdout.splitlines()) == (0, [str(path) for path in gallery_files(data_dir)])


def test_json_is_one_document_that_makes_the_picture_again(cli: Cli, tmp_path: Path) -> None:
    arguments = ("--seed", "5", "--num", "2", "--guidance", "3", "--negative", "blue", "--style", "none", "--json")
    code, stdout, _ = cli("generate", *QUICK, *arguments, "--out", str(tmp_path))
    document = json.loads(stdout)
    assert (code, document["status"], document["error"]) == (0, "finished", None)
    recipe = ResolvedRequest.model_validate(document["recipe"])
    assert (recipe.seed, recipe.num_images, recipe.guidance_scale, recipe.negative_prompt) == (5, 2, 3.0, "blue")
    assert document["seconds"] > 0 and document["peak_memory_mb"] > 0
    for index, picture in enumerate(document["pictures"]):
        record = read_record(Path(picture["path"]), picture["path"])
        assert record is not None and record.recipe.model_dump() == picture["recipe"]
        assert picture["seed"] == 5 + index
        assert Path(picture["gallery_path"]).read_bytes() == Path(picture["path"]).read_bytes()
        assert picture["seconds"]["total"] > 0


def test_a_repeated_command_is_answered_at_once_and_says_so(
    cli: Cli, idle_cli: Cli, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASH_STUDIO_DEVICE", engine.state().device)
    path = cli("generate", *QUICK, "--seed", "5")[1].strip()
    code, stdout, stderr = idle_cli("generate", *QUICK, "--seed", "5")
    assert (code, stdout.strip()) == (0, path)
    assert re.search(r"Seed 5: made before, on \d+ [A-Z][a-z]+ at \d\d:\d\d\.", stderr)
    assert "nothing was drawn again" in stderr and "Loading" not in stderr
    document = json.loads(idle_cli("generate", *QUICK, "--seed", "5", "--json", "--out", str(tmp_path / "out"))[1])
    assert [picture["made_before"] for picture in document["pictures"]] == [True]
    assert document["pictures"][0]["gallery_path"] == path and document["peak_memory_mb"] == 0
    assert (tmp_path / "out" / "5.png").read_bytes() == Path(path).read_bytes()


def test_a_command_draws_what_is_missing_and_all_of_it_when_told_to(cli: Cli) -> None:
    cli("generate", *QUICK, "--seed", "5")
    stderr = cli("generate", *QUICK, "--seed", "5", "--num", "2")[2]
    assert "Picture 2: seed 6" in stderr and "1 of them made before" in stderr
    document = json.loads(cli("generate", *QUICK, "--seed", "5", "--num", "2", "--again", "--json")[1])
    assert [picture["made_before"] for picture in document["pictures"]] == [False, False]


def test_a_random_seed_is_told(cli: Cli) -> None:
    document = json.loads(cli("generate", *QUICK, "--seed", "-1", "--json")[1])
    assert document["pictures"][0]["seed"] == document["recipe"]["seed"] >= 0


def test_quiet_leaves_only_the_paths(cli: Cli) -> None:
    code, stdout, stderr = cli("generate", *QUICK, "--quiet")
    assert (code, len(stdout.splitlines()), stderr) == (0, 1, "")


def test_a_running_studio_does_not_take_the_job(cli: Cli, data_dir: Path) -> None:
    cli("generate", *QUICK)
    ledger = Ledger(Settings(data_dir=data_dir).ledger_url)
    queue = ledger.job(ledger.search()[0].job_id).queue
    ledger.close()
    assert queue.startswith(f"cli-{os.getpid()}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--steps", "0"], "Steps is 0; it must be a whole number from 1 to 150. (--steps)"),
        (["x", "--steps", "many"], "Steps is 'many'"),
        (["x", "--steps", "2.5"], "(--steps)"),
        (["x", "--width", "7"], "Width is 7; it must be a whole number from 64 to 2048 that is a multiple of 8."),
        (["x", "--height", "512"], "64 to 256 px. Its native size is 128 px. (--height)"),
        (["x", "--guidance", "nan"], "(--guidance)"),
        (["x", "--guidance", "31"], "Guidance scale is 31; it must be a number from 0 to 30. (--guidance)"),
        (["x", "--seed", "-2"], "(--seed)"),
        (["x", "--seed", "4294967296"], "from -1 to 4294967295. (--seed)"),
        (["x", "--num", "0"], "Number of pictures is 0"),
        (["x", "--model", "sd99"], "no model called 'sd99'. Known: pocket-sd15, pocket-sd21, pocket-sdxl, sd15, "),
        (["x", "--sampler", "best"], "no sampler called 'best'"),
        (["x", "--style", "oil_painting"], "no style called 'oil_painting'"),
        (["x" * 10_001], "The prompt has 10,001 characters"),
        ([], "There is no prompt."),
        ([" "], "There is no prompt."),
        (["a", "red", "circle"], "Put a prompt of several words in quotes."),
        (["x", "--stepz", "3"], "unrecognized arguments: --stepz 3."),
        (["x", "--steps"], "--steps: expected one argument."),
    ],
)
def test_a_bad_value_is_refused_in_one_line(idle_cli: Cli, data_dir: Path, arguments: list[str], said: str) -> None:
    code, stdout, stderr = idle_cli("generate", *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ") and len(stderr.splitlines()) == 1
    assert said in stderr
    assert not data_dir.exists()


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(idle_cli: Cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, _, stderr = idle_cli("generate", *QUICK, "--out", str(tmp_path / place))
    assert code == 2
    assert "cannot be written" in stderr and "(--out)" in stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(idle_cli: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert idle_cli("generate", *QUICK, "--out", str(tmp_path))[0] == 2
    tmp_path.chmod(0o700)


def test_a_setting_that_is_none_is_refused(idle_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASH_STUDIO_PROT", "7860")
    code, _, stderr = idle_cli("generate", *QUICK)
    assert code == 2 and "FLASH_STUDIO_PROT" in stderr


def test_a_data_folder_that_cannot_be_used_is_a_failure(
    idle_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("FLASH_STUDIO_DATA_DIR", str(tmp_path / "file" / "data"))
    code, stdout, stderr = idle_cli("generate", *QUICK)
    assert (code, stdout) == (1, "") and stderr.startswith("error: ")


def test_a_job_that_fails_says_why(cli: Cli) -> None:
    code, stdout, stderr = cli("generate", "a cat", "--model", "sd15", "--json")
    document = json.loads(stdout)
    assert (code, document["status"], document["pictures"]) == (1, "failed", [])
    assert "not on this machine and the studio is offline" in document["error"]
    assert "error: Stable Diffusion 1.5" in stderr and "Traceback" not in stderr


def test_pictures_that_cannot_be_kept_end_it_with_why(cli: Cli, data_dir: Path) -> None:
    assert cli("generate", *QUICK)[0] == 0
    with full(data_dir / "images"):
        code, stdout, stderr = cli("generate", *QUICK, "--seed", "9")
    assert (code, stdout) == (1, "") and "The disk is full" in stderr
    assert len(gallery_files(data_dir)) == 1


def test_a_bug_is_a_failure_without_a_traceback(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Engine:
        raise RuntimeError("a secret path")

    assert main(["generate", *QUICK], EngineHolder(load)) == 1
    stderr = capsys.readouterr().err
    assert "Unexpected error" in stderr and "--verbose" in stderr and "secret" not in stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["a red circle", "--steps", "20", "--num", "60", "--seed", "5", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "generate", *arguments],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A script's background jobs, which these tests may be one of, ignore Ctrl+C and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=PATIENCE_S)
    paths = [first.strip(), *rest.split()]
    assert process.returncode == 130, stderr
    assert sorted(paths) == sorted(str(path) for path in out.iterdir())
    assert 1 <= len(paths) < 60
    assert sorted(path.read_bytes() for path in out.iterdir()) == sorted(
        p.read_bytes() for p in gallery_files(data_dir)
    )
    assert f"{len(paths)} of 60 pictures are finished and kept" in stderr
    assert [noise for noise in NOISE if noise in stderr] == []


def test_help_has_every_flag_with_its_bounds(catalogue: Catalogue, cli: Cli) -> None:
    code, stdout, _ = cli("generate", "--help")
    text = " ".join(stdout.split())
    assert code == 0
    for field, (flag, _) in FLAGS.items():
        low, high, _ = bounds(field)
        assert flag in text
        assert low is None or f"{low:g} to {high:.0f};" in text
    assert set(FLAGS) | {"prompt", "typed_prompt", "original_prompt", *BORDERS} == set(GenerationRequest.model_fields)
    assert "--outpaint" in text
    assert all(row.id in text for row in (*catalogue.schedulers, *catalogue.styles, *catalogue.checkpoints))


def test_no_command_shows_what_there_is(cli: Cli) -> None:
    code, stdout, stderr = cli()
    assert (code, stdout) == (2, "") and "generate" in stderr
    assert cli("paint")[0] == 2
    assert cli("--version")[:2] == (0, f"Flash Studio {studio.__version__}\n")


def test_models_are_listed(cli: Cli, catalogue: Catalogue, data_dir: Path) -> None:
    (data_dir / "models" / "sd14").mkdir(parents=True)
    code, stdout, _ = cli("models")
    lines = {line.split()[0]: line for line in stdout.splitlines()[1:]}
    assert code == 0 and list(lines) == [row.id for row in catalogue.checkpoints]
    assert lines["pocket-sd15"].endswith("embedded") and "128 px" in lines["pocket-sd15"]
    assert lines["sd14"].endswith("on this machine") and "CreativeML Open RAIL-M" in lines["sd14"]
    rows = {row["id"]: row for row in json.loads(cli("models", "--json")[1])}
    assert rows["pocket-sd15"]["is_default"] and rows["pocket-sd15"]["place"] == "embedded"
    assert rows["sd14"]["folder"] == str(data_dir / "models" / "sd14")


def test_serve_runs_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: ran.append([path, run_name, *sys.argv]))
    monkeypatch.setattr(sys, "argv", ["studio"])
    assert cli("serve", "--port", "0")[0] == 0
    assert ran == [[str(PROJECT_ROOT / "app.py"), "__main__", "app.py", "--port", "0"]]


def test_help_models_and_the_library_import_no_torch(data_dir: Path) -> None:
    script = "\n".join([
        "import sys",
        "from studio import open_services, Settings, StudioError, GenerationRequest",
        "from studio.cli.main import main",
        "codes = [main(['models']), main(['generate', '--help']), main(['generate', 'x', '--steps', '0'])]",
        "sys.exit([codes != [0, 0, 2], *sorted({'torch', 'diffusers', 'transformers', 'gradio'} & set(sys.modules))])",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[False]"


def test_a_reader_that_goes_away_is_no_error(data_dir: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "models"],
        cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=PATIENCE_S) == 1


def test_public_names_are_there_and_nothing_else() -> None:
    assert all(hasattr(studio, name) for name in studio.__all__)
    with pytest.raises(AttributeError, match="no attribute 'open_everything'"):
        _ = studio.open_everything  # pyright: ignore[reportAttributeAccessIssue]


def step(number: int, eta_s: float | None) -> Progress:
    return Progress(
        job_id="job",
        index=0,
        time=0.0,
        step=number,
        total=20,
        image_index=1,
        num_images=4,
        eta_s=eta_s,
        phase="denoise",
    )


def test_progress_names_picture_step_and_time_left() -> None:
    assert position(step(5, None)) == "picture 2 of 4, step 5 of 20"
    assert position(step(5, 61.2)) == "picture 2 of 4, step 5 of 20, 1 min 1 s left"


def test_a_terminal_gets_one_line_that_renews_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    Bar("Loading.").event(step(20, 3))
    stderr = capsys.readouterr().err
    assert stderr.startswith("\r\x1b[K[############............] picture 2 of 4")
    assert "\n" not in stderr and len(stderr) < 60 + len("\r\x1b[K")


def test_a_log_gets_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("Loading.")
    for number in range(1, 21):
        lines.event(step(number, 3))
    assert capsys.readouterr().err == ""
