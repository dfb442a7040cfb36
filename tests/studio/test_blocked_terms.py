"""What a host does not have drawn."""

from collections.abc import Iterator

import pytest

from engines.base import Engine
from studio.blocked_terms import BlockedTerms
from studio.domain.errors import InvalidRequest, StudioError
from studio.domain.evaluation import EvaluationRequest
from studio.domain.flash import FlashRequest
from studio.domain.probe import ProbeRequest
from studio.domain.request import GenerationRequest
from studio.generation import EngineHolder
from studio.services import Services, open_services
from studio.settings import Settings

CIRCLE = "a red circle on a white background"


@pytest.fixture
def guarded(settings: Settings, engine: Engine) -> Iterator[Services]:
    own = settings.model_copy(update={"blocked_terms": "Heart, green  square , "})
    with open_services(own, engine=EngineHolder(lambda: engine)) as services:
        yield services


@pytest.mark.parametrize(
    "prompt",
    ["a heart", "A HEART.", "a (heart:1.3)", "a he(art)", "[heart] BREAK x", "ｈｅａｒｔ", "he\u200bart",
     "{heart|circle}", "a green square", "a (green) square", "a GREEN, square"],
)  # fmt: skip
def test_a_term_is_found_however_it_is_written(prompt: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        BlockedTerms(("Heart", "green  square")).check("fine", prompt)
    assert caught.value.field == "prompt"
    assert "heart" not in str(caught.value).casefold() and "green" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["hearty", "hearts and diamonds", "a green circle, a square", "squares, green", ""])
def test_other_words_are_left_alone(prompt: str) -> None:
    BlockedTerms(("heart", "green square", " ", "!")).check(prompt)


def test_every_way_of_drawing_refuses_it(guarded: Services) -> None:
    ways = (
        lambda: guarded.generation.submit(GenerationRequest(prompt="a pink heart")),
        lambda: guarded.generation.submit(GenerationRequest(prompt=CIRCLE, original_prompt="a pink heart")),
        lambda: guarded.flash.submit(FlashRequest(prompts=(CIRCLE, "a pink heart"), accelerator="flash-pocket-sd15")),
        lambda: guarded.evaluations.submit(
            EvaluationRequest.model_validate({"systems": [{}, {"num_inference_steps": 2}],
                                              "prompts": [CIRCLE, "a pink heart"]})
        ),
        lambda: guarded.probes.submit(ProbeRequest(prompt="a pink heart")),
    )  # fmt: skip
    for way in ways:
        with pytest.raises(InvalidRequest, match="host of this studio"):
            way()
    assert guarded.runner.active("local") == []


def test_it_is_not_suggested_either(guarded: Services) -> None:
    with pytest.raises(InvalidRequest, match="host of this studio"):
        guarded.enhancer.enhance("a pink heart", by_rule=True)
    ideas = [guarded.enhancer.enhance("", seed=seed, count=6, by_rule=True).suggestions for seed in range(30)]
    prompts = [each.prompt for idea in ideas for each in idea]
    assert len(prompts) > 60 and not any("heart" in prompt or "green square" in prompt for prompt in prompts)


def test_what_chance_puts_together_is_not_drawn_either(guarded: Services) -> None:
    job = guarded.generation.submit(GenerationRequest(prompt="a pink {he|he}{art|art}", num_inference_steps=2))
    with pytest.raises(StudioError, match="host of this studio"):
        job.result()
    assert guarded.gallery.find() == []


def test_without_terms_nothing_is_refused(services: Services) -> None:
    assert services.generate("a pink heart on a white background", num_inference_steps=2)
