"""What the page says: values for the stage, the picture grid and the tables. Pure functions, no components."""

import base64
import html
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from studio.domain.catalogue import Accelerator, Catalogue, Checkpoint, SchedulerRow, Style
from studio.domain.errors import NotFound
from studio.domain.events import Fetching, Held, Progress, Queued
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.generation import LICENCES
from tabs.widgets import as_json

EMPTY_HINT = "Your picture appears here. Write what it should show, or try this:"
EMPTY_STRIP = "The pictures you make gather here."
_ALT_LENGTH = 200


def picture_url(image_id: str) -> str:
    """Where the page finds the very file of a picture; relative, so that it holds behind any proxy."""
    return f"pictures/{image_id}.png"


def thumb_url(image_id: str) -> str:
    return f"pictures/{image_id}/thumb"


def download_url(image_id: str) -> str:
    return f"{picture_url(image_id)}?download=1"


def idle(example: str | None, hint: str = EMPTY_HINT) -> str:
    """An empty stage that teaches."""
    return as_json(phase="idle", hint=hint, example=example)


def waiting(event: Queued) -> str:
    place = place_in_line(event)
    return as_json(phase="waiting", line=f"{place} …", announce=place)


def place_in_line(event: Queued) -> str:
    """ "Waiting: 3 jobs before yours, about 40 s" """
    if event.ahead == 0:
        return "Next in line"
    wait = f", about {duration(event.wait_s)}" if event.wait_s else ""
    return f"Waiting: {event.ahead} {'job' if event.ahead == 1 else 'jobs'} before yours{wait}"


def starting() -> str:
    return as_json(phase="running", line="Getting the model ready …", announce="Started")


def held(event: Held) -> str:
    """Something keeps the job from going on."""
    line = held_line(event)
    return as_json(phase="waiting", line=line, announce=line)


def held_line(event: Held) -> str:
    """ "Waiting. The disk is full: … Free some space. This goes on by itself then." """
    return f"Waiting. {event.message} {event.hint} This goes on by itself then."


def fetching(event: Fetching) -> str:
    """The model on its way from the hub."""
    return as_json(
        phase="running",
        line=fetching_line(event),
        announce="Fetching the model",
        percent=round(100 * event.done_bytes / max(1, event.total_bytes), 1),
    )


def fetching_line(event: Fetching) -> str:
    """ "Fetching the model, this once: 1.2 of 4.3 GB · 5 min left" """
    left = "" if event.eta_s is None else f" · {duration(event.eta_s)} left"
    return f"Fetching the model, this once: {event.done_bytes / 1e9:.1f} of {event.total_bytes / 1e9:.1f} GB{left}"


def progress(event: Progress) -> str:
    """The preview and its bar."""
    steps = event.num_images * event.total
    done = event.image_index * event.total + event.step
    return as_json(
        phase="running",
        image=data_uri(event.preview) if event.preview else None,
        text="Preview of the picture being made",
        line=progress_line(event),
        announce=f"Drawing {_which(event)}",
        percent=round(100 * done / steps, 1),
    )


def progress_line(event: Progress) -> str:
    """ "Step 12 of 25 · picture 1 of 4 · 3 s left" """
    parts = [f"Step {event.step} of {event.total}" if event.phase == "denoise" else "Finishing"]
    parts += [_which(event)] if event.num_images > 1 else []
    parts += [] if event.eta_s is None else [f"{duration(event.eta_s)} left"]
    return " · ".join(parts)


def _which(event: Progress) -> str:
    return f"picture {event.image_index + 1} of {event.num_images}"


def finished(record: ImageRecord, line: str = "", announce: str = "Done") -> str:
    """A finished picture from its own file."""
    return as_json(
        phase="done",
        image=picture_url(record.id),
        text=alt_text(record),
        line=line,
        announce=announce,
        percent=0,
    )


def failed(message: str, hint: str) -> str:
    return as_json(phase="failed", error=f"{message} {hint}".strip())


def stopped(kept: int, asked: int) -> str:
    """What a stopped job leaves, in one line."""
    if not kept:
        return "Stopped before the first picture was done."
    return f"Stopped. {kept} of {asked} pictures {'is' if kept == 1 else 'are'} kept."


def made_before(records: Sequence[ImageRecord], job_id: str) -> str:
    """What a finished job did not draw because it was there, in one line; "" if it drew all of its `records`."""
    earlier = [record for record in records if record.job_id != job_id]
    if not earlier:
        return ""
    if len(earlier) < len(records):
        were = "was" if len(earlier) == 1 else "were"
        return f"{len(earlier)} of {len(records)} pictures {were} made before, and not drawn again."
    if len(earlier) > 1:
        return f"All {len(earlier)} pictures were made before; nothing was drawn again."
    return f"Made before, on {earlier[0].made_on}; nothing was drawn again."


