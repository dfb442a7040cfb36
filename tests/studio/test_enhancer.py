"""Prompts become better with a reason: by rule, and by a language model that may answer anything or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engines.pocket.checker import judge
from engines.pocket.grammar import parse, unknown_words
from engines.pocket.world import render
from studio.domain.catalogue import Catalogue
from studio.domain.chat import ChatFailed
from studio.domain.errors import InvalidRequest
from studio.enhancer import EnhancerService
from studio.groq_chat import GroqChat
from studio.services import Services
from studio.settings import Settings
from studio.token_count import count_tokens
from tests.studio.conftest import Cli
from tests.studio.groq_server import KEY, GroqServer, Reply, groq_server, problem, said

FULL = ("sd15", "sd21", "sdxl")
POCKET = ("pocket-sd15", "pocket-sd21", "pocket-sdxl")


@pytest.fixture
def enhancer(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EnhancerService]:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    settings = Settings(data_dir=tmp_path)
    chat = GroqChat(settings)
    yield EnhancerService(catalogue, chat, settings)
    chat.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, enhancer: EnhancerService) -> Iterator[GroqServer]:
    with groq_server() as server:
        monkeypatch.setenv("GROQ_API_KEY", KEY)
        monkeypatch.setenv("GROQ_BASE_URL", server.url)
        yield server


def told(*prompts: str, **more: Any) -> Reply:
    rows = [{"prompt": prompt, "why": "Because."} for prompt in prompts]
    return said(json.dumps({"suggestions": rows}), **more)


def test_without_a_key_the_rules_suggest_with_a_reason_and_that_is_said_once(enhancer: EnhancerService) -> None:
    first = enhancer.enhance("a crimson ball")
    assert (first.source, first.model) == ("rules", "")
    assert "no key for Groq" in first.note and "GROQ_API_KEY" in first.note
    assert len(first.suggestions) == 3 and all(each.why for each in first.suggestions)
    assert enhancer.enhance("a crimson ball").note == ""
    assert enhancer.enhance("a crimson ball", visitor="another").note


@pytest.mark.parametrize("checkpoint", POCKET)
@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("crimson ball", {("red", "circle", 1)}), ("two golden discs", {("yellow", "circle", 2)}),
        ("a pair of hearts", {(None, "heart", 2)}), ("3 blue boxes please", {("blue", "square", 3)}),
        ("a violet gem beside a lime donut", {("purple", "diamond", 1), ("green", "ring", 1)}),
    ],
)  # fmt: skip
def test_a_pocket_model_is_asked_in_its_own_words_for_what_was_meant(
    enhancer: EnhancerService, checkpoint: str, prompt: str, things: set[tuple[str | None, str, int]]
) -> None:
    for each in enhancer.enhance(prompt, checkpoint).suggestions:
        assert unknown_words(each.prompt) == ()
        scene = parse(each.prompt)
        assert scene is not None
        for colour, shape, count in things:
            assert any((thing.shape, thing.count) == (shape, count) for thing in scene.things)
            assert colour is None or colour in {thing.colour for thing in scene.things}


def test_what_it_names_already_stays(enhancer: EnhancerService) -> None:
    for each in enhancer.enhance("a small red star at the top on a navy background").suggestions:
        scene = parse(each.prompt)
        assert scene is not None and scene.background == "navy"
        (thing,) = scene.things
        assert (thing.colour, thing.shape, thing.size, thing.place) == ("red", "star", "small", "top")


def test_the_enhanced_prompt_draws_what_was_meant_more_often(services: Services) -> None:
    """Of words that the model never learnt, it makes something else; of the suggestion, what the words mean."""
    wanted = {
        "a crimson ball": ("red", "circle"),
        "a golden kite": ("yellow", "diamond"),
        "violet donut": ("purple", "ring"),
    }

    def drawn(prompt: str, colour: str, shape: str) -> int:
        scene = parse(f"a {colour} {shape} on a white background")
        assert scene is not None
        right = 0
        for record in services.generate(prompt, seed=40, num_images=4, num_inference_steps=8):
            verdict = judge(Image.open(services.gallery.path(record)), scene)
            right += verdict.presence
        return right

    typed = sum(drawn(prompt, *thing) for prompt, thing in wanted.items())
    enhanced = {prompt: services.enhancer.enhance(prompt).suggestions[0].prompt for prompt in wanted}
    better = sum(drawn(enhanced[prompt], *thing) for prompt, thing in wanted.items())
    assert better >= typed + 4 and better >= 9


@pytest.mark.parametrize("checkpoint", FULL)
def test_a_large_model_is_told_medium_light_and_framing_within_one_chunk(
    enhancer: EnhancerService, catalogue: Catalogue, checkpoint: str
) -> None:
    found = enhancer.enhance("a cat on a sofa", checkpoint)
    assert len({each.prompt for each in found.suggestions}) == 3
    for each in found.suggestions:
        assert "a cat on a sofa" in each.prompt
        assert "medium" in each.why and "light" in each.why
        assert not count_tokens(catalogue.checkpoint(checkpoint), each.prompt).beginnings
    named = enhancer.enhance("portrait of a sailor, oil painting, candlelight", checkpoint)
    assert all("photograph" not in each.prompt for each in named.suggestions)


@pytest.mark.parametrize("checkpoint", ["pocket-sd15", "sdxl"])
def test_nothing_typed_gives_ideas_and_another_seed_others(enhancer: EnhancerService, checkpoint: str) -> None:
    ideas = [each.prompt for each in enhancer.enhance("", checkpoint, seed=1).suggestions]
    assert len(set(ideas)) == 3 and all(ideas)
    assert ideas == [each.prompt for each in enhancer.enhance("", checkpoint, seed=1).suggestions]
    assert ideas != [each.prompt for each in enhancer.enhance("", checkpoint, seed=2).suggestions]


def test_a_language_model_is_asked_for_words_and_gets_neither_tags_nor_weights(
    enhancer: EnhancerService, server: GroqServer
) -> None:
    server.answer = lambda request, place: told("a red cat asleep on a sofa", "a red cat in the rain")
    found = enhancer.enhance("a (red:1.3) cat <lora:secret-name:0.8>", "sd15")
    assert (found.source, found.model, found.note) == ("groq", "openai/gpt-oss-20b", "")
    assert [each.prompt for each in found.suggestions] == [
        "a (red:1.3) cat asleep on a sofa <lora:secret-name:0.8>", "a (red:1.3) cat in the rain <lora:secret-name:0.8>",
    ]  # fmt: skip
    (request,) = server.requests
    assert request["messages"][-1] == {"role": "user", "content": "a red cat"}
    assert "secret-name" not in json.dumps(request) and KEY not in json.dumps(request)


@pytest.mark.parametrize(
    "reply",
    [
        said("Sure! Here is a prompt."), said("{"), said('{"suggestions": "a cat"}'),
        said('{"suggestions": [1, null]}'), told(""), told("a cat"), told("I'm sorry, I can't help with that."),
        told("x" * 5000), said(None), told("A cat", "A CAT"), problem(429, retry_after="3600"), problem(500),
        problem(401), problem(413), Reply(drop=True), Reply(body=b"<html>"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_the_rules_take_over_at_once(
    enhancer: EnhancerService, server: GroqServer, reply: Reply
) -> None:
    server.answer = lambda request, place: reply
    found = enhancer.enhance("a cat", "sd15")
    assert found.source == "rules" and found.note and found.suggestions
    assert KEY not in found.note and len(server.requests) <= 1
    assert enhancer.enhance("a cat", "sd15").note == ""


def test_a_retired_model_is_followed_by_the_next(enhancer: EnhancerService, server: GroqServer) -> None:
    server.models = ["openai/gpt-oss-120b"]
    server.answer = lambda request, place: told("a cat asleep")
    assert enhancer.enhance("a cat", "sd15").model == "openai/gpt-oss-120b"


def test_words_that_a_pocket_model_does_not_know_are_not_taken(enhancer: EnhancerService, server: GroqServer) -> None:
    server.answer = lambda request, place: told("a majestic red circle", "a large red circle on a white background")
    found = enhancer.enhance("a red circle")
    assert [each.prompt for each in found.suggestions] == ["a large red circle on a white background"]
    assert "knows only these words" in server.requests[0]["messages"][0]["content"]


def test_brackets_of_a_language_model_weigh_nothing(enhancer: EnhancerService, server: GroqServer) -> None:
    server.answer = lambda request, place: told("a (cat:1.9) in [bright] light <lora:evil:9>")
    (each,) = enhancer.enhance("a cat", "sd15").suggestions
    assert each.prompt == "a cat in bright light"


def test_one_visitor_cannot_use_up_the_owners_key(enhancer: EnhancerService, server: GroqServer) -> None:
    server.answer = lambda request, place: told("a cat asleep")
    found = [enhancer.enhance("a cat", "sd15", visitor="one") for _ in range(22)]
    assert [each.source for each in found] == ["groq"] * 20 + ["rules"] * 2
    assert "very often" in found[20].note
    assert enhancer.enhance("a cat", "sd15", visitor="two").source == "groq"
    assert len(server.requests) == 21


def test_a_scene_is_described_exactly_and_free(enhancer: EnhancerService, server: GroqServer, tmp_path: Path) -> None:
    scene = parse("a large red star on a navy background")
    assert scene is not None
    render(scene, 3, 256).save(tmp_path / "scene.png")
    found = enhancer.describe(tmp_path / "scene.png")
    assert [each.prompt for each in found.suggestions] == ["a large red star on a navy background"]
    assert server.requests == []


def test_a_language_model_looks_at_other_pictures(
    enhancer: EnhancerService, server: GroqServer, tmp_path: Path
) -> None:
    server.answer = lambda request, place: told("a grey gradient", "a soft (grey:1.4) gradient")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "picture.jpg")
    found = enhancer.describe(tmp_path / "picture.jpg", "sdxl")
    assert [each.prompt for each in found.suggestions] == ["a grey gradient", "a soft grey gradient"]
    (request,) = server.requests
    assert request["model"] == "qwen/qwen3.6-27b"
    assert request["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_who_cannot_describe_says_why(enhancer: EnhancerService, tmp_path: Path) -> None:
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "picture.png")
    with pytest.raises(ChatFailed, match="no key for Groq"):
        enhancer.describe(tmp_path / "picture.png", "sdxl")
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(InvalidRequest, match="picture"):
        enhancer.describe(tmp_path / "page.png")


def test_how_many_there_can_be(enhancer: EnhancerService) -> None:
    assert len(enhancer.enhance("a red circle", count=1).suggestions) == 1
    for count in (0, 7):
        with pytest.raises(InvalidRequest, match="suggestions"):
            enhancer.enhance("a red circle", count=count)


def test_the_command_line_prints_prompts_and_tells_reasons_beside(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    code, out, err = cli("enhance", "a crimson ball", "--count", "2", "--model", "pocket-sdxl")
    assert code == 0 and len(out.splitlines()) == 2
    assert all("red circle" in line for line in out.splitlines()) and "red for “crimson”" in err
    code, out, err = cli("enhance", "a crimson ball", "--json", "--by-rule")
    assert code == 0 and json.loads(out)["source"] == "rules" and err == ""
    assert cli("enhance", "a ball", "--count", "9")[0] == 2
    assert cli("enhance", "a ball", "--model", "none")[0] == 1
