"""Judges that know pictures and words: the one that is shipped, folders of other people's, and what is refused."""

import json
import shutil
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import judges
from engines.base import Engine
from engines.judges import ClipJudge, JudgeShelf, weights_of
from engines.pocket.contrast import contrast, trials
from engines.pocket.foils import FOIL_SKILLS
from engines.pocket.grammar import caption, parse
from engines.pocket.world import render
from studio.domain.errors import CorruptModel, NotFound
from studio.domain.scores import JUDGE_CONFIG
from studio.scoring import POCKET_JUDGE
from studio.settings import PROJECT_ROOT

PICTURE = render(parse("a red star on a white background") or pytest.fail("no scene"), seed=3)


@pytest.fixture(scope="module")
def judge() -> ClipJudge:
    return ClipJudge(POCKET_JUDGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A judge of somebody's own."""
    return Path(shutil.copytree(POCKET_JUDGE, tmp_path / "mine"))


def test_the_true_words_fit_best(judge: ClipJudge) -> None:
    said = ["a red star", "a blue star", "a red heart", "two red stars"]
    scores = [judge.score(PICTURE, f"{words} on a white background").cosine for words in said]
    assert scores[0] == max(scores) and all(-1 <= score <= 1 for score in scores)


def test_the_shipped_judge_sees_what_its_card_says(judge: ClipJudge) -> None:
    told = contrast(lambda image, text: judge.score(image, text).cosine, per_skill=60)
    assert set(told) == set(FOIL_SKILLS) and all(tally.total == 60 for tally in told.values())
    low = {skill: tally.rate for skill, tally in told.items() if tally.rate < LEAST[skill]}
    assert not low, f"below what the card says: {low}"


LEAST = dict.fromkeys(FOIL_SKILLS, 0.85) | {"colour": 0.95, "shape": 0.95}


def test_a_score_is_that_of_open_clip_itself(judge: ClipJudge) -> None:
    loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{POCKET_JUDGE}")
    model, prepare = loaded
    model.eval()
    text = "a red star on a white background"
    with torch.inference_mode():
        seen = model.encode_image(prepare(PICTURE)[None])
        read = model.encode_text(open_clip.get_tokenizer(f"local-dir:{POCKET_JUDGE}")([text]))
    wanted = float(torch.cosine_similarity(seen, read))
    assert judge.score(PICTURE, text).cosine == pytest.approx(wanted, abs=1e-5)


def test_the_same_picture_has_the_same_score_every_time(judge: ClipJudge, engine: Engine, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    first, again = (engine.score(POCKET_JUDGE, tmp_path / "picture.png", "a red star") for _ in range(2))
    assert first == again == judge.score(PICTURE, "a red star")
    assert first.judge.startswith("pocket-clip ") and first.judge.endswith(", 64 px bicubic shortest, float32")


TEXTS = tuple(
    f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("star", "heart", "ring", "cross")
)


def test_many_texts_are_judged_as_each_alone(engine: Engine, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    texts = (*TEXTS, "a red star " * 20, TEXTS[0])
    together = engine.score_texts(POCKET_JUDGE, tmp_path / "picture.png", texts)
    for text, score in zip(texts, together, strict=True):
        alone = ClipJudge(POCKET_JUDGE).score(PICTURE, text)  # one that has read nothing yet
        assert (score.text, score.judge, score.is_truncated) == (text, alone.judge, alone.is_truncated)
        assert score.cosine == pytest.approx(alone.cosine, abs=1e-6)
    assert [score.is_truncated for score in together].count(True) == 1
    assert engine.score_texts(POCKET_JUDGE, tmp_path / "picture.png", ()) == ()
    with pytest.raises(NotFound, match="picture that is to be judged is gone"):
        engine.score_texts(POCKET_JUDGE, tmp_path / "nothing.png", texts)


def test_asking_many_texts_of_a_picture_takes_little_longer_than_one(judge: ClipJudge) -> None:
    judge.score_texts(PICTURE, TEXTS)

    def least_s(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=1, repeat=5))

    assert 3 * least_s(lambda: judge.score_texts(PICTURE, TEXTS)) < least_s(
        lambda: [judge.embed(PICTURE) for _ in TEXTS]
    )


def test_a_picture_that_is_gone_is_said(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="picture that is to be judged is gone"):
        engine.score(POCKET_JUDGE, tmp_path / "nothing.png", "a red star")
    with pytest.raises(NotFound, match="picture that is to be judged is gone"):
        engine.embed(POCKET_JUDGE, tmp_path / "nothing.png")


def test_an_embedding_is_of_length_one_and_equal_pictures_have_a_cosine_of_one(judge: ClipJudge) -> None:
    vector, other = (
        judge.embed(PICTURE),
        judge.embed(render(parse("two blue hearts on a white background") or pytest.fail("no scene"), 3)),
    )
    assert vector.dtype == np.float32 and vector.shape == (128,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert float(vector @ judge.embed(PICTURE.copy())) == pytest.approx(1, abs=1e-6)
    assert float(vector @ other) < 0.9


def test_a_score_is_the_product_of_the_two_embeddings(judge: ClipJudge, engine: Engine, tmp_path: Path) -> None:
    loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{POCKET_JUDGE}")
    tokens = open_clip.get_tokenizer(f"local-dir:{POCKET_JUDGE}")(["a red star"])
    with torch.inference_mode():
        read = loaded[0].eval().encode_text(tokens, normalize=True)[0].numpy()
    assert judge.score(PICTURE, "a red star").cosine == pytest.approx(float(judge.embed(PICTURE) @ read), abs=1e-6)
    PICTURE.save(tmp_path / "picture.png")
    assert engine.embed(POCKET_JUDGE, tmp_path / "picture.png") == tuple(judge.embed(PICTURE).tolist())


def test_a_text_that_is_cut_is_told(judge: ClipJudge) -> None:
    assert not judge.score(PICTURE, "a huge red star on the left side of a picture, white background").is_truncated
    assert judge.score(PICTURE, "a red star " * 20).is_truncated


def test_what_open_clip_brings_itself_is_cut_at_77_tokens(folder: Path) -> None:
    config = json.loads((folder / JUDGE_CONFIG).read_text())
    model = config["model_cfg"]
    del model["text_cfg"]["hf_tokenizer_name"]
    model["text_cfg"] |= {"context_length": 77, "vocab_size": 49408}
    (folder / JUDGE_CONFIG).write_text(json.dumps(config))
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(made.state_dict(), weights_of(folder))
    judge = ClipJudge(folder)
    assert not judge.score(PICTURE, "star " * 75).is_truncated
    assert judge.score(PICTURE, "star " * 76).is_truncated


def _without_weights(folder: Path) -> None:
    weights_of(folder).unlink()


def _without_config(folder: Path) -> None:
    (folder / JUDGE_CONFIG).unlink()


def _cut(folder: Path) -> None:
    data = weights_of(folder).read_bytes()
    weights_of(folder).write_bytes(data[: len(data) // 2])


def _without_a_layer(folder: Path) -> None:
    state = load_file(weights_of(folder))
    del state["visual.proj"]
    save_file(state, weights_of(folder))


def _no_json(folder: Path) -> None:
    (folder / JUDGE_CONFIG).write_text("{")


@pytest.mark.parametrize("harm", [_without_weights, _without_config, _cut, _without_a_layer, _no_json])
def test_a_judge_that_is_not_whole_never_judges(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder)
    with pytest.raises((NotFound, CorruptModel), match="judge") as caught:
        ClipJudge(folder)
    assert "Fetch its folder again" in caught.value.hint


def test_a_judge_whose_weights_change_is_read_anew(folder: Path) -> None:
    shelf = JudgeShelf()
    first = shelf.take(folder)
    state = load_file(weights_of(folder))
    state["visual.proj"] = -state["visual.proj"]
    save_file(state, weights_of(folder))
    second = shelf.take(folder)
    assert second.id != first.id
    assert second.score(PICTURE, "a red star").cosine == pytest.approx(-first.score(PICTURE, "a red star").cosine)


def test_more_texts_than_are_remembered_are_read_again(judge: ClipJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_MOST_TEXTS", 2)
    forgetful = ClipJudge(POCKET_JUDGE)
    for _ in range(2):
        assert forgetful.score_texts(PICTURE, TEXTS) == judge.score_texts(PICTURE, TEXTS)


def test_a_foil_differs_in_its_skill_alone() -> None:
    seen = {trial.skill: trial for trial in trials(per_skill=1)}
    assert set(seen) == set(FOIL_SKILLS)
    for skill, trial in seen.items():
        scene, foil = trial.scene, trial.foil
        assert caption(scene) != caption(foil)
        assert (scene.background != foil.background) == (skill == "background")
        assert (scene.relation != foil.relation) == (skill == "relation")
        changed = {
            field for ours, theirs in zip(scene.things, foil.things, strict=True)
            for field in ("colour", "shape", "count", "place", "size") if getattr(ours, field) != getattr(theirs, field)
        }  # fmt: skip
        assert changed == {"binding": {"colour"}, "relation": set(), "background": set()}.get(skill, {skill})


def test_torchvision_can_be_imported_beside_a_torch_that_it_was_not_built_for() -> None:
    """Whatever is imported first after the engines: open_clip, or what diffusers needs of transformers."""
    program = "import engines; from diffusers import StableDiffusionPipeline; import torchvision, open_clip, torch; "
    program += "print(torchvision.transforms.ToTensor()(__import__('PIL.Image').Image.new('RGB', (2, 2))).shape)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert ended.returncode == 0, ended.stderr[-800:]
    assert "torch.Size([3, 2, 2])" in ended.stdout
