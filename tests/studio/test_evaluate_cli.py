"""`evaluate`: a manifest is drawn and judged, all of it is delivered, read again without drawing, and gates a CI."""

import csv
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.evaluation import parse_evaluation
from studio.evaluation_export import Findings, manifest, read_document, rows_csv
from studio.evaluation_files import Anchors
from studio.evaluation_report import report_html
from studio.evaluation_scores import analyse
from studio.evaluation_systems import resolve_evaluation
from tests.studio.conftest import Cli

MANIFEST = """
name = "Spoilt on purpose"
num_prompts = 8
num_images = 1
[[systems]]
num_inference_steps = 12
[[systems]]
name = "one step"
accelerator = "flash-pocket-sd15"
num_inference_steps = 1
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "compare.toml"
    path.write_text(MANIFEST, encoding="utf-8")
    return path


def test_a_manifest_is_drawn_and_told_again_without_drawing(
    cli: Cli, data_dir: Path, tmp_path: Path, written: Path
) -> None:
    out_dir = tmp_path / "out"
    code, out, err = cli("evaluate", "--manifest", str(written), "--out", str(out_dir))
    assert code == 0, err
    assert "16 pictures" in err and "12 steps" in out and "one step" in out and "on 8 prompts" in out
    names = {path.name for path in out_dir.iterdir()}
    assert {"report.html", "images.csv", "results.json", "manifest.toml"} < names
    assert len([name for name in names if name.endswith(".png")]) == 16
    with (out_dir / "images.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16 and {row["system"] for row in rows} == {"12 steps", "one step"}
    for row in rows:
        with Image.open(out_dir / row["file"]) as picture:
            assert picture.size == (128, 128)
        assert -1 <= float(row["cosine"]) <= 1 and row["judge"].startswith("pocket-clip ")
        assert row["right"] in ("True", "False") and float(row["seconds"]) > 0

    shutil.rmtree(data_dir)
    code, again, _ = cli("evaluate", "--results", str(out_dir / "results.json"))
    assert code == 0 and again == out and not data_dir.exists(), "what is told again needs no studio"
    page = (out_dir / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 16 and "http" not in page.replace("http-equiv", "")

    repeated = parse_evaluation(tomllib.loads((out_dir / "manifest.toml").read_text(encoding="utf-8")))
    first = read_document(out_dir / "results.json").evaluation
    assert [prompt.text for prompt in first.prompts] == [
        prompt if isinstance(prompt, str) else prompt.text for prompt in repeated.prompts or ()
    ]
    code, third, err = cli("evaluate", "--manifest", str(out_dir / "manifest.toml"), "--json")
    told = json.loads(third)
    assert code == 0, err
    assert told["evaluation"] == first.model_dump(mode="json")
    assert [image["cosine"] for image in told["images"]] == pytest.approx(
        [float(row["cosine"]) for row in rows], abs=1e-5
    ), "the manifest draws the same pictures again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Nothing says what is compared"),
        (["--manifest", "nothing.toml"], "cannot be read"),
        (["--results", "nothing.json"], "no evaluation of this studio"),
        (["--manifest", "compare.toml", "--prompt-set", "parti", "--num-prompts", "900"], "has 128 prompts, not 900"),
        (["--manifest", "compare.toml", "--judge", "nobody"], "no judge called 'nobody'"),
        (["--manifest", "compare.toml", "--baseline", "nobody"], "no system called 'nobody'"),
        (["--manifest", "compare.toml", "--prompts", "empty.txt"], "no prompt in empty.txt"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(
    cli: Cli, written: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (written.parent / "empty.txt").write_text("\n\n", encoding="utf-8")
    monkeypatch.chdir(written.parent)
    code, out, err = cli("evaluate", *arguments)
    assert code == 2 and out == "" and said in err and len(err.strip().splitlines()) <= 2


def judged(catalogue: Catalogue, path: Path, shares: tuple[float, float], count: int = 60) -> Path:
    """The results of two systems of which each draws such a share of its prompts right."""
    systems = [{"name": "base"}, {"name": "other", "num_inference_steps": 9}]
    request = parse_evaluation({"systems": systems, "num_prompts": count, "num_images": 1})
    evaluation = resolve_evaluation(request, catalogue, "pocket-clip")
    share = {"base": shares[0], "other": shares[1]}
    told = [
        CellResult(index=cell.index, right=(cell.place + 0.5) / count < share[cell.system.name]).model_dump()
        for cell in evaluation.cells
    ]
    path.write_text(json.dumps({"evaluation": evaluation.model_dump(mode="json"), "results": told}), encoding="utf-8")
    return path


@pytest.mark.parametrize(("least", "code"), [("5", 1), ("0", 1), ("60", 0)])
def test_a_ci_fails_where_a_system_is_surely_worse(
    cli: Cli, catalogue: Catalogue, tmp_path: Path, least: str, code: int
) -> None:
    results = judged(catalogue, tmp_path / "results.json", (1.0, 0.6))
    ended, _, err = cli("evaluate", "--results", str(results), "--fail-if-worse", least)
    assert ended == code and ("worse than base by more than" in err) == bool(code)


def test_what_may_be_luck_fails_nothing(cli: Cli, catalogue: Catalogue, tmp_path: Path) -> None:
    results = judged(catalogue, tmp_path / "results.json", (1.0, 0.95), count=20)
    assert cli("evaluate", "--results", str(results), "--fail-if-worse", "0")[0] == 0


def test_what_somebody_typed_is_text_everywhere(catalogue: Catalogue) -> None:
    evil = "<script>alert(1)</script>"
    request = parse_evaluation(
        {"systems": [{"name": evil}, {"name": "=cmd()", "num_inference_steps": 3}], "prompts": [evil]}
    )
    evaluation = resolve_evaluation(request, catalogue, "")
    results = {cell.index: CellResult(index=cell.index, image_id="x", cosine=0.2) for cell in evaluation.cells}
    rows = rows_csv(Findings(evaluation=evaluation, results=results))
    page = report_html(analyse(evaluation, results), Anchors(), lambda cell: None)
    assert "<script" not in page and "&lt;script&gt;" in page and "default-src 'none'" in page
    assert "\n0,<script>" in rows and ",=cmd" not in rows
    again = resolve_evaluation(parse_evaluation(tomllib.loads(manifest(evaluation))), catalogue, "")
    assert again == evaluation, "the manifest says all of it"
