"""What a picture will take before it is asked for: how it is going to be made here, and how it would be on a GPU."""

from collections.abc import Mapping

from engines.footprint import expected_footprint
from engines.identity import find_place
from engines.plans import Means, Task, choose_plan
from studio.domain.catalogue import Catalogue
from studio.domain.memory import MemoryPlan
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder
from studio.settings import PROJECT_ROOT, Settings

GPU_SIZES_GB = (2, 3, 4, 6, 8, 12, 24)
_FREE_SHARE = 0.93
"""Part of a GPU's memory that the driver and a desktop leave."""


class PlanningService:
    """Plans of memory, for whoever wants to know them before anything is loaded."""

    def __init__(self, catalogue: Catalogue, settings: Settings, engine: EngineHolder) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._engine = engine

    def plan(self, request: GenerationRequest) -> MemoryPlan:
        """How the pictures of `request` would be made now; loads the engine, which knows the machine.

        Raises:
            StudioError: the request does not fit together, or its checkpoint is damaged.
        """
        return self._engine.get().plan(self._catalogue.resolve(request).single(0))

    def plan_if_known(self, request: GenerationRequest) -> MemoryPlan | None:
        """The same; None while the engine is not there, which takes seconds that nobody need wait for."""
        return self.plan(request) if self._engine.is_ready else None

    def on_gpus(self, request: GenerationRequest) -> Mapping[int, MemoryPlan]:
        """How they would be made on a GPU of so many GB; needs no engine.

        Raises:
            StudioError: as `plan`.
        """
        recipe = self._catalogue.resolve(request)
        checkpoint = self._catalogue.checkpoint(recipe.checkpoint)
        place = find_place(checkpoint, PROJECT_ROOT, self._settings.models_dir)
        family = self._catalogue.family(checkpoint.family)
        task = Task.of(recipe, expected_footprint(checkpoint, family, place))
        dtype = checkpoint.number_format("float16")
        return {
            size: choose_plan(task, Means(device="cuda", dtype=dtype, free_bytes=int(size * _FREE_SHARE * 2**30)))
            for size in GPU_SIZES_GB
        }
