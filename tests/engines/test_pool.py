"""Checkpoints are loaded from where they lie, and refused in one sentence when they cannot be."""

import shutil
from pathlib import Path

import pytest
import torch

from engines.devices import Device
from engines.footprint import footprint_of
from engines.pool import PipelinePool
from studio.domain.catalogue import Catalogue
from studio.domain.errors import DownloadFailed, NotFound
from studio.settings import PROJECT_ROOT

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
CPU = Device(name="cpu", dtype=torch.float32)


def test_a_folder_dropped_under_a_catalogue_name_is_that_checkpoint(catalogue: Catalogue, tmp_path: Path) -> None:
    shutil.copytree(POCKET, tmp_path / "sd15")
    pool = PipelinePool(PROJECT_ROOT, tmp_path, CPU, offline=True)
    with pool.lease(catalogue.checkpoint("sd15")) as loaded:
        assert loaded.pipeline.unet.config.cross_attention_dim == 128


def test_the_lease_puts_the_scheduler_back(catalogue: Catalogue, tmp_path: Path) -> None:
    pool = PipelinePool(PROJECT_ROOT, tmp_path, CPU)
    with pool.lease(catalogue.checkpoint("pocket-sd15")) as loaded:
        before = loaded.pipeline.scheduler
        loaded.pipeline.scheduler = None
    with pool.lease(catalogue.checkpoint("pocket-sd15")) as again:
        assert again is loaded
        assert again.pipeline.scheduler is before


def test_only_as_many_checkpoints_stay_as_fit(catalogue: Catalogue, tmp_path: Path) -> None:
    for name in ("sd15", "sd14"):
        shutil.copytree(POCKET, tmp_path / name)
    pool = PipelinePool(PROJECT_ROOT, tmp_path, CPU, limit_bytes=10 * footprint_of(POCKET).total)
    for name in ("pocket-sd15", "sd15", "pocket-sd15", "sd14"):
        with pool.lease(catalogue.checkpoint(name)):
            pass
    assert list(pool._loaded) == ["pocket-sd15", "sd14"]


def test_offline_says_where_to_put_the_weights(catalogue: Catalogue, tmp_path: Path) -> None:
    pool = PipelinePool(PROJECT_ROOT, tmp_path, CPU, offline=True)
    with pytest.raises(DownloadFailed, match="offline") as caught, pool.lease(catalogue.checkpoint("sd15")):
        pass
    assert "sd15" in caught.value.hint


def test_a_missing_pocket_folder_says_how_to_build_it(catalogue: Catalogue, tmp_path: Path) -> None:
    pool = PipelinePool(tmp_path, tmp_path, CPU)
    with pytest.raises(NotFound, match=r"Pocket SD 1\.5") as caught, pool.lease(catalogue.checkpoint("pocket-sd15")):
        pass
    assert "engines.pocket.build" in caught.value.hint


def test_offline_a_model_in_the_hubs_cache_is_still_used(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = catalogue.checkpoint("sd15")
    entry = tmp_path / "hub" / f"models--{(checkpoint.hub_id or '').replace('/', '--')}"
    shutil.copytree(POCKET, entry / "snapshots" / ("0" * 40))
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pool = PipelinePool(PROJECT_ROOT, tmp_path / "models", CPU, offline=True)
    with pool.lease(checkpoint) as loaded:
        assert loaded.pipeline.unet.config.cross_attention_dim == 128
