"""Of all the files of a repository, only those that a pipeline loads are wanted, and no pickle ever."""

import pytest

from engines.hub_files import Source, Unusable, choose, choose_part, parts_of

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": True,
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": [None, None],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
WORDS = (
    "feature_extractor/preprocessor_config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
)
WEIGHTS = (
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
HALF = tuple(name.replace(".safetensors", ".fp16.safetensors") for name in WEIGHTS)
SHARDS = tuple(f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2))
SHARD_INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
NOISE = (
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "v1-5-pruned-emaonly.ckpt",
    "safety_checker/model.safetensors",
    "safety_checker/config.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder/flax_model.msgpack",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.non_ema.bin",
    "unet/model.onnx",
    "unet/openvino_model.xml",
    "vae_1_0/diffusion_pytorch_model.safetensors",
)


def chosen(*names: str, prefer_half: bool = False) -> dict[str, str]:
    return {file.path: file.target for file in choose(names, parts_of(INDEX), prefer_half=prefer_half)}


def test_only_what_the_pipeline_loads_is_wanted() -> None:
    files = chosen(*WORDS, *WEIGHTS, *HALF, *NOISE)
    assert set(files) == {"model_index.json", *WORDS, *WEIGHTS}
    assert all(path == target for path, target in files.items())


def test_half_precision_gets_the_names_that_are_loaded() -> None:
    files = chosen(*WORDS, *WEIGHTS, *HALF, *NOISE, prefer_half=True)
    assert set(files) == {"model_index.json", *WORDS, *HALF}
    assert set(files.values()) == {"model_index.json", *WORDS, *WEIGHTS}


@pytest.mark.parametrize(("there", "prefer_half"), [(WEIGHTS, True), (HALF, False)])
def test_the_other_precision_is_better_than_none(there: tuple[str, ...], prefer_half: bool) -> None:
    assert set(chosen(*WORDS, *there, prefer_half=prefer_half)) >= set(there)


def test_one_file_is_taken_rather_than_shards() -> None:
    files = chosen(*WORDS, *WEIGHTS, *SHARDS, SHARD_INDEX)
    assert not {*SHARDS, SHARD_INDEX} & set(files)


def test_shards_come_together_with_their_index() -> None:
    names = (*WORDS, WEIGHTS[0], WEIGHTS[2], *SHARDS, SHARD_INDEX)
    assert {*SHARDS, SHARD_INDEX} <= set(chosen(*names))
    for missing in (SHARDS[1], SHARD_INDEX):
        with pytest.raises(Unusable, match="no complete unet"):
            chosen(*(name for name in names if name != missing))


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        (".fp16-0000{}-of-00002.safetensors", ".safetensors.index.fp16.json"),
        ("-0000{}-of-00002.fp16.safetensors", ".safetensors.fp16.index.json"),
    ],
)
def test_shards_in_half_precision_keep_the_names_that_their_index_spells(shard: str, index: str) -> None:
    shards = {f"unet/diffusion_pytorch_model{shard.format(n)}" for n in (1, 2)}
    files = chosen(*WORDS, *WEIGHTS, *shards, f"unet/diffusion_pytorch_model{index}", prefer_half=True)
    assert all(files[name] == name for name in shards)
    assert files[f"unet/diffusion_pytorch_model{index}"] == SHARD_INDEX


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_that_is_only_a_pickle_is_refused(part: str) -> None:
    names = [name for name in (*WORDS, *WEIGHTS) if name.endswith((".json", ".txt")) or not name.startswith(part)]
    with pytest.raises(Unusable, match=f"has its {part} only as a pickle"):
        chosen(*names, f"{part}/pytorch_model.bin")


@pytest.mark.parametrize("missing", WORDS)
def test_a_part_without_its_words_is_refused(missing: str) -> None:
    with pytest.raises(Unusable, match=f"no complete {missing.split('/')[0]}"):
        chosen(*(name for name in (*WORDS, *WEIGHTS) if name != missing))


@pytest.mark.parametrize("index", [[], "text", {}, {"../unet": ["diffusers", "UNet2DConditionModel"]}])
def test_what_is_no_index_of_a_pipeline_is_refused(index: object) -> None:
    with pytest.raises(Unusable, match="not a diffusers pipeline"):
        parts_of(index)


def test_a_part_may_lie_in_the_root_of_a_repository() -> None:
    names = ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "sdxl_vae.safetensors", "unet/x.json"]
    files = choose_part(names, "vae", "AutoencoderKL", prefer_half=False, folder="")
    assert {file.path: file.target for file in files} == {
        "config.json": "vae/config.json",
        "diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
    }


def test_a_source_reads_as_people_name_it() -> None:
    assert str(Source(hub_id="a/b")) == "a/b"
    assert str(Source(hub_id="a/b", revision="refs/pr/13")) == "a/b (refs/pr/13)"
