"""What a prompt leaves open is chosen by the seed, kept as typed and as chosen, and comes back exactly."""

from pathlib import Path

import pytest

from studio.domain.choices import leaves_open
from studio.domain.errors import InvalidRequest
from studio.domain.evaluation import parse_evaluation
from studio.domain.events import Finished
from studio.domain.flash import FlashRequest
from studio.domain.request import GenerationRequest
from studio.generation import job_images
from studio.infotext import infotext, request_from_infotext
from studio.services import Services
from studio.wildcards import Wildcards

OPEN = "a {red|blue|green|yellow} __shape__ on a white background"


def test_each_picture_of_a_job_gets_its_own_choice_and_keeps_both(services: Services) -> None:
    request = GenerationRequest(prompt=OPEN, seed=20, num_images=4, num_inference_steps=2)
    job = services.generation.submit(request)
    assert isinstance(job.wait(timeout=120), Finished)
    records = job_images(job, services.gallery)
    assert {record.recipe.typed_prompt for record in records} == {OPEN}
    prompts = [record.recipe.prompt for record in records]
    assert len(set(prompts)) > 1 and not any("{" in prompt or "__" in prompt for prompt in prompts)
    assert [record.prompt_as_run for record in records] == prompts
    # The third alone, by its own seed, is the third of the four: drawn once.
    (alone,) = services.generate(OPEN, seed=22, num_inference_steps=2)
    assert alone.id == records[2].id
    told = infotext(records[0], services.catalogue)
    assert told.startswith(prompts[0])
    found = request_from_infotext(told, services.catalogue).request
    assert (found.prompt, found.typed_prompt) == (prompts[0], OPEN)


def test_a_choice_is_drawn_and_made_again_though_the_list_is_another_by_then(services: Services) -> None:
    folder = services.settings.wildcards_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "things.txt").write_text("# two\n\na large red circle\n", encoding="utf-8")
    (record,) = services.generate("__things__ on a white background", seed=3)
    assert record.recipe.prompt == "a large red circle on a white background"
    (folder / "things.txt").write_text("a small blue star\n", encoding="utf-8")
    job = services.reproduction.submit(record.id)
    ended = job.wait(timeout=120)
    assert isinstance(ended, Finished) and ended.summary["judgement"] == "identical"
    (other,) = services.generate("__things__ on a white background", seed=3, num_inference_steps=2)
    assert other.recipe.prompt == "a small blue star on a white background"


def test_lists_that_are_not_there_are_refused_before_anything_waits(services: Services) -> None:
    with pytest.raises(InvalidRequest, match="no list __colours__") as caught:
        services.generate("a __colours__ circle")
    assert "__colour__" in caught.value.hint
    with pytest.raises(InvalidRequest, match="no list"):
        services.generate("a __a/../../b__ circle")
    assert not leaves_open("a __../secrets__ circle") and not leaves_open("a __/etc/passwd__ circle")


def test_a_list_of_ones_own_goes_first_and_may_lie_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "inks").mkdir()
    (tmp_path / "inks" / "dark.txt").write_text("sepia\n", encoding="utf-8")
    (tmp_path / "colour.txt").write_text("ochre\r\n", encoding="utf-8-sig")
    lists = Wildcards(tmp_path)
    assert lists.lines("inks/dark") == ("sepia",)
    assert lists.lines("colour") == ("ochre",)
    assert lists.lines("shape")
    assert {"inks/dark", "colour", "medium"} <= set(lists.names())


def test_a_link_out_of_the_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret\n", encoding="utf-8")
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "way.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidRequest):
        Wildcards(folder).lines("way")


def test_a_comparison_of_steps_draws_the_same_choice_in_every_column(services: Services) -> None:
    request = FlashRequest(prompts=(OPEN,), steps=(1, 2), baseline_steps=2, num_images=2, seed=31)
    job = services.flash.submit(request)
    assert isinstance(job.wait(timeout=180), Finished)
    words: dict[int, set[str]] = {}
    for record in job_images(job, services.gallery):
        words.setdefault(record.recipe.seed, set()).add(record.recipe.prompt)
    assert len(words) == 2 and all(len(told) == 1 for told in words.values())


def test_where_every_system_must_draw_the_same_words_it_is_refused(services: Services) -> None:
    values = {
        "systems": [{"name": "one"}, {"name": "two", "num_inference_steps": 2}],
        "prompts": ["a red circle", OPEN],
    }
    with pytest.raises(InvalidRequest, match="leaves something open"):
        services.evaluations.submit(parse_evaluation(values))
