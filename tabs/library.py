"""The Library tab: every picture made, found again by words or by any setting."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import StudioError
from studio.domain.events import Cancelled, Failed, Fetching, Finished, Progress, Queued, Started
from studio.domain.images import ImageRecord
from studio.infotext import infotext
from studio.reproduction import KIND as REPRODUCE
from studio.services import Services
from studio.web.access import visitor_of
from tabs import controls, views
from tabs.generate import GenerateTab
from tabs.handlers import QUIET, Updates, guarded, moments
from tabs.result import build_confirm, star_label, toggle_star
from tabs.send_buttons import Sends, build_sends
from tabs.visitor import check_may_delete, own_image, owner_of
from tabs.widgets import build_pictures, build_stage

PAGE = 48
LABEL = "Pictures, newest first"
NO_PICTURES = "No picture yet. Make one under Generate; it is kept here with everything that made it."
NO_MATCH = "No picture fits this search. Use fewer words, or clear the box."
SEARCH_HELP = (
    "Words of the prompt, or settings such as steps:25 seed:7 sampler:euler size:128x128 is:starred is:compared"
)
_LATE_S = 0.5
NOTHING_PICKED = "Choose a picture to see it large, with everything that made it."


@dataclass(frozen=True, kw_only=True)
class LibraryTab:
    """The grid with its search, and the picture that was picked."""

    services: Services
    generate: GenerateTab
    search: gr.Textbox
    starred: gr.Checkbox
    page: gr.State
    grid: gr.HTML
    newer: gr.Button
    older: gr.Button
    range: gr.HTML
    picked_id: gr.State
    stage: gr.HTML
    actions: gr.Row
    star: gr.Button
    download: gr.Button
    send: gr.Button
    sends: Sends
    reproduce: gr.Button
    stop: gr.Button
    delete: gr.Button
    confirm: gr.Row
    delete_yes: gr.Button
    delete_no: gr.Button
    verdict: gr.HTML
    facts: gr.HTML
    infotext: gr.Textbox

    @property
    def query(self) -> list[Component]:
        """What a listener of `turn` reads; the page is last."""
        return [self.search, self.starred, self.generate.token, self.picked_id, self.page]

    @property
    def listing(self) -> list[Component]:
        return [self.page, self.grid, self.newer, self.older, self.range]

    @property
    def picked(self) -> list[Component]:
        parts: list[Any] = [self.picked_id, self.stage, self.actions, self.confirm, self.star, self.download]
        return [*parts, self.facts, self.infotext]

    @property
    def reproduction(self) -> list[Component]:
        """The buttons and the line of a reproduction."""
        return [self.reproduce, self.stop, self.verdict]

    def on_search(self, text: str, starred: bool, token: Any, picked_id: str | None) -> Updates:
        """Inputs: the search. Outputs: the first page of what fits."""
        return self.show(text, starred, token, picked_id, 0)

    def show(self, text: str, starred: bool, token: Any, picked_id: str | None, page: int) -> Updates:
        """One page of the pictures that fit, and where it stands among all of them."""
        records, total = self.find(text, starred, token, page)
        if page and not records:  # the last picture of the last page was deleted
            return self.show(text, starred, token, picked_id, max(0, total - 1) // PAGE)
        empty = NO_MATCH if text or starred else NO_PICTURES
        first = page * PAGE
        where = f"{first + 1}–{first + len(records)} of {total}" if records else ""
        return {
            self.page: page,
            self.grid: views.pictures(records, picked_id, LABEL, empty),
            self.newer: gr.Button(interactive=page > 0),
            self.older: gr.Button(interactive=first + len(records) < total),
            self.range: controls.note(where) if where else "",
        }

    def find(self, text: str, starred: bool, token: Any, page: int) -> tuple[list[ImageRecord], int]:
        """The pictures of a page and how many there are in all; on a shared page, of this visitor only. Those
        that were drawn to be compared show where the search asks for them."""
        gallery, only = self.services.gallery, True if starred else None
        owner = owner_of(self.services.settings, token)
        found = gallery.find(text, starred=only, limit=PAGE, offset=page * PAGE, visitor=owner, compared=False)
        return found, gallery.count(text, starred=only, visitor=owner, compared=False)

    def turn(self, by: int) -> Callable[..., Updates]:
        """A listener. Inputs: the search and the page. Outputs: the page `by` pages further."""

        def on_turn(text: str, starred: bool, token: Any, picked_id: str | None, page: int) -> Updates:
            return self.show(text, starred, token, picked_id, max(0, page + by))

        return on_turn

    def own(self, image_id: str | None, token: Any) -> ImageRecord:
        return own_image(self.services.gallery, self.services.settings, image_id, token)

    def on_pick(self, token: Any, event: gr.EventData) -> Updates:
        """Event: the picture that was chosen. Outputs: the picture with everything about it."""
        return self.pick(self.own(event.id, token))

    def on_open(self, image_id: str | None, token: Any) -> Updates:
        """Input: the picture that shows under Generate. Outputs: the same as for a pick."""
        return self.pick(self.own(image_id, token)) if image_id else {self.picked_id: gr.skip()}

    def pick(self, record: ImageRecord) -> Updates:
        catalogue = self.services.catalogue
        return {
            self.picked_id: record.id,
            self.stage: views.finished(record, announce="Picture shown"),
            self.actions: gr.Row(visible=True),
            self.confirm: gr.Row(visible=False),
            self.star: star_label(record),
            self.download: gr.Button(link=views.download_url(record.id)),
            self.facts: views.all_facts(record, catalogue),
            self.infotext: gr.Textbox(value=infotext(record, catalogue), visible=True),
        }

    def on_star(self, image_id: str | None, token: Any) -> str:
        """Input: the picked picture. Output: the star button."""
        return toggle_star(self.services.gallery, self.own(image_id, token))

    def on_delete(self, image_id: str | None, token: Any) -> Updates:
        """Input: the picked picture. Outputs: no picture."""
        check_may_delete(self.services.settings)
        self.services.gallery.delete(self.own(image_id, token).id)
        return {
            self.picked_id: None,
            self.stage: views.idle(None, NOTHING_PICKED),
            self.actions: gr.Row(visible=False),
            self.confirm: gr.Row(visible=False),
            self.facts: "",
            self.infotext: gr.Textbox(value="", visible=False),
        }

    def on_send(self, image_id: str | None, token: Any) -> Updates:
        """Input: the picked picture. Outputs: the form under Generate."""
        return self.generate.ask.fill(self.own(image_id, token).recipe.model_dump(), visitor=visitor_of(token))

    def on_reproduce(self, image_id: str | None, token: Any) -> Iterator[Updates]:
        """Input: the picked picture. Outputs: how far the reproduction is, then its verdict; and its buttons.

        Whoever picks another picture, or closes the page, ends it: its verdict would stand under the wrong one.
        """
        try:
            job = self.services.reproduction.submit(self.own(image_id, token).id, visitor_of(token))
        except StudioError as error:
            yield self.at_rest(controls.error_html(error.message, error.hint))
            return
        busy = {self.reproduce: gr.Button(visible=False), self.stop: gr.Button(visible=True)}
        try:
            for event in moments(job, previews=False):
                match event:
                    case Queued():
                        yield {**busy, self.verdict: views.verdict(f"{views.place_in_line(event)} …", "busy")}
                    case Started():
                        yield {**busy, self.verdict: views.verdict("Making it again …", "busy")}
                    case Fetching():
                        yield {**busy, self.verdict: views.verdict(views.fetching_line(event), "busy")}
                    case Progress():
                        yield {**busy, self.verdict: views.verdict(views.progress_line(event), "busy")}
                    case Finished(summary=summary):
                        yield self.at_rest(views.verdict(summary["sentence"], summary["judgement"]))
                    case Failed(message=message, hint=hint):
                        yield self.at_rest(controls.error_html(message, hint))
                    case Cancelled():
                        yield self.at_rest(views.verdict("Stopped.", "busy"))
                    case _:
                        yield {self.verdict: gr.skip()}
        finally:
            job.cancel()

    def at_rest(self, verdict: str) -> Updates:
        """No reproduction runs; `verdict` (HTML) is what the last one left."""
        return {**self.buttons_at_rest(), self.verdict: verdict}

    def buttons_at_rest(self) -> Updates:
        """A reproduction can be asked for."""
        return {self.reproduce: gr.Button(visible=True), self.stop: gr.Button(visible=False)}

    def on_stop(self, token: Any) -> None:
        """Input: the token. This visitor's reproductions end, and say so themselves."""
        for job in self.services.runner.active(visitor_of(token)):
            if job.kind == REPRODUCE:
                job.cancel()


