"""What a page does with a picture to begin from: shown, painted on, sent on, and nobody else's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest
from studio.services import Services
from studio.web.access import new_token, visitor_of
from tabs.generate import GenerateTab
from tabs.picture_in import NO_EFFECT, hires_for
from tabs.send_to import Sending

Keep = Callable[[str], ImageRecord]


@pytest.fixture
def sending(tab: GenerateTab) -> Sending:
    return Sending(services=tab.services, ask=tab.ask)


def value(updates: dict[Any, Any], tab: GenerateTab, field: str) -> Any:
    update = updates[tab.ask.form[field]]
    return getattr(update, "value", update)


def uploaded(tab: GenerateTab, path: Path, token: Any, size: tuple[int, int] = (300, 200)) -> dict[Any, Any]:
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)
    return tab.ask.on_picture(str(path), token, "pocket-sd15")


def test_an_upload_is_shown_to_be_painted_on_and_gives_its_size(tab: GenerateTab, tmp_path: Path) -> None:
    updates = uploaded(tab, tmp_path / "a.png", new_token())
    assert [updates[tab.ask.form[side]] for side in ("width", "height")] == [256, 168]
    picture = tab.ask.picture
    assert updates[picture.editor]["background"].size == (300, 200) and updates[picture.editor]["layers"] == []
    assert updates[picture.given].visible and not updates[picture.file].visible
    assert tab.services.sources.open(updates[tab.ask.form["init_image"]]).size == (300, 200)
    gone = tab.ask.on_remove()
    assert gone[tab.ask.form["init_image"]] == "" and not gone[picture.given].visible and gone[picture.file].visible


def test_what_is_no_picture_is_said_where_it_was_dropped(tab: GenerateTab, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<script>alert(1)</script>")
    updates = tab.ask.on_picture(str(tmp_path / "a.png"), new_token(), "pocket-sd15")
    assert "a.png is no PNG, JPEG or WebP picture." in updates[tab.ask.picture.told]
    assert tab.ask.form["init_image"] not in updates


def test_only_what_was_painted_is_a_mask(tab: GenerateTab, tmp_path: Path) -> None:
    token = new_token()
    name = uploaded(tab, tmp_path / "a.png", token)[tab.ask.form["init_image"]]
    picture, layer = tab.ask.picture, Image.new("RGBA", (300, 200))
    assert picture.on_painted(None, name, token) == ""
    assert picture.on_painted({"layers": []}, name, token) == ""
    assert picture.on_painted({"layers": [layer]}, name, token) == ""
    layer.paste((99, 102, 241, 170), (0, 0, 150, 200))
    mask = picture.on_painted({"layers": [layer]}, name, token)
    assert tab.services.sources.open(mask).getextrema() == ((0, 255),) * 3
    assert picture.on_painted({"layers": [layer]}, "", token) == ""
    assert picture.on_cleared(name)["layers"] == []


def test_settings_that_come_back_bring_picture_and_paint(tab: GenerateTab, tmp_path: Path) -> None:
    token = new_token()
    name = uploaded(tab, tmp_path / "a.png", token)[tab.ask.form["init_image"]]
    mask = Image.new("L", (300, 200), 0)
    mask.paste(255, (0, 0, 150, 200))
    painted = tab.services.sources.take(mask, visitor_of(token), "mask")
    updates = tab.on_load(token, {"prompt": "x", "init_image": name, "mask": painted, "strength": 0.4}, None)
    (layer,) = updates[tab.ask.picture.editor]["layers"]
    assert layer.getpixel((10, 10))[3] > 0 and layer.getpixel((290, 10))[3] == 0
    assert (value(updates, tab, "init_image"), value(updates, tab, "strength")) == (name, 0.4)


def test_a_picture_that_is_not_here_is_left_out_and_named(tab: GenerateTab) -> None:
    updates = tab.ask.fill({"prompt": "x", "init_image": "0" * 64, "strength": 0.4}, "Read.", visitor="me")
    assert "the picture that it started from, which is not kept here" in updates[tab.ask.drop_note]
    assert (value(updates, tab, "init_image"), value(updates, tab, "strength")) == ("", 0.75)


def test_another_model_keeps_the_picture_and_takes_its_size(tab: GenerateTab, tmp_path: Path) -> None:
    name = uploaded(tab, tmp_path / "a.png", new_token(), (160, 120))[tab.ask.form["init_image"]]
    data = {component: None for component in tab.ask.form.fields.values()}
    data |= {tab.ask.form["init_image"]: name, tab.ask.form["checkpoint"]: "pocket-sdxl"}
    updates = tab.ask.on_model(data)
    assert (value(updates, tab, "width"), value(updates, tab, "height")) == (160, 120)
    assert tab.ask.on_model(data | {tab.ask.form["checkpoint"]: "sdxl"})[tab.ask.form["width"]].value == 680


def test_buttons_under_a_picture_fill_the_form(tab: GenerateTab, sending: Sending, keep: Keep) -> None:
    token = new_token()
    record = keep(token)
    started, part = sending.on_start(record.id, token), sending.on_part(record.id, token)
    for updates, strength in ((started, 0.75), (part, 0.9)):
        assert tab.services.sources.is_of(visitor_of(token), value(updates, tab, "init_image"))
        found = [value(updates, tab, field) for field in ("prompt", "strength", "seed", "width", "mask")]
        assert found == ["a red circle", strength, -1, 128, ""]
    assert "Paint over what is to change" in part[tab.ask.picture.told]
    larger = sending.on_larger(record.id, token)
    assert [value(larger, tab, field) for field in ("hires_scale", "seed", "init_image")] == [1.5, 7, ""]
    assert larger[tab.ask.hires].open


def test_what_was_made_larger_is_made_larger_still_until_its_model_ends(
    tab: GenerateTab, sending: Sending, services: Services, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    record = keep(token)

    def with_recipe(**values: object) -> None:
        made = record.model_copy(update={"recipe": record.recipe.model_copy(update=values)})
        monkeypatch.setattr("tabs.send_to.own_image", lambda *_: made)

    with_recipe(hires_scale=1.25, hires_steps=25)
    updates = sending.on_larger(record.id, token)
    assert [value(updates, tab, field) for field in ("width", "strength", "hires_scale")] == [240, 0.3, 1.0]
    with_recipe(width=192, height=128)
    with pytest.raises(InvalidRequest, match="draws up to 256 px"):
        sending.on_larger(record.id, token)


def test_on_a_shared_page_nobody_begins_from_the_pictures_of_others(
    tab: GenerateTab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = new_token(), new_token()
    name = uploaded(tab, tmp_path / "a.png", mine)[tab.ask.form["init_image"]]
    monkeypatch.setenv("SPACE_ID", "someone/space")
    hidden = tab.ask.fill({"prompt": "x", "init_image": name}, visitor=visitor_of(other))
    assert hidden[tab.ask.picture.editor] is None and value(hidden, tab, "init_image") == ""
    data = {component: None for component in tab.ask.form.fields.values()}
    data |= {tab.ask.form["prompt"]: "x", tab.ask.form["init_image"]: name}
    refused = tab.on_generate({**data, tab.token: other})
    assert "not one of yours" in refused[tab.ask.errors["init_image"]] and tab.active(other) == []
    tab.on_generate({**data, tab.token: mine})
    assert len(tab.active(mine)) == 1


def test_what_has_no_effect_says_so() -> None:
    assert [(control.interactive, control.info) for control in hires_for(1.0)] == [(False, NO_EFFECT)] * 3
    assert all(control.interactive and control.info != NO_EFFECT for control in hires_for(1.5))


def test_a_mask_without_a_picture_is_one_sentence(tab: GenerateTab) -> None:
    data = {component: None for component in tab.ask.form.fields.values()}
    data |= {tab.ask.form["prompt"]: "x", tab.ask.form["mask"]: "0" * 64, tab.token: new_token()}
    assert "no picture that it belongs to" in tab.on_generate(data)[tab.ask.errors["mask"]]
    assert GenerationRequest(prompt="x").mask == ""
