"""The panel of what a picture keeps to: filled by a picture, emptied again, only where a model has a ControlNet."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.domain.errors import InvalidRequest
from studio.services import Services
from studio.web.access import new_token, visitor_of
from tabs.generate import GenerateTab
from tabs.keep_to import EMPTY, FREE, NONE_YET, KeepTo

EDGES = "edges-pocket-sd15"


@pytest.fixture
def panel(tab: GenerateTab) -> KeepTo:
    return tab.ask.keep_to


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(path)
    return str(path)


def value(updates: dict[Any, Any], component: Any) -> Any:
    update = updates[component]
    return update.value if hasattr(update, "value") else update


def test_a_picture_is_kept_and_the_models_controlnet_chosen(panel: KeepTo, services: Services, picture: str) -> None:
    token = new_token()
    updates = panel.on_given(picture, "pocket-sd15", token)
    name = value(updates, panel.fields["control_image"])
    assert services.sources.is_of(visitor_of(token), name)
    assert value(updates, panel.fields["control"]) == EDGES
    assert updates[panel.preview].visible and not updates[panel.file].visible
    for gone in (panel.on_remove("pocket-sd15"), panel.on_chosen("none", name, "map", 0.5, "pocket-sd15")):
        assert value(gone, panel.fields["control_image"]) == "" and value(gone, panel.fields["control"]) == "none"
        assert not gone[panel.preview].visible and gone[panel.file].visible


def test_a_model_without_one_says_so(panel: KeepTo, tab: GenerateTab) -> None:
    other = tab.ask.catalogue.checkpoint("pocket-sdxl")
    updates = panel.show(FREE, other)
    assert NONE_YET in updates[panel.told] and not updates[panel.file].interactive
    assert EMPTY in panel.show(FREE, tab.ask.catalogue.checkpoint("pocket-sd15"))[panel.told]


def test_what_is_no_picture_is_said_beside_it(panel: KeepTo, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>")
    updates = panel.on_given(str(tmp_path / "page.png"), "pocket-sd15", new_token())
    assert "Choose another picture" in updates[panel.told]


def test_the_settings_of_a_picture_bring_it_back_and_another_model_leaves_it_out(
    tab: GenerateTab, services: Services, picture: str
) -> None:
    token = new_token()
    name = services.sources.take(picture, visitor_of(token), "control_image")
    kept = {"prompt": "a", "checkpoint": "pocket-sd15", "control": EDGES, "control_image": name, "control_scale": 0.5}
    panel = tab.ask.keep_to
    updates = tab.ask.fill(kept, visitor=visitor_of(token))
    assert value(updates, panel.fields["control_scale"]) == 0.5
    assert value(updates, panel.fields["control_image"]) == name
    other = tab.ask.fill({**kept, "checkpoint": "pocket-sd21"}, visitor=visitor_of(token))
    assert value(other, panel.fields["control_image"]) == ""


def test_a_stranger_cannot_keep_to_it_on_a_shared_page(tab: GenerateTab, services: Services, picture: str) -> None:
    name = services.sources.take(picture, visitor_of(new_token()), "control_image")
    request = tab.ask.form.read(
        {
            component: {"prompt": "a", "control": EDGES, "control_image": name}.get(field)
            for field, component in tab.ask.form.fields.items()
        }
    )
    shared = services.settings.model_copy(update={"share": True})
    strict = type(tab.ask.picture)(**{**vars(tab.ask.picture), "settings": shared})
    with pytest.raises(InvalidRequest, match="not one of yours"):
        strict.check_own(request, visitor_of(new_token()))
