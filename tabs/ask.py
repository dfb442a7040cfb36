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
from studio.token_count import count_tokens
from studio.web.access import visitor_of
from tabs import controls
from tabs.form import Form
from tabs.handlers import FORM, QUIET, Updates, guarded
from tabs.keep_to import CONTROL_FIELDS, FREE, KeepTo
from tabs.picture_in import (
    HIRES_FIELDS,
    PICTURE_FIELDS,
    PictureIn,
    default_of,
    hires_for,
)
from tabs.widgets import chips

EXAMPLES = "Prompts that this model can draw"
_ALWAYS_OPEN = ("prompt", "checkpoint", "num_images", "seed")
"""Fields whose controls are in no panel that folds."""
_AS_THEY_ARE = (
    "prompt",
    "original_prompt",
    "num_inference_steps",
    "guidance_scale",
    "scheduler",
    "decoder",
    "clip_skip",
    "seed",
    "num_images",
)
"""Fields whose controls are set to a value and nothing else."""


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
    count: gr.HTML
    plan: gr.HTML
    drop: gr.File
    drop_note: gr.HTML
    describe: gr.Button
    random_seed: gr.Button
    reuse_seed: gr.Button
    settings: gr.Column
    tools: gr.Column
    picture: PictureIn
    hires: gr.Accordion
    keep_to: KeepTo

    @property
    def outputs(self) -> list[Component]:
        """Everything that `fill` may set."""
        parts: list[Any] = [self.shape, self.note, self.examples, self.warning, self.drop_note, self.hires]
        parts += [*self.picture.outputs, *self.keep_to.outputs]
        return list(dict.fromkeys([*self.form.fields.values(), *self.errors.values(), *parts]))

    def fill(
        self,
        values: Mapping[str, Any],
        note: str = "",
        left_out: Sequence[str] = (),
        visitor: str | None = None,
        picture_note: str = "",
    ) -> Updates:
        """Set every control from request fields; what is missing or does not fit the model takes its default. `note`
        and what was left out, already or here, are said where pictures are dropped. The picture to begin from stays as
        it is unless a `visitor` is named, whose it is to be; `picture_note` is said beside it."""
        checkpoint = self.checkpoint(values.get("checkpoint"))
        settings, unfit = self.fitted(values, checkpoint)
        if visitor is not None and settings["init_image"] and not self.picture.usable(settings, visitor):
            unfit = [*unfit, "the picture that it started from, which is not kept here"]
            settings |= {name: default_of(name) for name in PICTURE_FIELDS}
        refused = [*left_out, *unfit]
        updates = self._model_updates(checkpoint, settings)
        settings["prompt"] = settings.get("typed_prompt") or settings["prompt"]  # what it chose from, not its choice
        for name in _AS_THEY_ARE:
            updates[self.form[name]] = settings[name]
        updates |= self._beginning_updates(settings, visitor, picture_note)
        if visitor is not None and not self.picture.usable({"init_image": settings["control_image"]}, visitor):
            settings |= FREE
        updates |= self.keep_to.show(settings, checkpoint)
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
            "original_prompt": "",
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
            "clip_skip": 1,
            "seed": RANDOM_SEED,
            "num_images": 1,
            **{name: default_of(name) for name in (*PICTURE_FIELDS, *HIRES_FIELDS)},
            **FREE,
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

    def tokens(self, values: Mapping[str, Any]) -> str:
        """How long the prompt is, and where a long one is parted (HTML)."""
        prompt = str(values.get("prompt") or "")
        told = count_tokens(self.checkpoint(values.get("checkpoint")), prompt) if prompt.strip() else None
        return controls.note(told.words) if told else ""

    def on_model(self, data: Mapping[Component, Any]) -> Updates:
        """Input: the form. Output: all controls; size, steps, guidance, sampler and style as the model likes them."""
        kept = ("prompt", "original_prompt", "negative_prompt", "checkpoint", "seed", "num_images")
        kept += (*PICTURE_FIELDS, *CONTROL_FIELDS)
        values = {name: value for name, value in self.form.values(data).items() if name in kept}
        size = self.picture.size(values.get("init_image") or "", self.checkpoint(values.get("checkpoint")))
        return self.fill({**values, **size})

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

    def on_drop(self, path: str | None, chosen: str, token: Any = None) -> Updates:
        """Inputs: a picture, the model that is chosen, which stays if we do not have the picture's, and the token.
        Output: all controls, as the picture was made."""
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
        return self.fill(values, "The settings of this picture are in place.", left_out, visitor_of(token))

    def on_picture(self, path: str | None, token: Any, checkpoint_id: str) -> Updates:
        """Inputs: a picture to begin from, token, model. Outputs: the panel with it, and its size."""
        if path is None:
            return {self.picture.told: gr.skip()}
        try:
            name = self.picture.take(path, token)
        except InvalidRequest as error:
            return {self.picture.told: controls.error_html(error.message, error.hint), self.picture.file: None}
        size = self.picture.size(name, self.checkpoint(checkpoint_id))
        shown = self.picture.show({"init_image": name, "mask": ""}, is_open=True)
        return {**shown, **{self.form[side]: px for side, px in size.items()}, self.errors["init_image"]: ""}

    def on_remove(self) -> Updates:
        """Outputs: the panel without a picture."""
        return self.picture.show({name: default_of(name) for name in PICTURE_FIELDS}, is_open=True)

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
        self.drop.change(lambda path: gr.Button(interactive=path is not None), self.drop, self.describe, **QUIET)
        self.drop.clear(lambda: "", None, self.drop_note, **QUIET)
        self._wire_beginning()

    def _wire_beginning(self) -> None:
        scale = self.form["hires_scale"]
        scale.change(hires_for, scale, [self.form[name] for name in HIRES_FIELDS[1:]], **FORM)
        editor, name = self.picture.editor, self.form["init_image"]
        editor.clear(guarded(self.picture.on_cleared), name, editor, **QUIET)
        self.picture.remove.click(guarded(self.on_remove), None, self.picture.outputs, **QUIET)

    def _beginning_updates(self, settings: Mapping[str, Any], visitor: str | None, note: str) -> Updates:
        """The second pass, and the picture to begin from: as it is, where no `visitor` is named."""
        updates: Updates = {self.form[name]: settings[name] for name in ("hires_scale",)}
        numbers = hires_for(settings["hires_scale"])
        for name, control in zip(HIRES_FIELDS[1:], numbers, strict=True):
            control.value = settings[name]
            updates[self.form[name]] = control
        updates[self.hires] = gr.Accordion(open=settings["hires_scale"] > 1)
        return updates | (self.picture.stay() if visitor is None else self.picture.show(settings, note))

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
            self.examples: chips(checkpoint.examples, EXAMPLES),
        }


def usable(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a browser kept, without what no request could hold: it may come from another version, or from anybody."""
    return {name: value for name, value in saved.items() if _is_usable(name, value)}


def _is_usable(name: str, value: Any) -> bool:
    try:
        parse_request({"prompt": "anything", name: value})
    except InvalidRequest:
        return (name, value) == ("prompt", "")
    return True
