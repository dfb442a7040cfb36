"""An evaluation for elsewhere: a row for each picture, everything in one document, the manifest that repeats it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from studio import __version__
from studio.csv_text import csv_text
from studio.domain.cells import CellResult
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import (
    MAX_PICTURES,
    MAX_PROMPTS,
    MAX_SEEDS,
    MAX_SWEPT,
    Evaluation,
    EvaluationCell,
    SystemRequest,
)
from studio.domain.images import ImageRecord
from studio.domain.sweep import Axis
from studio.evaluation_files import Anchors, Likeness

_SKILLS = ("presence", "colour", "shape", "count", "background", "relation", "place", "size")
_SCHEMA = 1
MOST_BYTES = 256 * 2**20
"""Of a document that is read: twenty thousand pictures take a tenth of it."""


def picture_name(cell: EvaluationCell, evaluation: Evaluation) -> str:
    """The name of one picture's file: its system, its prompt, its seed."""
    number = next(place for place, system in enumerate(evaluation.systems) if system.name == cell.system.name)
    return f"s{number}-p{cell.place:04d}-seed{cell.recipe.seed}.png"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that is known of an evaluation: what came of its cells by their index, and what was measured beside."""

    evaluation: Evaluation
    results: Mapping[int, CellResult]
    anchors: Anchors = field(default_factory=Anchors)
    likeness: Likeness = field(default_factory=Likeness)


def image_rows(findings: Findings) -> list[dict[str, Any]]:
    """A row for each picture that is there or failed."""
    return [_row(findings, cell) for cell in findings.evaluation.cells if cell.index in findings.results]


def _row(findings: Findings, cell: EvaluationCell) -> dict[str, Any]:
    evaluation, result, likeness = findings.evaluation, findings.results[cell.index], findings.likeness
    skills, second, near = result.skills or {}, result.second, likeness.near.get(cell.system.name)
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
        "second_cosine": second and second.cosine,
        "second_judge": second.judge if second else "",
        "cosine_to_baseline": likeness.to_baseline.get(cell.index),
        "cosine_to_nearest": near and near.cosines.get(cell.index),
        "nearest": near.names.get(cell.index, "") if near else "",
        "right": result.right,
        **{f"right_{skill}": skills.get(skill) for skill in _SKILLS},
        "seconds": result.seconds,
        "problem": result.problem,
    }


def rows_csv(findings: Findings) -> str:
    """The rows as CSV, with a line of names."""
    return csv_text(image_rows(findings))


def document(findings: Findings, pictures: Mapping[int, ImageRecord]) -> str:
    """Everything as JSON, for `read_document`: what was asked, with what it was made, what came of each picture."""
    made: dict[str, Mapping[str, str]] = {}
    for cell in findings.evaluation.cells:
        if cell.index in pictures:
            made.setdefault(cell.system.name, pictures[cell.index].environment)
    values = {
        "schema": _SCHEMA,
        "studio": __version__,
        "evaluation": findings.evaluation.model_dump(mode="json"),
        "environments": made,
        "anchors": findings.anchors.model_dump(mode="json"),
        "likeness": findings.likeness.model_dump(mode="json"),
        "results": [result.model_dump(mode="json") for _, result in sorted(findings.results.items())],
        "images": image_rows(findings),
    }
    return json.dumps(values, indent=1, ensure_ascii=False)


def read_document(path: Path) -> Findings:
    """What `document` wrote, to be told again without drawing anything.

    Raises:
        InvalidRequest: it is no such document, or one that asks for more than an evaluation may.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(path)
        values = json.loads(path.read_text(encoding="utf-8"))
        evaluation = Evaluation.model_validate(values["evaluation"])
        told = [CellResult.model_validate(result) for result in values["results"]]
        anchors = Anchors.model_validate(values.get("anchors") or {})
        likeness = Likeness.model_validate(values.get("likeness") or {})
        if not _is_sound(evaluation):
            raise ValueError(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
        raise InvalidRequest(
            f"{path.name} is no evaluation of this studio.", "Give the results.json of one.", "results"
        ) from None
    count = len(evaluation.cells)
    results = {result.index: result for result in told if 0 <= result.index < count}
    return Findings(evaluation=evaluation, results=results, anchors=anchors, likeness=likeness)


def _is_sound(evaluation: Evaluation) -> bool:
    """Whether it could have been asked for: a file may say anything."""
    names = [system.name for system in evaluation.systems]
    is_placed = all(_is_place(system.at, evaluation.axes) for system in evaluation.systems)
    return (
        0 < len(names) <= MAX_SWEPT
        and len(set(names)) == len(names)
        and evaluation.baseline in names
        and 0 < len(evaluation.prompts) <= MAX_PROMPTS
        and 0 < evaluation.num_images <= MAX_SEEDS
        and len(names) * len(evaluation.prompts) * evaluation.num_images <= MAX_PICTURES
        and is_placed
    )


def _is_place(at: Sequence[int], axes: Sequence[Axis]) -> bool:
    return len(at) == len(axes) and all(0 <= place < len(axis.values) for place, axis in zip(at, axes, strict=True))


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
        **({"second_judge": evaluation.second_judge} if evaluation.second_judge else {}),
        **({"axes": [axis.model_dump(mode="json") for axis in evaluation.axes]} if evaluation.axes else {}),
        "prompts": [prompt.model_dump() if prompt.group else prompt.text for prompt in evaluation.prompts],
    }
    systems = [
        {
            "name": system.name,
            "trigger": system.trigger,
            **({"at": list(system.at)} if system.at else {}),
            "adapters": [use.model_dump(exclude_none=True) for use in system.adapters],
            **system.recipe.model_dump(include=set(SystemRequest.model_fields)),
        }
        for system in evaluation.systems
    ]
    return tomlkit.dumps({**values, "systems": systems})  # type: ignore  (its types say nothing of what a mapping holds)