def _after_late_words() -> str:
    """An empty verdict, once more: a word of what was cancelled may still have been on its way to the page."""
    time.sleep(_LATE_S)
    return ""


def build_library(services: Services, generate: GenerateTab) -> LibraryTab:
    """Lay out search and grid on the left, the picked picture on the right."""
    with gr.Row(elem_id="library-columns"):
        with gr.Column(scale=7, min_width=320, elem_id="library"):
            with gr.Row(elem_classes="search-row"):
                search = gr.Textbox(
                    label="Search", info=SEARCH_HELP, placeholder="red circle steps:25", elem_id="search", scale=5
                )
                starred = gr.Checkbox(label="Starred only", elem_id="starred-only", scale=1, min_width=136)
            grid = build_pictures(views.pictures([], None, LABEL, NO_PICTURES), "library-grid")
            with gr.Row(elem_classes="tools pager"):
                newer = gr.Button("Newer", elem_id="newer", size="sm", min_width=80, interactive=False)
                where = gr.HTML("", elem_id="library-range", js_on_load=None)
                older = gr.Button("Older", elem_id="older", size="sm", min_width=80, interactive=False)
        with gr.Column(scale=5, min_width=320, elem_id="picked"):
            stage = build_stage(views.idle(None, NOTHING_PICKED), "library-stage")
            with gr.Row(visible=False, elem_classes="tools", elem_id="library-actions") as actions:
                send = gr.Button("Send to Generate", variant="primary", elem_id="send", size="sm", min_width=136)
                reproduce = gr.Button("Reproduce", elem_id="reproduce", size="sm", min_width=96)
                stop = gr.Button("Stop", variant="stop", elem_id="library-stop", size="sm", min_width=96, visible=False)
                star = gr.Button("☆ Star", elem_id="library-star", size="sm", min_width=88)
                download = gr.Button("Download", elem_id="library-download", size="sm", min_width=96)
                delete = gr.Button(
                    "Delete", elem_id="library-delete", size="sm", min_width=80, visible=services.settings.may_delete
                )
                sends = build_sends("library")
            confirm, yes, no = build_confirm("library-delete")
            verdict = gr.HTML("", elem_id="verdict", elem_classes="slot", js_on_load=None)
            facts = gr.HTML("", elem_id="library-facts", js_on_load=None)
            text = gr.Textbox(
                label="Settings as text, for other tools",
                lines=4,
                buttons=["copy"],
                interactive=False,
                visible=False,
                elem_id="infotext",
            )
    tab = LibraryTab(
        services=services, generate=generate, search=search, starred=starred, page=gr.State(0), grid=grid,
        newer=newer, older=older, range=where, picked_id=gr.State(None), stage=stage, actions=actions, star=star,
        download=download, send=send, sends=sends, reproduce=reproduce, stop=stop, delete=delete, confirm=confirm,
        delete_yes=yes, delete_no=no, verdict=verdict, facts=facts, infotext=text,
    )  # fmt: skip
    _wire(tab)
    return tab


