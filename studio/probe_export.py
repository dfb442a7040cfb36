"""A probe for elsewhere: a row for each picture, and everything in one document."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import __version__
from studio.csv_text import csv_text
from studio.domain.cells import CellResult
from studio.domain.probe import Answer, Probe
from studio.probe import ProbeStanding
from studio.probe_scores import AttributeResult, ProbeResult, chosen, is_unsure
from studio.probe_views import limits_lines

_SCHEMA = 1


def picture_name(probe: Probe, index: int) -> str:
    """The name of one picture's file: its number and its seed."""
    return f"{index:04d}-{probe.cells[index].recipe.seed}.png"


def rows_csv(standing: ProbeStanding) -> str:
    """A line of names, and one for each picture that is there or failed; nothing is said of what is not judged yet."""
    answers, probe = standing.answers, standing.probe
    return csv_text([_row(probe, result, answers.get(index)) for index, result in sorted(standing.results.items())])


def _row(probe: Probe, result: CellResult, answer: Answer | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": result.index,
        "prompt": probe.prompt,
        "seed": probe.cells[result.index].recipe.seed,
        "file": picture_name(probe, result.index) if result.image_id else "",
        "image_id": result.image_id,
        "problem": result.problem,
        "seconds": result.seconds,
        "judge": answer.judge if answer else "",
        "is_truncated": answer.is_truncated if answer else None,
    }
    for each in probe.attributes:
        row[each.name] = chosen(answer, each) if answer else ""
        row[f"{each.name} is unsure"] = is_unsure(answer, each, probe.margin) if answer else None
        row[f"{each.name} by the checker"] = answer.seen.get(each.name) if answer else None
        cosines = answer.cosines[each.name] if answer else [None] * len(each.values)
        row |= {f"cosine {each.name} {value.name}": told for value, told in zip(each.values, cosines, strict=True)}
    return row


def document(standing: ProbeStanding, result: ProbeResult, pictures: Mapping[int, Path]) -> str:
    """Everything as JSON: what was asked, what came of each picture, the shares, and what they cannot tell. `pictures`
    are those that are still there, by index."""
    values = {
        "schema": _SCHEMA,
        "studio": __version__,
        "status": standing.status,
        "probe": standing.probe.model_dump(mode="json"),
        "judge": result.judge,
        "drawn": result.drawn,
        "failed": result.failed,
        "judged": result.judged,
        "truncated": result.truncated,
        "remark": result.remark,
        "attributes": [_attribute(each) for each in result.attributes],
        "pictures": [_picture(standing, index, index in pictures) for index in sorted(standing.answers)],
        "limits": limits_lines(result.probe.margin),
    }
    return json.dumps(values, indent=2, ensure_ascii=False)


def _attribute(result: AttributeResult) -> dict[str, Any]:
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    told = {"name": result.attribute.name, **{key: value for key, value in values.items() if key != "attribute"}}
    return json.loads(json.dumps(told, default=dataclasses.asdict))


def _picture(standing: ProbeStanding, index: int, is_there: bool) -> dict[str, Any]:
    answer, probe = standing.answers[index], standing.probe
    return {
        "index": index,
        "seed": probe.cells[index].recipe.seed,
        "file": picture_name(probe, index) if is_there else None,
        "chosen": {each.name: chosen(answer, each) for each in probe.attributes},
        "unsure": {each.name: is_unsure(answer, each, probe.margin) for each in probe.attributes},
        "seen": answer.seen,
        "cosines": answer.cosines,
    }
