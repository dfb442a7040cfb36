"""What the page says of memory before a picture is made. Free memory is the owner's business: guests see none of it."""

from collections.abc import Mapping
from typing import Any

from studio.domain.catalogue import Checkpoint
from studio.domain.errors import StudioError
from studio.domain.memory import SHORTAGE_REMEDY, gigabytes
from studio.domain.request import GenerationRequest, parse_request
from studio.services import Services
from tabs import controls


def memory_note(services: Services, values: Mapping[str, Any]) -> str:
    """A line on what the picture that the form asks for will take (HTML); a warning where it will not fit. Nothing
    while the engine is not there, or the form asks for nothing that could be made."""
    if not services.settings.is_local:
        return ""
    try:
        plan = services.planning.plan_if_known(parse_request({**values, "prompt": values.get("prompt") or "anything"}))
    except StudioError:  # told when a picture is asked for, next to its control
        return ""
    if plan is None:
        return ""
    return controls.note(str(plan)) if plan.fits else controls.warning_html(f"This {plan.shortage}. {SHORTAGE_REMEDY}")


def plan_line(services: Services, checkpoint: Checkpoint) -> str:
    """What one picture of `checkpoint` at its native size takes, for the System tab."""
    request = GenerationRequest(prompt="anything", checkpoint=checkpoint.id)
    try:
        plan = services.planning.plan_if_known(request)
    except StudioError as error:
        return str(error)
    if plan is None:
        return "Known once the engine is ready; open this tab again in a moment."
    at = f"at {checkpoint.native_size} px: about {gigabytes(plan.needed_bytes)}"
    if not services.settings.is_local:
        return f"{at}; {plan.manner}"
    return f"{at} of {gigabytes(plan.free_bytes)} free; {plan.manner if plan.fits else 'does not fit'}"
