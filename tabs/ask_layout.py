"""How the left column of Generate is laid out."""

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.settings import Settings
from studio.sources import Sources
from tabs import controls
from tabs.ask import EXAMPLES, Ask
from tabs.controls import help_text
from tabs.form import Form
from tabs.keep_to import build_keep_to
from tabs.picture_in import build_hires, build_picture_in
from tabs.widgets import asset, build_chips

_FORMATS = [".png", ".jpg", ".jpeg", ".webp"]


class _Slots:
    """Collects controls by field, each with the place for its error, while the layout is written down."""

    def __init__(self) -> None:
        self.fields: dict[str, Component] = {}
        self.errors: dict[str, gr.HTML] = {}

    def add(self, name: str, component: Component) -> None:
        self.fields[name] = component
        self.errors[name] = controls.build_error(name)


def build_ask(catalogue: Catalogue, sources: Sources, own: Settings) -> Ask:
    """Lay out two panels: the prompt with its buttons, then the settings, those seldom needed closed."""
    checkpoint = catalogue.checkpoint(catalogue.default_checkpoint)
    slots = _Slots()
    with gr.Column(min_width=320, elem_id="ask"):
        slots.add("prompt", controls.build_prompt())
        slots.fields["original_prompt"] = gr.Textbox(visible=False)
        warning = gr.HTML("", elem_id="prompt-warning", elem_classes="slot", js_on_load=asset("settle.js"))
        if own.notice:
            gr.HTML(controls.note(own.notice), elem_id="consent", js_on_load=None)
        with gr.Row(elem_classes="actions"):
            generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=3, min_width=120)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False, scale=1, min_width=80)
        count = gr.HTML("", elem_id="prompt-count", elem_classes="slot", js_on_load=None)
        plan = gr.HTML("", elem_id="plan", elem_classes="slot", js_on_load=None)
        tools = gr.Column(elem_id="prompt-tools")
        examples = build_chips(checkpoint.examples, EXAMPLES, "examples")
        picture = build_picture_in(sources, own, slots.add)
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
        keep_to = build_keep_to(catalogue, sources, checkpoint, slots.add)
        hires = build_hires(slots.add)
        with gr.Accordion("Settings from a picture", open=False, elem_id="from-picture"):
            drop = gr.File(
                label="Drop a picture to get its settings back", file_types=_FORMATS, height=112, elem_id="drop"
            )
            drop_note = gr.HTML("", elem_id="drop-note", elem_classes="slot", js_on_load=None)
            describe = gr.Button("Describe it as a prompt", elem_id="describe", size="sm", interactive=False)
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
        count=count,
        plan=plan,
        drop=drop,
        drop_note=drop_note,
        describe=describe,
        random_seed=random_seed,
        reuse_seed=reuse_seed,
        settings=settings,
        tools=tools,
        picture=picture,
        hires=hires,
        keep_to=keep_to,
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
        slots.add("clip_skip", controls.build_slider("clip_skip", 1))
    with gr.Accordion("Exact size — width and height", open=False, elem_id="exact-size"):
        slots.add("width", controls.build_size("width", checkpoint))
        slots.add("height", controls.build_size("height", checkpoint))
