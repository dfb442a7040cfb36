"""The right column of Generate: the stage, the pictures made here, and what can be done with the one that shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.gallery import Gallery
from tabs import views
from tabs.handlers import Updates
from tabs.send_buttons import Sends, build_sends
from tabs.visitor import build_browser_state
from tabs.widgets import build_pictures, build_stage

MAX_RECENT = 24
STRIP_LABEL = "Pictures made in this browser"


@dataclass(frozen=True, kw_only=True)
class Result:
    """`shown_id` holds the picture that shows; `recent` the ids of this browser's last pictures, newest first."""

    catalogue: Catalogue
    gallery: Gallery
    stage: gr.HTML
    strip: gr.HTML
    facts: gr.HTML
    actions: gr.Row
    star: gr.Button
    download: gr.Button
    reuse: gr.Button
    to_library: gr.Button
    delete: gr.Button
    confirm: gr.Row
    delete_yes: gr.Button
    delete_no: gr.Button
    shown_id: gr.State
    recent: gr.BrowserState
    sends: Sends

    @property
    def outputs(self) -> list[Component]:
        """Everything that `show`, `clear` and `with_strip` may set."""
        parts: list[Any] = [self.stage, self.strip, self.facts, self.actions, self.star, self.download, self.confirm]
        return [*parts, self.shown_id, self.recent]

    def show(self, record: ImageRecord, recent: Sequence[str], stage: str | None = None) -> Updates:
        """A finished picture with its facts and buttons."""
        return {
            self.stage: stage or views.finished(record),
            self.facts: views.short_facts(record, self.catalogue),
            self.star: star_label(record),
            self.download: gr.Button(link=views.download_url(record.id)),
            self.actions: gr.Row(visible=True),
            self.confirm: gr.Row(visible=False),
            self.shown_id: record.id,
            **self.with_strip(recent, record.id),
        }

    def clear(self, stage: str, recent: Sequence[str] | None = None) -> Updates:
        """No picture; the strip stays unless `recent` is given."""
        return {
            self.stage: stage,
            self.facts: "",
            self.actions: gr.Row(visible=False),
            self.confirm: gr.Row(visible=False),
            self.shown_id: None,
            **({} if recent is None else self.with_strip(recent, None)),
        }

    def with_strip(self, recent: Sequence[str], selected: str | None) -> Updates:
        """The strip of recent pictures, without those that are gone."""
        records = self.records(recent)
        return {
            self.strip: views.pictures(records, selected, STRIP_LABEL, views.EMPTY_STRIP),
            self.recent: [record.id for record in records],
        }

    def records(self, recent: Sequence[str] | None) -> list[ImageRecord]:
        """The pictures of these ids that still exist, each once."""
        found = []
        for image_id in list(dict.fromkeys(recent or []))[:MAX_RECENT]:
            try:
                found.append(self.gallery.image(str(image_id)))
            except NotFound:
                continue
        return found

    def idle(self, checkpoint: Checkpoint | None = None) -> str:
        """The empty stage, with a prompt to try that suits `checkpoint` (or the default one)."""
        return idle_stage(checkpoint or self.catalogue.checkpoint(self.catalogue.default_checkpoint))


def idle_stage(checkpoint: Checkpoint) -> str:
    return views.idle(checkpoint.examples[0] if checkpoint.examples else None)


def star_label(record: ImageRecord) -> str:
    """What the star button says."""
    return "★ Starred" if record.is_starred else "☆ Star"


def toggle_star(gallery: Gallery, record: ImageRecord) -> str:
    """Star a picture, or take its star away; gives what the star button says then."""
    gallery.star(record.id, not record.is_starred)
    return star_label(record.model_copy(update={"is_starred": not record.is_starred}))


def build_result(catalogue: Catalogue, gallery: Gallery, *, may_delete: bool) -> Result:
    """Lay the column out."""
    stage = build_stage(idle_stage(catalogue.checkpoint(catalogue.default_checkpoint)), "stage")
    with gr.Column(elem_id="about-result"):
        facts = gr.HTML("", elem_id="facts", js_on_load=None)
        with gr.Row(visible=False, elem_id="result-actions", elem_classes="tools") as actions:
            star = gr.Button("☆ Star", elem_id="star", size="sm", min_width=88)
            download = gr.Button("Download", elem_id="download", size="sm", min_width=96, link_target="_self")
            reuse = gr.Button("Reuse settings", elem_id="reuse", size="sm", min_width=120)
            to_library = gr.Button("Open in Library", elem_id="to-library", size="sm", min_width=128)
            delete = gr.Button("Delete", elem_id="delete", size="sm", min_width=80, visible=may_delete)
            sends = build_sends("result")
        confirm, delete_yes, delete_no = build_confirm("delete")
    strip = build_pictures(views.pictures([], None, STRIP_LABEL, views.EMPTY_STRIP), "strip")
    return Result(
        catalogue=catalogue,
        gallery=gallery,
        stage=stage,
        strip=strip,
        facts=facts,
        actions=actions,
        star=star,
        download=download,
        reuse=reuse,
        to_library=to_library,
        delete=delete,
        confirm=confirm,
        delete_yes=delete_yes,
        delete_no=delete_no,
        shown_id=gr.State(None),
        recent=build_browser_state("recent"),
        sends=sends,
    )


def build_confirm(
    name: str, question: str = "Delete this picture and its file for good?"
) -> tuple[gr.Row, gr.Button, gr.Button]:
    """A question in the page before something is deleted: the row, yes and no."""
    with gr.Row(visible=False, elem_id=f"{name}-confirm", elem_classes="tools confirm") as confirm:
        gr.HTML(f"<p>{question}</p>", js_on_load=None)
        yes = gr.Button("Delete for good", variant="stop", elem_id=f"{name}-yes", size="sm", min_width=120)
        no = gr.Button("Keep it", elem_id=f"{name}-no", size="sm", min_width=80)
    return confirm, yes, no
