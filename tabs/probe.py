"""Balance: what one prompt shows over many seeds, by the judge, and by the exact checker where that can look."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from textwrap import shorten
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Catalogue
from studio.domain.datasets import counted
from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.events import Failed
from studio.domain.probe import MAX_PICTURES, USUAL_PICTURES, Probe, parse_probe
from studio.domain.request import NO_ACCELERATOR
from studio.domain.training_estimate import span
from studio.probe import ProbeStanding
from studio.probe_views import limits_html, probe_html
from studio.services import Services
from studio.web.access import is_token, new_token, visitor_of
from studio.web.probe_routes import EXPORTS
from tabs import controls
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.run_grid_views import progress
from tabs.visitor import build_browser_state, owner_of

LOOK_EVERY_S = 2.0
GUEST_PICTURES = 128
"""What a guest of a shared page may have drawn at once."""
_SUITED, _OWN = "", "own"
_LABEL_CHARACTERS = 48
_SETS = [
    ("What suits the model", _SUITED), ("The world: colour, shape, background", "world"),
    ("Faces: presented gender, age group, skin tone", "faces"), ("My own", _OWN),
]  # fmt: skip
_OWN_INFO = (
    "One a line: its name, a colon, and 2 to 12 values with commas between. The judge reads “a photo of”, your prompt, "
    "a comma and the value."
)


@dataclass(frozen=True, kw_only=True)
class ProbePanel:
    """What is asked, and what comes of it. `shown` is the probe that shows, kept by the browser."""

    services: Services
    token: gr.BrowserState
    form: Form
    frame: gr.Accordion
    comes_to: gr.HTML
    error: gr.HTML
    start: gr.Button
    stop: gr.Button
    earlier: gr.Dropdown
    go_on: gr.Button
    told: gr.HTML
    exports: Mapping[str, gr.Button]
    timer: gr.Timer
    shown: gr.BrowserState

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [self.told, self.stop, self.go_on, *self.exports.values()]

    @property
    def outputs(self) -> list[Component]:
        """Everything that opening the page may set."""
        return [self.form["checkpoint"], self.earlier, *self.results]

    def on_load(self, shown: Any, token: Any) -> Updates:
        """Inputs: the probe that the browser kept, the token. Outputs: the models there are, the earlier probes, the
        probe as it stands."""
        choices = controls.checkpoint_choices(self.services.catalogue)
        return {
            self.form["checkpoint"]: gr.Dropdown(choices=choices),
            self.earlier: self._earlier(shown, token),
            **self.show(shown, token),
        }

    def on_form(self, data: Mapping[Component, Any]) -> str:
        """Input: the form. Output: how much that is to draw, and how long it takes."""
        return self._comes_to(self.form.values(data))

    def on_model(self, checkpoint_id: str) -> Updates:
        """Input: the model. Outputs: the accelerators that were made for it, its own steps."""
        checkpoint = self.services.catalogue.checkpoint(checkpoint_id)
        return {
            self.form["accelerator"]: controls.accelerator_for(self.services.catalogue, checkpoint, NO_ACCELERATOR),
            self.form["num_inference_steps"]: checkpoint.default_steps,
        }

    def on_accelerator(self, checkpoint_id: str, accelerator_id: str) -> Any:
        """Inputs: the model, the accelerator. Output: the steps that suit them."""
        catalogue = self.services.catalogue
        row = catalogue.accelerator(accelerator_id) or catalogue.checkpoint(checkpoint_id)
        return row.default_steps

    def on_start(self, data: Mapping[Component, Any]) -> Updates:
        """Inputs: the form, the token. Outputs: the new probe, or the error."""
        token = data[self.token] if is_token(data[self.token]) else new_token()
        try:
            return self._begun(self._resolved(self.form.values(data)), token)
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}

    def on_go_on(self, shown: Any, token: Any) -> Updates:
        """Inputs: the probe that shows, the token. Outputs: it is taken up again."""
        standing = self._found(shown, token)
        if standing is None:
            return {self.error: ""}
        try:
            return self._begun(standing.probe, token if is_token(token) else new_token())
        except StudioError as error:
            return {self.error: controls.error_html(error.message, error.hint)}

    def on_choose(self, chosen: Any, token: Any) -> Updates:
        """Inputs: an earlier probe, the token. Outputs: it shows."""
        return {self.shown: chosen, **self.show(chosen, token)}

    def on_stop(self, shown: Any, token: Any) -> Any:
        """Inputs: the probe, the token. Output: the Stop button."""
        standing = self._found(shown, token)
        if standing is not None:
            standing.job.cancel()
        return gr.Button(interactive=False)

    def on_look(self, shown: Any, token: Any) -> Updates:
        """Inputs: what shows. Outputs: the same as it stands now, all of it: Gradio's client may lose an update."""
        return self.show(shown, token) if shown else {self.stop: gr.skip()}

    def show(self, shown: Any, token: Any) -> Updates:
        """The probe `shown` as it stands; only what can never be told where there is none."""
        standing = self._found(shown, token)
        if standing is None:
            return {
                self.told: limits_html(),
                self.stop: gr.Button(interactive=False),
                self.go_on: gr.Button(visible=False),
                **{button: gr.Button(visible=False) for button in self.exports.values()},
            }
        result = self.services.probes.result(standing)
        return {
            self.told: _how_far(standing) + probe_html(result),
            self.stop: gr.Button(interactive=standing.is_running),
            self.go_on: gr.Button(visible=not standing.is_running and not standing.is_whole),
            **{
                button: gr.Button(visible=bool(result.judged), link=f"probes/{standing.id}/{name}")
                for name, button in self.exports.items()
            },
        }

    def _begun(self, probe: Probe, token: str) -> Updates:
        begun = self.services.probes.submit_resolved(probe, visitor_of(token))
        return {
            self.error: "",
            self.token: token,
            self.shown: begun.id,
            self.earlier: self._earlier(begun.id, token),
            **self.show(begun.id, token),
        }

    def _comes_to(self, values: Mapping[str, Any]) -> str:
        """How much there is to draw, and how long that takes; what does not work instead. What is still to be typed is
        not complained of."""
        asked = {**values, "prompt": str(values.get("prompt") or "").strip() or "-"}
        if asked.get("attributes") == _OWN and not str(asked.get("own") or "").strip():
            asked["attributes"] = _SUITED
        try:
            probe = self._resolved(asked)
        except StudioError as error:
            return controls.warning_html(f"{error.message} {error.hint}".strip())
        seconds = self.services.probes.remaining_s(probe)
        time = f", about {span(seconds)}" if seconds is not None else ""
        return controls.note(f"{counted(probe.num_images, 'picture')}{time}.")

    def _earlier(self, shown: Any, token: Any) -> gr.Dropdown:
        owner = owner_of(self.services.settings, token)
        choices = [_choice(each) for each in self.services.probes.of(owner)]
        ids = [probe_id for _, probe_id in choices]
        return gr.Dropdown(choices=choices, value=shown if shown in ids else None, visible=bool(choices))

    def _resolved(self, values: Mapping[str, Any]) -> Probe:
        """What is asked for, decided.

        Raises:
            InvalidRequest: something of it does not work.
        """
        asked = {name: value for name, value in values.items() if name not in ("attributes", "own")}
        chosen = values.get("attributes") or _SUITED
        if chosen == _OWN:
            asked["attributes"] = attributes_of(str(values.get("own") or ""))
        elif chosen != _SUITED:
            asked["attributes"] = chosen
        probe = self.services.probes.resolve(parse_probe(asked))
        if not self.services.settings.is_local and probe.num_images > GUEST_PICTURES:
            raise InvalidRequest(
                f"That comes to {probe.num_images} pictures; guests may have {GUEST_PICTURES} drawn at once.",
                "Take fewer.",
                "num_images",
            )
        return probe

    def _found(self, shown: Any, token: Any) -> ProbeStanding | None:
        owner = owner_of(self.services.settings, token)
        try:
            return self.services.probes.standing(str(shown or ""), owner)
        except NotFound:
            return None

    def wire(self) -> None:
        """How the parts depend on each other."""
        kept = [self.shown, self.token]
        begun = [*self.results, self.error, self.token, self.shown, self.earlier]
        form, chosen = self.form, self.form["attributes"]
        telling = [component for name, component in form.fields.items() if name != "prompt"]
        for event in (self.frame.expand, *(component.change for component in telling)):  # type: ignore
            event(guarded(self.on_form), form.inputs, self.comes_to, **FORM)  # type: ignore
        model, accelerator, steps = (form[name] for name in ("checkpoint", "accelerator", "num_inference_steps"))
        model.input(guarded(self.on_model), model, [accelerator, steps], **QUIET)
        accelerator.input(guarded(self.on_accelerator), [model, accelerator], steps, **QUIET)
        chosen.input(lambda value: gr.Textbox(visible=value == _OWN), chosen, self.form["own"], **QUIET)
        self.start.click(guarded(self.on_start), {*self.form.inputs, self.token}, begun, **FORM)
        self.go_on.click(guarded(self.on_go_on), kept, begun, **QUIET)
        self.stop.click(guarded(self.on_stop), kept, self.stop, **QUIET)
        self.timer.tick(guarded(self.on_look), kept, self.results, trigger_mode="once", **QUIET)
        self.earlier.input(guarded(self.on_choose), [self.earlier, self.token], [self.shown, *self.results], **QUIET)


