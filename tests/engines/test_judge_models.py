"""Judges of other kinds: an architecture of open_clip with weights of its own, and a CLIPModel of transformers. All are
tiny, with random weights of their own, and are compared with what the libraries say themselves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from engines import judge_models
from engines.base import Engine
from engines.judge_models import weights_of
from engines.judges import ClipJudge
from engines.pocket.grammar import parse
from engines.pocket.world import render
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, NotFound
from studio.domain.scores import is_judge, judge_kind
from studio.judge_remarks import circular_words
from studio.scoring import POCKET_JUDGE
from studio.services import Services

PICTURE = render(parse("a red star on a white background") or pytest.fail("no scene"), seed=3).crop((0, 0, 128, 96))
TEXT = "a red star"
TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TAG: dict[str, Any] = {
    "hf_hub": "somebody/tiny/", "mean": (0.2, 0.3, 0.4), "std": (0.5, 0.6, 0.7), "interpolation": "bicubic",
    "resize_mode": "squash", "quick_gelu": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that open_clip knows for the time being, as it knows ViT-B-16, with a tag such as OpenAI's."""
    configs: Any = factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "tiny", TINY)
    monkeypatch.setitem(configs, "tiny-quickgelu", {**TINY, "quick_gelu": True})
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"openai": TAG})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A judge by its architecture, with weights in a file."""
    torch.manual_seed(0)
    model: Any = open_clip.create_model("tiny", load_weights=False)
    for name, tensor in model.named_parameters():
        if "weight" in name or "proj" in name:
            tensor.data.mul_(3)  # so that the activation shows in what comes of it
    place = tmp_path / "mine"
    place.mkdir()
    save_file(model.state_dict(), place / "some.safetensors")
    recipe(place, weights="some.safetensors")
    return place


def recipe(folder: Path, **values: str) -> None:
    lines = [f'{name} = "{value}"' for name, value in {"architecture": "tiny", **values}.items()]
    (folder / "judge.toml").write_text("\n".join(lines))


def said_by_open_clip(folder: Path, **given: Any) -> float:
    loaded: Any = open_clip.create_model_from_pretrained("tiny", str(folder / "some.safetensors"), **given)
    model, prepare = loaded
    model.eval()
    with torch.inference_mode():
        seen = model.encode_image(prepare(PICTURE)[None])
        read = model.encode_text(open_clip.get_tokenizer("tiny")([TEXT]))
    return float(torch.cosine_similarity(seen, read))


def test_an_architecture_with_weights_scores_as_open_clip_does(folder: Path) -> None:
    judge = ClipJudge(folder)
    score = judge.score(PICTURE, TEXT)
    assert score.cosine == pytest.approx(said_by_open_clip(folder), abs=1e-6)
    assert judge.id.startswith("mine ") and judge.id.endswith(", tiny, 32 px bicubic shortest, float32")
    assert float(judge.embed(PICTURE) @ judge.embed(PICTURE)) == pytest.approx(1, abs=1e-6)
    assert not score.is_truncated and judge.score(PICTURE, "star " * 76).is_truncated


@pytest.mark.parametrize("name", ["tiny", "tiny-quickgelu"])
def test_a_tag_says_which_activation_weights_in_a_file_were_trained_with(folder: Path, name: str) -> None:
    recipe(folder, architecture=name, weights="some.safetensors", pretrained="openai")
    judge = ClipJudge(folder)
    prepared = {"image_mean": TAG["mean"], "image_std": TAG["std"], "image_resize_mode": "squash"}
    wanted = said_by_open_clip(folder, force_quick_gelu=True, **prepared)
    assert judge.score(PICTURE, TEXT).cosine == pytest.approx(wanted, abs=1e-6)
    assert abs(wanted - said_by_open_clip(folder, **prepared)) > 1e-4, "it would be another score"
    assert judge.id.endswith(f", {name} openai, 32 px bicubic squash, float32")


def test_without_a_tag_the_architecture_says_which_activation(folder: Path) -> None:
    recipe(folder, architecture="tiny-quickgelu", weights="some.safetensors")
    wanted = said_by_open_clip(folder, force_quick_gelu=True)
    assert ClipJudge(folder).score(PICTURE, TEXT).cosine == pytest.approx(wanted, abs=1e-6)


def test_weights_of_a_tag_come_from_the_cache_and_are_never_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shutil.move(folder / "some.safetensors", tmp_path / "open_clip_model.safetensors")
    recipe(folder, pretrained="openai")
    with pytest.raises(NotFound, match="are not on this machine") as caught:
        ClipJudge(folder)
    assert "hf download somebody/tiny open_clip_model.safetensors" in caught.value.hint
    asked: list[tuple[str, str]] = []

    def cached(hub_id: str, name: str) -> str | None:
        asked.append((hub_id, name))
        return str(kept) if name == "open_clip_model.safetensors" else None

    monkeypatch.setattr(judge_models, "try_to_load_from_cache", cached)
    assert weights_of(folder) == Path(kept) and ClipJudge(folder).id.endswith("float32")
    assert set(asked) == {("somebody/tiny", "open_clip_model.safetensors")}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weights": "gone.safetensors"}, "gone.safetensors is missing"),
        ({"weights": "../some.safetensors"}, "no safetensors file"),
        ({"weights": "some.pt"}, "no safetensors file"),
        ({}, "names no weights"),
        ({"weights": "some.safetensors", "architecture": "ViT-X"}, "no architecture called 'ViT-X'"),
        ({"weights": "some.safetensors", "pretrained": "gone"}, "no tiny gone in open_clip"),
        ({"weights": "some.safetensors", "tag": "openai"}, "cannot be understood"),
        ({"weights": "some.safetensors", "architecture": "ViT-B-16-SigLIP"}, "no tokenizer"),
        ({"weights": "some.safetensors", "architecture": "ViT-B-32"}, "cannot be loaded"),
    ],
)
def test_a_recipe_that_does_not_work_says_what_to_do(folder: Path, values: dict[str, str], said: str) -> None:
    recipe(folder, **values)
    with pytest.raises((NotFound, CorruptModel), match=said) as caught:
        ClipJudge(folder)
    assert caught.value.hint


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _without_a_layer(path: Path) -> None:
    state = load_file(path)
    del state[next(name for name in state if name in ("visual.proj", "visual_projection.weight"))]
    save_file(state, path, metadata={"format": "pt"})


HARMS = [Path.unlink, _cut, _without_a_layer]


@pytest.mark.parametrize("harm", HARMS)
def test_weights_that_are_not_whole_never_judge(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder / "some.safetensors")
    with pytest.raises((NotFound, CorruptModel), match="judge"):
        ClipJudge(folder)


@pytest.fixture
def of_transformers(tmp_path: Path) -> Path:
    """A CLIPModel in a folder, as PickScore's, with our own tokenizer."""
    place = tmp_path / "picks"
    tokenizer: Any = AutoTokenizer.from_pretrained(POCKET_JUDGE)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **tower, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(1)
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(place)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET_JUDGE / name, place)
    return place


