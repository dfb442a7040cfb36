"""The Generate tab: type, see the picture grow, keep it."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.events import (
    Cancelled,
    Drawing,
    Event,
    Failed,
    Fetching,
    Finished,
    Held,
    ImageReady,
    Progress,
    Queued,
    Started,
)
from studio.domain.images import ImageRecord
from studio.generation import KIND
from studio.job import Job
from studio.services import Services
from studio.web.access import is_token, new_token, visitor_of
from tabs import views
from tabs.adapters import build_adapters
from tabs.ask import Ask, usable
from tabs.ask_layout import build_ask
from tabs.enhance import build_enhance
from tabs.forecast import memory_note
from tabs.handlers import FORM, QUIET, Updates, guarded, moments
from tabs.result import MAX_RECENT, Result, build_result, toggle_star
from tabs.send_to import LOOK_JS, Sending
from tabs.visitor import build_browser_state, check_may_delete, own_image, owner_of
from tabs.widgets import build_signal

logger = logging.getLogger(__name__)

Data = Mapping[Component, Any]

MAX_FOLLOWERS = 64
LOOK_AGAIN_S = 4.0
"""How often a page looks for jobs of its visitor that it does not follow: another tab's, or after a lost connection."""


@dataclass(frozen=True, kw_only=True)
class GenerateTab:
    """The two columns, and what this browser keeps: who it is and the settings it had last."""

    services: Services
    ask: Ask
    result: Result
    token: gr.BrowserState
    saved: gr.BrowserState
    signal: gr.HTML
    told: gr.State
    settled: gr.State

    @property
    def outputs(self) -> list[Component]:
        return [*self.result.outputs, self.ask.stop, *self.ask.errors.values(), self.signal, self.token]

    @property
    def settle(self) -> dict[str, Any]:
        """A listener that keeps the settings, warns of words and says what a picture will take, once they stand."""
        outputs = [self.saved, self.ask.warning, self.ask.count, self.ask.plan]
        return {"fn": guarded(self.on_settle), "inputs": self.ask.form.inputs, "outputs": outputs, **FORM}

    def on_load(self, token: Any, saved: Any, recent: Any) -> Updates:
        """Inputs: what the browser kept. Outputs: everything, as it was before the reload."""
        self.services.own_checkpoints.refresh()
        self.services.own_accelerators.refresh()
        updates: Updates = {self.token: token if is_token(token) else new_token()}
        kept_settings = usable(saved) if isinstance(saved, dict) else None
        updates |= self.ask.fill(kept_settings, visitor=visitor_of(token)) if kept_settings else self.ask.models()
        jobs = self.active(token)  # before the pictures: what ends in between is found there
        latest = (
            self.services.gallery.find(visitor=visitor_of(token), limit=MAX_RECENT, compared=False)
            if is_token(token)
            else []
        )
        records = self.result.records([*(record.id for record in latest), *self.recent_of(recent, token)])
        if jobs:
            updates |= self.result.with_strip([record.id for record in records], None)
            updates |= {self.signal: jobs[0].id}
        elif records:
            updates |= self.result.show(records[0], [record.id for record in records])
        return updates

    def on_settle(self, data: Data) -> Updates:
        """Input: the form, after a pause. Outputs: the warning under the prompt, what a picture will take, and the
        settings to keep."""
        values = self.ask.form.values(data)
        plan = {self.ask.plan: memory_note(self.services, values)}
        return {
            self.saved: values,
            self.ask.warning: self.ask.warn(values),
            self.ask.count: self.ask.tokens(values),
            **plan,
        }

    def on_generate(self, data: Data) -> Updates:
        """Inputs: form and token. Outputs: the new job, or the error next to its control."""
        token = data[self.token] if is_token(data[self.token]) else new_token()
        try:
            request = self.ask.form.read(data)
            self.ask.picture.check_own(request, visitor_of(token))
            job = self.services.generation.submit(request, visitor_of(token))
        except InvalidRequest as error:
            return self.ask.on_error(error)
        except StudioError as error:
            return {self.result.stage: views.failed(error.message, error.hint)}
        updates: Updates = dict.fromkeys(self.ask.errors.values(), "")
        # The stage is left to `follow`, which may be further than this answer when the answer arrives.
        return updates | {self.token: token, self.signal: job.id}

    def on_model(self, checkpoint_id: str, shown_id: str | None, token: Any) -> Any:
        """Inputs: model, shown picture, token. Output: the stage; an empty one offers a prompt that suits the model."""
        is_empty = not shown_id and not self.active(token)
        return self.result.idle(self.ask.checkpoint(checkpoint_id)) if is_empty else gr.skip()

    def on_stop(self, token: Any) -> Any:
        """Input: the token. Output: the Stop button. Everything this visitor has waiting or running here ends."""
        for job in self.active(token):
            job.cancel()
        return gr.Button(interactive=False)

    def active(self, token: Any) -> list[Job]:
        """The generation jobs of this visitor that are not over, oldest first."""
        return [job for job in self.services.runner.active(visitor_of(token)) if job.kind == KIND]

    def follow(self, data: Data) -> Iterator[Updates]:
        """Inputs: token, recent pictures, the job asked for last and the one told last. Outputs: stage, strip and
        buttons, until no job is left."""
        yield {self.ask.stop: gr.skip()}  # registers the generator, so that a closed page can end it
        told = data[self.told]
        recent: list[str] | None = None
        while job := self.untold(data, told):
            if recent is None:  # not before: most looks, every few seconds, find no job
                recent = self.recent_of(data[self.result.recent], data[self.token])
            for event in moments(job):
                if isinstance(event, ImageReady):
                    recent = [event.image_id, *recent]
                yield self.on_event(job, event, recent)
            if not job.is_over:  # the studio stops
                return
            told = job.id
            yield {self.told: told}
            if not self.active(data[self.token]):
                yield {self.ask.stop: gr.Button(interactive=False)}

    def untold(self, data: Data, told: str | None) -> Job | None:
        """The job to follow next: the oldest one at work, else the last one asked for, if it was over too soon to be
        followed. (While a page looks for jobs, Gradio drops the signal that there is a new one.)"""
        if jobs := self.active(data[self.token]):
            return jobs[0]
        asked = data[self.signal]
        return self.own_job(asked, data[self.token]) if asked and asked != told else None

    def own_job(self, job_id: str, token: Any) -> Job | None:
        """The job of that id, if the bearer of `token` asked for it."""
        try:
            job = self.services.runner.job(job_id)
        except NotFound:
            return None
        return job if job.visitor == visitor_of(token) else None

    def on_told(self, data: Data) -> Updates:
        """Inputs: token, recent pictures, the job told last and the one settled last. Outputs: how the job ended, once
        more: of updates that follow each other fast, Gradio's client (6.31) can lose the last ones of a stream."""
        told = data[self.told]
        job = self.own_job(told, data[self.token]) if told and told != data[self.settled] else None
        if job is None:
            return {self.settled: told}
        recent = [*reversed(made(job)), *self.recent_of(data[self.result.recent], data[self.token])]
        stop = gr.Button(interactive=bool(self.active(data[self.token])))
        return {**self.on_end(job, job.wait(timeout=0), recent), self.ask.stop: stop, self.settled: told}

    def on_event(self, job: Job, event: Event | None, recent: list[str]) -> Updates:
        """What the page shows after an event of `job`; None stands for a second without one."""
        stage, stop = self.result.stage, {self.ask.stop: gr.Button(interactive=True)}
        match event:
            case Queued():
                return self.result.clear(views.waiting(event)) | stop
            case Started() | Drawing():
                return self.result.clear(views.starting()) | stop
            case Fetching():
                return {stage: views.fetching(event)}
            case Held():
                return {stage: views.held(event)}
            case Progress():
                return {stage: views.progress(event)}
            case ImageReady():
                return self.result.with_strip(recent, None)
            case Finished() | Failed() | Cancelled():
                return self.on_end(job, event, recent)
        return {stage: gr.skip()}

    def on_end(self, job: Job, event: Event, recent: list[str]) -> Updates:
        """What stays on the stage: the job's last picture, or why there is none."""
        records = self.result.records(made(job))
        is_stopped = isinstance(event, Cancelled)
        asked = job.payload["num_images"]
        line = views.stopped(len(records), asked) if is_stopped else views.made_before(records, job.id)
        if isinstance(event, Failed):
            return self.result.clear(views.failed(event.message, event.hint), recent)
        if not records:
            return self.result.clear(views.idle(None, line or "This picture is gone."), recent)
        return self.result.show(records[-1], recent, views.finished(records[-1], line, line or "Done"))

    def own(self, image_id: str | None, token: Any) -> ImageRecord:
        return own_image(self.services.gallery, self.services.settings, image_id, token)

    def recent_of(self, recent: Any, token: Any) -> list[str]:
        """The ids that a browser sent of pictures, without those that its visitor may not see."""
        ids = [str(image_id) for image_id in recent] if isinstance(recent, list) else []
        owner = owner_of(self.services.settings, token)
        records = self.result.records(ids)
        return [record.id for record in records if owner is None or record.visitor == owner]

    def on_pick(self, token: Any, recent: Any, event: gr.EventData) -> Updates:
        """Inputs: token, strip. Event: the picture that was chosen. Outputs: stage, facts, buttons."""
        return self.result.show(self.own(event.id, token), self.recent_of(recent, token))

    def on_star(self, image_id: str | None, token: Any, recent: Any) -> Updates:
        """Inputs: the shown picture, token, strip. Outputs: the star button and the strip."""
        record = self.own(image_id, token)
        label = toggle_star(self.services.gallery, record)
        return {self.result.star: label, **self.result.with_strip(self.recent_of(recent, token), record.id)}

    def on_delete(self, image_id: str | None, token: Any, recent: Any) -> Updates:
        """Inputs: the shown picture, token, strip. Outputs: the next picture, or the empty stage."""
        check_may_delete(self.services.settings)
        self.services.gallery.delete(self.own(image_id, token).id)
        left = self.result.records(self.recent_of(recent, token))
        ids = [record.id for record in left]
        return self.result.show(left[0], ids) if left else self.result.clear(self.result.idle(), ids)

    def on_reuse(self, image_id: str | None, token: Any) -> Updates:
        """Inputs: a picture, token. Outputs: the form, as the picture was made."""
        return self.ask.fill(self.own(image_id, token).recipe.model_dump(), visitor=visitor_of(token))

    def on_reuse_seed(self, image_id: str | None, token: Any) -> Any:
        """Inputs: the shown picture, token. Output: its seed."""
        return self.own(image_id, token).recipe.seed if image_id else gr.skip()

    def on_example(self, event: gr.EventData) -> Updates:
        """Event: a prompt. Outputs: the prompt with nothing to complain about."""
        return {self.ask.form["prompt"]: event.text, self.ask.warning: "", self.ask.errors["prompt"]: ""}


