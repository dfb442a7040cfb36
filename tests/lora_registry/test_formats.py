"""The kind of a file is told by names and shapes; its metadata decide nothing that those have decided."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_registry.formats import describe, read_adapter
from studio.domain.adapter import FAMILY_TITLES, Adapter, FamilyId
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel
from tests.lora_registry import making
from tests.lora_registry.making import Factors

TO_K = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"


def described(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Adapter:
    return describe(read_adapter(making.save(path / "made.safetensors", tensors, metadata)), "made")


def one(part: str, path: str, columns: int, rows: int = 8, rank: int = 2) -> list[Factors]:
    return [Factors(part, path, torch.ones(rank, columns), torch.ones(rows, rank))]


def test_a_file_is_described_from_its_header(tmp_path: Path) -> None:
    factors = [*making.tiny_factors(), *making.random_factors(making.tiny_target(), "unet", ["conv_out"], rank=2)]
    metadata = {"ss_output_name": "blue dog", "ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "sks"}
    adapter = described(tmp_path, making.as_kohya(factors), metadata)
    assert (adapter.layout, adapter.algorithm, adapter.parts) == ("kohya", "locon", ("unet", "text_encoder"))
    assert (adapter.ranks, adapter.alphas, adapter.module_count) == ((2, 4), (16.0,), 11)
    assert (adapter.title, adapter.trigger_words, adapter.family) == ("blue dog", ("sks",), "sd15")
    assert adapter.size_bytes == (tmp_path / "made.safetensors").stat().st_size
    assert adapter.notes == ()


@pytest.mark.parametrize("family", FAMILY_TITLES)
def test_the_family_is_told_by_how_wide_the_text_is_that_the_unet_reads(tmp_path: Path, family: FamilyId) -> None:
    target = making.real_target(family)
    path = next(path for path in target.modules["unet"] if path.endswith("attn2.to_k"))
    factors = making.random_factors(target, "unet", [path], rank=1)
    for tensors in (making.as_kohya(factors), making.as_diffusers(factors), making.as_peft(factors)):
        assert described(tmp_path, tensors).family == family


@pytest.mark.parametrize(
    ("factors", "stated", "family"),
    [
        (one("text_encoder", Q_PROJ, 1024), "", "sd21"),
        (one("text_encoder_2", Q_PROJ, 1280), "", "sdxl"),
        (one("text_encoder", Q_PROJ, 768), "", None),
        (one("text_encoder", Q_PROJ, 768), "sdxl_base_v1-0", "sdxl"),
        (one("unet", TO_K.replace("blocks.0.attn", "blocks.7.attn"), 24), "", "sdxl"),
        (one("unet", TO_K, 24), "", None),
        (one("unet", TO_K, 24), "sd_v1", "sd15"),
    ],
)
def test_metadata_break_ties(tmp_path: Path, factors: list[Factors], stated: str, family: str | None) -> None:
    adapter = described(tmp_path, making.as_kohya(factors), {"ss_base_model_version": stated})
    assert (adapter.family, adapter.notes) == (family, ())


def test_metadata_that_contradict_the_shapes_are_noted(tmp_path: Path) -> None:
    adapter = described(tmp_path, making.as_kohya(one("unet", TO_K, 2048)), {"ss_base_model_version": "sd_v1"})
    assert adapter.family == "sdxl"
    assert adapter.notes == ("Its metadata say SD 1.5, its weights are shaped for SDXL.",)


@pytest.mark.parametrize(
    ("ends", "algorithm"),
    [
        (("lora_down.weight", "lora_up.weight", "dora_scale"), "dora"),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), "loha"),
        (("lokr_w1", "lokr_w2"), "lokr"),
        (("diff", "diff_b"), "full"),
        (("w_norm", "b_norm"), "norm"),
        (("weight", "on_input"), "ia3"),
        (("oft_blocks", "rescale"), "oft"),
        (("a1.weight", "a2.weight", "b1.weight", "b2.weight"), "glora"),
    ],
)
def test_algorithms_are_known_by_name(tmp_path: Path, ends: tuple[str, ...], algorithm: str) -> None:
    adapter = described(tmp_path, {f"lora_unet_mid_block_proj.{end}": torch.ones(2, 2) for end in ends})
    assert adapter.algorithm == algorithm


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "a LoRA for Flux"),
        ("transformer.blocks.0.lora_A.weight", "Flux or Stable Diffusion 3"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a whole checkpoint"),
        ("emb_params", "a textual inversion"),
        ("down_blocks.0.resnets.0.conv1.weight", "holds no LoRA that is known here"),
        (None, "is empty"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, name: str | None, said: str) -> None:
    with pytest.raises(CorruptModel, match=said):
        described(tmp_path, {name: torch.ones(2, 2)} if name else {})


def test_a_factor_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    factors = one("unet", TO_K, 24)
    with pytest.raises(CorruptModel, match="twice"):
        described(tmp_path, {**making.as_diffusers(factors), **making.as_peft(factors)})


@pytest.mark.parametrize("alpha", [torch.tensor(8), torch.tensor([8.0]), torch.tensor(8.0, dtype=torch.bfloat16)])
def test_alpha_may_be_any_single_number(tmp_path: Path, alpha: Tensor) -> None:
    tensors = making.as_kohya(one("unet", TO_K, 24), alpha=None)
    assert described(tmp_path, {**tensors, f"{making.kohya_name('unet', TO_K)}.alpha": alpha}).alphas == (8.0,)


def test_families_are_called_as_the_catalogue_calls_them(catalogue: Catalogue) -> None:
    assert {family.id: family.title for family in catalogue.families} == FAMILY_TITLES
