"""The System tab: where pictures are made, with what, and what waits."""

import platform
import threading
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import gradio as gr
from gradio.components import Component

from studio import __version__
from studio.domain.catalogue import Checkpoint
from studio.services import Services
from studio.web.access import visitor_of
from tabs import views
from tabs.forecast import plan_line
from tabs.models import ModelsPanel, build_models

TABLES = {
    "machine": "This machine",
    "models": "Models",
    "memory": "Memory that one picture takes",
    "queue": "Queue",
}
_PACKAGES = ("torch", "diffusers", "transformers", "gradio")


@dataclass(frozen=True, kw_only=True)
class SystemTab:
    """Tables, filled when the tab is opened."""

    services: Services
    machine: gr.HTML
    models: gr.HTML
    memory: gr.HTML
    queue: gr.HTML
    own: ModelsPanel
    turn: threading.Lock = field(default_factory=threading.Lock)
    """One look after the other: a slow one must not tell the page last what it saw first."""

    @property
    def outputs(self) -> list[Component]:
        return [self.machine, self.models, self.memory, self.queue]

    def on_show(self, token: Any) -> dict[Component, str]:
        """Input: the visitor's token. Outputs: the tables as of now."""
        with self.turn:
            return self._tables(token)

    def _tables(self, token: Any) -> dict[Component, str]:
        refused = self.services.own_checkpoints.refresh()
        rows = {row.title: model_line(row) for row in self.services.catalogue.checkpoints}
        plans = {row.title: plan_line(self.services, row) for row in self.services.catalogue.checkpoints}
        rows |= {found.name: f"Left out: {found.error}" for found in refused}
        return {
            self.machine: views.definitions(self.machine_rows(), "facts facts-all"),
            self.models: views.definitions(rows, "facts facts-all"),
            self.memory: views.definitions(plans, "facts facts-all"),
            self.queue: views.definitions(self.queue_rows(token), "facts facts-all"),
        }

    def machine_rows(self) -> dict[str, str]:
        """Version, device and libraries; the data folder only for the person who owns it."""
        settings = self.services.settings
        rows = {
            "Flash Studio": __version__,
            **self.engine_rows(),
            "Python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        }
        return {**rows, "Data folder": str(settings.data_dir)} if settings.is_local else rows

    def engine_rows(self) -> dict[str, str]:
        """What computes, and what is in memory; before the engine is there, what was asked for."""
        settings, state = self.services.settings, self.services.generation.engine_state()
        if state is None:
            return {"Device": _asked(settings.device), "Number format": _asked(settings.dtype)}
        titles = [row.title for row in self.services.catalogue.checkpoints if row.id in state.loaded]
        return {
            "Device": _found(state.device, settings.device),
            "Number format": f"{_found(state.dtype, settings.dtype)}; pocket models always use float32",
            "In memory": ", ".join(titles) or "no model yet",
        }

    def queue_rows(self, token: Any) -> dict[str, str]:
        """How much waits, and how much was made."""
        mine = len(self.services.runner.active(visitor_of(token)))
        rows = {"Your jobs": f"{mine} waiting or running", "Room in line": f"{self.services.settings.max_queued} jobs"}
        return (
            {**rows, "Pictures kept": str(self.services.gallery.count())} if self.services.settings.is_local else rows
        )


def version(package: str) -> str:
    """The installed version, found without importing the package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def model_line(row: Checkpoint) -> str:
    """What a model is, needs and allows."""
    needs = f"Download of {row.download_gb:g} GB on first use" if row.download_gb else "Included"
    if row.is_own:
        return f"{row.note} Draws at {row.native_size} px."
    return f"{row.note} {needs}; licence {row.licence}."


def _found(name: str, setting: str) -> str:
    return f"{name} ({_asked(setting)})" if setting == "auto" else name


def _asked(setting: str) -> str:
    return "chosen automatically" if setting == "auto" else setting


def build_system(services: Services) -> SystemTab:
    """Lay out the tables."""
    tables = {}
    with gr.Column(elem_id="system"):
        for name, title in TABLES.items():
            gr.HTML(f"<h2>{title}</h2>", js_on_load=None, apply_default_css=False)
            tables[name] = gr.HTML("", elem_id=f"system-{name}", js_on_load=None)
            if name == "models":
                own = build_models(services)
    return SystemTab(services=services, own=own, **tables)