def made(job: Job) -> list[str]:
    """The ids of the pictures that `job` made so far, oldest first."""
    return [event.image_id for event in job.events(timeout=0, previews=False) if isinstance(event, ImageReady)]


def build_generate(services: Services) -> GenerateTab:
    """Lay out both columns and wire them."""
    with gr.Row(elem_id="generate-columns"):
        ask = build_ask(services.catalogue, services.sources, services.settings)
        with ask.settings:
            adapters = build_adapters(services, ask.form["prompt"], ask.form["checkpoint"])
        with ask.tools:
            enhance = build_enhance(services, ask)
        with gr.Column(min_width=320, elem_id="result"):
            result = build_result(services.catalogue, services.gallery, may_delete=services.settings.may_delete)
    tab = GenerateTab(
        services=services,
        ask=ask,
        result=result,
        token=build_browser_state("visitor"),
        saved=build_browser_state("settings"),
        signal=build_signal("signal"),
        told=gr.State(None),
        settled=gr.State(None),
    )
    ask.wire()
    adapters.wire(ask.warning.settle, result.shown_id)
    enhance.wire(tab.token, tab.settle)
    ask.keep_to.wire(ask.form["checkpoint"], tab.token, tab.settle)
    _wire_jobs(tab)
    _wire_result(tab)
    return tab


