"""An evaluation for elsewhere: a row for each picture, everything in one document, the manifest that repeats it."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from studio import __version__
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import Evaluation, EvaluationCell
from studio.domain.images import ImageRecord
from studio.evaluation_files import Anchors

_SKILLS = ("presence", "colour", "shape", "count", "background", "relation", "place", "size")
_SCHEMA = 1


def picture_name(cell: EvaluationCell, evaluation: Evaluation) -> str:
    """The name of one picture's file: its system, its prompt, its seed."""
    number = next(place for place, system in enumerate(evaluation.systems) if system.name == cell.system.name)
    return f"s{number}-p{cell.place:04d}-seed{cell.recipe.seed}.png"


def image_rows(evaluation: Evaluation, results: Mapping[int, CellResult]) -> list[dict[str, Any]]:
    """A row for each picture that is there or failed."""
    return [_row(evaluation, cell, results[cell.index]) for cell in evaluation.cells if cell.index in results]


def _row(evaluation: Evaluation, cell: EvaluationCell, result: CellResult) -> dict[str, Any]:
    skills = result.skills or {}
    return {
        "index": cell.index,
        "system": cell.system.name,
        **{axis.field: axis.labels[place] for axis, place in zip(evaluation.axes, cell.system.at, strict=True)},
        "prompt_id": cell.place,
        "prompt": cell.text,
        "group": evaluation.prompts[cell.place].group,
        "generation_prompt": cell.recipe.prompt,
        "seed": cell.recipe.seed,
        "file": picture_name(cell, evaluation) if result.image_id else "",
        "image_id": result.image_id,
        "cosine": result.cosine,
        "judge": result.judge,
        "is_truncated": result.is_truncated,
        "right": result.right,
        **{f"right_{skill}": skills.get(skill) for skill in _SKILLS},
        "seconds": result.seconds,
        "problem": result.problem,
    }


def rows_csv(evaluation: Evaluation, results: Mapping[int, CellResult]) -> str:
    """The rows as CSV, with a line of names."""
    rows = image_rows(evaluation, results)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["index"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _guarded(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _guarded(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is kept from that."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def document(
    evaluation: Evaluation,
    results: Mapping[int, CellResult],
    anchors: Anchors,
    pictures: Mapping[int, ImageRecord],
) -> str:
    """Everything as JSON, for `read_document`: what was asked, with what it was made, what came of each picture."""
    made: dict[str, Mapping[str, str]] = {}
    for cell in evaluation.cells:
        if cell.index in pictures:
            made.setdefault(cell.system.name, pictures[cell.index].environment)
    values = {
        "schema": _SCHEMA,
        "studio": __version__,
        "evaluation": evaluation.model_dump(mode="json"),
        "environments": made,
        "anchors": anchors.model_dump(mode="json"),
        "results": [result.model_dump(mode="json") for _, result in sorted(results.items())],
        "images": image_rows(evaluation, results),
    }
    return json.dumps(values, indent=1, ensure_ascii=False)


def read_document(path: Path) -> tuple[Evaluation, dict[int, CellResult], Anchors]:
    """What `document` wrote, to be told again without drawing anything.

    Raises:
        InvalidRequest: it is no such document.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        evaluation = Evaluation.model_validate(values["evaluation"])
        told = [CellResult.model_validate(result) for result in values["results"]]
        anchors = Anchors.model_validate(values.get("anchors") or {})
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise InvalidRequest(
            f"{path.name} is no evaluation of this studio.", "Give the results.json of one.", "results"
        ) from None
    return evaluation, {result.index: result for result in told}, anchors


def manifest(evaluation: Evaluation) -> str:
    """The TOML file by which `evaluate --manifest` draws the same pictures again."""
    values: dict[str, Any] = {
        "name": evaluation.name,
        "baseline": evaluation.baseline,
        "has_control": False,
        "seed": evaluation.seed,
        "num_images": evaluation.num_images,
        "clip_margin": evaluation.clip_margin,
        "right_margin": evaluation.right_margin,
        **({"judge": evaluation.judge} if evaluation.judge else {}),
        **({"axes": [axis.model_dump(mode="json") for axis in evaluation.axes]} if evaluation.axes else {}),
        "prompts": [prompt.model_dump() if prompt.group else prompt.text for prompt in evaluation.prompts],
    }
    systems = [
        {
            "name": system.name,
            "trigger": system.trigger,
            **({"at": list(system.at)} if system.at else {}),
            "adapters": [use.model_dump(exclude_none=True) for use in system.adapters],
            **system.recipe.model_dump(exclude={"prompt", "seed", "num_images"}),
        }
        for system in evaluation.systems
    ]
    return tomlkit.dumps({**values, "systems": systems})  # type: ignore  (its types say nothing of what a mapping holds)
