"""Without a checkpoint, a module has one name whatever a file calls it, and its weight the shape of the model's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_registry.export import write_adapter
from lora_registry.formats import read_adapter
from lora_registry.modules import spellings, underscored
from lora_registry.unfitted import Unfitted, canonical, check_written, load_unfitted
from lora_registry.weights import LowRank
from studio.domain.adapter import FamilyId
from studio.domain.errors import CorruptModel
from tests.lora_registry import making
from tests.lora_registry.making import Factors

CONV = "down_blocks.0.resnets.1.conv1"


def loaded(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Unfitted:
    return load_unfitted(read_adapter(making.save(folder / "made.safetensors", tensors, metadata)))


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_both_names_of_every_module_are_one(family: FamilyId) -> None:
    for part, shapes in making.real_target(family).modules.items():
        for spelling, path in spellings(part, shapes).items():
            assert canonical(part, spelling) == canonical(part, path)
            assert canonical(part, path).removeprefix("text_model_") == underscored(path).removeprefix("text_model_")


@pytest.mark.parametrize(
    ("write", "metadata"),
    [
        (making.as_kohya, {}),
        (making.as_ldm_kohya, {}),
        (making.as_diffusers, making.peft_metadata()),
        (making.as_peft, making.peft_metadata()),
    ],
    ids=["kohya", "ldm", "diffusers", "peft"],
)
def test_every_layout_reads_the_same(
    tmp_path: Path, write: Callable[[list[Factors]], dict[str, Tensor]], metadata: dict[str, str]
) -> None:
    factors = making.tiny_factors()
    read = loaded(tmp_path, write(factors), metadata)
    expected = {(f.part, canonical(f.part, f.path)): f for f in factors}
    assert {(part, path) for part, changes in read.weights.items() for path in changes} == set(expected)
    for (part, path), made in expected.items():
        product = read.weights[part][path].product()
        torch.testing.assert_close(product, made.delta.flatten(1), rtol=1e-4, atol=1e-4)
        assert read.shapes[part][path] == making.shape_of(making.tiny_target(), part, made.path)
    assert "text_model_encoder_layers_1_mlp_fc1" in read.weights["text_encoder"]


def test_a_kernel_that_is_kept_flat_has_its_shape_all_the_same(tmp_path: Path) -> None:
    torch.manual_seed(4)
    name = making.kohya_name("unet", CONV)
    halves = {"hada_w1_a": (32, 2), "hada_w1_b": (2, 288), "hada_w2_a": (32, 2), "hada_w2_b": (2, 288)}
    read = loaded(tmp_path, {f"{name}.{role}": torch.randn(*shape) for role, shape in halves.items()})
    assert read.shapes["unet"][underscored(CONV)] == (32, 32, 3, 3)


def test_one_weight_under_two_names_is_refused(tmp_path: Path) -> None:
    factors = making.tiny_factors()
    with pytest.raises(CorruptModel, match="twice, under two spellings"):
        loaded(tmp_path, making.as_kohya(factors) | making.as_ldm_kohya(factors))


def test_what_was_written_reads_back_or_is_told(tmp_path: Path) -> None:
    file = tmp_path / "made.safetensors"
    change = LowRank(down=torch.randn(2, 8), up=torch.randn(6, 2), alpha=2.0)
    write_adapter(file, {"unet": {"mid_block_x": change}}, "sd15")
    check_written(file, {"unet": {"mid_block_x": change}})
    other = LowRank(down=change.down, up=change.up * 1.01, alpha=2.0)
    for wrong in ({"mid_block_x": other}, {"mid_block_x": change, "mid_block_y": change}):
        with pytest.raises(CorruptModel, match="does not read back"):
            check_written(file, {"unet": wrong})
