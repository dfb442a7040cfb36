"""Tokens are counted as the models count them, without loading any."""

import open_clip
import pytest
from transformers import AutoTokenizer

from studio.domain.catalogue import Catalogue
from studio.domain.prompt_syntax import is_plain
from studio.settings import PROJECT_ROOT
from studio.token_count import _clip, count_tokens

TEXTS = (
    "a red circle", "", "  Two   SPACES, and CAPS! ", "it's 1024×768 (really) don't", "naïve café — 北京 🦊", "a,b;c:d",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_clips_tokens_are_those_of_open_clip(text: str) -> None:
    theirs = open_clip.get_tokenizer("ViT-B-32").encode(text.strip())
    assert _clip().encode(text, add_special_tokens=False).ids == theirs


def test_a_pocket_model_counts_its_own(catalogue: Catalogue) -> None:
    checkpoint = catalogue.checkpoint("pocket-sd15")
    assert checkpoint.folder
    theirs = AutoTokenizer.from_pretrained(PROJECT_ROOT / checkpoint.folder / "tokenizer")
    for text in (text for text in TEXTS if is_plain(text)):
        count = count_tokens(checkpoint, text)
        assert count.total == len(theirs(text, add_special_tokens=False).input_ids)
        assert count.words == f"{count.total} of 75 tokens"


@pytest.mark.parametrize("checkpoint_id", ["pocket-sd15", "sd15", "sdxl"])
def test_a_long_prompt_says_where_it_is_parted(catalogue: Catalogue, checkpoint_id: str) -> None:
    prompt = "a red circle on a white background, " * 14 + "<lora:ink:0.8> BREAK a (blue:1.3) star at the top"
    count = count_tokens(catalogue.checkpoint(checkpoint_id), prompt)
    assert count.total > 75 and len(count.beginnings) >= 2
    assert count.beginnings[0].startswith("a red circle") and count.beginnings[-1].startswith("a blue star")
    assert f"read in {len(count.beginnings) + 1} chunks" in count.words
