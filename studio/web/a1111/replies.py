"""What AUTOMATIC1111's API answers: pictures with their facts, and errors in its own form."""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse

from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.images import ImageRecord
from studio.domain.request import ResolvedRequest
from studio.generation import job_images
from studio.infotext import SOFTWARE, infotext, parse_infotext
from studio.job import Job
from studio.services import Services
from studio.web.a1111.names import SAMPLER_NOT_FOUND
from studio.web.a1111.requests import SETTINGS, THEIR_NAMES, Asked
from studio.web.refusals import headers_of, status_of

_TOLD_ELSEWHERE = {
    "Prompt",
    "Negative prompt",
    "Steps",
    "Sampler",
    "CFG scale",
    "Seed",
    "Size-1",
    "Size-2",
    "Model hash",
    "Model",
    "Clip skip",
    "Version",
}
"""Keys of a picture's text that have fields of their own."""


def refusal(error: StudioError) -> JSONResponse:
    """The answer that says what was wrong; `errors` names the field, or what there is instead of a sampler."""
    is_sampler = isinstance(error, NotFound) and error.message == SAMPLER_NOT_FOUND
    field = error.field if isinstance(error, InvalidRequest) and error.field else ""
    told = {
        "error": type(error).__name__,
        "detail": error.message if is_sampler else str(error),
        "body": "",
        "errors": error.hint if is_sampler else THEIR_NAMES.get(field, field),
    }
    status = status_of(error)
    return JSONResponse(told, 422 if status == 400 else status, headers_of(error))  # as A1111 has it


def pictures_reply(asked: Asked, job: Job, services: Services) -> dict[str, Any]:
    """What a job has made so far, in order, each a PNG as it lies in the gallery.

    Raises:
        NotFound: one was deleted meanwhile.
    """
    records = job_images(job, services.gallery)
    fields = ResolvedRequest.model_fields
    recipe = ResolvedRequest.model_validate({name: value for name, value in job.payload.items() if name in fields})
    return {
        "images": [_encoded(record, services) for record in records] if asked.send_images else [],
        "parameters": _echo(asked, recipe, services),
        "info": json.dumps(_info(asked, recipe, records, services, job)),
    }


def _encoded(record: ImageRecord, services: Services) -> str:
    try:
        return base64.b64encode(services.gallery.path(record).read_bytes()).decode()
    except OSError as error:
        raise NotFound("The file of this picture is gone.", "Draw it again.") from error


def _echo(asked: Asked, recipe: ResolvedRequest, services: Services) -> dict[str, Any]:
    """The request with what it left open; pictures come back only if they are asked for, and what was ignored never."""
    row = services.catalogue.scheduler(recipe.scheduler)
    decided = {
        "steps": recipe.num_inference_steps,
        "cfg_scale": recipe.guidance_scale,
        "width": recipe.width,
        "height": recipe.height,
        "sampler_name": row.a1111_sampler,
        "scheduler": row.a1111_schedule,
        "denoising_strength": recipe.strength if recipe.init_image else recipe.hires_strength,
    }
    told = asked.model_dump(mode="json", exclude={"override_settings", "alwayson_scripts"})
    told |= {"override_settings": {k: v for k, v in asked.override_settings.items() if k in SETTINGS}}
    told |= {name: value for name, value in decided.items() if told[name] in (None, "")}
    if not told.get("include_init_images"):
        told |= {name: None for name in ("init_images", "mask") if name in told}
    return told


def _info(
    asked: Asked, recipe: ResolvedRequest, records: Sequence[ImageRecord], services: Services, job: Job
) -> dict[str, Any]:
    texts = [infotext(record, services.catalogue) for record in records]
    found = [parse_infotext(text) for text in texts]
    first = found[0] if found else {"Prompt": recipe.prompt, "Negative prompt": recipe.negative_prompt}
    seeds = [record.recipe.seed for record in records]
    created_at = services.runner.row(job.id).created_at
    return {
        "prompt": first["Prompt"],
        "all_prompts": [each["Prompt"] for each in found],
        "negative_prompt": first["Negative prompt"],
        "all_negative_prompts": [each["Negative prompt"] for each in found],
        "seed": recipe.seed,
        "all_seeds": seeds,
        "subseed": recipe.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": recipe.width,
        "height": recipe.height,
        "sampler_name": services.catalogue.scheduler(recipe.scheduler).a1111_sampler,
        "cfg_scale": recipe.guidance_scale,
        "steps": recipe.num_inference_steps,
        "batch_size": asked.batch_size,
        "denoising_strength": recipe.strength if recipe.init_image else recipe.hires_strength,
        "sd_model_name": recipe.checkpoint,
        "sd_model_hash": first.get("Model hash", ""),
        "clip_skip": recipe.clip_skip,
        "styles": list(asked.styles),
        "infotexts": texts,
        "index_of_first_image": 0,
        "extra_generation_params": {
            **{key: value for key, value in first.items() if key not in _TOLD_ELSEWHERE},
            **({"Inpaint area": "Whole picture"} if recipe.mask else {}),
        },
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(created_at)),
        "version": SOFTWARE,
    }
