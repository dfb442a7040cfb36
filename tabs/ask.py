"""The left column of Generate: what a person asks for, how it is filled, and how its parts depend on each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Accelerator, Catalogue, Checkpoint
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import NO_ACCELERATOR, RANDOM_SEED, parse_request
from studio.metadata import read_settings
from studio.prompts import prompt_remarks
from tabs import controls
from tabs.controls import help_text
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.widgets import asset, build_chips, chips

_EXAMPLES = "Prompts that this model can draw"
_ALWAYS_OPEN = ("prompt", "checkpoint", "num_images", "seed")
"""Fields whose controls are in no panel that folds."""
_FORMATS = [".png", ".jpg", ".jpeg", ".webp"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The controls. `fill` is the one way to set them from the outside."""

    catalogue: Catalogue
    form: Form
    errors: dict[str, gr.HTML]
    generate: gr.Button
    stop: gr.Button
    shape: gr.Radio
    note: gr.HTML
    examples: gr.HTML
    warning: gr.HTML
    plan: gr.HTML
    drop: gr.File
    drop_note: gr.HTML
    random_seed: gr.Button
    reuse_seed: gr.Button
    settings: gr.Column

    @property
    def outputs(self) -> list[Component]:
        """Everything that `fill` may set."""
        parts = [self.shape, self.note, self.examples, self.warning, self.drop_note]
        return [*self.form.fields.values(), *self.errors.values(), *parts]

    def fill(self, values: Mapping[str, Any], note: str = "", left_out: Sequence[str] = ()) -> Updates:
        """Set every control from request fields; what is missing or does not fit the model takes its default. `note`
        and what was left out, already or here, are said where pictures are dropped."""
        checkpoint = self.checkpoint(values.get("checkpoint"))
        settings, unfit = self.fitted(values, checkpoint)
        refused = [*left_out, *unfit]
        updates = self._model_updates(checkpoint, settings)
        for name in ("prompt", "num_inference_steps", "guidance_scale", "scheduler", "decoder", "seed", "num_images"):
            updates[self.form[name]] = settings[name]
        updates[self.form["negative_prompt"]] = controls.negative_prompt_for(
            settings["guidance_scale"], value=settings["negative_prompt"]
        )
        updates |= dict.fromkeys(self.errors.values(), controls.NO_ERROR)
        updates[self.warning] = self.warn(settings)
        text = note + (f" Not taken over: {'; '.join(refused)}." if refused else "")
        updates[self.drop_note] = controls.warning_html(text.strip()) if text else ""
        return updates

    def fitted(self, values: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
        """A value for every control, and what was refused because `checkpoint` cannot use it."""
        given = {k: v for k, v in values.items() if v is not None}
        settings = {**self.defaults(checkpoint, given.get("accelerator")), **given, "checkpoint": checkpoint.id}
        refused = []
        if not all(checkpoint.min_size <= settings[side] <= checkpoint.max_size for side in ("width", "height")):
            refused.append(
                f"size {settings['width']} × {settings['height']} "
                f"({checkpoint.title} draws from {checkpoint.min_size} to {checkpoint.max_size} px)"
            )
            settings |= {"width": checkpoint.native_size, "height": checkpoint.native_size}
        known = {
            "style": [value for _, value in controls.style_choices(self.catalogue, checkpoint)],
            "scheduler": [value for _, value in controls.scheduler_choices(self.catalogue)],
            "accelerator": [value for _, value in controls.accelerator_choices(self.catalogue, checkpoint)],
        }
        usual = self.defaults(checkpoint)
        for name, choices in known.items():
            if settings[name] not in choices:
                refused.append(f"{name} {settings[name]}")
                settings[name] = usual[name]
        scheduler = self.catalogue.scheduler(settings["scheduler"])
        if scheduler.max_steps and settings["num_inference_steps"] > scheduler.max_steps:
            refused.append(f"{settings['num_inference_steps']} steps ({scheduler.title} takes {scheduler.max_steps})")
            settings["num_inference_steps"] = scheduler.max_steps
        return settings, refused

    def defaults(self, checkpoint: Checkpoint, accelerator_id: str | None = None) -> dict[str, Any]:
        """What suits `checkpoint`, with that accelerator if it is one for it, for every field."""
        accelerator = self.accelerator(accelerator_id, checkpoint)
        usual = accelerator or checkpoint
        return {
            "prompt": "",
            "negative_prompt": "",
            "checkpoint": checkpoint.id,
            "style": self.catalogue.styles_for(checkpoint)[0].id,
            "width": checkpoint.native_size,
            "height": checkpoint.native_size,
            "accelerator": accelerator.id if accelerator else NO_ACCELERATOR,
            "num_inference_steps": usual.default_steps,
            "guidance_scale": usual.default_guidance,
            "scheduler": accelerator.scheduler if accelerator else checkpoint.default_scheduler,
            "decoder": "full",
            "seed": RANDOM_SEED,
            "num_images": 1,
        }

    def checkpoint(self, checkpoint_id: str | None) -> Checkpoint:
        """The row of that id, or the default one."""
        try:
            return self.catalogue.checkpoint(checkpoint_id or self.catalogue.default_checkpoint)
        except NotFound:
            return self.catalogue.checkpoint(self.catalogue.default_checkpoint)

    def accelerator(self, accelerator_id: str | None, checkpoint: Checkpoint) -> Accelerator | None:
        """The row of that id, if it was made for `checkpoint`."""
        fitting = {row.id: row for row in self.catalogue.accelerators_for(checkpoint)}
        return fitting.get(accelerator_id or NO_ACCELERATOR)

    def models(self, **changes: Any) -> Updates:
        """The models to choose from: one's own may have come since the page was built."""
        choices = controls.checkpoint_choices(self.catalogue)
        return {self.form["checkpoint"]: gr.Dropdown(choices=choices, **changes)}

    def warn(self, values: Mapping[str, Any]) -> str:
        """The warning about what will not come out as it is asked for (HTML, "" for none)."""
        checkpoint = self.checkpoint(values.get("checkpoint"))
        styles = self.catalogue.styles_for(checkpoint)
        style = next((row for row in styles if row.id == values.get("style")), styles[0])
        said = prompt_remarks(checkpoint, style, values.get("prompt") or "")
        accelerator = self.accelerator(values.get("accelerator"), checkpoint)
        if accelerator:
            asked = {**self.defaults(checkpoint, accelerator.id), **values}
            said += accelerator.remarks(asked["num_inference_steps"], asked["guidance_scale"], asked["scheduler"])
        return controls.warning_html(" ".join(said)) if said else ""

    def on_model(self, data: Mapping[Component, Any]) -> Updates:
        """Input: the form. Output: all controls; size, steps, guidance, sampler and style as the model likes them."""
        kept = ("prompt", "negative_prompt", "checkpoint", "seed", "num_images")
        values = self.form.values(data)
        return self.fill({name: values[name] for name in kept if name in values})

    def on_accelerator(self, data: Mapping[Component, Any]) -> Updates:
        """Input: the form. Output: all controls; steps, guidance and sampler as the accelerator wants them, or as the
        model does without one."""
        chosen = ("num_inference_steps", "guidance_scale", "scheduler")
        values = self.form.values(data)
        return self.fill({name: value for name, value in values.items() if name not in chosen})

    def on_shape(self, shape: str) -> Updates:
        """Input: the shape button. Output: width and height."""
        width, height = (int(side) for side in shape.split("x"))
        return {self.form["width"]: width, self.form["height"]: height}

    def on_size(self, width: float, height: float, checkpoint_id: str) -> Any:
        """Inputs: the size sliders and the model. Output: the shape button that stands for them, if one does."""
        return gr.Radio(value=controls.shape_of(width, height, self.checkpoint(checkpoint_id)))

    def on_drop(self, path: str | None, chosen: str) -> Updates:
        """Inputs: a picture and the model that is chosen, which stays if we do not have the picture's. Output: all
        controls, as the picture was made."""
        if path is None:
            return {self.drop_note: ""}
        try:
            found = read_settings(path, self.catalogue)
        except InvalidRequest as error:
            return {self.drop_note: controls.error_html(error.message, error.hint)}
        values, left_out = found.request.model_dump(), list(found.left_out)
        known = [row.id for row in self.catalogue.checkpoints]
        if values["checkpoint"] not in known:
            left_out += [f"model {values['checkpoint']}"] if values["checkpoint"] else []
            values["checkpoint"] = chosen
        return self.fill(values, "The settings of this picture are in place.", left_out)

    def on_error(self, error: InvalidRequest) -> Updates:
        """The sentence next to the control that caused it, and by the prompt unless that control is always in sight."""
        field = error.field if error.field in self.errors else "prompt"
        said = controls.error_html(error.message, error.hint)
        slots = {self.errors[field]: said} | ({} if field in _ALWAYS_OPEN else {self.errors["prompt"]: said})
        return {**dict.fromkeys(self.errors.values(), controls.NO_ERROR), **slots}

    def wire(self) -> None:
        """How the parts depend on each other."""
        size = [self.form["width"], self.form["height"]]
        model = self.form["checkpoint"]
        model.input(guarded(self.on_model), self.form.inputs, self.outputs, **FORM)
        self.form["accelerator"].input(guarded(self.on_accelerator), self.form.inputs, self.outputs, **FORM)
        self.shape.input(guarded(self.on_shape), self.shape, size, **QUIET)
        gr.on([side.change for side in size], guarded(self.on_size), [*size, model], self.shape, **FORM)
        self.form["guidance_scale"].change(
            controls.negative_prompt_for, self.form["guidance_scale"], self.form["negative_prompt"], **FORM
        )
        self.random_seed.click(lambda: RANDOM_SEED, None, self.form["seed"], **QUIET)
        self.drop.clear(lambda: "", None, self.drop_note, **QUIET)

    def _model_updates(self, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Updates:
        limits: dict[str, Any] = {"minimum": checkpoint.min_size, "maximum": checkpoint.max_size}
        choices = controls.style_choices(self.catalogue, checkpoint)
        shape = controls.shape_of(settings["width"], settings["height"], checkpoint)
        return {
            **self.models(value=checkpoint.id),
            self.form["style"]: gr.Dropdown(choices=choices, value=settings["style"]),
            self.form["accelerator"]: controls.accelerator_for(self.catalogue, checkpoint, settings["accelerator"]),
            self.form["width"]: gr.Slider(value=settings["width"], **limits),
            self.form["height"]: gr.Slider(value=settings["height"], **limits),
            self.shape: gr.Radio(choices=controls.shape_choices(checkpoint), value=shape),
            self.note: controls.checkpoint_note(checkpoint),
            self.examples: chips(checkpoint.examples, _EXAMPLES),
        }


class _Slots:
    """Collects controls by field, each with the place for its error, while the layout is written down."""

    def __init__(self) -> None:
        self.fields: dict[str, Component] = {}
        self.errors: dict[str, gr.HTML] = {}

    def add(self, name: str, component: Component) -> None:
        self.fields[name] = component
        self.errors[name] = controls.build_error(name)


def usable(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a browser kept, without what no request could hold: it may come from another version, or from anybody."""
    return {name: value for name, value in saved.items() if _is_usable(name, value)}


def _is_usable(name: str, value: Any) -> bool:
    try:
        parse_request({"prompt": "anything", name: value})
    except InvalidRequest:
        return (name, value) == ("prompt", "")
    return True


def build_ask(catalogue: Catalogue) -> Ask:
    """Lay out two panels: the prompt with its buttons, then the settings, those seldom needed closed."""
    checkpoint = catalogue.checkpoint(catalogue.default_checkpoint)
    slots = _Slots()
    with gr.Column(min_width=320, elem_id="ask"):
        slots.add("prompt", controls.build_prompt())
        warning = gr.HTML("", elem_id="prompt-warning", elem_classes="slot", js_on_load=asset("settle.js"))
        with gr.Row(elem_classes="actions"):
            generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=3, min_width=120)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False, scale=1, min_width=80)
        plan = gr.HTML("", elem_id="plan", elem_classes="slot", js_on_load=None)
        examples = build_chips(checkpoint.examples, _EXAMPLES, "examples")
    with gr.Column(min_width=320, elem_id="settings") as settings:
        slots.add(
            "checkpoint", controls.build_choice("checkpoint", controls.checkpoint_choices(catalogue), checkpoint.id)
        )
        note = gr.HTML(controls.checkpoint_note(checkpoint), elem_id="model-note", js_on_load=None)
        choices = controls.shape_choices(checkpoint)
        shape = gr.Radio(choices, value=choices[0][1], label="Shape", elem_id="shape")
        slots.add("num_images", controls.build_slider("num_images", 1))
        with gr.Row(elem_classes="seed-row"):
            seed = controls.build_seed()
            random_seed = gr.Button("Random", elem_id="seed-random", size="sm", min_width=80, scale=0)
            reuse_seed = gr.Button("Reuse last", elem_id="seed-reuse", size="sm", min_width=96, scale=0)
        gr.HTML(controls.note(help_text("seed")), elem_classes="below", js_on_load=None)
        slots.fields["seed"], slots.errors["seed"] = seed, controls.build_error("seed")
        _build_details(catalogue, checkpoint, slots)
        with gr.Accordion("Settings from a picture", open=False, elem_id="from-picture"):
            drop = gr.File(
                label="Drop a picture to get its settings back", file_types=_FORMATS, height=112, elem_id="drop"
            )
            drop_note = gr.HTML("", elem_id="drop-note", elem_classes="slot", js_on_load=None)
    return Ask(
        catalogue=catalogue,
        form=Form(slots.fields),
        errors=slots.errors,
        generate=generate,
        stop=stop,
        shape=shape,
        note=note,
        examples=examples,
        warning=warning,
        plan=plan,
        drop=drop,
        drop_note=drop_note,
        random_seed=random_seed,
        reuse_seed=reuse_seed,
        settings=settings,
    )


def _build_details(catalogue: Catalogue, checkpoint: Checkpoint, slots: _Slots) -> None:
    with gr.Accordion("Look — style and what to keep out", open=False, elem_id="look"):
        style = catalogue.styles_for(checkpoint)[0].id
        slots.add("style", controls.build_choice("style", controls.style_choices(catalogue, checkpoint), style))
        slots.add("negative_prompt", controls.build_negative_prompt())
    with gr.Accordion("Care — time and closeness to the prompt", open=False, elem_id="care"):
        slots.add("accelerator", controls.build_accelerator(catalogue, checkpoint))
        slots.add("num_inference_steps", controls.build_slider("num_inference_steps", checkpoint.default_steps))
        slots.add("guidance_scale", controls.build_slider("guidance_scale", checkpoint.default_guidance))
        schedulers = controls.scheduler_choices(catalogue)
        slots.add("scheduler", controls.build_choice("scheduler", schedulers, checkpoint.default_scheduler))
        slots.add("decoder", controls.build_choice("decoder", controls.decoder_choices(), "full"))
    with gr.Accordion("Exact size — width and height", open=False, elem_id="exact-size"):
        slots.add("width", controls.build_size("width", checkpoint))
        slots.add("height", controls.build_size("height", checkpoint))