def attributes_of(text: str) -> list[dict[str, Any]]:
    """Attributes as they are typed, one a line: "Weather: rain, sun". What is wrong with them is for `parse_probe`."""
    lines = [line.partition(":") for line in text.splitlines() if line.strip()]
    return [
        {"name": name.strip(), "values": [value.strip() for value in values.split(",") if value.strip()]}
        for name, _, values in lines
    ]


def _how_far(standing: ProbeStanding) -> str:
    """How far drawing is and how long it will take, or how it ended (HTML)."""
    ending = standing.job.wait() if standing.job.is_over else None
    if isinstance(ending, Failed):
        return controls.error_html(ending.message, ending.hint)
    line, _ = progress(list(standing.job.events(timeout=0, previews=False)))
    return controls.note(line) if line else ""


def _choice(standing: ProbeStanding) -> tuple[str, str]:
    """An earlier probe as (label, id)."""
    begun = datetime.fromtimestamp(standing.begun_at).strftime("%d %b %H:%M")
    prompt = shorten(standing.probe.prompt, _LABEL_CHARACTERS, placeholder=" …")
    return f"{begun} · {prompt} · {counted(standing.probe.num_images, 'picture')}", standing.id


def build_probe(services: Services, token: gr.BrowserState) -> ProbePanel:
    """Lay out what is asked and what comes of it, and wire them."""
    title = "Balance: what one prompt shows over many seeds"
    with gr.Accordion(title, open=False, elem_id="probe") as frame:
        fields = _build_fields(services.catalogue)
        comes_to = gr.HTML("", elem_id="probe-count", js_on_load=None)
        error = gr.HTML("", elem_id="probe-error", elem_classes="slot", js_on_load=None)
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Start", variant="primary", elem_id="probe-start", scale=3, min_width=120)
            stop = gr.Button("Stop", variant="stop", elem_id="probe-stop", interactive=False, scale=1, min_width=80)
        earlier = gr.Dropdown([], label="Prompts so far", visible=False, filterable=False, elem_id="probe-earlier")
        told = gr.HTML(limits_html(), elem_id="probe-told", js_on_load=None)
        go_on = gr.Button("Go on with it", visible=False, elem_id="probe-go-on", size="sm")
        with gr.Row(elem_classes="tools"):
            exports = {
                name: gr.Button(told_as, size="sm", visible=False, elem_id=f"probe-{name.partition('.')[0]}")
                for name, told_as in EXPORTS.items()
            }
    panel = ProbePanel(
        services=services, token=token, form=Form(fields), frame=frame, comes_to=comes_to, error=error, start=start,
        stop=stop, earlier=earlier, go_on=go_on, told=told, exports=exports, timer=gr.Timer(LOOK_EVERY_S),
        shown=build_browser_state("probe"),
    )  # fmt: skip
    panel.wire()
    return panel


