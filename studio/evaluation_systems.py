"""From what is asked of an evaluation to what it draws: systems with names of their own, the control, the prompts."""

from collections import Counter
from collections.abc import Sequence

from studio.domain.catalogue import Catalogue
from studio.domain.datasets import counted
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import (
    MAX_PICTURES,
    MAX_PROMPTS,
    MAX_SWEPT,
    MAX_SYSTEMS,
    Evaluation,
    EvaluationPrompt,
    EvaluationRequest,
    System,
    SystemRequest,
)
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.domain.tags import without_tags
from studio.prompt_sets import PROMPT_SETS
from studio.sweep import swept

_TITLE_LENGTH = 80
_WITHOUT = {"adapters": (), "trigger": "", "name": ""}


def resolve_evaluation(request: EvaluationRequest, catalogue: Catalogue, judge: str, second: str = "") -> Evaluation:
    """Decide everything that was left open; `judge` gives the CLIP scores, and `second` is asked, too.

    Raises:
        InvalidRequest: values that do not fit each other or their checkpoint, two systems that are the same, too many
            pictures, a baseline or a set of prompts that is not there.
    """
    systems = _named(_systems(request, catalogue), catalogue, MAX_SWEPT if request.axes else MAX_SYSTEMS)
    names = [system.name for system in systems]
    baseline = request.baseline or names[0]
    if baseline not in names:
        raise InvalidRequest(f"There is no system called {baseline!r}.", f"There are: {', '.join(names)}.", "baseline")
    if second and second == judge:
        raise InvalidRequest(f"{judge} is both judges.", "Choose another one as the second, or none.", "second_judge")
    prompts = _prompts(request, systems, catalogue)
    count = len(systems) * len(prompts) * request.num_images
    if count > MAX_PICTURES:
        raise InvalidRequest(
            f"That comes to {count:,} pictures; at most {MAX_PICTURES:,} are drawn at a time.",
            "Take fewer systems, prompts or pictures of each.",
            "num_images",
        )
    return Evaluation(
        name=request.name or _title(systems, baseline),
        systems=tuple(systems),
        baseline=baseline,
        prompts=prompts,
        seed=request.seed,
        num_images=request.num_images,
        clip_margin=request.clip_margin,
        right_margin=request.right_margin,
        judge=judge,
        second_judge=second if judge else "",
        axes=request.axes,
    )


def checkpoints_of(request: EvaluationRequest, catalogue: Catalogue) -> tuple[str, ...]:
    """The ids of the checkpoints that are compared, each once; raises InvalidRequest for one that is not there."""
    ids = (each.checkpoint or catalogue.default_checkpoint for each in request.systems)
    return tuple(dict.fromkeys(catalogue.checkpoint(checkpoint_id).id for checkpoint_id in ids))


def default_set(checkpoint_ids: Sequence[str], catalogue: Catalogue) -> str:
    """The set of prompts that suits these checkpoints: pocket models know only their world."""
    is_pocket = all(catalogue.checkpoint(checkpoint_id).is_pocket for checkpoint_id in checkpoint_ids)
    return "world" if is_pocket else "parti"


def _asked(request: EvaluationRequest) -> list[tuple[SystemRequest, bool]]:
    """The systems as asked, and before one with adapters its control, the same without any, unless that is there."""
    systems: list[tuple[SystemRequest, bool]] = []
    bare = [_bare(each) for each in request.systems if not each.adapters]
    for each in request.systems:
        if request.has_control and each.adapters and _bare(each) not in bare:
            bare.append(_bare(each))
            systems.append((_bare(each), True))
        systems.append((each, False))
    return systems


def _systems(request: EvaluationRequest, catalogue: Catalogue) -> list[System]:
    if request.axes:
        is_told = all(len(each.at) == len(request.axes) for each in request.systems)
        told = [(each, each.at) for each in request.systems] if is_told else swept(request.systems[0], request.axes)
        return [_system(each, catalogue, request.seed).model_copy(update={"at": at}) for each, at in told]
    return [
        _system(each, catalogue, request.seed).model_copy(update={"is_control": is_control})
        for each, is_control in _asked(request)
    ]


def _bare(system: SystemRequest) -> SystemRequest:
    return system.model_copy(update=_WITHOUT)


def _system(asked: SystemRequest, catalogue: Catalogue, seed: int) -> System:
    shared = asked.model_dump(exclude={"name", "adapters", "trigger", "at"})
    recipe = catalogue.resolve(GenerationRequest(prompt="-", seed=seed, **shared))
    return System(
        name=asked.name.strip(),
        recipe=recipe,
        adapters=asked.adapters,
        trigger=asked.trigger.strip(),
    )


