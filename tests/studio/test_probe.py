"""Probes: what is drawn and asked, whether judge and checker agree, what the statistics say of planted shares."""

import html
import json
import shutil
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from engines.base import Engine
from engines.judges import ClipJudge
from engines.pocket.world import BACKGROUNDS, COLOURS, SHAPES
from studio.cli import probe as probe_cli
from studio.cli.probe_arguments import add_probe
from studio.domain.catalogue import Catalogue
from studio.domain.cells import CellResult
from studio.domain.errors import CorruptModel, InvalidRequest, NotFound
from studio.domain.events import Cancelled, Failed, Finished
from studio.domain.probe import ATTRIBUTE_SETS, MARGIN, Answer, Attribute, Probe, ProbeRequest, parse_probe
from studio.generation import EngineHolder
from studio.probe import ProbeService, ProbeStanding
from studio.probe_scores import analyse, balance, pictures_needed
from studio.probe_views import agreement_words, balance_words, limits_html, probe_html, probe_report, unsure_words
from studio.scoring import POCKET_JUDGE, ScoringService
from studio.services import Services, open_services
from studio.settings import Settings
from tests.engines.test_soundness import copy_of_pocket

PATIENCE_S = 600
STAR = {
    "prompt": "a red star on a white background",
    "accelerator": "flash-pocket-sd15",
    "num_inference_steps": 2,
    "num_images": 10,
}
COIN = Attribute.model_validate({"name": "Coin", "values": ["heads", "tails"]})


def probes_of(services: Services) -> ProbeService:
    """That of the services, or one of its own over the same folder."""
    known = getattr(services, "probes", None)
    return known or ProbeService(
        services.catalogue, services.runner, services.gallery, services.generation, services.scoring,
        services.settings.data_dir / "probes",
    )  # fmt: skip


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


@pytest.fixture(scope="module")
def probes(studio: Services) -> ProbeService:
    return probes_of(studio)


def probed(probes: ProbeService, **values: object) -> ProbeStanding:
    begun = probes.submit(parse_probe({**STAR, **values}))
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
    return probes.standing(begun.id)


@pytest.fixture(scope="module")
def done(probes: ProbeService) -> ProbeStanding:
    return probed(probes)


def told(standing: ProbeStanding) -> dict[int, Any]:
    """What is known of the pictures, without how long it took."""
    return {index: answer.model_dump(exclude={"seconds"}) for index, answer in standing.answers.items()}


