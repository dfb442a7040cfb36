"""A sweep becomes systems: one for every combination of its values."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import MAX_SWEPT, SystemRequest
from studio.domain.sweep import AXIS_FIELDS, Axis
from studio.domain.tags import AdapterUse


def swept(base: SystemRequest, axes: Sequence[Axis]) -> list[tuple[SystemRequest, tuple[int, ...]]]:
    """The systems of a sweep, each with the place of its value on each axis; those that differ in what takes longest to
    change are furthest apart.

    Raises:
        InvalidRequest: an axis twice, too many systems, or a scale without an adapter.
    """
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise InvalidRequest("Two axes sweep the same setting.", "Choose another one, or leave one out.", "axes")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MAX_SWEPT:
        raise InvalidRequest(
            f"The sweep has {count} combinations; at most {MAX_SWEPT} are drawn at a time.",
            "Take fewer values.",
            "axes",
        )
    if "lora_scale" in fields and "adapter" not in fields and not base.adapters:
        raise InvalidRequest("A scale is swept, and there is no adapter.", "Give the system one.", "axes")
    slowest_first = sorted(range(len(axes)), key=lambda place: AXIS_FIELDS.index(axes[place].field))
    systems: list[tuple[SystemRequest, tuple[int, ...]]] = []
    for combination in product(*(range(len(axes[place].values)) for place in slowest_first)):
        at = dict(zip(slowest_first, combination, strict=True))
        places = tuple(at[place] for place in range(len(axes)))
        systems.append((_at(base, axes, places), places))
    return systems


def _at(base: SystemRequest, axes: Sequence[Axis], places: Sequence[int]) -> SystemRequest:
    given: dict[str, Any] = {axis.field: axis.values[place] for axis, place in zip(axes, places, strict=True)}
    name = " · ".join(_said(axis, place) for axis, place in zip(axes, places, strict=True))
    uses = base.adapters
    if "adapter" in given:
        scale = uses[0].lora_scale if uses else 1.0
        uses = (AdapterUse(adapter=str(given["adapter"]), lora_scale=scale),) if given["adapter"] else ()
    if "lora_scale" in given:
        scale = float(given["lora_scale"])
        uses = tuple(use.model_copy(update={"lora_scale": scale}) for use in uses) if scale else ()
    plain = {field: value for field, value in given.items() if field not in ("adapter", "lora_scale")}
    return SystemRequest.model_validate({**base.model_dump(), **plain, "adapters": uses, "name": name[:80]})


def _said(axis: Axis, place: int) -> str:
    form = {"num_inference_steps": "{} steps", "guidance_scale": "guidance {}", "lora_scale": "× {}"}
    return form.get(axis.field, "{}").format(axis.labels[place])
