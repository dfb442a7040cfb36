"""`/api/v1/models` and its neighbours: what there is to choose from. No path of the server shows."""

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from studio.domain.adapter import AdapterEntry
from studio.web.own.answers import Asked, Operation, View

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


def _models(asked: Asked) -> ModelList:
    asked.services.own_checkpoints.refresh()
    catalogue, state = asked.services.catalogue, asked.services.generation.engine_state()
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


def _accelerators(asked: Asked) -> AcceleratorList:
    asked.services.own_accelerators.refresh()
    return AcceleratorList(accelerators=_views(AcceleratorView, asked.services.catalogue.accelerators))


def _adapters(asked: Asked) -> AdapterList:
    return AdapterList(adapters=[_adapter(entry) for entry in asked.services.adapters.store.entries()])


def _samplers(asked: Asked) -> SamplerList:
    return SamplerList(samplers=_views(SamplerView, asked.services.catalogue.schedulers))


def _styles(asked: Asked) -> StyleList:
    return StyleList(styles=_views(StyleView, asked.services.catalogue.styles))


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


CATALOGUE_OPERATIONS = (
    Operation(method="GET", path="/models", title="The models there are", run=_models, answer=ModelList),
    Operation(
        method="GET", path="/accelerators", title="The accelerators there are", run=_accelerators,
        answer=AcceleratorList,
    ),
    Operation(method="GET", path="/adapters", title="The adapters there are", run=_adapters, answer=AdapterList),
    Operation(method="GET", path="/samplers", title="The samplers there are", run=_samplers, answer=SamplerList),
    Operation(method="GET", path="/styles", title="The styles there are", run=_styles, answer=StyleList),
)  # fmt: skip
