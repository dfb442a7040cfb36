"""The balance panel: what is asked becomes a probe, what comes of it fills in, and nobody else sees it."""

import csv
import html
import io
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studio.domain.cells import CellResult
from studio.domain.probe import Answer
from studio.gallery import NewImage
from studio.probe import ProbeService, ProbeStanding
from studio.services import Services
from studio.web.access import new_token, visitor_of
from studio.web.probe_routes import probe_routes
from tabs.probe import GUEST_PICTURES, ProbePanel, attributes_of, build_probe
from tabs.visitor import build_browser_state

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
        "num_images": 24, "seed": 0, "accelerator": "none", "num_inference_steps": 20, **values,
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


def test_the_model_decides_which_accelerators_and_steps_there_are(panel: ProbePanel) -> None:
    catalogue = panel.services.catalogue
    accelerator, steps = panel.form["accelerator"], panel.form["num_inference_steps"]
    row = catalogue.accelerators_for(catalogue.checkpoint("pocket-sd15"))[0]
    assert panel.on_accelerator("pocket-sd15", row.id) == row.default_steps
    assert panel.on_accelerator("pocket-sd15", "none") == catalogue.checkpoint("pocket-sd15").default_steps
    other = next(each for each in catalogue.checkpoints if not catalogue.accelerators_for(each))
    shown = panel.on_model(other.id)
    assert not shown[accelerator].interactive and shown[steps] == other.default_steps
    assert [value for _, value in panel.on_model("pocket-sd15")[accelerator].choices][:2] == ["none", row.id]
    recipe = begun(panel, accelerator=row.id, num_inference_steps=3).probe.recipe
    assert (recipe.accelerator, recipe.num_inference_steps) == (row.id, 3)
    assert recipe.guidance_scale == row.default_guidance and recipe.scheduler == row.scheduler
    updates = panel.on_start(form(panel, checkpoint=other.id, accelerator=row.id))
    assert "was not made for" in updates[panel.error]


def test_how_much_it_is_and_how_long_it_takes_is_told_before(panel: ProbePanel, services: Services) -> None:
    assert "24 pictures." in panel.on_form(form(panel, prompt=""))
    recipe = begun(panel).probe.recipe
    new = NewImage(
        job_id="0", visitor="", image_index=0, recipe=recipe, prompt_as_run=recipe.prompt, negative_as_run="",
        environment={}, seconds={"total": 2.5}, peak_memory_mb=1.0,
    )  # fmt: skip
    services.gallery.save(Image.new("RGB", (16, 16), "red"), new)
    assert "24 pictures, about 60 s." in panel.on_form(form(panel))
    assert "120 pictures, about 5 min." in panel.on_form(form(panel, num_images=120))
    assert "24 pictures, about 30 s." in panel.on_form(form(panel, num_inference_steps=10)), "half the steps"
    assert "1 picture, about" in panel.on_form(form(panel, num_images=1, attributes="own", own=" "))
    assert "number of pictures must be" in panel.on_form(form(panel, num_images=0))
    assert "no faces" in panel.on_form(form(panel, attributes="faces"))


def test_earlier_ones_are_offered_and_show_when_they_are_chosen(panel: ProbePanel) -> None:
    assert panel.on_load(None, None)[panel.earlier].visible is False
    first = begun(panel)
    second = begun(panel, prompt="a <b>heart</b> on a background that somebody described at much too great a length")
    offered = panel.on_load(second.id, TOKEN)[panel.earlier]
    assert [value for _, value in offered.choices] == [second.id, first.id] and offered.value == second.id
    assert "a star on a white background · 24 pictures" in offered.choices[1][0] and len(offered.choices[0][0]) < 90
    assert set(panel.on_load(second.id, TOKEN)) <= set(panel.outputs)
    answer(first, 5)
    shown = panel.on_choose(first.id, TOKEN)
    assert shown[panel.shown] == first.id and "5 of 24" in shown[panel.told]
    assert "a star on a white background" in shown[panel.told]
    gone = panel.on_load("gone", TOKEN)[panel.earlier]
    assert gone.value is None and len(gone.choices) == 2


def test_what_is_known_so_far_can_be_taken_along(panel: ProbePanel) -> None:
    standing = begun(panel)
    button = panel.exports["images.csv"]
    assert panel.on_look(standing.id, TOKEN)[button].visible is False
    answer(standing, 5)
    standing.folder.note(CellResult(index=5, problem="all black"))
    shown = panel.on_look(standing.id, TOKEN)[button]
    assert shown.visible is True and shown.link == f"probes/{standing.id}/images.csv"
    client = TestClient(Starlette(routes=probe_routes(panel.services.probes)))
    for name, kind in (("report.html", "html"), ("images.csv", "csv"), ("results.json", "json")):
        got = client.get(f"/probes/{standing.id}/{name}")
        assert got.status_code == 200 and kind in got.headers["content-type"]
        assert got.headers["content-disposition"].startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(client.get(f"/probes/{standing.id}/images.csv").text)))
    assert [row["seed"] for row in rows] == list("012345") and [row["Colour"] for row in rows] == ["brown"] * 5 + [""]
    assert rows[0]["cosine Colour brown"] == "0.9" and rows[5]["problem"] == "all black"
    told = client.get(f"/probes/{standing.id}/results.json").json()
    assert told["status"] == "running" and told["judged"] == 5 and told["probe"]["num_images"] == 24
    assert [each["name"] for each in told["attributes"]] == ["Colour", "Shape", "Background"]
    assert LIMIT in " ".join(told["limits"]) and len(told["pictures"]) == 5
    for gone in (f"{standing.id}/probe.json", "gone/report.html"):
        assert client.get(f"/probes/{gone}").status_code == 404


def test_a_table_of_pictures_holds_no_formula(panel: ProbePanel) -> None:
    standing = begun(panel, prompt="=1+1", attributes="own", own="@x: brown, blue")
    answer(standing, 1)
    client = TestClient(Starlette(routes=probe_routes(panel.services.probes)))
    names, row = csv.reader(io.StringIO(client.get(f"/probes/{standing.id}/images.csv").text))
    assert "'=1+1" in row and "'@x" in names and not any(each[:1] in "=+-@" for each in (*names, *row) if each)


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
        assert "of 24" not in panel.on_choose(standing.id, token)[panel.told]
        assert panel.on_load(standing.id, token)[panel.earlier].choices == []
    assert len(panel.on_load(None, TOKEN)[panel.earlier].choices) == 1
    assert panel.services.probes.standing(standing.id).is_running


def test_guests_have_only_so_many_pictures_drawn(panel: ProbePanel, shared: None) -> None:
    updates = panel.on_start(form(panel, num_images=GUEST_PICTURES + 1))
    assert f"guests may have {GUEST_PICTURES}" in updates[panel.error]
    assert begun(panel, num_images=GUEST_PICTURES).probe.num_images == GUEST_PICTURES


def test_why_one_failed_is_said(panel: ProbePanel, monkeypatch: pytest.MonkeyPatch) -> None:
    standing = begun(panel)
    services = panel.services.probes
    monkeypatch.setattr(services._scoring, "score_texts", lambda *_: None)
    runner = services._runner
    runner.start()
    standing.job.wait(timeout=60)
    runner.stop(timeout=30)
    shown = panel.on_look(standing.id, TOKEN)
    assert "pocket-clip cannot be used" in shown[panel.told] and shown[panel.go_on].visible