def _named(systems: list[System], catalogue: Catalogue, most: int) -> list[System]:
    """Each with a name that tells it from the others.

    Raises:
        InvalidRequest: two are the same, or have the same name, or there are too many.
    """
    if len(systems) > most:
        raise InvalidRequest(
            f"With those without an adapter there are {len(systems)} systems; at most {most} are compared.",
            "Leave some out.",
            "systems",
        )
    ways = Counter((each.recipe, each.adapters, each.trigger) for each in systems)
    if max(ways.values()) > 1:
        raise InvalidRequest("Two systems are the same.", "Change one, or leave it out.", "systems")
    told = [each.name or name_of(each, systems, catalogue) for each in systems]
    if twice := [name for name, count in Counter(told).items() if count > 1]:
        raise InvalidRequest(f"Two systems are called {twice[0]!r}.", "Give each a name of its own.", "systems")
    return [each.model_copy(update={"name": name}) for each, name in zip(systems, told, strict=True)]


def name_of(system: System, systems: Sequence[System], catalogue: Catalogue) -> str:
    """What a system is called: its model, its adapters, and whatever else sets it apart from the others."""
    recipe, recipes = system.recipe, [each.recipe for each in systems]
    said: list[str] = []
    if len({each.checkpoint for each in recipes}) > 1 or len(systems) == 1:
        said.append(catalogue.checkpoint(recipe.checkpoint).title)
    said += [f"{use.adapter} × {use.lora_scale:g}" for use in system.adapters]
    if not system.adapters and any(each.adapters and each.recipe == recipe for each in systems):
        said.append("no adapter")
    row = catalogue.accelerator(recipe.accelerator)
    if len({(each.num_inference_steps, each.accelerator) for each in recipes}) > 1:
        said.append(counted(recipe.num_inference_steps, "step") + (f" with {row.title}" if row else ""))
    elif row:
        said.append(row.title)
    said += [*_apart(recipe, recipes), *_trigger(system, systems)]
    return " · ".join(said) or catalogue.checkpoint(recipe.checkpoint).title


def _apart(recipe: ResolvedRequest, recipes: Sequence[ResolvedRequest]) -> list[str]:
    """What else a recipe has that not all have."""
    words = {
        "guidance_scale": f"guidance {recipe.guidance_scale:g}",
        "scheduler": recipe.scheduler,
        "decoder": f"{recipe.decoder} decoder",
        "style": f"style {recipe.style}",
        "negative_prompt": f"not {recipe.negative_prompt!r}" if recipe.negative_prompt else "no negative prompt",
        "width": f"{recipe.width}×{recipe.height}",
    }
    like = [each for each in recipes if (each.checkpoint, each.accelerator) == (recipe.checkpoint, recipe.accelerator)]
    return [said for field, said in words.items() if len({getattr(each, field) for each in like}) > 1]


def _trigger(system: System, systems: Sequence[System]) -> list[str]:
    alike = {each.trigger for each in systems if (each.recipe, each.adapters) == (system.recipe, system.adapters)}
    return [f"called by {system.trigger!r}" if system.trigger else "not called"] if len(alike) > 1 else []


def _prompts(
    request: EvaluationRequest, systems: Sequence[System], catalogue: Catalogue
) -> tuple[EvaluationPrompt, ...]:
    given = (EvaluationPrompt(text=each) if isinstance(each, str) else each for each in request.prompts or ())
    own = [each.model_copy(update={"text": _plain(each.text)}) for each in given if _plain(each.text)]
    if request.prompts and not own:
        raise InvalidRequest("There is no prompt.", "Write what the pictures should show.", "prompts")
    chosen = request.prompt_set
    if chosen is None and not own:
        chosen = default_set([system.recipe.checkpoint for system in systems], catalogue)
    if chosen is not None and chosen not in PROMPT_SETS:
        known = ", ".join(PROMPT_SETS)
        raise InvalidRequest(f"There is no set of prompts called {chosen!r}.", f"There are: {known}.", "prompt_set")
    shipped = PROMPT_SETS[chosen].take(request.num_prompts) if chosen is not None else ()
    found = {each.text: each for each in (*own, *shipped)}
    return tuple(found.values())[:MAX_PROMPTS]


def _plain(text: str) -> str:
    """A prompt without adapters, which belong to systems, and with single spaces."""
    return " ".join(without_tags(text).split()).strip(" ,")


def _title(systems: Sequence[System], baseline: str) -> str:
    others = [system.name for system in systems if system.name != baseline]
    against = {0: "", 1: f" against {others[0]}" if others else ""}.get(len(others), f" against {len(others)} others")
    title = f"{baseline}{against}"
    return title if len(title) <= _TITLE_LENGTH else f"{title[: _TITLE_LENGTH - 1]}…"
