"""What may be added to a regression: pulls towards pictures as they are, which no single wanted answer can say.

Of many pictures that a noisy one may become, the answer nearest to all of them is a blur; these terms ask whether an
answer could be a picture at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engines.distillation.objectives import Objective, Pair, answer, pseudo_huber
from engines.training.diffusion import NoiseSchedule

LEAST_DISTANCE = 1e-5
DISCRIMINATOR_TIMESTEPS = (10, 250, 500, 750)
"""Where answers and pictures are told apart (Chadebec et al., 2024, arXiv:2406.02347)."""
_Told = TypeVar("_Told")
_Heard = TypeVar("_Heard", contravariant=True)


class Term(Protocol[_Told]):
    """A loss beside the regression."""

    @property
    def weight(self) -> float:
        """How much of it is added to the regression."""
        ...

    def loss(self, pair: Pair[_Told], said: Tensor, clean: Tensor, told: _Told, generator: torch.Generator) -> Tensor:
        """For the student's answers `said` `(B, …)` and samples `clean` of the data that need not belong to them."""
        ...


def total(
    objective: Objective[_Told],
    terms: Sequence[Term[_Told]],
    pair: Pair[_Told],
    clean: Tensor,
    told: _Told,
    generator: torch.Generator,
) -> Tensor:
    """The regression on what `objective` asks, and the `terms` at their weights."""
    said, wanted = objective.ask(pair, clean, told, generator)
    loss = pseudo_huber(said - wanted)
    for term in terms:
        loss = loss + term.weight * term.loss(pair, said, clean, told, generator)
    return loss


@dataclass(frozen=True, kw_only=True)
class DistributionMatching(Generic[_Told]):
    """Answers are to lie where the teacher finds them likely (Yin et al., 2024, arXiv:2311.18828): noised again, they
    go the way from where the student would put them to where the guided teacher would. The student is its own model of
    what it makes, as in Flash (Chadebec et al., 2024), so that there is no third network."""

    schedule: NoiseSchedule
    guidance: float
    weight: float
    timesteps: tuple[int, int] = (20, 980)

    def loss(self, pair: Pair[_Told], said: Tensor, clean: Tensor, told: _Told, generator: torch.Generator) -> Tensor:
        """See `Term.loss`: half the squared distance to a fixed point, one step of that way along."""
        with torch.no_grad():
            timesteps = torch.randint(*self.timesteps, (len(said),), generator=generator).to(said.device)
            noise = torch.randn(said.shape, generator=generator).to(said.device)
            noisy = self.schedule.noised(said, noise, timesteps)
            guidance = torch.full((len(said),), self.guidance, device=said.device)
            output = pair.teacher(noisy, timesteps, told, guidance).float()
            real = self.schedule.clean_from(noisy, output, timesteps, pair.prediction_type)
            made = answer(pair, self.schedule, noisy, timesteps, told)
            distance = (said - real).abs().flatten(1).mean(dim=1).view(-1, *(1,) * (said.ndim - 1))
            goal = said - (made - real) / (distance + LEAST_DISTANCE)
        return (said - goal).square().mean() / 2


class FeaturePair(Pair[_Heard], Protocol[_Heard]):
    """A pair whose teacher also tells what it sees."""

    def features(self, noisy: Tensor, timesteps: Tensor, told: _Heard) -> Tensor:
        """What the teacher's middle block makes of `noisy`, `(B, C, h, w)`; differentiable in `noisy`."""
        ...


class Discriminator(nn.Module):
    """Tells from the teacher's features `(B, channels, h, w)` whether a picture is one: towards 1 where it is."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GroupNorm(4, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Generic[_Told]):
    """Answers are to look to a `discriminator` like pictures (least squares: Mao et al., 2017, arXiv:1611.04076), which
    is trained by the same loss: each of the two terms reaches one of them alone."""

    schedule: NoiseSchedule
    discriminator: Discriminator
    weight: float

    def loss(
        self, pair: FeaturePair[_Told], said: Tensor, clean: Tensor, told: _Told, generator: torch.Generator
    ) -> Tensor:
        """See `Term.loss`."""
        picks = torch.randint(len(DISCRIMINATOR_TIMESTEPS), (len(said),), generator=generator)
        timesteps = torch.tensor(DISCRIMINATOR_TIMESTEPS)[picks].to(said.device)

        def seen(pictures: Tensor) -> Tensor:
            noise = torch.randn(pictures.shape, generator=generator).to(pictures.device)
            return pair.features(self.schedule.noised(pictures, noise, timesteps), timesteps, told).float()

        made = seen(said)
        with torch.no_grad():
            real = seen(clean)
        fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        fooled = (functional_call(self.discriminator, fixed, (made,)) - 1).square().mean()
        told_apart = (self.discriminator(real) - 1).square().mean() + self.discriminator(made.detach()).square().mean()
        # The student's part counts as `weight` says; the discriminator's own rate does not hang on it.
        return fooled + told_apart / (2 * self.weight)
