"""Balance: what one prompt shows over many seeds, by the judge, and by the exact checker where that can look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Catalogue
from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.domain.events import Failed
from studio.domain.probe import MAX_PICTURES, USUAL_PICTURES, Probe, parse_probe
from studio.probe import ProbeService, ProbeStanding
from studio.probe_views import limits_html, probe_html
from studio.settings import Settings
from tabs import controls
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.visitor import build_browser_state, is_local, is_token, new_token, owner_of, visitor_of

LOOK_EVERY_S = 2.0
GUEST_PICTURES = 128
"""What a guest of a shared page may have drawn at once."""
_SUITED, _OWN = "", "own"
_SETS = [
    ("What suits the model", _SUITED), ("The world: colour, shape, background", "world"),
    ("Faces: presented gender, age group, skin tone", "faces"), ("My own", _OWN),
]  # fmt: skip
_OWN_INFO = (
    "One a line: its name, a colon, and 2 to 12 values with commas between. The judge reads “a photo of”, your prompt, "
    "a comma and the value."
)


class ProbeServices(Protocol):
    """What this panel needs of the services."""

    @property
    def settings(self) -> Settings: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def probes(self) -> ProbeService: ...


@dataclass(frozen=True, kw_only=True)
class ProbePanel:
    """What is asked, and what comes of it. `shown` is the probe that shows, kept by the browser."""

    services: ProbeServices
    token: gr.BrowserState
    form: Form
    error: gr.HTML
    start: gr.Button
    stop: gr.Button
    go_on: gr.Button
    told: gr.HTML
    timer: gr.Timer
    shown: gr.BrowserState

    @property
    def results(self) -> list[Component]:
        """Everything that `show` may set."""
        return [self.told, self.stop, self.go_on]

    @property
    def outputs(self) -> list[Component]:
        """Everything that opening the page may set."""
        return [self.form["checkpoint"], *self.results]

    def on_load(self, shown: Any, token: Any) -> Updates:
        """Inputs: the probe that the browser kept, the token. Outputs: the models there are, the probe as it stands."""
        choices = controls.checkpoint_choices(self.services.catalogue)
        return {self.form["checkpoint"]: gr.Dropdown(choices=choices), **self.show(shown, token)}

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
                self.told: limits_html(), self.stop: gr.Button(interactive=False), self.go_on: gr.Button(visible=False)
            }  # fmt: skip
        return {
            self.told: _why(standing) + probe_html(self.services.probes.result(standing)),
            self.stop: gr.Button(interactive=standing.is_running),
            self.go_on: gr.Button(visible=not standing.is_running and not standing.is_whole),
        }

    def _begun(self, probe: Probe, token: str) -> Updates:
        begun = self.services.probes.submit_resolved(probe, visitor_of(token))
        return {self.error: "", self.token: token, self.shown: begun.id, **self.show(begun.id, token)}

    def _resolved(self, values: Mapping[str, Any]) -> Probe:
        """What is asked for, decided.

        Raises:
            InvalidRequest: something of it does not work.
        """
        asked = {name: values[name] for name in ("prompt", "checkpoint", "num_images", "seed") if name in values}
        chosen = values.get("attributes") or _SUITED
        if chosen == _OWN:
            asked["attributes"] = attributes_of(str(values.get("own") or ""))
        elif chosen != _SUITED:
            asked["attributes"] = chosen
        probe = self.services.probes.resolve(parse_probe(asked))
        if not is_local(self.services.settings) and probe.num_images > GUEST_PICTURES:
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
        begun = [*self.results, self.error, self.token, self.shown]
        chosen = self.form["attributes"]
        chosen.input(lambda value: gr.Textbox(visible=value == _OWN), chosen, self.form["own"], **QUIET)
        self.start.click(guarded(self.on_start), {*self.form.inputs, self.token}, begun, **FORM)
        self.go_on.click(guarded(self.on_go_on), kept, begun, **QUIET)
        self.stop.click(guarded(self.on_stop), kept, self.stop, **QUIET)
        self.timer.tick(guarded(self.on_look), kept, self.results, trigger_mode="once", **QUIET)


def attributes_of(text: str) -> list[dict[str, Any]]:
    """Attributes as they are typed, one a line: "Weather: rain, sun". What is wrong with them is for `parse_probe`."""
    lines = [line.partition(":") for line in text.splitlines() if line.strip()]
    return [
        {"name": name.strip(), "values": [value.strip() for value in values.split(",") if value.strip()]}
        for name, _, values in lines
    ]


def _why(standing: ProbeStanding) -> str:
    """What ended a probe that failed (HTML)."""
    ending = standing.job.wait() if standing.job.is_over else None
    return controls.error_html(ending.message, ending.hint) if isinstance(ending, Failed) else ""


def build_probe(services: ProbeServices, token: gr.BrowserState) -> ProbePanel:
    """Lay out what is asked and what comes of it, and wire them."""
    with gr.Accordion("Balance: what one prompt shows over many seeds", open=False, elem_id="probe"):
        fields: dict[str, Component] = {
            "prompt": gr.Textbox(label="Prompt", lines=2, max_lines=6, elem_id="probe-prompt"),
            "checkpoint": gr.Dropdown(
                controls.checkpoint_choices(services.catalogue), value=services.catalogue.default_checkpoint,
                label="Model", filterable=False, elem_id="probe-checkpoint",
            ),
            "attributes": gr.Dropdown(
                _SETS, value=_SUITED, filterable=False, label="What to look for", elem_id="probe-attributes"
            ),
            "own": gr.Textbox(
                label="My own", info=_OWN_INFO, placeholder="Weather: rain, sun", lines=2, max_lines=8, visible=False,
                elem_id="probe-own",
            ),
            "num_images": gr.Number(
                USUAL_PICTURES, precision=0, label="Number of pictures", elem_id="probe-num-images",
                info=f"One a seed, up to {MAX_PICTURES:,}. More tell smaller differences from luck.",
            ),
            "seed": gr.Number(
                0, precision=0, label="First seed", elem_id="probe-seed",
                info="With the same one, what was drawn is not drawn again.",
            ),
        }  # fmt: skip
        error = gr.HTML("", elem_id="probe-error", elem_classes="slot", js_on_load=None)
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Start", variant="primary", elem_id="probe-start", scale=3, min_width=120)
            stop = gr.Button("Stop", variant="stop", elem_id="probe-stop", interactive=False, scale=1, min_width=80)
        told = gr.HTML(limits_html(), elem_id="probe-told", js_on_load=None)
        go_on = gr.Button("Go on with it", visible=False, elem_id="probe-go-on", size="sm")
    panel = ProbePanel(
        services=services, token=token, form=Form(fields), error=error, start=start, stop=stop, go_on=go_on, told=told,
        timer=gr.Timer(LOOK_EVERY_S), shown=build_browser_state("probe"),
    )  # fmt: skip
    panel.wire()
    return panel
