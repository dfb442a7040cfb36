"""The form of a training: the few things that everybody chooses, and the many that suit the model by themselves."""

from typing import Any

import gradio as gr
from gradio.components import Component

from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.training import (
    OPTIMIZER_TITLES,
    SCHEDULE_TITLES,
    TrainingPlan,
    TrainingRequest,
    label,
    training_look_every,
)
from studio.domain.training_presets import (
    PRESET_TITLES,
    PresetId,
    SubjectId,
    usual_prior,
    usual_training,
)

_NUMBERS = {
    "num_steps": 0,
    "rank": 0,
    "learning_rate": None,
    "text_learning_rate": None,
    "batch_size": 0,
    "accumulation": 0,
    "size": 0,
    "alpha": None,
    "dropout": None,
    "warmup": None,
    "snr_gamma": None,
    "noise_offset": None,
    "caption_dropout": None,
    "num_prior": 0,
    "prior_weight": None,
    "validation_share": None,
    "patience": 0,
    "look_every": 0,
    "seed": 0,
}
"""Fields that are numbers, with their decimals (None: as many as it takes), in the order in which they show."""
_REACHES = [
    ("Attention", "attention"),
    ("Attention and feed-forward", "attention_and_feed_forward"),
    ("All layers", "all"),
]
_CROPS = [("Buckets: pictures keep their form", "buckets"), ("The middle, as a square", "centre")]


def usual_values(
    checkpoint: Checkpoint, preset: PresetId = "balanced", num_pictures: int = 0, subject: SubjectId = "thing"
) -> dict[str, Any]:
    """What the form holds where nothing else is asked."""
    values = usual_training(checkpoint, preset, num_pictures, subject)
    return {
        **values,
        "alpha": float(values["rank"]),
        "look_every": training_look_every(int(values["num_steps"])),
        "num_prior": usual_prior(checkpoint, subject, has_prompts=False),  # an empty number would arrive as 0
    }


def build_what(catalogue: Catalogue) -> dict[str, Component]:
    """Name, trigger word, model and preset."""
    return {
        "name": gr.Textbox(label="Name", value="My adapter", elem_id="train-name", max_lines=1),
        "trigger": gr.Textbox(
            label="Trigger word", max_lines=1, elem_id="train-trigger", placeholder="sks",
            info="Calls in a prompt what was learnt: a word that the model does not know yet. A style needs "
            "none.",
        ),
        "checkpoint": gr.Dropdown(
            [(row.title, row.id) for row in catalogue.checkpoints], value=catalogue.default_checkpoint,
            label="Model", filterable=False, elem_id="train-model",
        ),
        "preset": gr.Radio(
            [(title, name) for name, title in PRESET_TITLES.items()], value="balanced", label="How thoroughly",
            elem_id="train-preset",
        ),
    }  # fmt: skip


def build_how(checkpoint: Checkpoint) -> dict[str, Component]:
    """Everything else, out of the way."""
    values = {**_defaults(), **usual_values(checkpoint)}
    fields: dict[str, Component] = {}
    with gr.Accordion("More — set to suit the model", open=False, elem_id="train-more"):
        for start in range(0, len(_NUMBERS), 2):
            with gr.Row():
                for field in list(_NUMBERS)[start : start + 2]:
                    fields[field] = gr.Number(
                        value=values[field], precision=_NUMBERS[field], min_width=120, **_said(field)
                    )
        fields["reach"] = gr.Dropdown(_REACHES, value=values["reach"], filterable=False, **_chosen("reach"))
        fields["schedule"] = gr.Dropdown(
            [(title, name) for name, title in SCHEDULE_TITLES.items()], value=values["schedule"], filterable=False,
            **_chosen("schedule"),
        )  # fmt: skip
        fields["optimizer"] = gr.Dropdown(
            [(title, name) for name, title in OPTIMIZER_TITLES.items()], value="adamw", filterable=False,
            **_chosen("optimizer"),
        )  # fmt: skip
        fields["crop"] = gr.Dropdown(_CROPS, value="buckets", filterable=False, **_chosen("crop"))
        fields["decompose"] = gr.Checkbox(**_checked("decompose"))
        fields["gradual"] = gr.Checkbox(value=values["gradual"], **_checked("gradual"))
        fields["masked"] = gr.Checkbox(**_checked("masked"))
        fields["mask_floor"] = gr.Number(value=values["mask_floor"], precision=None, **_said("mask_floor"))
        fields["shuffle_tags"] = gr.Checkbox(
            label="Captions are tags: in another order each time", elem_id="train-shuffle-tags"
        )
        fields["prior_prompts"] = gr.Textbox(
            label="What it knew, one prompt a line", lines=1, max_lines=4, elem_id="train-prior-prompts",
            info="Such as a photo of a dog, where you teach it yours. Pocket models need none.",
        )  # fmt: skip
        fields["sample_prompts"] = gr.Textbox(
            label="Sample prompts, one a line", lines=2, max_lines=4, elem_id="train-sample-prompts",
            info="Up to four. Without, captions of the pictures.",
        )  # fmt: skip
    return fields


def _defaults() -> dict[str, Any]:
    return {name: field.default for name, field in TrainingRequest.model_fields.items()}


_CHOICES = {
    "reach": ("Which layers learn", "More layers learn more, and the file grows."),
    "schedule": ("How the learning rate goes", "Falling to nothing settles what was learnt."),
    "optimizer": ("Optimiser", "How changes are made of errors. 8-bit state saves memory on a GPU."),
    "crop": ("How pictures are cut", ""),
}


def _chosen(field: str) -> dict[str, Any]:
    title, info = _CHOICES[field]
    return {"label": title, "info": info or None, "elem_id": f"train-{field}"}


def _checked(field: str) -> dict[str, Any]:
    return {**_said(field), "label": TrainingPlan.model_fields[field].title}


def _said(field: str) -> dict[str, Any]:
    info = TrainingPlan.model_fields[field].description
    return {
        "label": label(field) if field != "seed" else "Seed",
        "info": info,
        "elem_id": f"train-{field.replace('_', '-')}",
    }
