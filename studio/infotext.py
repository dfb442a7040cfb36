"""A1111's `parameters` text, the lingua franca of picture settings: written, read, and turned into a request.

    prompt
    Negative prompt: negative
    Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 128x128, ...

The settings are one line, the last. A value with a comma, colon or newline is a JSON string. Prompts may have any
number of lines; the negative one starts at the first line that begins with "Negative prompt:".
"""

import json
import re
from dataclasses import dataclass

from pydantic import ValidationError

from studio import __version__
from studio.beginning_text import beginning_found, beginning_told
from studio.domain.catalogue import Catalogue, SchedulerRow
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.domain.request import NO_ACCELERATOR, GenerationRequest, invalid_request, label, parse_request
from studio.domain.tags import adapters_named

TINY_DECODER = "TAESD"
"""What A1111 writes where pictures were decoded by it."""
SOFTWARE = f"flash-studio {__version__}"
NEGATIVE = "Negative prompt:"

# A1111's own pattern, except that a key's length is bounded (else a long line without a colon costs quadratic time).
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_FEWEST_PAIRS = 3
"""A last line with fewer is taken for prompt, as A1111 does."""

_FIELD_OF_KEY = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "num_inference_steps",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Clip skip": "clip_skip",
}


def infotext(record: ImageRecord, catalogue: Catalogue) -> str:
    """What A1111-family tools show for `record`: the prompts as the model read them, and the tags of adapters, which
    those tools read themselves."""
    recipe = record.recipe
    sampler, schedule = _a1111_names(recipe.scheduler, catalogue)
    settings = {
        "Steps": str(recipe.num_inference_steps),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": repr(recipe.guidance_scale).removesuffix(".0"),
        "Seed": str(recipe.seed),
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": record.environment.get("checkpoint_sha256", "")[:10],
        "Model": recipe.checkpoint,
        "Clip skip": str(recipe.clip_skip) if recipe.clip_skip > 1 else "",
        **beginning_told(recipe),
        "RNG": "CPU",
        "Lora hashes": record.environment.get("adapters", ""),
        "Accelerator": "" if recipe.accelerator == NO_ACCELERATOR else recipe.accelerator,
        "VAE Decoder": TINY_DECODER if recipe.decoder == "tiny" else "",
        "Decoder": "half" if recipe.decoder == "half" else "",  # A1111 has no word for it
        "Template": recipe.typed_prompt,  # as the extension for dynamic prompts calls it
        "Original prompt": recipe.original_prompt,
        "Version": SOFTWARE,
    }
    prompt = " ".join([record.prompt_as_run, *(use.tag for use in adapters_named(recipe.prompt))])
    negative = f"\n{NEGATIVE} {record.negative_as_run}" if record.negative_as_run else ""
    pairs = ", ".join(f"{key}: {_quoted(value)}" for key, value in settings.items() if value)
    return f"{prompt}{negative}\n{pairs}".strip()


def parse_infotext(text: str) -> dict[str, str]:
    """Every key with its value. `Prompt` and `Negative prompt` are always there; `Size` is `Size-1` and `Size-2`."""
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _FEWEST_PAIRS:
        lines.append(last)
        pairs = []
    start = next((n for n, line in enumerate(lines) if line.strip().startswith(NEGATIVE)), len(lines))
    found = {
        "Prompt": "\n".join(lines[:start]).strip(),
        "Negative prompt": "\n".join(lines[start:]).strip().removeprefix(NEGATIVE).strip(),
    }
    for key, value in pairs:
        found |= _unpacked(key, _unquoted(value))
    return found


@dataclass(frozen=True, kw_only=True)
class FoundSettings:
    """The request that a picture tells of, and what else it told that we do not know or cannot do."""

    request: GenerationRequest
    left_out: tuple[str, ...] = ()


def request_from_infotext(text: str, catalogue: Catalogue) -> FoundSettings:
    """The request that comes closest to `text`. What we do not know (a model, a sampler) or cannot do (a size, a
    number of steps) is left open, so that the rest still helps.

    Raises:
        InvalidRequest: there is no prompt in it.
    """
    found = parse_infotext(text)
    values: dict[str, str | None] = {field: found[key] for key, field in _FIELD_OF_KEY.items() if key in found}
    values["scheduler"] = _scheduler_id(found.get("Sampler", ""), found.get("Schedule type", ""), catalogue)
    values["checkpoint"] = _checkpoint_id(found.get("Model", ""), catalogue)
    named = found.get("Accelerator")
    values["accelerator"] = named if named in [row.id for row in catalogue.accelerators] else None
    is_half, is_tiny = found.get("Decoder") == "half", found.get("VAE Decoder") == TINY_DECODER
    values["typed_prompt"], values["original_prompt"] = found.get("Template", ""), found.get("Original prompt", "")
    values["decoder"] = "tiny" if is_tiny else "half" if is_half else "full"
    beginning, unread = beginning_found(found)
    values |= beginning
    unknown = {"scheduler": found.get("Sampler"), "checkpoint": found.get("Model"), "accelerator": named}
    left_out = [f"{label(field).lower()} {said}" for field, said in unknown.items() if said and not values[field]]
    left_out += unread
    try:
        return FoundSettings(request=GenerationRequest.model_validate(values), left_out=tuple(left_out))
    except ValidationError as error:
        unfit = {str(problem["loc"][0]) for problem in error.errors()}
        if "prompt" in unfit:
            raise invalid_request(error) from None
    left_out += [f"{label(field).lower()} {values[field]}" for field in values if field in unfit]
    request = parse_request({field: value for field, value in values.items() if field not in unfit})
    return FoundSettings(request=request, left_out=tuple(left_out))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ",:\n") else value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _unpacked(key: str, value: str) -> dict[str, str]:
    size = _SIZE.fullmatch(value)
    return {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}


def _a1111_names(scheduler_id: str, catalogue: Catalogue) -> tuple[str, str]:
    try:
        row = catalogue.scheduler(scheduler_id)
    except NotFound:  # a picture older than the catalogue
        return scheduler_id, ""
    return row.a1111_sampler, row.a1111_schedule


def _scheduler_id(sampler: str, schedule: str, catalogue: Catalogue) -> str | None:
    """The row that both names mean. Before A1111 1.9 the schedule was a part of the sampler's name; when it is left to
    the program ("Automatic"), ours is the first row of that sampler."""
    asked, is_automatic = sampler.casefold(), schedule.casefold() in ("", "automatic")

    def means(row: SchedulerRow) -> bool:
        ours, kind = row.a1111_sampler.casefold(), row.a1111_schedule.casefold()
        return (asked, schedule.casefold()) == (ours, kind) or (is_automatic and asked in (ours, f"{ours} {kind}"))

    return next((row.id for row in catalogue.schedulers if means(row)), None)


def _checkpoint_id(name: str, catalogue: Catalogue) -> str | None:
    asked = name.casefold()
    for row in catalogue.checkpoints:
        hub_name = (row.hub_id or "").rpartition("/")[2]
        if asked and asked in (row.id.casefold(), row.title.casefold(), hub_name.casefold()):
            return row.id
    return None