@pytest.fixture
def scored(studio: Services, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that a judge is asked of from here on."""
    asked: list[str] = []
    known = ScoringService.score_texts

    def score_texts(self: ScoringService, judge: Path, picture: Path, texts: Sequence[str]) -> Any:
        asked.append(picture.name)
        return known(self, judge, picture, texts)

    monkeypatch.setattr(ScoringService, "score_texts", score_texts)
    return asked


def planted(
    attribute: Attribute, picks: Sequence[int], lead: float = 0.1, seen: Sequence[str | None] = (), **more: Any
) -> tuple[Probe, dict[int, CellResult], dict[int, Answer]]:
    """A probe as if pictures had been judged: the value of each, ahead by `lead`."""
    filled = attribute.filled("a thing")
    recipe = {
        "prompt": "a thing", "negative_prompt": "", "checkpoint": "x", "style": "none", "width": 64, "height": 64,
        "num_inference_steps": 1, "guidance_scale": 1, "scheduler": "x", "seed": 3, "num_images": 1, **more,
    }  # fmt: skip
    probe = Probe.model_validate(
        {"recipe": recipe, "attributes": [filled.model_dump()], "num_images": len(picks), "judge": "j"}
    )
    answers = {
        index: Answer(
            index=index,
            image_id=str(index),
            judge="j 0123",
            cosines={filled.name: tuple(0.2 + lead * (place == pick) for place in range(len(filled.values)))},
            seen={filled.name: seen[index]} if seen else {},
        )
        for index, pick in enumerate(picks)
    }
    results = {index: CellResult(index=index, image_id=str(index)) for index in answers}
    return probe, results, answers


def test_what_the_prompt_asks_for_is_what_judge_and_checker_see(probes: ProbeService, done: ProbeStanding) -> None:
    result = probes.result(done)
    assert (result.drawn, result.judged, result.failed, result.truncated) == (10, 10, 0, 0) and done.is_whole
    assert result.judge.startswith("pocket-clip ")
    colour, shape, background = result.attributes
    for each, name in ((colour, "red"), (shape, "star"), (background, "white")):
        asked = next(value for value in each.values if value.name == name)
        assert asked.count >= 9 and asked.share.n == each.n == 10 and each.named == (name,)
        assert asked.seen is not None and asked.seen.value >= 0.8
        assert each.agreement is not None and each.agreement.value >= 0.9
        assert each.unsure.value <= 0.2 and sum(value.count for value in each.values) == 10
    assert colour.balance is None, "ten pictures are too few for a test"


def test_seeds_count_up_and_every_picture_is_kept(probes: ProbeService, done: ProbeStanding, studio: Services) -> None:
    assert [cell.recipe.seed for cell in done.probe.cells] == list(range(10))
    assert sorted(done.results) == sorted(done.answers) == list(range(10))
    records = {record.image_index: record for record in studio.gallery.of_job(done.id)}
    assert all(records[cell.index].recipe == cell.recipe for cell in done.probe.cells)
    assert len(probes.pictures(done)) == 10 and probes.of()[0].id == done.id


def test_more_pictures_draw_and_ask_only_what_is_new(
    probes: ProbeService, done: ProbeStanding, studio: Services, scored: list[str]
) -> None:
    count = studio.gallery.count()
    wider = probed(probes, num_images=12)
    assert studio.gallery.count() == count + 2
    assert len(scored) == len(set(scored)) == 3, "the two new ones, and the blank that the judge is tried on"
    assert {wider.answers[index].image_id for index in range(10)} == {each.image_id for each in done.answers.values()}
    assert len(wider.answers) == 12


def test_one_that_was_stopped_goes_on_and_draws_nothing_twice(probes: ProbeService, studio: Services) -> None:
    begun = probes.submit(parse_probe({**STAR, "seed": 900}))
    while len(probes.pictures(begun)) < 2:
        pass
    begun.job.cancel()
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Cancelled)
    stopped = probes.standing(begun.id)
    kept = {record.image_index: record.id for record in studio.gallery.of_job(stopped.id)}
    assert 2 <= len(kept) < 10 and not stopped.is_running and not stopped.is_whole
    count = studio.gallery.count()
    again = probes.submit_resolved(stopped.probe)
    assert isinstance(again.job.wait(timeout=PATIENCE_S), Finished)
    assert studio.gallery.count() == count + 10 - len(kept)
    now = {record.image_index: record.id for record in studio.gallery.of_job(again.id)}
    assert len(now) == 10 and all(now[index] == image_id for index, image_id in kept.items())


def test_shares_fill_in_while_it_is_drawn(probes: ProbeService) -> None:
    begun = probes.submit(parse_probe({**STAR, "seed": 1700}))
    seen: list[tuple[int, int, bool]] = []
    while not seen or seen[-1][2]:
        now = probes.standing(begun.id)
        result = probes.result(now)
        assert result.drawn - result.judged in (0, 1) and bool(result.attributes) == (result.judged > 0)
        seen.append((result.drawn, result.judged, now.is_running))
        time.sleep(0.01)
    assert any(0 < judged < 10 and is_running for _, judged, is_running in seen), "it had something to say on the way"
    assert probes.result(probes.standing(begun.id)).judged == 10 and isinstance(begun.job.wait(), Finished)


def test_what_was_drawn_just_before_a_kill_is_judged(probes: ProbeService, scored: list[str]) -> None:
    """Killed between a picture and its answer, and between a picture and its line."""
    begun = probed(probes, seed=1800, num_images=4)
    whole = told(begun)
    answers, results = (begun.folder.path / name for name in ("answers.jsonl", "results.jsonl"))
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:2]))
    results.write_bytes(b"".join(results.read_bytes().splitlines(keepends=True)[:3]))
    scored.clear()
    probes.run(begun.job)
    assert told(probes.standing(begun.id)) == whole and len(scored) == 3


def test_how_long_it_takes_is_told_by_what_was_drawn(probes: ProbeService, studio: Services) -> None:
    begun = probed(probes, seed=2100, num_images=6)
    judged = [answer.seconds or 0 for answer in begun.answers.values()]
    drawn = [record.seconds["total"] for record in studio.gallery.of_job(begun.id)]
    assert min(judged) > 0
    twice = begun.probe.model_copy(update={"num_images": 12})
    one, two = probes.remaining_s(begun.probe), probes.remaining_s(twice)
    assert one is not None and two == pytest.approx(2 * one)
    assert 6 * (min(drawn) / 3 + min(judged)) < one < 6 * (max(drawn) * 3 + max(judged))
    unknown = probes.resolve(parse_probe({"prompt": "a star", "checkpoint": "pocket-sd21"}))
    assert probes.remaining_s(unknown) is None


def _judge_of_ones_own(folder: Path) -> None:
    """A small CLIPModel of transformers that knows nothing."""
    tokenizer: Any = AutoTokenizer.from_pretrained(POCKET_JUDGE)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(5)
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET_JUDGE / name, folder)


def test_faces_are_asked_of_a_model_and_by_a_judge_of_ones_own(tmp_path: Path) -> None:
    """No model of faces is here: the way from a folder to the shares is, and each share is what that judge says."""
    settings = Settings(data_dir=tmp_path / "data", offline=True, dtype="float32")
    _judge_of_ones_own(settings.judges_dir / "people")
    with open_services(settings) as services:
        services.own_checkpoints.add(copy_of_pocket(tmp_path / "portraits"))
        probes, num = services.probes, 20
        asked = {"prompt": "portrait of a doctor", "checkpoint": "portraits", "num_inference_steps": 1}
        begun = probes.submit(parse_probe({**asked, "num_images": num}))
        assert isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
        result = probes.result(probes.standing(begun.id))
        pictures = [Image.open(path) for path in probes.pictures(begun).values()]
    assert result.probe.judge == "people" and result.judge.startswith("people ") and result.judged == num
    assert [each.attribute.name for each in result.attributes] == ["Presented gender", "Age group", "Skin tone"]
    judge = ClipJudge(settings.judges_dir / "people")
    for each in result.attributes:
        fitting = [
            max(each.values, key=lambda value, picture=picture: judge.score(picture, value.text).cosine).name
            for picture in pictures
        ]
        assert {value.name: value.count for value in each.values} == {
            value.name: fitting.count(value.name) for value in each.values
        }
        for value in each.values:
            low, high = value.share.low, value.share.high
            assert low is not None and high is not None and 0 <= low <= value.share.value <= high <= 1 and low < high
            assert value.seen is None
        assert each.balance is not None and "cannot be checked here" in agreement_words(each)
    page, words = probe_html(result), probe_cli.told(result)
    for text in ("Presented gender", "young adult", "medium", "is not who somebody is", "biases of its own", "forced"):
        assert text in page and text in words


def test_one_that_was_killed_asks_only_what_was_not_answered(
    probes: ProbeService, done: ProbeStanding, scored: list[str], studio: Services
) -> None:
    """As after a restart: the same job, four lines, and a fifth that was cut short."""
    file = done.folder.path / "answers.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for path in sorted(done.folder.path.parent.iterdir()):
        if path != done.folder.path:
            (path / "answers.jsonl").unlink(missing_ok=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    assert sorted(probes.standing(done.id).answers) == [0, 1, 2, 3]
    count = studio.gallery.count()
    probes.run(probes.standing(done.id).job)
    assert len(scored) == len(set(scored)) == 7 and studio.gallery.count() == count
    assert file.read_bytes().endswith(b"\n") and file.read_bytes().startswith(b"".join(lines[:4]))
    assert told(probes.standing(done.id)) == told(done)


def test_what_another_judge_said_is_asked_again(probes: ProbeService, done: ProbeStanding) -> None:
    stale = [answer.model_copy(update={"judge": "older"}) for answer in done.answers.values()]
    for path in done.folder.path.parent.iterdir():
        (path / "answers.jsonl").unlink(missing_ok=True)
    done.folder.keep(stale)
    probes.run(probes.standing(done.id).job)
    assert told(probes.standing(done.id)) == told(done)


def test_nobody_else_sees_it(probes: ProbeService, done: ProbeStanding) -> None:
    assert probes.standing(done.id, "local").id == done.id and probes.of("somebody") == []
    for probe_id, visitor in ((done.id, "somebody"), ("nothing", None), ("", "local")):
        with pytest.raises(NotFound):
            probes.standing(probe_id, visitor)


def test_a_picture_that_was_deleted_is_left_out(probes: ProbeService, studio: Services) -> None:
    begun = probed(probes, seed=500, num_images=3)
    (begun.folder.path / "answers.jsonl").unlink()
    studio.gallery.delete(begun.results[1].image_id)
    probes.run(begun.job)
    left = probes.standing(begun.id)
    assert sorted(left.answers) == [0, 2] and probes.result(left).judged == 2


def test_a_judge_that_cannot_be_used_is_told_before_anything_is_drawn(
    probes: ProbeService, studio: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScoringService, "score_texts", lambda *_: None)
    count = studio.gallery.count()
    begun = probes.submit(parse_probe({**STAR, "seed": 700}))
    ending = begun.job.wait(timeout=PATIENCE_S)
    assert isinstance(ending, Failed) and "pocket-clip cannot be used" in ending.message
    assert studio.gallery.count() == count
    with pytest.raises(CorruptModel):
        probes.run(begun.job)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": " "}, "no prompt"),
        ({"num_images": 0}, "number of pictures must be from 1"),
        ({"seed": -1}, "seed must be"),
        ({"margin": -1}, "margin must be"),
        ({"num_inference_steps": 0}, "Steps is 0"),
        ({"steps": 3}, "no setting called 'steps'"),
        ({"attributes": "mood"}, "no set of attributes called 'mood'"),
        ({"attributes": []}, "1 to 8 attributes"),
        ({"attributes": [5]}, "Attribute 1 is no table"),
        ({"attributes": [{"name": "a", "values": ["b"]}]}, "too few or too many"),
        ({"attributes": [{"name": "a", "values": list("bcdefghijklmn")}]}, "too few or too many"),
        ({"attributes": [{"name": "a", "values": ["b", "B "]}]}, "two values of the same name"),
        ({"attributes": [{"name": " ", "values": ["b", "c"]}]}, "need names of 1 to 60"),
        ({"attributes": [{"name": "a", "values": ["b", "c"], "colour": "x"}]}, "something called 'colour'"),
        ({"attributes": [{"name": "a", "values": ["b", "c"], "template": "x"}]}, "template without {value}"),
        ({"attributes": [{"name": "a", "values": ["b", "c"], "shares": [1]}]}, "2 values and 1 shares"),
        ({"attributes": [{"name": "a", "values": ["b", "c"], "shares": [0.9, 0.3]}]}, "add up to 1"),
        ({"attributes": [{"name": "a", "values": ["b", "c"], "shares": [1, 0]}]}, "all above 0"),
        ({"attributes": [{"name": "a", "values": ["b", "c"]}] * 2}, "Two attributes have the same name"),
        (
            {"attributes": [{"name": "a", "values": [{"name": "b", "text": "x"}, {"name": "c", "text": "x"}]}]},
            "same te",
        ),
        ({"attributes": [{"name": "a", "values": ["red", "violet"], "checked": "colour"}]}, "no colour 'violet'"),
        ({"attributes": "faces"}, "no faces"),
        ({"judge": "../x"}, "no judge called '../x'"),
        ({"checkpoint": "nothing"}, "nothing"),
        ({"checkpoint": "sd15", "accelerator": None}, "no judge for pictures of"),
        ({"prompt": "<lora:gone:1> a star"}, "gone"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(probes: ProbeService, values: dict[str, object], said: str) -> None:
    with pytest.raises((InvalidRequest, NotFound), match=said):
        probes.submit(parse_probe({**STAR, **values}))


def test_texts_are_filled_in_and_nothing_a_person_typed_is_a_format() -> None:
    attribute = Attribute.model_validate(
        {
            "name": "a",
            "values": ["{prompt}", {"name": "{0}", "text": "{value} of {prompt} {x}"}],
            "template": "{value}!",
        }
    )
    assert [value.text for value in attribute.filled("p {value}").values] == ["p {value}!", "{0} of p {value} {x}"]
    percent = Attribute.model_validate({"name": "a", "values": ["b", "c"], "shares": [80, 20]})
    assert percent.expected == (0.8, 0.2) and COIN.expected == (0.5, 0.5)


def test_the_sets_that_come_with_it_are_whole(probes: ProbeService) -> None:
    world = {each.checked: {value.name for value in each.values} for each in ATTRIBUTE_SETS["world"]}
    assert world == {"colour": set(COLOURS), "shape": set(SHAPES), "background": set(BACKGROUNDS)}
    for attributes in ATTRIBUTE_SETS.values():
        assert ProbeRequest(prompt="x", attributes=attributes).attributes == attributes
        for each in attributes:
            texts = [value.text for value in each.filled("x").values]
            assert all(texts) and len(set(texts)) == len(texts)
    assert probes.resolve(parse_probe(STAR)).attributes[0].values[0].text == "a red shape"


@pytest.mark.parametrize("expected", [(0.5, 0.5), (0.1,) * 10, (0.2, 0.3, 0.5), (0.9, 0.1)], ids=str)
def test_true_shares_are_rejected_in_about_one_of_twenty(expected: tuple[float, ...]) -> None:
    rng = np.random.default_rng(7)
    tests = [balance([int(count) for count in rng.multinomial(64, expected)], expected) for _ in range(2000)]
    rejected = np.mean([test is not None and test.p_value < 0.05 for test in tests])
    assert all(tests) and 0.02 <= rejected <= 0.07, "the exact test of two values errs on the safe side"


def test_planted_shares_come_out() -> None:
    result = analyse(*planted(COIN, [0] * 54 + [1] * 10)).attributes[0]
    assert [value.count for value in result.values] == [54, 10] and result.n == 64
    heads = result.values[0].share
    assert heads.value == pytest.approx(54 / 64) and heads.low == pytest.approx(0.735, abs=0.001)
    assert result.balance is not None and result.balance.test == "binomial"
    assert result.balance.p_value < 1e-6 and result.balance.effect == pytest.approx(0.6875)
    assert "differ from equal shares (p < 0.001 by the exact binomial test" in balance_words(result)
    given = COIN.model_copy(update={"shares": (0.85, 0.15)})
    same = analyse(*planted(given, [0] * 54 + [1] * 10)).attributes[0]
    assert "No difference from the shares that were given" in balance_words(same)
    many = Attribute.model_validate({"name": "a", "values": list("abcde")})
    five = analyse(*planted(many, [place % 5 for place in range(50)])).attributes[0].balance
    assert five is not None and five.test == "chi-square" and five.p_value == 1 and five.effect == 0


def test_too_few_pictures_are_not_tested() -> None:
    assert balance([10, 9], (0.5, 0.5)) is None and balance([10, 10], (0.5, 0.5)) is not None
    tenths = (0.1,) * 10
    assert balance([5] * 9 + [4], tenths) is None and balance([5] * 10, tenths) is not None
    assert pictures_needed((0.9, 0.1)) == 50 and pictures_needed(tenths) == 50 and pictures_needed((0.5, 0.5)) == 20
    few = analyse(*planted(COIN, [0] * 5)).attributes[0]
    assert few.balance is None and "it takes 20, and 5 are judged" in balance_words(few)


def test_several_questions_are_corrected_for() -> None:
    probe, results, answers = planted(COIN, [0] * 40 + [1] * 24)
    both = probe.model_copy(
        update={"attributes": (probe.attributes[0], probe.attributes[0].model_copy(update={"name": "Two"}))}
    )
    twice = {
        index: answer.model_copy(update={"cosines": {**answer.cosines, "Two": answer.cosines["Coin"]}})
        for index, answer in answers.items()
    }
    alone, first = analyse(probe, results, answers).attributes[0], analyse(both, results, twice).attributes[0]
    assert alone.balance is not None and first.balance is not None
    assert alone.balance.adjusted == alone.balance.p_value == first.balance.p_value
    assert first.balance.adjusted == pytest.approx(2 * first.balance.p_value)


def test_what_is_nearly_equal_is_unsure() -> None:
    sure = analyse(*planted(COIN, [0] * 30, lead=0.011)).attributes[0]
    unsure = analyse(*planted(COIN, [0] * 30, lead=0.009)).attributes[0]
    assert sure.unsure.value == 0 and unsure.unsure.value == 1
    assert "Unsure: 100%" in unsure_words(unsure) and f"less than {MARGIN:g} of CLIP score" in limits_html()


def test_where_judge_and_checker_differ_is_said() -> None:
    seen = ["heads"] * 20 + ["tails"] * 6 + [None] * 4
    result = analyse(*planted(COIN, [0] * 30, seen=seen)).attributes[0]
    assert result.agreement is not None and (result.agreement.n, result.unclear) == (26, 4)
    assert result.agreement.value == pytest.approx(20 / 26) and result.confusions == (("tails", "heads", 6),)
    assert result.values[1].seen is not None and result.values[1].seen.value == pytest.approx(6 / 30)
    words = agreement_words(result)
    assert "in 4 others" in words and "takes tails for heads (6)" in words
    assert "cannot be checked here" in agreement_words(analyse(*planted(COIN, [0] * 30)).attributes[0])


def test_what_the_prompt_asks_for_is_not_called_a_bias(probes: ProbeService) -> None:
    probe = probes.resolve(parse_probe({**STAR, "prompt": "a star on a white background"}))
    colour, shape, background = (
        analyse(probe, {}, {0: _blank(probe)}).attributes[place].named for place in range(3)
    )  # fmt: skip
    assert (colour, shape, background) == ((), ("star",), ("white",))
    asked = analyse(*planted(COIN, [0] * 30, prompt="a coin, heads up")).attributes[0]
    assert "asks for 'heads'" in balance_words(asked)


def _blank(probe: Probe) -> Answer:
    cosines = {each.name: tuple(0.1 for _ in each.values) for each in probe.attributes}
    return Answer(index=0, image_id="0", judge="j", cosines=cosines)


def test_answers_of_another_question_are_left_out() -> None:
    probe, results, answers = planted(COIN, [0] * 3)
    answers[1] = answers[1].model_copy(update={"cosines": {"Coin": (0.1,)}})
    result = analyse(probe, results, answers)
    assert result.judged == 2 and result.drawn == 3
    assert analyse(probe, {0: CellResult(index=0, problem="x")}, {}).failed == 1


def test_what_was_typed_is_escaped_and_the_limits_are_always_said() -> None:
    evil = "<script>alert(1)</script>"
    attribute = Attribute.model_validate(
        {"name": evil, "values": [{"name": evil, "text": f'"{evil}'}, "b"], "template": f"{evil} {{value}}"}
    )
    probe, results, answers = planted(attribute, [0] * 30, seen=[evil] * 30, prompt=evil)
    for page in (probe_html(analyse(probe, results, answers)), probe_html(analyse(probe, {}, {}))):
        assert "<script" not in page and html.escape(evil) in page
        assert "forced" in page and "biases of its own" in page and "trained on" in page and "presents" in page
    report = probe_report(analyse(probe, results, answers, remark=evil))
    assert "<script" not in report and "default-src 'none'" in report and "http" not in report.replace("http-equiv", "")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(studio: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command over the services of this module: (exit code, standard output, standard error)."""

    @contextmanager
    def services(*_: object) -> Iterator[Services]:
        if getattr(studio, "probes", None) is None:
            object.__setattr__(studio, "probes", probes_of(studio))
        yield studio

    monkeypatch.setattr(probe_cli, "passing_services", services)

    def run(*arguments: str) -> tuple[int, str, str]:
        parser = ArgumentParser()
        add_probe(parser, studio.catalogue)
        code = probe_cli.run(parser.parse_args(arguments), studio.catalogue, None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


FEW = ("--accelerator", "flash-pocket-sd15", "--steps", "2", "--num", "4", "--quiet")


def test_the_command_line_tells_and_delivers_it(command: Run, done: ProbeStanding, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = command(str(STAR["prompt"]), *FEW, "--out", str(out))
    assert code == 0 and "Colour" in said and "red" in said and "4 of 4" in said and "forced" in said
    told = json.loads((out / "results.json").read_text())
    assert told["status"] == "finished" and len(told["pictures"]) == 4
    names = {picture["file"] for picture in told["pictures"]}
    assert names == {path.name for path in out.glob("*.png")} and "Colour" in (out / "report.html").read_text()
    assert told["attributes"][0]["values"][0]["count"] == 4 and told["pictures"][0]["seen"]["Colour"] == "red"


def test_the_command_line_takes_attributes_of_ones_own(command: Run, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[[attributes]]\nname = "Warm"\nvalues = ["red", "blue"]\ntemplate = "a {value} star"\n')
    code, said, _ = command(str(STAR["prompt"]), *FEW, "--attributes", str(file), "--json")
    told = json.loads(said)
    assert code == 0 and [each["name"] for each in told["attributes"]] == ["Warm"]
    assert told["attributes"][0]["values"][0]["text"] == "a red star"
    file.write_text("name = 3")
    for wrong in (str(file), str(tmp_path / "gone.toml")):
        with pytest.raises(InvalidRequest):
            command("a star", "--attributes", wrong)
    with pytest.raises(InvalidRequest, match="no prompt"):
        command()


def test_the_help_of_the_command_line_can_be_read(catalogue: Catalogue) -> None:
    parser = ArgumentParser()
    add_probe(parser, catalogue)
    assert "--attributes" in parser.format_help()
