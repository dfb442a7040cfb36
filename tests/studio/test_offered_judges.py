"""Judges that are fetched when they are first asked for, from a hub on this machine; each is tiny."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory, pretrained
from safetensors.torch import save

from engines.base import Engine
from studio import offered_judges
from studio.domain.catalogue import Catalogue
from studio.domain.errors import DownloadFailed, JobCancelled
from studio.domain.evaluation import parse_evaluation
from studio.domain.events import Failed, Finished
from studio.domain.scores import is_judge
from studio.evaluation_systems import checkpoints_of
from studio.generation import EngineHolder
from studio.judge_remarks import circular_words
from studio.offered_judges import OFFERED, OfferedJudge, OfferedJudges
from studio.scoring import ScoringService
from studio.services import Services, open_services
from studio.settings import Settings
from tests.engines.hub import FakeHub, forget_the_machine, served, use

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TAG: dict[str, Any] = {"hf_hub": "somebody/tiny/", "mean": (0.5,) * 3, "std": (0.5,) * 3}
SMALL = OfferedJudge(
    name="small", title="A small judge", hub_id="somebody/tiny", architecture="tiny", pretrained="usual", megabytes=7
)
PATIENCE_S = 300


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One judge is offered, of an architecture that open_clip knows for the time being, as it knows ViT-B-16."""
    configs: Any = factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "tiny", TINY)
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"usual": TAG})
    monkeypatch.setattr(offered_judges, "OFFERED", (SMALL,))


@pytest.fixture
def weights() -> bytes:
    torch.manual_seed(0)
    model: Any = open_clip.create_model("tiny", load_weights=False)
    return save(model.state_dict())


@pytest.fixture
def hub(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    forget_the_machine(monkeypatch, tmp_path / "machine")
    with served({"somebody/tiny": {"open_clip_model.safetensors": weights, "README.md": b"tiny"}}) as hub:
        use(monkeypatch, hub)
        yield hub


@pytest.fixture
def studio(engine: Engine, tmp_path: Path, hub: FakeHub) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path / "data", offline=False)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


def test_it_is_fetched_once_and_is_then_a_judge_like_any_other(hub: FakeHub, weights: bytes, tmp_path: Path) -> None:
    judges = OfferedJudges(tmp_path, offline=False, endpoint=hub.endpoint)
    told: list[tuple[int, int]] = []
    assert judges.missing() == (SMALL,) and judges.fetch("another") is None
    assert judges.fetch("small", on_fetch=lambda done, total: told.append((done, total))) == SMALL
    assert told[-1] == (len(weights), len(weights)), "and nothing but the weights"
    assert is_judge(tmp_path / "small") and judges.missing() == () and judges.fetch("small") is None
    assert (tmp_path / "small" / "open_clip_model.safetensors").read_bytes() == weights
    assert hub.large_paths() == ["open_clip_model.safetensors"]


def test_older_repositories_call_their_weights_otherwise(hub: FakeHub, weights: bytes, tmp_path: Path) -> None:
    hub.repositories["somebody/tiny"] = {"open_clip_pytorch_model.safetensors": weights}
    judges = OfferedJudges(tmp_path, offline=False, endpoint=hub.endpoint)
    assert judges.fetch("small") == SMALL
    assert 'weights = "open_clip_pytorch_model.safetensors"' in (tmp_path / "small" / "judge.toml").read_text()


def test_one_that_cannot_be_had_is_no_judge(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories.clear()
    judges = OfferedJudges(tmp_path, offline=False, endpoint=hub.endpoint)
    with pytest.raises(DownloadFailed, match="A small judge"):
        judges.fetch("small")
    assert judges.missing() == (SMALL,)
    assert OfferedJudges(tmp_path, offline=True).missing() == (), "what cannot be fetched is not offered"


def test_a_fetch_that_is_stopped_leaves_no_judge(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.hangs = True
    judges = OfferedJudges(tmp_path, offline=False, endpoint=hub.endpoint)
    with pytest.raises(JobCancelled):
        judges.fetch("small", cancelled=lambda: True)
    assert not is_judge(tmp_path / "small")


def test_an_evaluation_fetches_the_judge_that_it_asks_for(studio: Services, hub: FakeHub) -> None:
    assert studio.scoring.judges()[-1] == "small"
    asked = {"systems": [{"num_inference_steps": 2}], "num_prompts": 2, "num_images": 1, "judge": "small"}
    evaluation = studio.evaluations.resolve(parse_evaluation(asked))
    assert studio.evaluations.to_fetch(evaluation) == [SMALL]
    begun = studio.evaluations.submit_resolved(evaluation)
    assert isinstance(begun.job.wait(timeout=PATIENCE_S), Finished)
    assert hub.large_paths() == ["open_clip_model.safetensors"]
    results = studio.evaluations.standing(begun.id).results
    assert [result.judge.partition(" ")[0] for result in results.values()] == ["small", "small"]
    assert studio.evaluations.to_fetch(evaluation) == []


def test_nothing_is_drawn_for_a_judge_that_cannot_be_had(studio: Services, hub: FakeHub) -> None:
    hub.repositories.clear()
    asked = {"systems": [{"num_inference_steps": 2}], "num_prompts": 2, "num_images": 1, "second_judge": "small"}
    begun = studio.evaluations.submit(parse_evaluation(asked))
    ended = begun.job.wait(timeout=PATIENCE_S)
    assert isinstance(ended, Failed) and "A small judge" in ended.message
    assert studio.gallery.count() == 0


def test_large_models_are_compared_by_the_first_that_is_offered(
    catalogue: Catalogue, studio: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for checkpoint_id in ("sd15", "sd21", "sdxl"):
        request = parse_evaluation({"systems": [{"checkpoint": checkpoint_id}]})
        assert checkpoints_of(request, catalogue) == (checkpoint_id,)
        assert studio.evaluations.resolve(request).judge == "small"
    assert studio.evaluations.resolve(parse_evaluation({"systems": [{}]})).judge == "pocket-clip"


def test_what_is_offered_is_known_to_open_clip_and_reads_prompts_as_no_model_does(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    for row in OFFERED:
        told = open_clip.get_pretrained_cfg(row.architecture, row.pretrained) or open_clip.get_pretrained_cfg(
            f"{row.architecture}-quickgelu", row.pretrained
        )
        assert told["hf_hub"].rstrip("/") == row.hub_id
        folder = tmp_path / row.name
        folder.mkdir()
        (folder / "judge.toml").write_text(f'architecture = "{row.architecture}"\npretrained = "{row.pretrained}"\n')
        assert circular_words(folder, ("sd15", "sd21", "sdxl"), catalogue) == ""


def test_what_is_missing_is_said_to_whom_it_matters(studio: Services) -> None:
    assert isinstance(studio.scoring, ScoringService) and studio.scoring.missing() == (SMALL,)
    assert studio.judge_exams.examine("small").judge.startswith("small ")
    assert studio.scoring.missing() == ()
