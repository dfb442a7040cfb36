"""A sweep as one HTML file whose axes can be changed in any browser: pictures with their scores, nothing to install."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping

from studio.domain.cells import CellResult
from studio.evaluation_report import PathOf, thumb
from studio.evaluation_scores import Analysis
from studio.html_page import WITH_PICTURES, html_page
from studio.settings import PROJECT_ROOT
from studio.sweep_views import sweep_words

MOST_PICTURES = 1500
_SCRIPT = PROJECT_ROOT / "studio" / "data" / "sweep.js"


def sweep_page(analysis: Analysis, results: Mapping[int, CellResult], path_of: PathOf) -> str:
    """The whole file. Prompts and seeds are axes like the others; of very many pictures the first prompts are there."""
    evaluation = analysis.evaluation
    per_prompt = max(1, len(evaluation.systems) * evaluation.num_images)
    prompts = evaluation.prompts[: max(1, MOST_PICTURES // per_prompt)]
    axes = [{"title": axis.title, "labels": list(axis.labels)} for axis in evaluation.axes]
    axes.append({"title": "Prompt", "labels": [prompt.text for prompt in prompts]})
    axes.append({"title": "Picture", "labels": [str(image + 1) for image in range(evaluation.num_images)]})
    cells = [
        {
            "at": [*cell.system.at, cell.place, cell.image],
            "src": picture,
            "note": _note(results.get(cell.index)),
            "text": f"{cell.system.name}: {cell.text}, seed {cell.recipe.seed}",
        }
        for cell in evaluation.cells
        if cell.place < len(prompts) and (picture := thumb(path_of(cell)))
    ]
    data = json.dumps({"axes": axes, "cells": cells}, ensure_ascii=False).replace("<", "\\u003c")
    script = _SCRIPT.read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    body = (
        f"<h1>{html.escape(evaluation.name)}</h1><p>{html.escape(sweep_words(analysis))}</p>"
        '<div id="pivot" class="pivot"></div><div id="grid" class="figures-scroll"></div>'
        f'<script type="application/json" id="data">{data}</script><script>{script}</script>'
    )
    return html_page(evaluation.name, body, f"{WITH_PICTURES}; script-src 'sha256-{sha256}'")


def _note(result: CellResult | None) -> str:
    if result is None:
        return ""
    mark = "" if result.right is None else "✓ " if result.right else "✗ "
    return f"{mark}{100 * result.cosine:.1f}" if result.cosine is not None else mark.strip()
