"""The balance panel: what is asked becomes a probe, what comes of it fills in, and nobody else sees it."""

import html
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from studio.domain.cells import CellResult
from studio.domain.probe import Answer
from studio.probe import ProbeService, ProbeStanding
from studio.services import Services
from tabs.probe import GUEST_PICTURES, ProbePanel, attributes_of, build_probe
from tabs.visitor import build_browser_state, new_token, visitor_of

TOKEN, OTHER = new_token(), new_token()
LIMIT = "biases of its own"


@pytest.fixture
def panel(services: Services) -> ProbePanel:
    known = getattr(services, "probes", None)
    probes = known or ProbeService(
        services.catalogue, services.runner, services.gallery, services.generation, services.scoring,
        services.settings.data_dir / "probes",
    )  # fmt: skip
    parts = SimpleNamespace(settings=services.settings, catalogue=services.catalogue, probes=probes)
    with gr.Blocks():
        return build_probe(parts, build_browser_state("visitor"))


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the page were shared with guests."""
    monkeypatch.setenv("SPACE_ID", "somebody/space")


def form(panel: ProbePanel, **values: Any) -> dict[Any, Any]:
    given = {
        "prompt": "a star on a white background", "checkpoint": "pocket-sd15", "attributes": "", "own": "",
        "num_images": 24, "seed": 0, **values,
    }  # fmt: skip
    return {**{component: given[name] for name, component in panel.form.fields.items()}, panel.token: TOKEN}


def begun(panel: ProbePanel, **values: Any) -> ProbeStanding:
    updates = panel.on_start(form(panel, **values))
    assert updates[panel.error] == "", updates[panel.error]
    return panel.services.probes.standing(updates[panel.shown])


def answer(standing: ProbeStanding, count: int) -> None:
    """As if the first pictures were drawn and judged: brown, as the checker sees too."""
    for cell in standing.probe.cells[:count]:
        standing.folder.note(CellResult(index=cell.index, image_id=str(cell.index)))
        standing.folder.add(
            Answer(
                index=cell.index,
                image_id=str(cell.index),
                judge="pocket-clip 0123",
                cosines={
                    each.name: tuple(0.9 if value.name == "brown" else 0.1 for value in each.values)
                    for each in standing.probe.attributes
                },
                seen={each.name: "brown" for each in standing.probe.attributes},
            )
        )


def test_before_anything_is_asked_it_says_what_it_cannot_tell(panel: ProbePanel) -> None:
    shown = panel.on_load(None, None)
    assert LIMIT in shown[panel.told] and not shown[panel.stop].interactive and not shown[panel.go_on].visible
    assert LIMIT in panel.told.value and set(shown) <= set(panel.outputs)
    assert list(panel.on_look(None, None)) == [panel.stop]


def test_what_is_asked_becomes_a_probe_that_fills_in(panel: ProbePanel) -> None:
    standing = begun(panel)
    assert standing.job.visitor == visitor_of(TOKEN) and standing.probe.num_images == 24
    assert [each.name for each in standing.probe.attributes] == ["Colour", "Shape", "Background"]
    shown = panel.on_look(standing.id, TOKEN)
    assert "0 of 24 pictures drawn" in shown[panel.told] and shown[panel.stop].interactive
    answer(standing, 20)
    shown = panel.on_look(standing.id, TOKEN)
    told = shown[panel.told]
    assert "20 of 24 pictures drawn, 20 judged" in told and "20 of 20" in told and LIMIT in told
    assert "By the exact checker" in told and "agree in 100%" in told and "asks for &#x27;star&#x27;" in told
    assert "it takes 50, and 20 are judged" in told and set(shown) <= set(panel.results)


def test_it_is_stopped_and_goes_on(panel: ProbePanel) -> None:
    standing = begun(panel)
    answer(standing, 3)
    assert not panel.on_stop(standing.id, TOKEN).interactive
    shown = panel.on_look(standing.id, TOKEN)
    assert not shown[panel.stop].interactive and shown[panel.go_on].visible
    again = panel.on_go_on(standing.id, TOKEN)
    assert again[panel.shown] != standing.id
    assert panel.services.probes.standing(again[panel.shown]).probe == standing.probe
    assert panel.on_go_on("gone", TOKEN) == {panel.error: ""}


def test_one_that_is_whole_needs_no_going_on(panel: ProbePanel) -> None:
    standing = begun(panel, num_images=3)
    answer(standing, 3)
    standing.job.cancel()
    assert not panel.on_look(standing.id, TOKEN)[panel.go_on].visible


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": " "}, "no prompt"),
        ({"prompt": None}, "no prompt"),
        ({"num_images": 0}, "number of pictures"),
        ({"seed": -3}, "seed must be"),
        ({"attributes": "faces"}, "no faces"),
        ({"attributes": "own", "own": ""}, "1 to 8 attributes"),
        ({"attributes": "own", "own": "<b>Weather</b>"}, "too few"),
        ({"attributes": "own", "own": "Weather: rain"}, "too few"),
    ],
    ids=str,
)
def test_what_does_not_work_is_said_beside_it(panel: ProbePanel, values: dict[str, Any], said: str) -> None:
    updates = panel.on_start(form(panel, **values))
    assert set(updates) == {panel.error} and said in html.unescape(updates[panel.error])
    assert "<b>" not in updates[panel.error]


def test_what_was_typed_is_escaped(panel: ProbePanel) -> None:
    standing = begun(panel, prompt="a <b>star</b>", attributes="own", own="<i>: <u>, brown")
    answer(standing, 3)
    told = panel.on_look(standing.id, TOKEN)[panel.told]
    assert not any(tag in told for tag in ("<b>", "<i>", "<u>")) and "&lt;u&gt;" in told


def test_attributes_of_ones_own_are_typed_a_line_each(panel: ProbePanel) -> None:
    assert attributes_of("Weather: rain, sun,\n\n Mood :calm, wild") == [
        {"name": "Weather", "values": ["rain", "sun"]},
        {"name": "Mood", "values": ["calm", "wild"]},
    ]
    standing = begun(panel, attributes="own", own="Weather: rain, sun")
    assert standing.probe.attributes[0].values[1].text == "a photo of a star on a white background, sun"


def test_another_guest_sees_and_stops_nothing(panel: ProbePanel, shared: None) -> None:
    standing = begun(panel)
    answer(standing, 5)
    assert "5 of 24" in panel.on_look(standing.id, TOKEN)[panel.told]
    for token in (OTHER, None, "short"):
        assert "of 24" not in panel.on_look(standing.id, token)[panel.told]
        panel.on_stop(standing.id, token)
        assert panel.on_go_on(standing.id, token) == {panel.error: ""}
    assert panel.services.probes.standing(standing.id).is_running


def test_guests_have_only_so_many_pictures_drawn(panel: ProbePanel, shared: None) -> None:
    updates = panel.on_start(form(panel, num_images=GUEST_PICTURES + 1))
    assert f"guests may have {GUEST_PICTURES}" in updates[panel.error]
    assert begun(panel, num_images=GUEST_PICTURES).probe.num_images == GUEST_PICTURES


def test_why_one_failed_is_said(panel: ProbePanel, monkeypatch: pytest.MonkeyPatch) -> None:
    standing = begun(panel)
    services = panel.services.probes
    monkeypatch.setattr(services._scoring, "score_file", lambda *_: None)
    runner = services._runner
    runner.start()
    standing.job.wait(timeout=60)
    runner.stop(timeout=30)
    shown = panel.on_look(standing.id, TOKEN)
    assert "pocket-clip cannot be used" in shown[panel.told] and shown[panel.go_on].visible