def pictures(records: Iterable[ImageRecord], selected: str | None, label: str, empty: str) -> str:
    """The value of a picture grid."""
    cells = [
        {
            "id": r.id,
            "image": picture_url(r.id),
            "thumb": thumb_url(r.id),
            "text": alt_text(r),
            "is_starred": r.is_starred,
        }
        for r in records
    ]
    return as_json(label=label, empty=empty, selected=selected, pictures=cells)


def alt_text(record: ImageRecord) -> str:
    """What stands for the picture where it cannot be seen."""
    prompt = record.recipe.prompt
    return prompt if len(prompt) <= _ALT_LENGTH else prompt[: _ALT_LENGTH - 1] + "…"


def short_facts(record: ImageRecord, catalogue: Catalogue) -> str:
    """The line under a result (HTML): seed first."""
    recipe = record.recipe
    rows = {
        "Seed": str(recipe.seed),
        "Time": duration(record.seconds.get("total", 0.0)),
        "Peak memory": memory(record.peak_memory_mb),
        "Accelerator": title_of(catalogue.accelerator, recipe.accelerator),
        "Decoder": "" if recipe.decoder == "full" else recipe.decoder,
        "Sampler": title_of(catalogue.scheduler, recipe.scheduler),
        **beginning_facts(recipe),
        "Guidance": f"{recipe.guidance_scale:g}",
        "Size": size_of(recipe),
        "Licences": record.environment.get(LICENCES, ""),
    }
    return definitions({name: value for name, value in rows.items() if value}, "facts")


def all_facts(record: ImageRecord, catalogue: Catalogue) -> str:
    """Everything about a picture (HTML)."""
    recipe = record.recipe
    rows = {
        "Prompt": recipe.prompt,
        "Prompt as typed": recipe.typed_prompt,
        "Your own words": recipe.original_prompt,
        "Prompt as the model read it": record.prompt_as_run if record.prompt_as_run != recipe.prompt else "",
        "Negative prompt": record.negative_as_run,
        "Model": title_of(catalogue.checkpoint, recipe.checkpoint),
        "Style": title_of(catalogue.style, recipe.style),
        "Seed": str(recipe.seed),
        "Size": f"{size_of(recipe)} px",
        "Accelerator": title_of(catalogue.accelerator, recipe.accelerator),
        "Decoder": recipe.decoder,
        **beginning_facts(recipe),
        "Guidance scale": f"{recipe.guidance_scale:g}",
        "Keeps to": f"{recipe.control} at {recipe.control_scale:g}" if recipe.control_image else "",
        "Clip skip": str(recipe.clip_skip) if recipe.clip_skip > 1 else "",
        "Sampler": title_of(catalogue.scheduler, recipe.scheduler),
        "Made": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created_at)),
        "Time": ", ".join(f"{phase} {duration(spent)}" for phase, spent in record.seconds.items()),
        "Peak memory": memory(record.peak_memory_mb),
        "Licences": record.environment.get(LICENCES, ""),
        "Made with": ", ".join(
            f"{name} {value[:20]}" for name, value in record.environment.items() if name != LICENCES
        ),
        "File": record.path,
        "Pixels (SHA-256)": record.pixels_sha256,
    }
    return definitions({name: value for name, value in rows.items() if value}, "facts facts-all")


def size_of(recipe: ResolvedRequest) -> str:
    """Width and height of the finished picture."""
    return "{} × {}".format(*recipe.final_size)


def beginning_facts(recipe: ResolvedRequest) -> dict[str, str]:
    """Steps, and what the picture began from; "" for what does not apply."""
    steps, drawn = recipe.num_inference_steps, recipe.steps_run
    where = ", in a part" if recipe.mask else ""
    refined = f"{recipe.hires_steps_run} of {recipe.hires_steps} steps at strength {recipe.hires_strength:g}"
    return {
        "Steps": f"{drawn} of {steps}" if recipe.init_image else str(steps),
        "Started from": f"a picture, strength {recipe.strength:g}{where}" if recipe.init_image else "",
        "Enlarged": f"{recipe.hires_scale:g} times ({recipe.hires_upscaler}), {refined}" if recipe.has_hires else "",
    }


def definitions(rows: Mapping[str, str], css_class: str) -> str:
    """Names and values as an HTML description list."""
    body = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in rows.items())
    return f'<dl class="{css_class}">{body}</dl>'


def verdict(sentence: str, kind: str) -> str:
    """What a reproduction found (HTML); `kind` is a judgement, or "busy"."""
    return f'<p class="verdict" data-kind="{html.escape(kind)}" role="status">{html.escape(sentence)}</p>'


def title_of(find: Callable[[str], Accelerator | Checkpoint | SchedulerRow | Style | None], row_id: str) -> str:
    """The title of a row of the catalogue, or its id for a picture older than the catalogue; "" for no row."""
    try:
        row = find(row_id)
        return row.title if row else ""
    except NotFound:
        return row_id


def duration(seconds: float) -> str:
    """Seconds for a person: 0.4 s, 12 s, 3 min 20 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def data_uri(jpeg: bytes) -> str:
    """A JPEG inside a URL: previews never touch a disk."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
