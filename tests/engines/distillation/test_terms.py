"""What pulls answers towards pictures as they are: which way it pulls, and whom its gradients reach."""

import pytest
import torch
from torch import Tensor

from engines.distillation.objectives import Lcm
from engines.distillation.terms import Adversarial, Discriminator, DistributionMatching, total
from tests.engines.distillation.making import batch, pair_of
from tests.engines.distillation.toy import SCHEDULE, TwoPoints, points

LCM = Lcm[None](schedule=SCHEDULE, guidance=(1.0, 1.0))
MATCHING = DistributionMatching[None](schedule=SCHEDULE, guidance=1.0, weight=0.5)


class Stubborn(TwoPoints):
    """A student that finds 1.5 likely, whatever it is shown."""

    def student(self, noisy: Tensor, timesteps: Tensor, told: None) -> Tensor:
        return SCHEDULE.target(noisy, torch.full_like(noisy, 1.5), timesteps, self.prediction_type)


class Seen:
    """Features that are the noisy sample itself."""

    def features(self, noisy: Tensor, timesteps: Tensor, told: None) -> Tensor:
        return noisy


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_where_student_and_teacher_agree_nothing_is_to_be_matched() -> None:
    said = points(256, generator()).requires_grad_()
    loss = MATCHING.loss(TwoPoints(), said, said.detach(), None, generator())
    loss.backward()
    assert said.grad is not None
    assert float(said.grad.abs().max()) < 1e-4


def test_answers_are_drawn_from_where_only_the_student_sees_them_to_where_the_teacher_does() -> None:
    said = torch.full((256, 1), 1.5, requires_grad=True)
    MATCHING.loss(Stubborn(), said, said.detach(), None, generator()).backward()
    assert said.grad is not None
    share_drawn_down = float((said.grad > 0).float().mean())  # descent goes against the gradient: down to 1
    assert share_drawn_down > 0.95


def test_a_term_counts_by_its_weight_and_none_changes_nothing() -> None:
    pair, clean = Stubborn(), points(64, generator())
    plain = total(LCM, (), pair, clean, None, generator())
    one = total(LCM, (MATCHING,), pair, clean, None, generator())
    two = total(LCM, (MATCHING, MATCHING), pair, clean, None, generator())
    assert one > plain
    assert two > one


def test_each_half_of_the_adversarial_loss_reaches_one_of_the_two() -> None:
    said = torch.randn(4, 4, 8, 8, generator=generator()).requires_grad_()
    clean = torch.randn(4, 4, 8, 8, generator=generator())
    torch.manual_seed(0)
    term = Adversarial[None](schedule=SCHEDULE, discriminator=Discriminator(4), weight=0.1)
    gradients = {}
    for moved in (0.0, 3.0):
        term.discriminator.zero_grad()
        said.grad = None
        term.loss(Seen(), said, clean + moved, None, generator()).backward()  # pyright: ignore[reportArgumentType]
        assert said.grad is not None
        gradients[moved] = said.grad.clone()
        assert all(parameter.grad is not None for parameter in term.discriminator.parameters())
    # What the real pictures are matters to the discriminator alone, until it has learnt from them.
    torch.testing.assert_close(gradients[0.0], gradients[3.0])


def test_a_discriminator_that_has_learnt_draws_answers_towards_pictures() -> None:
    torch.manual_seed(0)
    term = Adversarial[None](schedule=SCHEDULE, discriminator=Discriminator(4), weight=1.0)
    optimizer = torch.optim.AdamW(term.discriminator.parameters(), lr=3e-3)
    said, clean = torch.zeros(16, 4, 8, 8), torch.ones(16, 4, 8, 8)
    noise = generator()
    for _ in range(60):
        optimizer.zero_grad()
        term.loss(Seen(), said, clean, None, noise).backward()  # pyright: ignore[reportArgumentType]
        optimizer.step()
    said.requires_grad_()
    term.loss(Seen(), said, clean, None, noise).backward()  # pyright: ignore[reportArgumentType]
    assert said.grad is not None
    assert float(-(said.grad * (clean - said.detach())).sum()) > 0


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_features_are_those_of_the_teachers_middle_block(family: str) -> None:
    pair = pair_of(family)
    for layer in pair.lora.parameters():
        torch.nn.init.constant_(layer.data, 0.01)
    noisy, told = batch(family)
    timesteps = torch.tensor([250, 500])
    expected: list[Tensor] = []
    handle = pair.unet.mid_block.register_forward_hook(lambda *passed: expected.append(passed[2]))
    with pair.lora.off():
        pair.student(noisy, timesteps, told)
    handle.remove()
    noisy.requires_grad_()
    seen = pair.features(noisy, timesteps, told)
    assert torch.equal(seen, expected[0])
    seen.square().mean().backward()
    assert noisy.grad is not None
    assert float(noisy.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in (*pair.unet.parameters(), *pair.lora.parameters()))
