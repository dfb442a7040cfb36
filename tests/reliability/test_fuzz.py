"""X2 and X3: whatever is in a prompt, a picture's text, a shard or a file of weights, it is read or refused in time."""

import contextlib
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_registry.compatibility import check_numbers, check_supported
from lora_registry.formats import describe, read_adapter
from studio.captions.shards import Reading, Shard
from studio.domain.choices import chosen, every_word, leaves_open, lists_named, outermost, refuse_open, settled
from studio.domain.errors import CorruptModel, Incompatible, InvalidRequest
from studio.domain.prompt_syntax import is_plain, plain_words, sections
from studio.domain.request import GenerationRequest, parse_request
from studio.domain.tags import adapters_named, without_adapter, without_tags
from studio.domain.tensors import read_header
from studio.infotext import infotext, parse_infotext, request_from_infotext
from studio.prompts import prompt_remarks
from studio.token_count import count_tokens
from tests.reliability import mutations
from tests.reliability.conftest import Score
from tests.studio.captions.scenes import row
from tests.studio.records import CATALOGUE, random_recipe, record

SEED = 20261127
LONGEST_S = 1.0
"""Of one input, in seconds of computing: another program on the machine counts for nothing, nor do other threads."""
pytestmark = pytest.mark.usefixtures("swept_heap")
full, long = pytest.mark.full, pytest.mark.long


def tiers(quick: int, of_full: int, of_long: int) -> pytest.MarkDecorator:
    counts = [quick, pytest.param(of_full, marks=full), pytest.param(of_long, marks=long)]
    return pytest.mark.parametrize("count", counts, ids=["quick", "full", "long"])


def fuzz(score: Score, count: int, kind: str, read: Callable[[random.Random], None]) -> None:
    """Let `read` make and read `count` inputs, each of a seed of its own, which is told where one fails."""
    for n in range(count):
        rng = random.Random(f"{SEED} {kind} {n}")
        began = time.thread_time()
        try:
            read(rng)
        except Exception as error:
            error.add_note(f"random.Random('{SEED} {kind} {n}')")
            raise
        spent = time.thread_time() - began
        assert spent < LONGEST_S, f"{spent:.1f} s for random.Random('{SEED} {kind} {n}')"
    score(inputs=count)


def one_line(_name: str) -> tuple[str, ...]:
    return ("a ball", "{a|b} __x__")


def choose(prompt: str) -> str:
    return chosen(prompt, 1, one_line)


def read_prompt(rng: random.Random) -> None:
    prompt = mutations.prompt(rng)
    assert all(math.isfinite(span.weight) for section in sections(prompt) for span in section)
    assert is_plain(prompt) in (True, False) and leaves_open(prompt) in (True, False)
    for read in (plain_words, lists_named, settled, every_word):
        read(prompt)
    assert all(0 <= begin < end <= len(prompt) for begin, end in outermost(prompt))
    without_tags(without_adapter(prompt, "x"))
    for may_refuse in (
        lambda: chosen(prompt, rng.getrandbits(32), one_line),
        lambda: refuse_open(prompt),
        lambda: adapters_named(prompt.replace("\ud800", "")),  # no request holds halves of characters
        lambda: parse_request({"prompt": prompt, "negative_prompt": prompt}),
    ):
        with contextlib.suppress(InvalidRequest):
            may_refuse()
    if rng.random() < 0.1:
        pocket, style = CATALOGUE.checkpoint(CATALOGUE.default_checkpoint), CATALOGUE.style("none")
        said = prompt.replace("\ud800", "")
        prompt_remarks(pocket, style, said)
        assert count_tokens(pocket, said).total >= 0


@tiers(1_500, 30_000, 350_000)
def test_any_prompt_is_read_or_refused(score: Score, count: int) -> None:
    fuzz(score, count, "prompt", read_prompt)


@pytest.mark.parametrize(
    "piece",
    ["(a", "[a", "(a)", "((a)", "(", "a:", "(a:1.1", ": ", " ", "\n", "9", ":9", "\\", "{", "{a|", "|", "{a|b}", "__a",
     "__a.", "<lora:", "<", "{1", "{9|", " BREAK", "BREAK ", "(a BREAK ", "\\(", "a\t", "__x__", ",", "é "],
)  # fmt: skip
def test_one_thing_for_as_long_as_a_prompt_may_be_takes_no_time(score: Score, piece: str) -> None:
    whole = (piece * mutations.LONGEST)[: mutations.LONGEST]
    for prompt in (whole, f"x{whole[:9_998]}x", f":({whole[:9_990]}"):
        for read in (sections, plain_words, leaves_open, settled, every_word, outermost, choose, adapters_named):

            def once(_rng: random.Random, prompt: str = prompt, read: Callable[[str], object] = read) -> None:
                with contextlib.suppress(InvalidRequest):
                    read(prompt)

            fuzz(score, 1, f"{read.__name__} of {piece!r}", once)


def read_infotext(rng: random.Random) -> None:
    text = mutations.infotext(rng)
    assert {"Prompt", "Negative prompt"} <= set(parse_infotext(text))
    with contextlib.suppress(InvalidRequest):
        assert isinstance(request_from_infotext(text, CATALOGUE).request, GenerationRequest)


@tiers(1_000, 25_000, 250_000)
def test_any_text_of_a_picture_is_read_or_refused(score: Score, count: int) -> None:
    fuzz(score, count, "infotext", read_infotext)


@tiers(700, 25_000, 200_000)
def test_any_shard_is_read_with_every_line_accounted_for(score: Score, count: int, tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"

    def read(rng: random.Random) -> None:
        path.write_bytes(mutations.caption_lines(rng))
        reading = Reading(folders=[tmp_path])
        rows = list(reading.rows())
        assert reading.num_lines == len(rows) + len(reading.bad)
        for each in rows:
            each.line()

    fuzz(score, count, "shard", read)


def test_whatever_a_shard_ends_with_the_next_row_is_whole(score: Score, tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl"

    def read(rng: random.Random) -> None:
        path.write_bytes(mutations.caption_lines(rng))
        with Shard(path, is_paid=False) as shard:
            shard.add(row("last"))
        assert list(Reading(folders=[tmp_path]).rows())[-1] == row("last")

    fuzz(score, 300, "shard end", read)


@tiers(1_000, 20_000, 180_000)
def test_any_weights_are_described_or_refused(score: Score, count: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"

    def read(rng: random.Random) -> None:
        path.write_bytes(mutations.safetensors(rng))
        with contextlib.suppress(CorruptModel):
            read_header(path)
        with contextlib.suppress(CorruptModel, Incompatible):
            file = read_adapter(path)
            assert describe(file, "a").id == "a"
            check_supported(file)
            check_numbers(file)

    fuzz(score, count, "safetensors", read)


@full
def test_ten_thousand_settings_come_back_from_their_text(score: Score) -> None:
    read_back = 0
    for n in range(10_000):
        made = record(made=random_recipe(random.Random(f"{SEED} {n}")))
        if re.search(r"^\s*Negative prompt:", made.prompt_as_run, re.MULTILINE):
            continue  # it is one, by the grammar
        read_back += 1
        asked = request_from_infotext(infotext(made, CATALOGUE), CATALOGUE).request
        for name in (
            "checkpoint", "width", "height", "num_inference_steps", "guidance_scale", "scheduler", "seed", "clip_skip",
            "decoder", "init_image", "strength",
        ):  # fmt: skip
            assert getattr(asked, name) == getattr(made.recipe, name), (n, name)
        assert asked.negative_prompt == made.negative_as_run.strip(), n
    score(inputs=read_back)
    assert read_back > 5_000
