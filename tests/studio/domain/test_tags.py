"""Adapters are named in a prompt as people are used to, and the model does not read their tags."""

import pytest

from studio.domain.errors import InvalidRequest
from studio.domain.tags import AdapterUse, adapters_named, without_tags


@pytest.mark.parametrize(
    ("tag", "scales"),
    [
        ("<lora:ink>", (1.0, None)),
        ("<lora:ink:0.8>", (0.8, None)),
        ("<LoRA:ink:-0.5>", (-0.5, None)),
        ("<lora:ink:0.5:0.8>", (0.8, 0.5)),
        ("<lora:ink:te=0.5:unet=0.8>", (0.8, 0.5)),
        ("<lora:ink:0.7:te=0>", (0.7, 0.0)),
        ("<lora: ink : 1 >", (1.0, None)),
    ],
)
def test_a_tag_names_an_adapter_and_its_scales(tag: str, scales: tuple[float, float | None]) -> None:
    (use,) = adapters_named(f"a fox, {tag}, in snow")
    assert (use.adapter, use.lora_scale, use.text_encoder_scale) == ("ink", *scales)
    assert adapters_named(use.tag) == (use,)


def test_several_are_kept_in_order_and_the_last_of_a_name_counts() -> None:
    uses = adapters_named("<lora:a:1> fox <lora:b:0.5> <lora:a:0.25>")
    assert [(use.adapter, use.lora_scale) for use in uses] == [("a", 0.25), ("b", 0.5)]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a fox <lora:ink:0.8> in snow", "a fox in snow"),
        ("a fox in snow, <lora:ink>", "a fox in snow"),
        ("<lora:ink>, a fox", "a fox"),
        ("a  fox,  as typed ", "a  fox,  as typed "),
        ("<lora:ink>", ""),
    ],
)
def test_the_model_reads_the_prompt_without_them(prompt: str, read: str) -> None:
    assert without_tags(prompt) == read


@pytest.mark.parametrize("tag", ["<lora:ink:1e9>", "<lora:ink:nan>", "<lora:ink:much>", "<lora::1>", "<lora:ink:te=x>"])
def test_a_tag_that_means_nothing_is_refused_in_a_sentence(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="tag") as caught:
        adapters_named(tag)
    assert caught.value.field == "prompt"


def test_an_odd_name_is_only_a_name() -> None:
    assert adapters_named("<lora:../../x:1>") == (AdapterUse(adapter="../../x"),)


def test_half_a_character_in_a_name_is_no_name_of_an_adapter() -> None:
    assert adapters_named("<lora:in\ud83d:1>") == (AdapterUse(adapter="in?"),)
