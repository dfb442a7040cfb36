import json
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest

from studio.domain.errors import NotFound
from studio.domain.images import ImageRecord
from studio.services import Services
from studio.web.access import new_token
from tabs.generate import GenerateTab

Keep = Callable[[str], ImageRecord]


def asked(tab: GenerateTab, token: Any, **values: object) -> dict:
    data = {component: values.get(name) for name, component in tab.ask.form.fields.items()}
    return {**data, tab.token: token}


def test_generate_puts_a_job_of_this_visitor_in_line(tab: GenerateTab) -> None:
    token = new_token()
    updates = tab.on_generate(asked(tab, token, prompt="a red circle"))
    assert [job.id for job in tab.active(token)] == [updates[tab.signal]]
    assert tab.active(new_token()) == []


def test_a_wrong_value_starts_nothing_and_shows_next_to_its_control(tab: GenerateTab) -> None:
    token = new_token()
    updates = tab.on_generate(asked(tab, token, prompt="a red circle", seed=-5))
    assert "Seed" in updates[tab.ask.errors["seed"]]
    assert tab.active(token) == []


def test_stop_ends_only_jobs_of_its_visitor(tab: GenerateTab) -> None:
    mine, other = new_token(), new_token()
    for token in (mine, other):
        tab.on_generate(asked(tab, token, prompt="a red circle"))
    tab.on_stop(mine)
    assert (len(tab.active(mine)), len(tab.active(other))) == (0, 1)


@pytest.mark.parametrize("token", [None, "", "local", 7, "short", "x" * 100])
def test_what_is_no_token_of_ours_finds_nothing_and_gets_a_new_one(tab: GenerateTab, token: Any) -> None:
    assert tab.active(token) == []
    assert tab.on_load(token, None, None)[tab.token] not in (token, None)


def test_a_reload_brings_settings_jobs_and_pictures_back(tab: GenerateTab, keep: Keep) -> None:
    token = new_token()
    job_id = tab.on_generate(asked(tab, token, prompt="a red circle"))[tab.signal]
    updates = tab.on_load(token, {"prompt": "a blue ring", "seed": 3}, [keep(token).id, "gone"])
    assert updates[tab.signal] == job_id
    assert updates[tab.ask.form["prompt"]] == "a blue ring"
    assert len(json.loads(updates[tab.result.strip])["pictures"]) == 1


def test_a_picture_finished_while_nobody_looked_is_shown(tab: GenerateTab, keep: Keep) -> None:
    token = new_token()
    shown, missed = keep(token), keep(token)
    updates = tab.on_load(token, None, [shown.id])
    assert updates[tab.result.shown_id] == missed.id
    assert [cell["id"] for cell in json.loads(updates[tab.result.strip])["pictures"]] == [missed.id, shown.id]


def test_settings_kept_by_another_version_do_no_harm(tab: GenerateTab) -> None:
    updates = tab.on_load(new_token(), {"prompt": "x", "checkpoint": "gone", "scheduler": "gone", "old": 1}, "junk")
    assert updates[tab.ask.form["checkpoint"]].value == "pocket-sd15"


def test_star_and_delete_reach_the_gallery(tab: GenerateTab, keep: Keep, services: Services) -> None:
    token = new_token()
    first, second = keep(token), keep(token)
    assert tab.on_star(first.id, token, [first.id])[tab.result.star] == "★ Starred"
    assert services.gallery.image(first.id).is_starred
    left = tab.on_delete(first.id, token, [first.id, second.id])
    assert left[tab.result.shown_id] == second.id
    with pytest.raises(NotFound):
        services.gallery.image(first.id)


def test_on_a_shared_page_nobody_touches_the_pictures_of_others(
    tab: GenerateTab, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/space")
    record = keep(new_token())
    for act in (tab.on_star, tab.on_delete):
        with pytest.raises(NotFound):
            act(record.id, new_token(), [])


def test_an_empty_stage_offers_a_prompt_that_suits_the_model(
    tab: GenerateTab, keep: Callable[[str], ImageRecord]
) -> None:
    token = new_token()
    assert "lighthouse" in json.loads(tab.on_model("sd15", None, token))["example"]
    assert "heart" in json.loads(tab.on_model("pocket-sd15", "", token))["example"]
    assert tab.on_model("sd15", keep(token).id, token) == gr.skip()


def test_a_job_that_was_over_before_anybody_looked_is_told_once_and_only_to_its_owner(tab: GenerateTab) -> None:
    token = new_token()
    job_id = tab.on_generate(asked(tab, token, prompt="a red circle"))[tab.signal]
    tab.on_stop(token)
    seen = {tab.token: token, tab.result.recent: [], tab.signal: job_id, tab.told: None}
    updates = list(tab.follow(seen))
    assert {tab.told: job_id} in updates
    assert any("Stopped" in str(update.get(tab.result.stage)) for update in updates)
    assert len(list(tab.follow({**seen, tab.told: job_id}))) == 1
    assert len(list(tab.follow({**seen, tab.token: new_token()}))) == 1


def test_a_picture_that_was_made_before_is_shown_and_said_so(tab: GenerateTab, keep: Keep, services: Services) -> None:
    token = new_token()
    earlier, latest = keep(token), keep(token)
    job_id = tab.on_generate(asked(tab, token, prompt="a red circle", seed=7))[tab.signal]
    assert services.gallery.reuse(job_id, 0, earlier)
    services.ledger.finish_job(job_id, "done", summary={})
    recent = [latest.id, earlier.id]
    *_, shown, _, _ = tab.follow({tab.token: token, tab.result.recent: recent, tab.signal: job_id, tab.told: None})
    assert shown[tab.result.shown_id] == earlier.id
    assert f"Made before, on {earlier.made_on}; nothing was drawn again." in shown[tab.result.stage]
    assert [cell["id"] for cell in json.loads(shown[tab.result.strip])["pictures"]] == [earlier.id, latest.id]


def test_how_a_job_ended_is_sent_once_more_and_no_more(tab: GenerateTab) -> None:
    token = new_token()
    job_id = tab.on_generate(asked(tab, token, prompt="a red circle"))[tab.signal]
    tab.on_stop(token)
    data = {tab.token: token, tab.result.recent: [], tab.told: job_id, tab.settled: None}
    updates = tab.on_told(data)
    assert "Stopped" in updates[tab.result.stage]
    assert updates[tab.settled] == job_id
    assert tab.on_told({**data, tab.settled: job_id}) == {tab.settled: job_id}
    assert tab.on_told({**data, tab.token: new_token()}) == {tab.settled: job_id}
