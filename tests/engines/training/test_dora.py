"""A DoRA in training, against PEFT's own layer, and the same in every file that it is written to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from engines.attaching import AttachedAdapter, MergedWeights, attached
from engines.training.adapter import AdapterInTraining
from engines.training.lora import TrainableLora
from lora_registry.compatibility import judge
from lora_registry.export import write_adapter
from lora_registry.formats import describe, read_adapter
from lora_registry.weights import load_weights
from studio.domain.adapter import PARTS, AdapterTarget, FamilyId, Layout
from studio.domain.tensors import read_header
from tests.engines.training.test_adapter import PLAN, drawn, pipeline_of
from tests.lora_registry.making import weight_shapes

PATHS = ("0", "2")
PICTURE = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
DORA = PLAN.model_copy(update={"decompose": True})


def small() -> nn.Sequential:
    """A convolution with strides and a matrix, both with a bias."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Flatten(2), nn.Linear(9, 5))
    return network.requires_grad_(False)


def stirred(lora: nn.Module) -> None:
    """As if it had learnt something: lengths, too."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if not name.endswith("down"):
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_it_changes_nothing_until_it_is_trained_and_nothing_while_it_is_off() -> None:
    network = small()
    before = network(PICTURE)
    lora = TrainableLora(network, PATHS, 3, 6.0, decompose=True)
    torch.testing.assert_close(network(PICTURE), before, atol=1e-6, rtol=0)
    stirred(lora)
    assert (network(PICTURE) - before).abs().max() > 0.05
    with lora.off():
        assert torch.equal(network(PICTURE), before)
    lora.detach()
    assert torch.equal(network(PICTURE), before)


@pytest.mark.parametrize("in_weights", [False, True], ids=["beside", "in weights"])
def test_peft_computes_the_same_and_teaches_it_the_same(in_weights: bool) -> None:
    network = small()
    lora = TrainableLora(network, PATHS, 3, 6.0, decompose=True, in_weights=in_weights)
    stirred(lora)
    said = network(PICTURE)
    said.square().mean().backward()
    theirs: Any = get_peft_model(
        small(), LoraConfig(r=3, lora_alpha=6, target_modules=list(PATHS), use_dora=True, lora_dropout=0.0)
    )
    for path, change in lora.factors().items():
        layer = theirs.base_model.model.get_submodule(path)
        assert change.magnitude is not None
        learnt = layer.lora_magnitude_vector["default"].weight
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(change.down)
            layer.lora_B["default"].weight.copy_(change.up)
            learnt.copy_(change.magnitude.view(learnt.shape))
    other = theirs(PICTURE)
    torch.testing.assert_close(said, other, atol=1e-5, rtol=1e-5)
    other.square().mean().backward()
    ours = dict(lora.named_parameters())
    for index, path in enumerate(PATHS):
        layer = theirs.base_model.model.get_submodule(path)
        pairs = {
            "down": layer.lora_A["default"].weight,
            "up": layer.lora_B["default"].weight,
            "longer": layer.lora_magnitude_vector["default"].weight,
        }
        for name, parameter in pairs.items():
            grad = ours[f"_layers.{index}.{name}"].grad
            assert grad is not None and grad.any()
            torch.testing.assert_close(grad.flatten(), parameter.grad.flatten(), atol=1e-5, rtol=1e-4)


def test_lengths_are_part_of_what_is_saved_and_come_back() -> None:
    network = small()
    lora = TrainableLora(network, PATHS, 3, 6.0, decompose=True)
    stirred(lora)
    said, kept = network(PICTURE), {name: value.clone() for name, value in lora.state_dict().items()}
    assert kept.keys() == dict(lora.named_parameters()).keys()
    lora.detach()
    again = TrainableLora(network, PATHS, 3, 6.0, decompose=True)
    again.load_state_dict(kept)
    assert torch.equal(network(PICTURE), said)


def test_an_output_without_weights_stays_without() -> None:
    network = small()
    nn.init.zeros_(network[2].weight)
    lora = TrainableLora(network, ("2",), 3, 6.0, decompose=True)
    said = network(PICTURE)
    assert torch.isfinite(said).all()
    said.square().mean().backward()
    assert all(torch.isfinite(each.grad).all() for each in lora.parameters() if each.grad is not None)


def target_of(pipeline: Any, family: FamilyId) -> AdapterTarget:
    parts = [part for part in PARTS if getattr(pipeline, part, None) is not None]
    modules = {part: weight_shapes(getattr(pipeline, part)) for part in parts}
    return AdapterTarget(title="Pocket", family=family, modules=modules)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_files_draw_what_was_drawn_in_training(tmp_path: Path, family: FamilyId) -> None:
    pipeline = pipeline_of(family)
    before = drawn(pipeline)
    adapter = AdapterInTraining(pipeline, DORA)
    torch.testing.assert_close(drawn(pipeline), before, atol=1e-6, rtol=0)
    for lora in adapter.parts.values():
        stirred(lora)
    expected, factors = drawn(pipeline), adapter.factors()
    adapter.detach()
    assert (expected - before).abs().max() > 0.05
    target = target_of(pipeline, family)
    layouts: tuple[Layout, ...] = ("kohya", "peft")
    for layout in layouts:
        path = tmp_path / f"{layout}.safetensors"
        write_adapter(path, factors, family, layout, {"modelspec.title": "x"}, torch.float32)
        assert judge(path, target).is_ok and describe(read_adapter(path), "x").algorithm == "dora"
        mine = [AttachedAdapter(weights=load_weights(path, target))]
        for apply in (attached, MergedWeights().in_place):
            with apply(pipeline, mine):
                torch.testing.assert_close(drawn(pipeline), expected, atol=1e-4, rtol=1e-4)
    pipeline.load_lora_weights(tmp_path / "peft.safetensors")
    torch.testing.assert_close(drawn(pipeline), expected, atol=1e-4, rtol=1e-4)
    pipeline.unload_lora_weights()


def test_files_have_the_names_and_shapes_that_others_look_for(tmp_path: Path) -> None:
    adapter = AdapterInTraining(pipeline_of("sd15"), DORA)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    layouts: tuple[Layout, ...] = ("kohya", "peft")
    for layout in layouts:
        path = tmp_path / f"{layout}.safetensors"
        write_adapter(path, adapter.factors(), "sd15", layout, None, torch.float32)
        shapes[layout] = {name: tuple(each.shape) for name, each in read_header(path).tensors.items()}
    kohya, peft = shapes["kohya"], shapes["peft"]
    assert sum(name.endswith(".dora_scale") for name in kohya) == sum(name.endswith(".alpha") for name in kohya)
    matrix, kernel = "down_blocks_0_resnets_0_time_emb_proj", "down_blocks_0_resnets_0_conv1"
    out = kohya[f"lora_unet_{kernel}.lora_up.weight"][0]
    assert kohya[f"lora_unet_{kernel}.dora_scale"] == (out, 1, 1, 1)
    assert kohya[f"lora_unet_{matrix}.dora_scale"] == (out, 1)
    assert peft["unet.down_blocks.0.resnets.0.conv1.lora_magnitude_vector.weight"] == (1, out, 1, 1)
    assert peft["unet.down_blocks.0.resnets.0.time_emb_proj.lora_magnitude_vector.weight"] == (out,)


def test_half_of_the_precision_computes_nearly_the_same() -> None:
    network = small()
    lora = TrainableLora(network, PATHS, 3, 6.0, decompose=True)
    stirred(lora)
    whole = network(PICTURE)
    with torch.autocast("cpu", torch.bfloat16):
        half: Tensor = network(PICTURE)
    torch.testing.assert_close(half.float(), whole, atol=0.03, rtol=0.03)
