"""From the body of `POST /api/v1/jobs` to a job in line."""

import tomllib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from studio.domain.beginning import SOURCE_FIELDS
from studio.domain.distillation import DistillationRequest, parse_distillation
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import EvaluationRequest, parse_evaluation
from studio.domain.flash import FlashRequest, parse_flash
from studio.domain.request import Frozen, GenerationRequest, parse_request
from studio.domain.training import TrainingRequest, parse_training
from studio.services import Services
from studio.web.access import VISITOR_HEADER, Caller
from studio.web.given_pictures import taken
from studio.web.own.answers import parsed, short
from studio.web.refusals import Refused

OWNERS_KINDS = ("train", "distil")
"""They read folders of this machine."""
_MOST_MANIFEST = 1_000_000
"""Letters: a thousand prompts take a fifth of it."""
_PICTURE = "A PNG, JPEG or WebP file in base64, or the name that a recipe has for it. Addresses are not fetched."


class GenerateJob(GenerationRequest):
    """Pictures. What is left out is whatever suits the model; a seed of -1 is any."""

    kind: Literal["generate"]
    init_image: Annotated[str, Field(title="What to start from", description=_PICTURE)] = ""
    mask: Annotated[str, Field(title="Where it may change: white", description=_PICTURE)] = ""
    control_image: Annotated[str, Field(title="The shape to keep to", description=_PICTURE)] = ""


class FlashJob(FlashRequest):
    """Few steps beside many."""

    kind: Literal["flash"]


class EvaluateJob(EvaluationRequest):
    """Systems on the same prompts: which is better, and is that more than luck?"""

    kind: Literal["evaluate"]


class TrainJob(TrainingRequest):
    """A LoRA from a folder of pictures. For this machine's owner alone."""

    kind: Literal["train"]


class DistilJob(DistillationRequest):
    """An accelerator for a model. For this machine's owner alone."""

    kind: Literal["distil"]


class ManifestJob(Frozen):
    """An evaluation as its manifest says it, which the page and the command line export and read."""

    kind: Literal["evaluate"]
    manifest: Annotated[str, Field(max_length=_MOST_MANIFEST, description="TOML, with [[systems]].")]


BODIES = (GenerateJob, FlashJob, EvaluateJob, ManifestJob, TrainJob, DistilJob)


def submitted(services: Services, caller: Caller, values: Mapping[str, Any], once_key: str = "") -> str:
    """Put in line what `values`, loose ones by name, ask for; gives the id of the job. `once_key` is the request's
    `Idempotency-Key`.

    Raises:
        InvalidRequest: naming the first value that is wrong, or the key where it was another request's.
        NotFound: a picture to begin from is not there.
        Refused: it is for this machine's owner alone.
        QueueFull, RateLimited: too much is waiting.
        StudioError: a training that does not fit, or a picture that cannot be kept.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in _SUBMIT:
        got = short(kind) if "kind" in values else "missing"
        raise InvalidRequest(f"The kind of job is {got}; it must be one of {', '.join(_SUBMIT)}.", "", "kind")
    if kind in OWNERS_KINDS and caller.owner is not None:
        raise Refused(
            403, "not_allowed", "A training reads folders of this machine, so only its owner may begin one.",
            "Open the page on the machine itself.",
        )  # fmt: skip
    fields = {name: value for name, value in values.items() if name != "kind"}
    return _SUBMIT[kind](services, caller, fields, once_key)


def check_is_somebody(caller: Caller) -> None:
    """Refuse a job whose asker could never find it again: on a shared page, one who does not say who they are.

    Raises:
        InvalidRequest: they do not.
    """
    if caller.owner is not None and not caller.is_named:
        raise InvalidRequest(
            f"There is no {VISITOR_HEADER}, so nobody could find this job again.",
            "Choose 22 to 64 letters, digits, - or _ that nobody guesses, and send them with every request.",
            VISITOR_HEADER,
        )


def _generate(services: Services, caller: Caller, values: dict[str, Any], once_key: str) -> str:
    pictures = {field: given for field in SOURCE_FIELDS if (given := values.get(field))}
    parse_request({**values, **dict.fromkeys(pictures, "")})  # what is wrong is told before anything is kept
    kept = {field: taken(services.sources, given, caller, field) for field, given in pictures.items()}
    return services.generation.submit(parse_request({**values, **kept}), caller.visitor, once_key=once_key).id


def _flash(services: Services, caller: Caller, values: dict[str, Any], once_key: str) -> str:
    return services.flash.submit(parse_flash(values), caller.visitor, once_key=once_key).id


def _evaluate(services: Services, caller: Caller, values: dict[str, Any], once_key: str) -> str:
    if "manifest" in values:
        values = _read(parsed(ManifestJob, {**values, "kind": "evaluate"}).manifest)
    return services.evaluations.submit(parse_evaluation(values), caller.visitor, once_key=once_key).id


def _read(manifest: str) -> dict[str, Any]:
    try:
        return tomllib.loads(manifest)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it cannot be read"
        raise InvalidRequest(
            f"The manifest is no TOML: {said}.", "Write lines such as [[systems]].", "manifest"
        ) from None


def _train(services: Services, caller: Caller, values: dict[str, Any], once_key: str) -> str:
    request = parse_training({"name": "", **values})
    return services.training.submit(request, caller.visitor, once_key=once_key).record.job_id


def _distil(services: Services, caller: Caller, values: dict[str, Any], once_key: str) -> str:
    request = parse_distillation({"name": "", **values})
    return services.distillation.submit(request, caller.visitor, once_key=once_key).record.job_id


_SUBMIT: Mapping[str, Callable[[Services, Caller, dict[str, Any], str], str]] = {
    "generate": _generate,
    "flash": _flash,
    "evaluate": _evaluate,
    "train": _train,
    "distil": _distil,
}
