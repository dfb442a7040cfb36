"""Every adapter gets its verdict before a picture is begun: it fits, or one sentence says why not and what to do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_registry.compatibility import judge
from studio.domain.adapter import AdapterTarget, Verdict
from tests.lora_registry import making
from tests.lora_registry.making import ATTENTION, Factors

MID = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def target() -> AdapterTarget:
    return making.tiny_target()


@pytest.fixture
def unet_only(target: AdapterTarget) -> list[Factors]:
    return making.random_factors(target, "unet", ATTENTION)


def judged(folder: Path, tensors: dict[str, Tensor], target: AdapterTarget, **metadata: str) -> Verdict:
    return judge(making.save(folder / "made.safetensors", tensors, metadata), target)


def refused(verdict: Verdict, *words: str) -> bool:
    assert not verdict.is_ok and verdict.hint.endswith(".")
    assert verdict.message.count(". ") == 0, "one sentence"
    return all(word in verdict.message for word in words)


@pytest.mark.parametrize("write", [making.as_kohya, making.as_ldm_kohya])
def test_an_adapter_that_fits_needs_no_words(tmp_path: Path, target: AdapterTarget, write: object) -> None:
    assert judged(tmp_path, write(making.tiny_factors()), target) == Verdict()


def test_one_for_another_family_is_refused_by_both_names(tmp_path: Path) -> None:
    xl, old = making.real_target("sdxl"), making.real_target("sd15")
    path = "mid_block.attentions.0.transformer_blocks.3.attn2.to_k"
    tensors = making.as_kohya(making.random_factors(xl, "unet", [path], rank=1))
    assert judged(tmp_path, tensors, xl).is_ok
    verdict = judged(tmp_path, tensors, old)
    assert refused(verdict, "made.safetensors is made for SDXL; Real sd15 is an SD 1.5 model")


def test_one_for_the_full_size_is_refused_by_a_miniature(tmp_path: Path, target: AdapterTarget) -> None:
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = making.as_kohya(making.random_factors(making.real_target("sd15"), "unet", [path], rank=1))
    assert refused(judged(tmp_path, tensors, target), "768 numbers wide", "Tiny SD reads 24")


def test_metadata_alone_refuse_nothing(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    verdict = judged(tmp_path, making.as_kohya(unet_only), target, ss_base_model_version="sdxl_base_v1-0")
    assert verdict.is_ok and "metadata say that it is made for SDXL" in verdict.notes[0]


def test_a_module_that_is_not_there_is_named(tmp_path: Path, target: AdapterTarget) -> None:
    tensors = making.as_kohya([Factors("unet", "up_blocks.7.proj", torch.ones(1, 2), torch.ones(2, 1))])
    assert refused(judged(tmp_path, tensors, target), "1 module that", "up_blocks_7_proj of the UNet", "Tiny SD")
    tensors = making.as_peft([Factors("text_encoder_2", "encoder.x", torch.ones(1, 2), torch.ones(2, 1))])
    assert refused(judged(tmp_path, tensors, making.real_target("sdxl")), "encoder.x of the second text encoder")


def test_a_shape_that_does_not_fit_is_named(tmp_path: Path, target: AdapterTarget) -> None:
    tensors = making.as_kohya([Factors("unet", ATTENTION[0], torch.ones(1, 5), torch.ones(7, 1))])
    assert refused(judged(tmp_path, tensors, target), ATTENTION[0], "7×5", "32×32")


def test_a_module_changed_under_two_spellings_is_refused(tmp_path: Path, target: AdapterTarget) -> None:
    factors = making.random_factors(target, "unet", ["down_blocks.0.downsamplers.0.conv"])
    tensors = {**making.as_kohya(factors), **making.as_ldm_kohya(factors)}
    assert refused(judged(tmp_path, tensors, target), "down_blocks.0.downsamplers.0.conv twice")


def test_ranks_that_disagree_are_refused(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    tensors = making.as_kohya(unet_only)
    name = next(name for name in tensors if name.endswith("lora_up.weight"))
    verdict = judged(tmp_path, {**tensors, name: tensors[name][:, :3]}, target)
    assert refused(verdict, "one has rank 3, the other 4")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors], dtype: torch.dtype, bad: float
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in making.as_kohya(unet_only).items()}
    assert judged(tmp_path, tensors, target).is_ok
    next(reversed(tensors.values())).fill_(bad)
    assert refused(judged(tmp_path, tensors, target), "not finite")


def test_one_that_changes_nothing_is_noted(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    tensors = making.as_kohya(unet_only)
    zeros = {name: tensor * ("lora_up" not in name) for name, tensor in tensors.items()}
    assert "changes nothing" in " ".join(judged(tmp_path, zeros, target).notes)
    assert judged(tmp_path, {name: t * ("alpha" not in name) for name, t in tensors.items()}, target).notes
    next(tensor for name, tensor in zeros.items() if "lora_up" in name).fill_(0.5)
    assert judged(tmp_path, zeros, target).notes == ()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_number_types_of_quantised_files_are_refused_by_name(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors], dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in making.as_kohya(unet_only, alpha=None).items()}
    verdict = judged(tmp_path, tensors, target)
    assert refused(verdict, "I8" if dtype is torch.int8 else "F8_E", "F16") and "float16" in verdict.hint


def test_parts_may_come_alone(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    text_only = making.random_factors(target, "text_encoder", making.TEXT_NAMES)
    assert judged(tmp_path, making.as_kohya(unet_only), target) == Verdict()
    verdict = judged(tmp_path, making.as_kohya(text_only), target)
    assert verdict.is_ok and "text encoder" in verdict.notes[0]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("diff",), "whole weight differences"),
        (("w_norm",), "normalisation"),
        (("weight", "on_input"), "IA³"),
        (("oft_blocks",), "OFT"),
        (("a1.weight",), "GLoRA"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(
    tmp_path: Path, target: AdapterTarget, ends: tuple[str, ...], said: str
) -> None:
    verdict = judged(tmp_path, {f"{MID}.{end}": torch.ones(2, 2) for end in ends}, target)
    assert refused(verdict, said, "not supported") and "LoRA" in verdict.hint


def test_tensors_of_no_known_kind_are_not_passed_over(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]
) -> None:
    tensors = {**making.as_kohya(unet_only), f"{MID}.surprise": torch.ones(1)}
    assert refused(judged(tmp_path, tensors, target), "1 tensor of no known kind", "surprise")


@pytest.mark.parametrize("end", ["lora_up.weight", "lora_down.weight"])
def test_half_a_module_is_refused(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors], end: str) -> None:
    tensors = making.as_kohya(unet_only)
    tensors.pop(next(name for name in tensors if name.endswith(end)))
    assert refused(judged(tmp_path, tensors, target), "incomplete")


def test_a_module_of_two_algorithms_is_refused(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    tensors = making.as_kohya(unet_only)
    tensors |= {f"{making.kohya_name('unet', unet_only[0].path)}.lokr_w{side}": torch.ones(2, 2) for side in (1, 2)}
    assert refused(judged(tmp_path, tensors, target), "a lokr with a 'down'")


def test_magnitudes_for_another_weight_are_refused(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]
) -> None:
    tensors = making.as_kohya(unet_only)
    tensors[f"{making.kohya_name('unet', unet_only[0].path)}.dora_scale"] = torch.ones(5, 1)
    assert refused(judged(tmp_path, tensors, target), "5 magnitudes", "32×32")


def test_an_alpha_of_several_numbers_is_refused(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]
) -> None:
    tensors = {n: torch.ones(2) if "alpha" in n else t for n, t in making.as_kohya(unet_only).items()}
    assert refused(judged(tmp_path, tensors, target), "alpha", "shape 2")


def test_a_missing_alpha_and_another_kind_of_prediction_are_noted(
    tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]
) -> None:
    verdict = judged(tmp_path, making.as_diffusers(unet_only), target, **{"modelspec.prediction_type": "v"})
    assert verdict.is_ok
    assert "no alpha" in verdict.notes[0] and "v_prediction" in verdict.notes[1]


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"PK\x03\x04 a zip archive", b"x" * 1000])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, target: AdapterTarget, content: bytes) -> None:
    path = tmp_path / "made.safetensors"
    path.write_bytes(content)
    assert refused(judge(path, target), "no .safetensors file")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, target: AdapterTarget, unet_only: list[Factors]) -> None:
    whole = making.save(tmp_path / "whole.safetensors", making.as_kohya(unet_only)).read_bytes()
    cut = tmp_path / "cut.safetensors"
    for part in range(64):
        cut.write_bytes(whole[: len(whole) * part // 64])
        assert refused(judge(cut, target), "cut.safetensors")
