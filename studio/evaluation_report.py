"""An evaluation as one HTML file that needs neither the studio nor the network: verdict, figures, plots, pictures."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from studio import __version__
from studio.domain.evaluation import Evaluation, EvaluationCell
from studio.evaluation_closer import groups_html, likeness_html, pairs_html
from studio.evaluation_export import manifest
from studio.evaluation_files import Anchors
from studio.evaluation_plots import anchors_html, frontier_html, scrolled, strips_html
from studio.evaluation_scores import Analysis
from studio.evaluation_views import skills_html, table_html, verdict_html
from studio.html_page import WITH_PICTURES, html_page
from studio.sweep_views import sweep_html

MOST_PROMPTS, _MOST_THUMBS = 24, 600
_THUMB_PX = 160

PathOf = Callable[[EvaluationCell], Path | None]
"""Where the picture of a cell lies; None where there is none."""


def report_html(analysis: Analysis, anchors: Anchors, path_of: PathOf, remarks: Sequence[str] = ()) -> str:
    """The whole file. Of the prompts those are shown in pictures whose systems differ most; `remarks` are said of the
    judge."""
    evaluation = analysis.evaluation
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"<h1>{html.escape(evaluation.name)}</h1>",
        verdict_html(analysis) or "<p>No prompt is drawn by all systems yet.</p>",
        *(f'<p class="quiet">{html.escape(remark)}</p>' for remark in remarks if remark),
        sweep_html(analysis) or table_html(analysis),
        frontier_html(analysis),
        strips_html(analysis),
        anchors_html(analysis, anchors),
        skills_html(analysis),
        likeness_html(analysis),
        pairs_html(analysis),
        groups_html(analysis),
        f"<h2>Pictures</h2>{_pictures(analysis, path_of)}",
        f"<h2>To repeat it</h2><pre>{html.escape(manifest(evaluation))}</pre>",
        f'<p class="quiet">Flash Studio {__version__}, {when}</p>',
    ]
    return html_page(evaluation.name, "".join(parts), WITH_PICTURES)


def telling_places(analysis: Analysis) -> list[int]:
    """The prompts by how far apart the systems lie on them, furthest first."""
    base, measure = analysis.baseline, analysis.measure
    if base is None or measure is None:
        return list(range(len(analysis.evaluation.prompts)))

    def apart(place: int) -> float:
        values = [each.by_prompt.get(measure, {}).get(place) for each in analysis.systems]
        known = [value for value in values if value is not None]
        return max(known) - min(known) if known else 0.0

    return sorted(analysis.places, key=lambda place: (-apart(place), place))


def _pictures(analysis: Analysis, path_of: PathOf) -> str:
    evaluation = analysis.evaluation
    count = min(MOST_PROMPTS, max(1, _MOST_THUMBS // (len(evaluation.systems) * evaluation.num_images)))
    places = telling_places(analysis)[:count]
    cells = {(cell.system.name, cell.place, cell.image): cell for cell in evaluation.cells}
    heads = "".join(f'<th scope="col">{html.escape(system.name)}</th>' for system in evaluation.systems)
    rows = "".join(_row(evaluation, place, cells, path_of) for place in places)
    told = f"{len(places)} of {len(evaluation.prompts)} prompts, those first on which the systems differ most."
    head = f"<thead><tr><th>Prompt</th>{heads}</tr></thead>"
    table = scrolled(f'<table class="pictures">{head}<tbody>{rows}</tbody></table>', "Pictures")
    return f'<p class="quiet">{told}</p>{table}'


def _row(evaluation: Evaluation, place: int, cells: dict[tuple[str, int, int], EvaluationCell], path_of: PathOf) -> str:
    shown: list[str] = []
    for system in evaluation.systems:
        images = [_img(cells[system.name, place, image], path_of) for image in range(evaluation.num_images)]
        shown.append(f"<td>{''.join(images)}</td>")
    return f'<tr><th scope="row">{html.escape(evaluation.prompts[place].text)}</th>{"".join(shown)}</tr>'


def _img(cell: EvaluationCell, path_of: PathOf) -> str:
    shown = thumb(path_of(cell))
    words = html.escape(f"{cell.system.name}: {cell.text}, seed {cell.recipe.seed}")
    return f'<img alt="{words}" title="{words}" src="{shown}">' if shown else "<p>–</p>"


def thumb(path: Path | None) -> str:
    """A picture, small, as a text that a page can hold; "" where there is none."""
    if path is None:
        return ""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((_THUMB_PX, _THUMB_PX))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
