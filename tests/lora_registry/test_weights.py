"""Whatever a file is written in, the same change comes out of it: by the definitions, and as diffusers computes it."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from lora_registry.weights import AdapterWeights, LowRank, delta, load_weights
from studio.domain.adapter import AdapterTarget, Part
from studio.domain.errors import Incompatible
from tests.lora_registry import making
from tests.lora_registry.making import ALPHA, Factors

CONV = "down_blocks.0.resnets.1.conv1"
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def target() -> AdapterTarget:
    return making.tiny_target()


def weight_of(part: Part, path: str) -> Tensor:
    model = making.tiny_unet() if part == "unet" else making.tiny_text_encoder()
    return model.get_submodule(path).weight.detach()


def deltas(weights: AdapterWeights) -> dict[tuple[str, str], Tensor]:
    return {
        (part, path): delta(change, weight_of(part, path))
        for part, changes in weights.items()
        for path, change in changes.items()
    }


def assert_same(given: Mapping[tuple[str, str], Tensor], expected: Mapping[tuple[str, str], Tensor]) -> None:
    assert given.keys() == expected.keys()
    for key, value in given.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)


def loaded(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> AdapterWeights:
    return load_weights(making.save(folder / "made.safetensors", tensors, metadata), making.tiny_target())


def module_delta(folder: Path, path: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """ΔW of one module in a kohya file, by the ends of its names."""
    named = {f"{making.kohya_name('unet', path)}.{end}": tensor for end, tensor in tensors.items()}
    return deltas(loaded(folder, named))["unet", path]


@pytest.mark.parametrize(
    ("write", "metadata"),
    [
        (making.as_kohya, {}),
        (making.as_ldm_kohya, {}),
        (making.as_diffusers, making.peft_metadata()),
        (making.as_peft, making.peft_metadata()),
        (lambda factors: making.as_peft(factors, "base_model.model."), making.peft_metadata()),
    ],
    ids=["kohya", "ldm", "diffusers", "peft", "base_model"],
)
def test_every_layout_holds_the_same_change(
    tmp_path: Path, write: Callable[[list[Factors]], dict[str, Tensor]], metadata: dict[str, str]
) -> None:
    factors = making.tiny_factors()
    shaped = {(f.part, f.path): f.delta.reshape(weight_of(f.part, f.path).shape) for f in factors}
    assert_same(deltas(loaded(tmp_path, write(factors), metadata)), shaped)


def test_attention_processors_hold_it_too(tmp_path: Path) -> None:
    factors = [f for f in making.tiny_factors(convs=False) if ".ff." not in f.path and ".mlp." not in f.path]
    weights = loaded(tmp_path, making.as_old_diffusers(factors), making.peft_metadata())
    assert_same(deltas(weights), {(f.part, f.path): f.delta for f in factors})


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_both_spellings_of_the_text_encoder_fit_both(tmp_path: Path, prefix: str) -> None:
    path = "encoder.layers.0.mlp.fc1"
    target = AdapterTarget(title="T", family="sd15", modules={"text_encoder": {f"{prefix}{path}": (6, 4)}})
    for written in (path, f"text_model.{path}"):
        factors = [Factors("text_encoder", written, torch.ones(2, 4), torch.ones(6, 2))]
        for tensors in (making.as_kohya(factors), making.as_peft(factors)):
            file = making.save(tmp_path / "made.safetensors", tensors)
            assert list(load_weights(file, target)["text_encoder"]) == [f"{prefix}{path}"]


def test_without_an_alpha_the_rank_is_taken(tmp_path: Path) -> None:
    factors = making.tiny_factors()
    change = loaded(tmp_path, making.as_kohya(factors, alpha=None))["unet"][LINEAR]
    assert isinstance(change, LowRank) and change.alpha == change.rank == making.RANK


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_numbers_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    factors = [Factors(f.part, f.path, f.down.to(dtype).float(), f.up.to(dtype).float()) for f in making.tiny_factors()]
    tensors = {name: tensor.to(dtype) for name, tensor in making.as_kohya(factors).items()}
    long = deltas(loaded(tmp_path, making.as_kohya(factors)))
    assert_same(deltas(loaded(tmp_path, tensors)), long)


def test_a_kernel_of_its_own_between_the_factors(tmp_path: Path) -> None:
    torch.manual_seed(2)
    down, mid, up = torch.randn(3, 32, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(32, 3, 1, 1)
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(6.0)}
    picture = torch.randn(1, 32, 5, 5)
    conv = torch.nn.functional.conv2d
    by_steps = conv(conv(conv(picture, down), mid, padding=1), up) * 2.0
    at_once = conv(picture, module_delta(tmp_path, CONV, tensors), padding=1)
    torch.testing.assert_close(at_once, by_steps, rtol=1e-4, atol=1e-4)


def test_loha_multiplies_two_products(tmp_path: Path) -> None:
    torch.manual_seed(3)
    rows, columns = weight_of("unet", LINEAR).shape
    a1, b1, a2, b2 = (torch.randn(n, m) for n, m in ((rows, 2), (2, columns), (rows, 2), (2, columns)))
    tensors = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(1.0)}
    torch.testing.assert_close(module_delta(tmp_path, LINEAR, tensors), (a1 @ b1) * (a2 @ b2) * 0.5)


def test_loha_of_a_convolution_in_both_forms(tmp_path: Path) -> None:
    torch.manual_seed(4)
    a, b, flat = torch.randn(2, 32), torch.randn(2, 32), torch.randn(2, 32 * 9)
    core = torch.randn(2, 2, 3, 3)
    flat_tensors = {"hada_w1_a": a.T, "hada_w1_b": flat, "hada_w2_a": a.T, "hada_w2_b": flat}
    flat_delta = ((a.T @ flat) ** 2).reshape(32, 32, 3, 3)
    torch.testing.assert_close(module_delta(tmp_path, CONV, flat_tensors), flat_delta)
    tucker = {"hada_t1": core, "hada_w1_a": a, "hada_w1_b": b, "hada_t2": core, "hada_w2_a": a, "hada_w2_b": b}
    expected = torch.zeros(32, 32, 3, 3)
    for i in range(2):
        for j in range(2):
            expected += a[i][:, None, None, None] * b[j][None, :, None, None] * core[i, j]
    torch.testing.assert_close(module_delta(tmp_path, CONV, tucker), expected**2, rtol=1e-4, atol=1e-4)


def test_lokr_is_a_kronecker_product(tmp_path: Path) -> None:
    torch.manual_seed(5)
    left, right = torch.randn(4, 2), torch.randn(8, 12)
    alpha = torch.tensor(3.0)
    whole = torch.cat([torch.cat([left[r, c] * right for c in range(2)], dim=1) for r in range(4)])
    tensors = {"lokr_w1": left, "lokr_w2": right, "alpha": alpha}
    torch.testing.assert_close(module_delta(tmp_path, LINEAR, tensors), whole)
    a, b = torch.randn(8, 2), torch.randn(2, 12)
    split = torch.cat([torch.cat([left[r, c] * (a @ b) for c in range(2)], dim=1) for r in range(4)]) * 1.5
    tensors = {"lokr_w1": left, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": alpha}
    torch.testing.assert_close(module_delta(tmp_path, LINEAR, tensors), split)


def test_lokr_of_a_convolution_in_every_form(tmp_path: Path) -> None:
    torch.manual_seed(6)
    left, a, b = torch.randn(4, 4), torch.randn(8, 2), torch.randn(2, 8)
    flat, core = torch.randn(2, 72), torch.randn(2, 2, 3, 3)
    product, joined = (a @ flat).reshape(8, 8, 3, 3), torch.einsum("ap,pqxy,qb->abxy", a, core, b)
    forms = (
        (joined, {"lokr_w2": joined}),
        (product, {"lokr_w2_a": a, "lokr_w2_b": flat}),
        (joined, {"lokr_w2_a": a.T, "lokr_w2_b": b, "lokr_t2": core}),
    )
    for right, form in forms:
        expected = torch.einsum("ij,abxy->iajbxy", left, right).reshape(32, 32, 3, 3)
        given = module_delta(tmp_path, CONV, {"lokr_w1": left, **form})
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [LINEAR, CONV])
@pytest.mark.parametrize("axis", [0, 1])
def test_dora_gives_the_sum_the_lengths_it_was_trained_to(tmp_path: Path, path: str, axis: int) -> None:
    torch.manual_seed(7)
    factors = making.random_factors(making.tiny_target(), "unet", [path])[0]
    base = weight_of("unet", path)
    before = base.clone()
    across = [d for d in range(base.ndim) if d != axis]
    lengths = torch.rand(*(size if d == axis else 1 for d, size in enumerate(base.shape))) + 0.5
    tensors = {"lora_down.weight": factors.down, "lora_up.weight": factors.up, "alpha": torch.tensor(ALPHA)}
    changed = base + module_delta(tmp_path, path, {**tensors, "dora_scale": lengths})
    torch.testing.assert_close(torch.linalg.vector_norm(changed, dim=across, keepdim=True), lengths)
    plain = base + factors.delta.reshape(base.shape)
    direction = plain / torch.linalg.vector_norm(plain, dim=across, keepdim=True)
    torch.testing.assert_close(changed, direction * lengths, rtol=1e-4, atol=1e-4)
    assert torch.equal(base, before)


def test_a_dora_leaves_a_row_of_zeros_alone() -> None:
    dora = LowRank(down=torch.ones(1, 2), up=torch.tensor([[0.0], [1.0]]), alpha=1.0, magnitude=torch.ones(2, 1))
    assert delta(dora, torch.zeros(2, 2)).tolist() == [[0.0, 0.0], pytest.approx([0.5**0.5] * 2)]


def test_an_adapter_that_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="Tiny SD does not have"):
        loaded(tmp_path, making.as_kohya([Factors("unet", "nowhere", torch.ones(1, 2), torch.ones(2, 1))]))


def fused_by_diffusers(file: Path) -> dict[tuple[str, str], Tensor]:
    """What each adapted weight becomes when diffusers loads `file` itself and folds it in."""
    unet, text_encoder = copy.deepcopy(making.tiny_unet()), copy.deepcopy(making.tiny_text_encoder())
    left_out = dict.fromkeys(("vae", "tokenizer", "safety_checker", "feature_extractor", "scheduler"))
    pipeline = StableDiffusionPipeline(**left_out, unet=unet, text_encoder=text_encoder, requires_safety_checker=False)
    pipeline.load_lora_weights(file, unet_config=unet.config)  # which it needs to know LDM's names
    pipeline.fuse_lora()
    return {
        (part, name.removesuffix(".base_layer")): module.weight.detach()
        for part, model in (("unet", unet), ("text_encoder", text_encoder))
        for name, module in model.named_modules()
        if name.endswith(".base_layer")
    }


@pytest.mark.filterwarnings("ignore")  # the library's own, about itself
@pytest.mark.parametrize(
    ("write", "metadata"),
    [
        (making.as_kohya, {}),
        (making.as_ldm_kohya, {}),
        (making.as_diffusers, making.peft_metadata()),
        (making.as_peft, making.peft_metadata()),
        (making.as_diffusers, {}),
        (making.as_peft, making.peft_metadata(use_rslora=True)),
    ],
    ids=["kohya", "ldm", "diffusers", "peft", "no alpha", "rank-stabilised"],
)
def test_diffusers_adds_the_same(
    tmp_path: Path, write: Callable[[list[Factors]], dict[str, Tensor]], metadata: dict[str, str]
) -> None:
    file = making.save(tmp_path / "made.safetensors", write(making.tiny_factors()), metadata)
    ours = deltas(load_weights(file, making.tiny_target()))
    theirs = fused_by_diffusers(file)
    assert_same({key: weight_of(*key) + value for key, value in ours.items()}, theirs)


@pytest.mark.filterwarnings("ignore")
def test_diffusers_gives_a_dora_the_same_lengths(tmp_path: Path) -> None:
    factors = making.random_factors(making.tiny_target(), "unet", making.ATTENTION)
    lengths = {f.path: torch.rand(f.up.shape[0]) + 0.5 for f in factors}
    peft = making.as_peft(factors) | {f"unet.{path}.lora_magnitude_vector": row for path, row in lengths.items()}
    file = making.save(tmp_path / "peft.safetensors", peft, making.peft_metadata(use_dora=True))
    ours = deltas(load_weights(file, making.tiny_target()))
    assert_same({key: weight_of(*key) + value for key, value in ours.items()}, fused_by_diffusers(file))
    # Of a kohya file it drops the lengths, so ours of that is held against ours of the other.
    kohya = making.as_kohya(factors)
    kohya |= {f"{making.kohya_name('unet', path)}.dora_scale": row[:, None] for path, row in lengths.items()}
    assert_same(deltas(loaded(tmp_path, kohya)), ours)
