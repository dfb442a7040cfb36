"""Attention in pieces: the same sums, whatever the pieces, and as near to the truth as the kernel it stands in for."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from engines.attention import attending, chunked_attention, fastest_attention
from studio.settings import PROJECT_ROOT


def unet_of(model_id: str, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    folder = PROJECT_ROOT / "engines/pocket/weights" / model_id
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype).eval()


def noisy_and_told(width: int = 16, height: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, height, width, generator=generator), torch.randn(2, 77, 128, generator=generator)


@pytest.mark.parametrize("scores_bytes", [1, 600, 5_000, 40_000, 10**9])
@pytest.mark.parametrize(("heads", "queries", "keys"), [(5, 33, 33), (6, 40, 7), (1, 1, 1)])
def test_pieces_of_any_size_add_up_to_what_the_kernel_computes(
    heads: int, queries: int, keys: int, scores_bytes: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(heads, queries, 8, generator=generator)
    key, value = torch.randn(2, heads, keys, 8, generator=generator)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(chunked_attention(query, key, value, scores_bytes), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("is_sliced", [False, True])
def test_a_unet_that_attends_in_pieces_predicts_the_same_and_is_left_as_it_was(is_sliced: bool) -> None:
    unet, (noisy, told) = unet_of("pocket-sd15"), noisy_and_told()
    with torch.inference_mode():
        expected = unet(noisy, 500, told).sample
        with attending(unet, "chunked", is_sliced=is_sliced):
            torch.testing.assert_close(unet(noisy, 500, told).sample, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(unet(noisy, 500, told).sample, expected)


def test_layers_that_ask_for_more_precision_keep_the_kernel_and_have_it_in_slices_too() -> None:
    unet, (noisy, told) = unet_of("pocket-sd21", torch.bfloat16), noisy_and_told()
    noisy, told = noisy.bfloat16(), told.bfloat16()
    with torch.inference_mode():
        expected = unet(noisy, 500, told).sample
        with attending(unet, "chunked"):
            assert torch.equal(unet(noisy, 500, told).sample, expected)
        with attending(unet, "fused", is_sliced=True):
            assert distance(unet(noisy, 500, told).sample, expected) < 0.01


def test_in_bfloat16_pieces_are_about_as_near_to_float32_as_the_kernel() -> None:
    noisy, told = noisy_and_told(48, 48)
    with torch.inference_mode():
        truth = unet_of("pocket-sd15")(noisy, 500, told).sample
        unet = unet_of("pocket-sd15", torch.bfloat16)
        fused = unet(noisy.bfloat16(), 500, told.bfloat16()).sample
        with attending(unet, "chunked"):
            pieces = unet(noisy.bfloat16(), 500, told.bfloat16()).sample
    assert not torch.equal(pieces, fused)
    assert distance(pieces, truth) < 1.2 * distance(fused, truth) < 0.05


def test_the_way_to_attend_is_measured_on_cpus_and_only_where_it_could_help() -> None:
    assert fastest_attention("cpu", torch.float32) == fastest_attention("cuda", torch.float16) == "fused"
    assert fastest_attention("cpu", torch.bfloat16) == fastest_attention("cpu", torch.bfloat16)


def distance(found: Tensor, truth: Tensor) -> float:
    """The error as a part of the truth."""
    return float((found.float() - truth.float()).norm() / truth.float().norm())
