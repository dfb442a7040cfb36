"""Under Train LoRA: the pictures that are to be learnt from, each with its verdict and its caption."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from studio.dataset_captions import replaced, save_captions
from studio.domain.datasets import Scan
from studio.domain.errors import StudioError
from studio.services import Services
from studio.settings import PROJECT_ROOT
from tabs import controls, train_views
from tabs.handlers import QUIET, Updates, guarded

EXAMPLES = {"A new shape: crescents, called sks": PROJECT_ROOT / "examples" / "crescents"}
"""Ready data sets, by what they teach."""
_HEADERS = ["Picture", "Verdict", "Caption"]


@dataclass(frozen=True, kw_only=True)
class PicturesPanel:
    """Where the pictures are, what a scan says of them, and their captions to be edited."""

    services: Services
    files: gr.File
    folder: gr.Textbox
    example: gr.Dropdown
    told: gr.HTML
    captions: gr.Accordion
    table: gr.Dataframe
    find: gr.Textbox
    replace: gr.Textbox
    change: gr.Button
    save: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """Everything that a look at a folder may set."""
        return [self.folder, self.told, self.captions, self.table]

    def count(self, folder: Any) -> int:
        """How many pictures in `folder` can be used; 0 where nothing can."""
        found = self._scanned(folder)
        return len(found.usable) if isinstance(found, Scan) else 0

    def on_upload(self, paths: list[str] | None) -> Updates:
        """Input: uploaded files. Outputs: the folder that they were put into, and what is there."""
        if not paths:
            return {self.told: gr.skip()}
        try:
            taken = self.services.training.take_in([Path(path) for path in paths])
        except StudioError as error:
            return {self.told: controls.error_html(error.message, error.hint)}
        return {self.folder: str(taken.folder), **self.on_folder(str(taken.folder))}

    def on_example(self, title: str | None) -> Updates:
        """Input: the chosen example. Outputs: its folder, and what is there."""
        if title not in EXAMPLES:  # a keyboard that passes over the list leaves it without a choice
            return {self.folder: gr.skip()}
        folder = str(EXAMPLES[title])
        return {self.folder: folder, **self.on_folder(folder)}

    def on_folder(self, folder: Any) -> Updates:
        """Input: the folder. Outputs: what is there."""
        found = self._scanned(folder)
        if found is None:
            return {self.told: "", self.captions: gr.Accordion(visible=False)}
        if isinstance(found, StudioError):
            told = controls.error_html(found.message, found.hint)
            return {self.told: told, self.captions: gr.Accordion(visible=False)}
        is_bad = len(found.usable) < len(found.verdicts)
        return {
            self.told: (controls.warning_html if is_bad else controls.note)(found.summary),
            self.captions: gr.Accordion(visible=True),
            self.table: pd.DataFrame(train_views.dataset_rows(found), columns=_HEADERS),
        }

    def on_change(self, table: pd.DataFrame, find: str, replace: str) -> Updates:
        """Inputs: the table, what to find, what to put in its place. Output: the table, not saved yet."""
        changed = table.copy()
        changed["Caption"] = list(replaced(_captions(table), find, replace, is_case_sensitive=False).values())
        return {self.table: changed}

    def on_save(self, folder: Any, table: pd.DataFrame) -> Updates:
        """Inputs: the folder, the table. Outputs: what is there now that its captions are written."""
        try:
            save_captions(Path(str(folder)).expanduser(), _captions(table))
        except StudioError as error:
            return {self.told: controls.error_html(error.message, error.hint)}
        return self.on_folder(folder)

    def wire(self) -> None:
        """How the parts depend on each other."""
        self.files.upload(guarded(self.on_upload), self.files, self.outputs, **QUIET)
        self.example.input(guarded(self.on_example), self.example, self.outputs, **QUIET)
        for event in (self.folder.submit, self.folder.blur):
            event(guarded(self.on_folder), self.folder, self.outputs, **QUIET)
        change = [self.table, self.find, self.replace]
        self.change.click(guarded(self.on_change), change, self.table, **QUIET)
        self.save.click(guarded(self.on_save), [self.folder, self.table], self.outputs, **QUIET)

    def _scanned(self, folder: Any) -> Scan | StudioError | None:
        place = str(folder or "").strip()
        if not place:
            return None
        try:
            return self.services.training.scan(Path(place).expanduser())
        except StudioError as error:
            return error


def build_pictures_panel(services: Services) -> PicturesPanel:
    """Upload, folder or example; below them the verdicts and captions, once there are pictures."""
    files = gr.File(
        label="Pictures, with captions in text files of the same names, or one zip of all", file_count="multiple",
        file_types=["image", ".zip", ".txt", ".caption", ".csv", ".jsonl"], elem_id="train-files", height=120,
    )  # fmt: skip
    folder = gr.Textbox(
        label="Or a folder", max_lines=1, elem_id="train-folder", placeholder="/path/to/pictures",
    )  # fmt: skip
    example = gr.Dropdown(list(EXAMPLES), value=None, label="Or an example", filterable=False, elem_id="train-example")
    told = gr.HTML("", elem_id="train-pictures", elem_classes="slot", js_on_load=None)
    with gr.Accordion("Verdicts and captions", open=False, visible=False, elem_id="train-captions") as captions:
        table = gr.Dataframe(
            headers=_HEADERS, datatype="str", static_columns=[0, 1], interactive=True, wrap=True, max_height=320,
            column_widths=["25%", "25%", "50%"], elem_id="train-table", show_label=False,
        )  # fmt: skip
        with gr.Row():
            find = gr.Textbox(label="Find in captions", max_lines=1, elem_id="train-find", min_width=100)
            replace = gr.Textbox(label="Put in its place", max_lines=1, elem_id="train-replace", min_width=100)
        with gr.Row(elem_classes="tools"):
            change = gr.Button("Replace all", size="sm", elem_id="train-change")
            save = gr.Button("Save captions", size="sm", elem_id="train-save")
    return PicturesPanel(
        services=services, files=files, folder=folder, example=example, told=told, captions=captions, table=table,
        find=find, replace=replace, change=change, save=save,
    )  # fmt: skip


def _captions(table: pd.DataFrame) -> dict[str, str]:
    return {str(row["Picture"]): str(row["Caption"] or "") for _, row in table.iterrows()}