def test_a_model_of_transformers_scores_as_it_does_itself(of_transformers: Path) -> None:
    model: Any = CLIPModel.from_pretrained(of_transformers).eval()
    processor: Any = CLIPImageProcessor.from_pretrained(of_transformers)
    tokenizer: Any = AutoTokenizer.from_pretrained(of_transformers)
    with torch.inference_mode():
        tokens = tokenizer([TEXT], return_tensors="pt")
        pixels = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
        told = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    judge = ClipJudge(of_transformers)
    score = judge.score(PICTURE, TEXT)
    assert score.cosine == pytest.approx(
        float(told.logits_per_image) / model.logit_scale.detach().exp().item(), abs=1e-6
    )
    assert judge.embed(PICTURE) == pytest.approx(told.image_embeds[0].numpy(), abs=1e-6)
    assert judge.id.startswith("picks ") and judge.id.endswith(", CLIPModel, 32 px, float32")
    assert not score.is_truncated and judge.score(PICTURE, "a red star " * 20).is_truncated


def _without(name: str) -> Callable[[Path], None]:
    return lambda weights: (weights.parent / name).unlink()


def _with_another_tokenizer(weights: Path) -> None:
    config = json.loads((weights.parent / "config.json").read_text())
    state = load_file(weights)
    name = "text_model.embeddings.token_embedding.weight"
    config["text_config"]["vocab_size"] = 300
    (weights.parent / "config.json").write_text(json.dumps(config))
    save_file({**state, name: state[name][:300].contiguous()}, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "harm", [*HARMS, _without("tokenizer.json"), _without("preprocessor_config.json"), _with_another_tokenizer]
)
def test_a_model_of_transformers_that_is_not_whole_never_judges(
    of_transformers: Path, harm: Callable[[Path], None]
) -> None:
    harm(of_transformers / "model.safetensors")
    with pytest.raises((NotFound, CorruptModel), match="judge") as caught:
        ClipJudge(of_transformers)
    assert "Fetch its folder again" in caught.value.hint


def test_what_makes_a_judge_is_told_by_its_files(tmp_path: Path, folder: Path, of_transformers: Path) -> None:
    assert [judge_kind(each) for each in (POCKET_JUDGE, folder, of_transformers)] == [
        "open_clip", "recipe", "transformers",
    ]  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    for content in ("", "[]", '{"model_type": "clip_text_model"}'):
        (other / "config.json").write_text(content)
        assert not is_judge(other)
    assert not is_judge(tmp_path / "gone")


def test_a_judge_of_any_kind_that_reads_as_the_model_does_is_told(catalogue: Catalogue, folder: Path) -> None:
    assert circular_words(folder, ["sd15"], catalogue) == ""
    recipe(folder, architecture="ViT-L-14-336", pretrained="openai")
    assert "CLIP ViT-L/14" in circular_words(folder, ["sd15"], catalogue)
    (folder / "judge.toml").unlink()
    text = {"hidden_size": 1024, "num_hidden_layers": 24}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": text}))
    assert "OpenCLIP ViT-H/14" in circular_words(folder, ["sd21"], catalogue)
    assert circular_words(folder, ["sd15", "pocket-sd21"], catalogue) == ""


def test_folders_of_all_kinds_are_judges_of_the_studio(
    services: Services, engine: Engine, folder: Path, of_transformers: Path, tmp_path: Path
) -> None:
    judges = services.settings.judges_dir
    judges.mkdir(parents=True, exist_ok=True)
    (judges / "exams").mkdir()
    for each in (of_transformers, folder):
        shutil.copytree(each, judges / each.name)
    assert services.scoring.judges() == ("pocket-clip", "mine", "picks")
    place = services.scoring.folder_of("picks")
    assert place == judges / "picks"
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "picture.png")
    score = services.scoring.score_file(place, tmp_path / "picture.png", TEXT)
    assert score is not None and score.judge.startswith("picks ")
    vector = services.scoring.embed_file(place, tmp_path / "picture.png")
    assert vector is not None and len(vector) == 16
    assert engine.embed(judges / "mine", tmp_path / "picture.png") != vector
    (place / "model.safetensors").unlink()
    assert services.scoring.embed_file(place, tmp_path / "picture.png") is None