def _wire_jobs(tab: GenerateTab) -> None:
    form, prompt = tab.ask.form, [tab.ask.form["prompt"], tab.ask.warning, tab.ask.errors["prompt"]]
    settle = tab.settle
    submit = {"fn": guarded(tab.on_generate), "inputs": {*form.inputs, tab.token}, "outputs": tab.outputs, **FORM}
    tab.ask.warning.settle(trigger_mode="always_last", **settle)
    picture = tab.ask.picture
    painted = {
        "fn": guarded(picture.on_painted), "inputs": [picture.editor, form["init_image"], tab.token],
        "outputs": form["mask"], **QUIET,
    }  # fmt: skip
    tab.ask.generate.click(**painted).then(**submit).then(**settle)
    begun = [picture.file, tab.token, form["checkpoint"]]
    outputs = [*picture.outputs, form["width"], form["height"], tab.ask.errors["init_image"]]
    picture.file.upload(guarded(tab.ask.on_picture), begun, outputs, **QUIET).then(**settle)
    tab.ask.examples.pick(guarded(tab.on_example), None, prompt, **QUIET).then(**settle)
    tab.result.stage.example(guarded(tab.on_example), None, prompt, **QUIET).then(**submit).then(**settle)
    model = form["checkpoint"]
    dropped = [tab.ask.drop, model, tab.token]
    tab.ask.drop.upload(guarded(tab.ask.on_drop), dropped, tab.ask.outputs, **QUIET).then(**settle)
    model.change(guarded(tab.on_model), [model, tab.result.shown_id, tab.token], tab.result.stage, **QUIET)
    tab.ask.stop.click(guarded(tab.on_stop), tab.token, tab.ask.stop, **QUIET)
    gr.on(
        [tab.signal.play, gr.Timer(LOOK_AGAIN_S).tick],
        guarded(tab.follow),
        {tab.token, tab.result.recent, tab.signal, tab.told},
        [*tab.result.outputs, tab.ask.stop, tab.told],
        trigger_mode="once",
        concurrency_limit=MAX_FOLLOWERS,
        show_progress="hidden",
        api_visibility="private",
    ).then(
        guarded(tab.on_told),
        {tab.token, tab.result.recent, tab.told, tab.settled},
        [*tab.result.outputs, tab.ask.stop, tab.settled],
        **QUIET,
    )


def _wire_result(tab: GenerateTab) -> None:
    result, ask = tab.result, tab.ask
    shown = [result.shown_id, tab.token]
    result.strip.pick(guarded(tab.on_pick), [tab.token, result.recent], result.outputs, **QUIET)
    result.star.click(guarded(tab.on_star), [*shown, result.recent], result.outputs, **QUIET)
    if tab.services.settings.may_delete:
        result.delete.click(lambda: gr.Row(visible=True), None, result.confirm, **QUIET)
        result.delete_no.click(lambda: gr.Row(visible=False), None, result.confirm, **QUIET)
        result.delete_yes.click(guarded(tab.on_delete), [*shown, result.recent], result.outputs, **QUIET)
    result.reuse.click(guarded(tab.on_reuse), shown, ask.outputs, **QUIET).then(**tab.settle)
    sends, sending = result.sends, Sending(services=tab.services, ask=ask)
    for button, fill in sending.of(sends):
        filled = button.click(guarded(fill), shown, ask.outputs, **QUIET)
        filled.then(None, js=LOOK_JS, **QUIET).then(**tab.settle)
    ask.reuse_seed.click(guarded(tab.on_reuse_seed), shown, ask.form["seed"], **QUIET)