def _wire(tab: LibraryTab) -> None:
    token = tab.generate.token
    again = {"fn": guarded(tab.turn(0)), "inputs": tab.query, "outputs": tab.listing, **QUIET}
    gr.on(
        [tab.search.change, tab.search.submit, tab.starred.change],
        guarded(tab.on_search),
        tab.query[:-1],
        tab.listing,
        trigger_mode="always_last",
        **QUIET,
    )
    tab.newer.click(guarded(tab.turn(-1)), tab.query, tab.listing, **QUIET)
    tab.older.click(guarded(tab.turn(1)), tab.query, tab.listing, **QUIET)
    picked = [tab.picked_id, token]
    reproducing = tab.reproduce.click(
        guarded(tab.on_reproduce),
        picked,
        tab.reproduction,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    # Of updates that follow each other fast, Gradio's client can lose the last: the buttons are set once more.
    reproducing.then(tab.buttons_at_rest, None, [tab.reproduce, tab.stop], **QUIET)
    tab.stop.click(guarded(tab.on_stop), token, None, **QUIET)
    # A verdict would stand under another picture. Listeners of one event run in order: these must come first.
    for leave in (tab.grid.pick, tab.delete_yes.click, tab.generate.result.to_library.click):
        leave(None, cancels=[reproducing], **QUIET)
        left = leave(lambda: tab.at_rest(""), None, tab.reproduction, **QUIET)
        left.then(_after_late_words, None, tab.verdict, **QUIET)
    tab.grid.pick(guarded(tab.on_pick), token, tab.picked, **QUIET)
    tab.star.click(guarded(tab.on_star), picked, tab.star, **QUIET).then(**again)
    if tab.services.settings.may_delete:
        tab.delete.click(lambda: gr.Row(visible=True), None, tab.confirm, **QUIET)
        tab.delete_no.click(lambda: gr.Row(visible=False), None, tab.confirm, **QUIET)
        tab.delete_yes.click(guarded(tab.on_delete), picked, tab.picked, **QUIET).then(**again)
