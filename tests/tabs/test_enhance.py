"""Suggestions below the prompt: shown before they are used, undone as easily, kept with the picture."""

import json
from dataclasses import replace

import gradio as gr
import pytest

from studio.domain.enhancement import Enhancement, Suggestion
from studio.services import Services
from studio.web.access import new_token, visitor_of
from tabs.ask_layout import build_ask
from tabs.enhance import Enhance, build_enhance, origin, shown
from tests.studio.records import new_image, picture


@pytest.fixture
def enhance(services: Services) -> Enhance:
    with gr.Blocks():
        return build_enhance(services, build_ask(services.catalogue, services.sources, services.settings))


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


def test_suggestions_come_with_difference_and_reason_and_the_prompt_stays(enhance: Enhance) -> None:
    waiting, found = enhance.on_enhance("a crimson ball", "pocket-sd15", new_token())
    assert "Looking" in json.loads(waiting[enhance.suggestions])["note"]
    assert enhance.ask.form["prompt"] not in waiting and enhance.ask.form["prompt"] not in found
    told = json.loads(found[enhance.suggestions])
    assert len(told["items"]) == 3
    for item in told["items"]:
        assert item["why"] and "crimson" in "".join(text for kind, text in item["pieces"] if kind == "removed")
        assert "".join(text for kind, text in item["pieces"] if kind != "removed") == item["prompt"]


def test_others_are_others(enhance: Enhance) -> None:
    token = new_token()
    *_, first = enhance.on_enhance("a ball", "pocket-sd15", token)
    started, second = enhance.on_more("a ball", "pocket-sd15", token, 0)
    assert started[enhance.turn] == 1
    prompts = [{item["prompt"] for item in json.loads(each[enhance.suggestions])["items"]} for each in (first, second)]
    assert prompts[0] != prompts[1]


def test_what_is_taken_can_be_taken_back(enhance: Enhance) -> None:
    prompt, original = (enhance.ask.form[name] for name in ("prompt", "original_prompt"))
    taken = enhance.on_take("a ball", "", event(prompt="a red circle"))
    assert (taken[prompt], taken[original]) == ("a red circle", "a ball")
    assert json.loads(taken[enhance.suggestions]) == {}
    again = enhance.on_take("a red circle", "a ball", event(prompt="a large red circle"))
    assert (again[prompt], again[original]) == ("a large red circle", "a ball")
    back = enhance.on_back("a ball")
    assert (back[prompt], back[original]) == ("a ball", "")
    assert json.loads(origin("a ball"))["note"] == "From your words: “a ball”"
    assert json.loads(origin("")) == {}


def test_both_texts_are_in_the_recipe(enhance: Enhance) -> None:
    form = enhance.ask.form
    values = {"prompt": "a red circle", "original_prompt": "a ball"}
    request = form.read({component: values.get(name) for name, component in form.fields.items()})
    assert (request.prompt, request.original_prompt) == ("a red circle", "a ball")


def test_earlier_prompts_are_ones_own_and_each_there_once(enhance: Enhance, services: Services) -> None:
    token = new_token()
    drawn = (("a red star", ""), ("a red ring", "a {red|blue} ring"), ("a red star", ""))
    for index, (prompt, typed) in enumerate(drawn):
        new = replace(new_image(f"job {index}", prompt=prompt, typed_prompt=typed), visitor=visitor_of(token))
        services.gallery.save(picture(index), new)
    told = enhance.on_earlier(token)
    assert json.loads(told[enhance.prompts])["texts"] == ["a red star", "a {red|blue} ring"]
    nobody = enhance.on_earlier(new_token())
    assert json.loads(nobody[enhance.prompts])["texts"] == []
    assert "none yet" in json.loads(nobody[enhance.suggestions])["note"]
    picked = enhance.on_pick(event(text="a red star"))
    assert picked[enhance.ask.form["prompt"]] == "a red star"
    assert json.loads(picked[enhance.prompts])["texts"] == []


def test_who_suggested_is_said() -> None:
    one = (Suggestion(prompt="a cat asleep", why="So."),)
    told = json.loads(shown(Enhancement(original="a cat", suggestions=one, source="groq", model="openai/gpt-oss-20b")))
    assert told["note"] == "Suggested by openai/gpt-oss-20b at Groq."
    nothing = json.loads(shown(Enhancement(original="a cat", suggestions=(), source="rules")))
    assert "nothing to add" in nothing["note"]
