"""`generate --estimate-vram`: what a picture takes, here and on a GPU, without making it."""

import contextlib
import dataclasses
import json
import sys
from typing import Any

from studio.cli.report import DONE
from studio.domain.catalogue import Catalogue
from studio.domain.memory import MemoryPlan, gigabytes
from studio.domain.request import ResolvedRequest
from studio.generation import EngineHolder
from studio.planning import PlanningService
from studio.services import load_engine
from studio.settings import Settings


def run(recipe: ResolvedRequest, catalogue: Catalogue, settings: Settings, *, as_json: bool) -> int:
    """Print predicted against available memory; gives the exit code.

    Raises:
        StudioError: the checkpoint is damaged, or the device is not there.
    """
    with contextlib.redirect_stdout(sys.stderr):  # libraries print
        planning = PlanningService(catalogue, settings, EngineHolder(lambda: load_engine(settings, catalogue)))
        request = recipe.as_request()
        here, on_gpus = planning.plan(request), planning.on_gpus(request)
    if as_json:
        print(
            json.dumps(
                {"here": _values(here), "on_gpus": {f"{s} GB": _values(p) for s, p in on_gpus.items()}}, indent=2
            )
        )
        return DONE
    title = catalogue.checkpoint(recipe.checkpoint).title
    print(f"{title}, {recipe.width} × {recipe.height} px")
    print(here)
    print("On a GPU with")
    for size, plan in on_gpus.items():
        print(f"{size:>4} GB: {_words(plan)}")
    return DONE


def _words(plan: MemoryPlan) -> str:
    if not plan.fits:
        return f"not enough; it takes {gigabytes(plan.needed_bytes)} at least"
    return f"{plan.manner}; about {gigabytes(plan.needed_bytes)}"


def _values(plan: MemoryPlan) -> dict[str, Any]:
    return {**dataclasses.asdict(plan), "fits": plan.fits}
