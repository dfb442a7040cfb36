"""Training in float16: losses scaled up, steps that overflow skipped, and a resumed one goes on as it would have."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from engines.training.control import Control, Pace
from engines.training.loop import Plan, Trainee
from engines.training.lora import TrainableLora, reached
from studio.domain.run_events import RunEvent, Trained
from tests.lora_registry.making import tiny_unet

START = 2.0**16
"""GradScaler's first scale."""


def module() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(4, 4)


def new_trainee(folder: Path, dtype: torch.dtype = torch.float16) -> tuple[Trainee, nn.Linear]:
    net = module()
    plan = Plan(name="net", steps=100, learning_rate=0.01, warmup=1, dtype=dtype)
    return Trainee(plan, {"net": net}, folder), net


def loss_of(net: nn.Linear, step: int, factor: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return (net(torch.randn(8, 4, generator=generator)) * factor).square().mean()


def weights_of(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()]).clone()


def test_a_scale_changes_nothing_but_the_size_of_gradients(tmp_path: Path) -> None:
    (scaled, one), (plain, other) = (new_trainee(tmp_path, dtype) for dtype in (torch.float16, torch.float32))
    for step in range(5):
        norms = [trainee.update(loss_of(net, step)) for trainee, net in ((scaled, one), (plain, other))]
        assert norms[0] == norms[1]
    assert torch.equal(weights_of(one), weights_of(other))
    assert scaled.scaler.get_scale() == START and not plain.scaler.is_enabled()


def test_a_step_that_overflows_is_skipped_and_the_next_is_taken(tmp_path: Path) -> None:
    trainee, net = new_trainee(tmp_path)
    trainee.update(loss_of(net, 0))
    before, averages = weights_of(net), {name: value.clone() for name, value in trainee.averages["net"].items()}
    trainee.update(loss_of(net, 1, 1e18))  # finite by itself, infinite times the scale
    assert torch.equal(weights_of(net), before) and (trainee.step, trainee.num_updates) == (2, 1)
    assert all(torch.equal(trainee.averages["net"][name], value) for name, value in averages.items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert trainee.scaler.get_scale() == START / 2
    trainee.update(loss_of(net, 2))
    assert not torch.equal(weights_of(net), before) and (trainee.step, trainee.num_updates) == (3, 2)


def test_it_ends_when_nothing_but_overflows_comes_and_weights_stay(tmp_path: Path) -> None:
    trainee, net = new_trainee(tmp_path)
    before = weights_of(net)
    for step in range(20):
        trainee.update(loss_of(net, step, float("inf")))
    with pytest.raises(FloatingPointError, match="net: gradients are not finite at step 20"):
        trainee.update(loss_of(net, 20, float("inf")))
    assert torch.equal(weights_of(net), before)


def test_other_formats_end_at_the_first(tmp_path: Path) -> None:
    trainee, net = new_trainee(tmp_path, torch.bfloat16)
    with pytest.raises(FloatingPointError):
        trainee.update(loss_of(net, 0, float("inf")))
    assert trainee.step == 0


def test_a_resumed_training_has_the_scale_that_it_had(tmp_path: Path) -> None:
    whole, net = new_trainee(tmp_path / "whole")
    for step in range(6):
        whole.update(loss_of(net, step, 1e18 if step == 1 else 1.0))
    first, part = new_trainee(tmp_path / "part")
    for step in range(3):
        first.update(loss_of(part, step, 1e18 if step == 1 else 1.0))
    first.save()
    again, other = new_trainee(tmp_path / "part")
    assert again.resume() and (again.step, again.num_updates) == (3, 2)
    assert again.scaler.get_scale() == START / 2
    for step in range(3, 6):
        again.update(loss_of(other, step))
    assert torch.equal(weights_of(other), weights_of(net))
    assert again.scaler.state_dict() == whole.scaler.state_dict()


def test_a_training_of_another_format_is_gone_on_with(tmp_path: Path) -> None:
    plain, net = new_trainee(tmp_path, torch.float32)
    plain.update(loss_of(net, 0))
    plain.save()
    scaled, other = new_trainee(tmp_path)
    assert scaled.resume()
    scaled.update(loss_of(other, 1))
    assert scaled.step == 2


@pytest.mark.parametrize("decompose", [False, True])
def test_an_adapter_learns_in_float16(tmp_path: Path, decompose: bool) -> None:
    unet = UNet2DConditionModel.from_config(tiny_unet().config)
    unet.load_state_dict(tiny_unet().state_dict())
    unet.requires_grad_(False)
    torch.manual_seed(4)
    lora = TrainableLora(unet, reached(unet, "all"), 2, 2.0, decompose=decompose)
    plan = Plan(name="lora", steps=4, learning_rate=0.01, warmup=1, dtype=torch.float16)
    trainee = Trainee(plan, {"lora": lora}, tmp_path)
    noisy, told = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24)
    losses = []
    for _ in range(6):
        with torch.autocast("cpu", torch.float16):
            said = unet(noisy, torch.tensor([10, 900]), told).sample
        error = said.float().square().mean()
        trainee.update(error)
        losses.append(float(error.detach()))
    assert trainee.num_updates > 0 and losses[-1] < losses[0]
    assert all(torch.isfinite(parameter).all() for parameter in lora.parameters())


def test_a_loss_that_ran_over_is_not_told() -> None:
    told: list[RunEvent] = []
    pace = Pace(Control(check=lambda: None, tell=told.append), 3, 1)
    pace.note(1, float("nan"))
    pace.note(2, 0.5)
    pace.note(3, float("inf"))
    assert [(each.step, each.loss) for each in told if isinstance(each, Trained)] == [(2, 0.5)]
