import json

import pytest

from lora_registry import texts


def test_trigger_words_are_those_the_maker_names() -> None:
    assert texts.trigger_words({"modelspec.trigger_phrase": "sks dog,  photo\nof "}) == ("sks dog", "photo of")
    assert texts.trigger_words({"ss_trigger_words": '["a", "b"]'}) == ("a", "b")


def test_without_them_the_most_frequent_tags_are_suggested() -> None:
    counts = {"1_dog": {"sks": 9, "dog ": 5}, "2_more": {"sks": 1, "dog": 4, **{f"rare{i}": 1 for i in range(20)}}}
    words = texts.trigger_words({"ss_tag_frequency": json.dumps(counts)})
    assert words[:2] == ("sks", "dog")
    assert len(words) == texts.MAX_WORDS


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[" * 100_000, "[1]", '{"a": 3}', '{"a": {"b": "c"}}', '{"a": {"b": 1e999}}', "null"]
)
def test_metadata_that_make_no_sense_say_nothing(text: str) -> None:
    metadata = {"ss_tag_frequency": text, "lora_adapter_metadata": text}
    assert len(texts.trigger_words(metadata)) <= 1
    assert texts.peft_settings(metadata, "unet").alpha_of("x", 4) is None


def test_texts_are_cut_and_cleaned() -> None:
    metadata = {
        "modelspec.title": "a\x00b\u202e\n" + "c" * 5000,
        "ss_sd_model_name": "C:\\models\\my model.safetensors",
    }
    assert texts.stated_title(metadata).startswith("a b c")
    assert len(texts.stated_title(metadata)) == 200
    assert len(texts.trigger_words({"trigger": "w" * 5000})[0]) == texts.MAX_WORD_CHARS
    assert texts.stated_base_model(metadata) == "my model.safetensors"
    assert all(len(text) <= 2000 for text in texts.shown(metadata).values())
    assert len(texts.shown({str(i): "" for i in range(1000)})) == 200


@pytest.mark.parametrize(
    ("metadata", "family", "prediction_type"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd15", None),
        ({"ss_base_model_version": "sd_v2"}, "sd21", None),
        ({"ss_base_model_version": "sd_v2_v"}, "sd21", "v_prediction"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl", None),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd21", "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl", None),
        (
            {"modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.prediction_type": "epsilon"},
            "sd15",
            "epsilon",
        ),
        ({"ss_base_model_version": "flux1"}, None, None),
        ({}, None, None),
    ],
)
def test_what_a_file_says_it_was_trained_on(
    metadata: dict[str, str], family: str | None, prediction_type: str | None
) -> None:
    assert texts.stated_family(metadata) == ({family} if family else set())
    assert texts.stated_prediction_type(metadata) == prediction_type


def test_alpha_of_a_module_can_differ_and_be_rank_stabilised() -> None:
    stated = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_k": 2}, "text_encoder.lora_alpha": 1}
    settings = texts.peft_settings({"lora_adapter_metadata": json.dumps(stated)}, "unet")
    assert settings.alpha_of("mid_block.attn2.to_k", 4) == 2
    assert settings.alpha_of("mid_block.xattn2.to_k", 4) == 8
    rank_stabilised = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.use_rslora": True})}
    assert texts.peft_settings(rank_stabilised, "unet").alpha_of("x", 4) == 16
    assert (
        texts.peft_settings({"lora_adapter_metadata": '{"unet.lora_alpha": 1' + "0" * 400 + "}"}, "unet").alpha is None
    )


def test_a_stated_hash_is_a_whole_sha256() -> None:
    digest = "ab" * 32
    assert texts.stated_sha256({"modelspec.hash_sha256": f"0x{digest.upper()}"}) == digest
    assert texts.stated_sha256({"sshs_model_hash": digest}) == digest
    assert texts.stated_sha256({"sshs_model_hash": "ab"}) is None