def _build_fields(catalogue: Catalogue) -> dict[str, Component]:
    """The controls by the name of what they set."""
    checkpoint = catalogue.checkpoint(catalogue.default_checkpoint)
    fields: dict[str, Component] = {
        "prompt": gr.Textbox(label="Prompt", lines=2, max_lines=6, elem_id="probe-prompt"),
        "attributes": gr.Dropdown(
            _SETS, value=_SUITED, filterable=False, label="What to look for", elem_id="probe-attributes"
        ),
        "own": gr.Textbox(
            label="My own", info=_OWN_INFO, placeholder="Weather: rain, sun", lines=2, max_lines=8, visible=False,
            elem_id="probe-own",
        ),
    }  # fmt: skip
    with gr.Row():
        fields["checkpoint"] = gr.Dropdown(
            controls.checkpoint_choices(catalogue), value=checkpoint.id, label="Model", filterable=False,
            info="The one whose pictures are counted.", elem_id="probe-checkpoint", min_width=200,
        )  # fmt: skip
        fields["accelerator"] = gr.Dropdown(
            controls.accelerator_choices(catalogue, checkpoint), value=NO_ACCELERATOR, filterable=False,
            label="Accelerator", info="Draws in 2 to 8 steps, without guidance.", elem_id="probe-accelerator",
            min_width=200,
        )  # fmt: skip
    fields["num_inference_steps"] = gr.Slider(
        1, 60, value=checkpoint.default_steps, step=1, label="Steps", buttons=[], elem_id="probe-steps"
    )
    with gr.Row():
        fields["num_images"] = gr.Number(
            USUAL_PICTURES, precision=0, label="Number of pictures", elem_id="probe-num-images", min_width=200,
            info=f"One a seed, up to {MAX_PICTURES:,}. More tell smaller differences from luck.",
        )  # fmt: skip
        fields["seed"] = gr.Number(
            0, precision=0, label="First seed", elem_id="probe-seed", min_width=200,
            info="With the same one, what was drawn is not drawn again.",
        )  # fmt: skip
    return fields
