"""An adapter for others: the same changes in both layouts, and nothing of the machine where it was made."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_registry.formats import read_adapter
from lora_registry.modules import dotted, underscored
from lora_registry.publishing import DIFFUSERS_FILE, write_layouts
from lora_registry.unfitted import load_unfitted
from studio.domain.adapter import FAMILY_TITLES
from tests.lora_registry.making import as_diffusers, as_kohya, real_target, save, tiny_factors


@pytest.mark.parametrize("family", FAMILY_TITLES)
def test_every_module_gets_its_dots_back(family: Any) -> None:
    for paths in real_target(family).modules.values():
        assert [path for path in paths if dotted(underscored(path)) != path] == []


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_both_files_add_what_the_adapter_adds(tmp_path: Path, layout: str) -> None:
    factors = tiny_factors()
    tensors = as_kohya(factors, alpha=2.0) if layout == "kohya" else as_diffusers(factors)
    source = save(tmp_path / "source.safetensors", tensors)
    names = write_layouts(source, tmp_path, "Mine")
    assert set(names) == {"Mine.safetensors", DIFFUSERS_FILE}
    expected = load_unfitted(read_adapter(source)).weights
    for name in names:
        found = load_unfitted(read_adapter(tmp_path / name)).weights
        assert {part: found[part].keys() for part in found} == {part: expected[part].keys() for part in expected}
        for part, changes in expected.items():
            for path, change in changes.items():
                torch.testing.assert_close(found[part][path].product(), change.product())
    assert read_adapter(tmp_path / "Mine.safetensors").layout == "kohya"
    state = StableDiffusionPipeline.lora_state_dict(str(tmp_path))[0]
    assert state and all(key.startswith(("unet.", "text_encoder.")) for key in state)


def test_folders_and_captions_stay_at_home(tmp_path: Path) -> None:
    private = {"ss_train_data_dir": "/srv/me/photos", "ss_tag_frequency": '{"my dog": 3}', "ss_dataset_dirs": "x"}
    public = {"modelspec.title": "Ink", "ss_network_dim": "4", "ss_sd_model_name": "C:\\Users\\me\\base.ckpt"}
    source = save(tmp_path / "source.safetensors", as_kohya(tiny_factors()), {**private, **public})
    for name in write_layouts(source, tmp_path, "Mine"):
        with safe_open(tmp_path / name, "pt") as file:
            told = file.metadata()
        assert not private.keys() & told.keys() and "me" not in str(told).split("\\")
        assert told["ss_sd_model_name"] == "base.ckpt" and told["modelspec.title"] == "Ink"
    written = load_file(tmp_path / "Mine.safetensors")
    assert all(torch.equal(tensor, written[key]) for key, tensor in load_file(source).items())


def test_what_has_no_factors_stays_in_the_layout_that_it_has(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    sides = ("hada_w1_a", "hada_w2_a"), ("hada_w1_b", "hada_w2_b")
    tensors = {f"{name}.{side}": torch.randn(8, 2) for side in sides[0]}
    tensors |= {f"{name}.{side}": torch.randn(2, 16) for side in sides[1]}
    save_file(tensors, tmp_path / "loha.safetensors")
    assert write_layouts(tmp_path / "loha.safetensors", tmp_path, "Mine") == ("Mine.safetensors",)
