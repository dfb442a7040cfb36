"""`/api/v1/models` and its neighbours: what there is to choose from. No path of the server shows."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from pydantic import BaseModel

from studio.domain.adapter import AdapterEntry
from studio.services import Services
from studio.web.own.answers import Operation, View

_ViewT = TypeVar("_ViewT", bound=View)


class ModelView(View):
    """A model: `id` is what a request calls it. Sizes are in pixels."""

    id: str
    title: str
    family: str
    native_size: int
    min_size: int
    max_size: int
    default_steps: int
    default_guidance: float
    default_scheduler: str
    licence: str
    note: str
    hub_id: str | None
    download_gb: float | None
    is_pocket: bool
    is_own: bool
    examples: tuple[str, ...]
    is_default: bool
    is_loaded: bool


class ModelList(View):
    """Every model."""

    models: list[ModelView]


class AcceleratorView(View):
    """An accelerator: what lets a model of its family draw in few steps."""

    id: str
    title: str
    family: str
    checkpoint: str | None
    """The only model that it fits; null for all of its family but miniatures."""
    scheduler: str
    trained_steps: tuple[int, ...]
    default_steps: int
    default_guidance: float
    max_guidance: float
    licence: str
    is_commercial: bool
    note: str
    hub_id: str | None


class AcceleratorList(View):
    """Every accelerator."""

    accelerators: list[AcceleratorView]


class ControlView(View):
    """A ControlNet: what lets a model of its family keep to the shape of another picture."""

    id: str
    title: str
    family: str
    checkpoint: str | None
    """The only model that it fits; null for all of its family but miniatures."""
    reads: str
    """The edges of a picture, or its depths."""
    licence: str
    note: str
    hub_id: str | None


class ControlList(View):
    """Every ControlNet."""

    controls: list[ControlView]


class AdapterView(View):
    """An adapter; its `tag` in a prompt adds it."""

    id: str
    title: str
    tag: str
    family: str | None
    algorithm: str | None
    ranks: tuple[int, ...]
    size_bytes: int | None
    trigger_words: tuple[str, ...]
    lora_scale: float
    notes: str
    problem: str
    """Why it cannot be used; empty where it can."""
    preview_url: str | None


class AdapterList(View):
    """Every adapter."""

    adapters: list[AdapterView]


class SamplerView(View):
    """A sampler, with its names in programs of the A1111 family."""

    id: str
    title: str
    note: str
    max_steps: int | None
    a1111_sampler: str
    a1111_schedule: str


class SamplerList(View):
    """Every sampler."""

    samplers: list[SamplerView]


class StyleView(View):
    """Words around a prompt, which `{prompt}` stands for."""

    id: str
    title: str
    template: str
    negative: str
    for_pocket: bool


class StyleList(View):
    """Every style."""

    styles: list[StyleView]


def models(services: Services) -> ModelList:
    """Every model that there is now."""
    services.own_checkpoints.refresh()
    catalogue, state = services.catalogue, services.generation.engine_state()
    loaded = state.loaded if state else ()
    return ModelList(
        models=[
            ModelView.model_validate(
                {
                    **row.model_dump(include=set(ModelView.model_fields)),
                    "is_default": row.id == catalogue.default_checkpoint,
                    "is_loaded": row.id in loaded,
                }
            )
            for row in catalogue.checkpoints
        ]
    )


def accelerators(services: Services) -> AcceleratorList:
    """Every accelerator that there is now."""
    services.own_accelerators.refresh()
    return AcceleratorList(accelerators=_views(AcceleratorView, services.catalogue.accelerators))


def controls(services: Services) -> ControlList:
    """Every ControlNet."""
    return ControlList(controls=_views(ControlView, services.catalogue.controls))


def adapters(services: Services) -> AdapterList:
    """Every adapter that there is now."""
    return AdapterList(adapters=[_adapter(entry) for entry in services.adapters.store.entries()])


def samplers(services: Services) -> SamplerList:
    return SamplerList(samplers=_views(SamplerView, services.catalogue.schedulers))


def styles(services: Services) -> StyleList:
    return StyleList(styles=_views(StyleView, services.catalogue.styles))


def _views(view: type[_ViewT], rows: Iterable[BaseModel]) -> list[_ViewT]:
    return [view.model_validate(row.model_dump(include=set(view.model_fields))) for row in rows]


def _adapter(entry: AdapterEntry) -> AdapterView:
    """Without what its file says of itself: that may name folders of whoever made it."""
    adapter = entry.adapter
    return AdapterView(
        id=entry.id,
        title=entry.title,
        tag=f"<lora:{entry.id}:{entry.card.lora_scale:g}>",
        family=adapter.family if adapter else None,
        algorithm=adapter.algorithm if adapter else None,
        ranks=adapter.ranks if adapter else (),
        size_bytes=adapter.size_bytes if adapter else None,
        trigger_words=entry.trigger_words,
        lora_scale=entry.card.lora_scale,
        notes=entry.card.notes,
        problem=entry.problem,
        preview_url=f"/adapters/{entry.id}/preview" if entry.has_preview else None,
    )


def _listed(path: str, title: str, answer: type[BaseModel], listed: Callable[[Services], BaseModel]) -> Operation:
    return Operation(method="GET", path=path, title=title, run=lambda asked: listed(asked.services), answer=answer)


CATALOGUE_OPERATIONS = (
    _listed("/models", "The models there are", ModelList, models),
    _listed("/accelerators", "The accelerators there are", AcceleratorList, accelerators),
    _listed("/controls", "The ControlNets there are", ControlList, controls),
    _listed("/adapters", "The adapters there are", AdapterList, adapters),
    _listed("/samplers", "The samplers there are", SamplerList, samplers),
    _listed("/styles", "The styles there are", StyleList, styles),
)
