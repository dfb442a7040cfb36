"""The frame of the page: theme, style sheet, keys and the tabs."""

import html
from string import Template
from typing import Any

import gradio as gr

from studio.services import Services
from studio.settings import Settings
from tabs.client_api import build_client_api
from tabs.distil import build_distil
from tabs.evaluate import EvaluateTab, build_evaluate
from tabs.flash import build_flash
from tabs.frame import Frame
from tabs.generate import GenerateTab, build_generate
from tabs.handlers import QUIET, guarded
from tabs.library import LibraryTab, build_library
from tabs.send_to import Sending
from tabs.sessions import ClosedPages
from tabs.system import build_system
from tabs.train import TrainTab, build_train
from tabs.visitor import build_browser_state
from tabs.widgets import asset

TITLE = "Flash Studio"
_READY_JS = "() => { document.body.dataset.ready = '1' }"
_INDIGO = gr.themes.Color(
    c50="#eef2ff",
    c100="#e0e7ff",
    c200="#c7d2fe",
    c300="#a5b4fc",
    c400="#818cf8",
    c500="#6366f1",
    c600="#4f46e5",
    c700="#4338ca",
    c800="#3730a3",
    c900="#312e81",
    c950="#1e1b4b",
    name="indigo",
)
_SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")


def build(services: Services) -> Frame:
    """The whole page; nothing runs yet."""
    with Frame(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as demo:
        build_client_api(demo, services)  # first: who comes later gets another name where two are the same
        gr.HTML(_header(services.settings), elem_id="header", js_on_load=None, apply_default_css=False)
        compared = build_browser_state("evaluation-systems")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Generate", id="generate"):
                generate = build_generate(services)
            with gr.Tab("Flash", id="flash"):
                flash = build_flash(services, generate.token)
                distil = build_distil(services, flash) if services.settings.is_local else None
            train = None
            if services.settings.is_local:
                with gr.Tab("Train LoRA", id="train"):
                    train = build_train(services, generate.token)
            with gr.Tab("Evaluate", id="evaluate") as evaluate_tab:
                evaluate = build_evaluate(services, generate.token, compared)
            with gr.Tab("Library", id="library") as library_tab:
                library = build_library(services, generate)
            with gr.Tab("System", id="system") as system_tab:
                system = build_system(services)
        kept = [generate.token, generate.saved, generate.result.recent]
        outputs = [*generate.outputs, *generate.ask.outputs]
        loaded = demo.load(guarded(generate.on_load), kept, list(dict.fromkeys(outputs)), **QUIET)
        kept = [flash.job, generate.token]
        loaded = loaded.then(guarded(flash.on_load), kept, [flash.form["checkpoint"], *flash.results], **QUIET)
        if distil is not None:
            outputs = [distil.run, *distil.results]
            loaded = loaded.then(guarded(distil.on_load), [distil.run, distil.shown], outputs, **QUIET)
        if train is not None:
            loaded = loaded.then(guarded(train.on_load), train.run, [train.run, *train.results], **QUIET)
            _wire_training(tabs, generate, train)
        loaded.then(None, js=_READY_JS, **QUIET)
        kept = [evaluate.systems.asked, evaluate.shown, evaluate.token]
        evaluate_tab.select(guarded(evaluate.on_load), kept, evaluate.outputs, **QUIET).then(
            guarded(evaluate.on_form), evaluate.asks, evaluate.comes_to, **QUIET
        )
        probe = evaluate.probe
        evaluate_tab.select(guarded(probe.on_load), [probe.shown, evaluate.token], probe.outputs, **QUIET)
        library_tab.select(guarded(library.turn(0)), library.query, library.listing, **QUIET)
        shown = {"fn": guarded(system.on_show), "inputs": generate.token, "outputs": system.outputs, **QUIET}
        system_tab.select(**shown)
        system.own.wire(shown, generate.ask.models, generate.ask.form["checkpoint"])
        _wire_between(tabs, generate, library, evaluate)
        demo.unload(ClosedPages(demo).on_close)
    return demo


def _header(settings: Settings) -> str:
    """Name and tagline; on a Space also the way to one of one's own, where nobody else waits."""
    where = ", on your own machine" if settings.is_local else ""
    address = html.escape(f"https://huggingface.co/spaces/{settings.space_id}?duplicate=true")
    link = f'<a href="{address}" target="_blank" rel="noopener">Duplicate this Space</a>' if settings.space_id else ""
    return Template(asset("header.html")).substitute(tagline=f"Pictures from words{where}", link=link)


def _wire_between(tabs: gr.Tabs, generate: GenerateTab, library: LibraryTab, evaluate: EvaluateTab) -> None:
    """The buttons that lead from one tab to another."""
    shown = [generate.result.shown_id, generate.token]
    generate.result.to_library.click(guarded(library.on_open), shown, library.picked, **QUIET).then(
        lambda: gr.Tabs(selected="library"), None, tabs, **QUIET
    )
    sending = Sending(services=library.services, ask=generate.ask)
    for send, fill, picked in (
        (library.send, library.on_send, library.picked_id), (evaluate.send, library.on_send, evaluate.picked),
        *((button, fill, library.picked_id) for button, fill in sending.of(library.sends)),
    ):  # fmt: skip
        send.click(guarded(fill), [picked, generate.token], generate.ask.outputs, **QUIET).then(
            lambda: gr.Tabs(selected="generate"), None, tabs, **QUIET
        ).then(**generate.settle)


def _wire_training(tabs: gr.Tabs, generate: GenerateTab, train: TrainTab) -> None:
    """What was learnt leads to a picture with it."""
    form = generate.ask.form
    train.use.click(
        guarded(train.on_use), [train.run, form["prompt"]], [form["prompt"], form["checkpoint"]], **QUIET
    ).then(lambda: gr.Tabs(selected="generate"), None, tabs, **QUIET).then(**generate.settle)
    grid = train.grid
    grid.use.click(
        guarded(grid.on_use), [grid.run, grid.picked, form["prompt"]], [form["prompt"], form["checkpoint"]], **QUIET
    ).then(lambda: gr.Tabs(selected="generate"), None, tabs, **QUIET).then(**generate.settle)


def appearance() -> dict[str, Any]:
    """What `launch` takes for the look and the keys."""
    return {
        "theme": theme(),
        "css": asset("studio.css") + asset("vote.css"),
        "head": f"<script>{asset('keys.js')}</script>",
    }


def theme() -> gr.themes.Base:
    """One accent colour, system fonts, an 8 px grid."""
    return gr.themes.Base(
        primary_hue=_INDIGO,
        secondary_hue=_INDIGO,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        font=_SYSTEM,
        font_mono=_SYSTEM_MONO,
    ).set(
        # Gradio's own greys for help texts and placeholders miss AA contrast.
        body_text_color="*neutral_900",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="#0f1623",
        input_border_width="1px",
        input_border_color="#b9c4d2",
        input_border_color_dark="#3d4b63",
        input_border_color_focus="*primary_500",
        input_shadow="none",
        input_shadow_focus="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
